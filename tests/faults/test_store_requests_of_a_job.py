"""Each request of a backup job to a media in the cloud is throttled, cut, lost or misreported on its way.

The media is a bucket of a real S3 server, which keeps objects as files of a folder; between it and the job
stands a network that fails (`tests/media/stores/faulty_network.py`). A job is run once to count its requests.
Then a job is run for each request and each fault; what the client repeats are requests more. Such a fault
passes: it costs the job nothing. After each the five questions are asked (`tests/engine/questions.py`).
(F19, F20 and F35 of the reliability study, of the media.)
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from pathlib import Path

import pytest

from azsim.control import Control
from tests.engine.questions import First
from tests.engine.story import run_job
from tests.engine.waits import virtual_waits
from tests.faults.busy_world import BusyWorld, busy_worlds
from tests.media.stores.faulty_network import Fault, FaultyNetwork, faulty_network
from tests.servers.localbucket_server import LocalBucket, localbucket
from tests.soak import chosen, more_in_ci, seeded
from vsa.media.access import StoreAccess
from vsa.media.cloud import CloudStore, Patience
from vsa.media.entries import Result
from vsa.media.location import Bucket
from vsa.media.media import Media
from vsa.media.retrying import RetryingStore
from vsa.media.s3 import s3_service
from vsa.secret import Secret

FAULTS = [
    Fault.SLOW_DOWN,
    Fault.TOO_MANY_REQUESTS,
    Fault.CUT_REQUEST,
    Fault.CUT_ANSWER,
    Fault.LOSE_ANSWER,
    Fault.BAD_GATEWAY,
]

PATIENCE = Patience(answer_seconds=20, idle_connections=0)
"""The usual one, but that each request has a connection of its own: so the network tells them apart."""


@pytest.fixture
def bucket_server(tmp_path: Path) -> Iterator[LocalBucket]:
    pytest.importorskip("localbucket", reason="needs localbucket, an S3 server")
    with localbucket(tmp_path) as server:
        yield server


@pytest.fixture
def network(bucket_server: LocalBucket) -> Iterator[FaultyNetwork]:
    with faulty_network(bucket_server.endpoint) as network:
        yield network


@pytest.fixture
def worlds(control: Control, bucket_server: LocalBucket) -> Iterator[Iterator[BusyWorld]]:
    """The folder of each is a bucket, in which its media has a prefix of its own."""
    with closing(busy_worlds(control, bucket_server.folder)) as made:
        yield made


class Once:
    """The request of this number, counted from 0, meets the fault."""

    def __init__(self, number: int, fault: Fault) -> None:
        self._number = number
        self._fault = fault
        self._count = 0
        self._counting = threading.Lock()
        self.struck = ""

    def __call__(self, method: str, target: str) -> Fault:
        with self._counting:
            number, self._count = self._count, self._count + 1
        if number != self._number:
            return Fault.NONE
        self.struck = f"{method} {target}"
        return self._fault


def in_the_cloud(busy: BusyWorld, network: FaultyNetwork, sleep: Callable[[float], None]) -> Media:
    """The world's media behind the network, opened for writing as jobs do."""
    place = Bucket(busy.world.folder.name, Path(busy.world.media.location).name)
    access = StoreAccess(s3_key_id="key", s3_secret=Secret("of-the-bucket"), s3_endpoint=network.origin)
    store = RetryingStore(CloudStore(s3_service(place, access), patience=PATIENCE), sleep=sleep)
    store.prepare_for_writing()
    return Media(store, write=True)


def requests_of_a_job(busy: BusyWorld, network: FaultyNetwork) -> int:
    """How many requests a job like those of this test makes of its media."""
    busy.work("counted")
    before = len(network.requests)
    report = busy.world.back_up(media=in_the_cloud(busy, network, lambda _: None))
    assert report.result is Result.COMPLETED, report
    return len(network.requests) - before


@more_in_ci
def test_each_request_with_each_fault(worlds: Iterator[BusyWorld], network: FaultyNetwork) -> None:
    order, requests = seeded("requests: what comes first"), requests_of_a_job(next(worlds), network)
    plays = chosen("requests", list(product(range(requests), FAULTS)), by_default=1, in_ci=6)
    struck = 0
    for (number, fault), busy in zip(plays, worlds, strict=False):
        held, waits = busy.work((number, fault.name)), []
        network.script = script = Once(number, fault)
        with virtual_waits(busy.world.control):
            report = run_job(busy.world.job(media=in_the_cloud(busy, network, waits.append)))
        network.script = lambda _method, _target: Fault.NONE
        sys.stdout.write(f"{fault.name}, request {number} of {requests}: {script.struck}, waits {waits}\n")
        assert (report.result, report.alarms) == (Result.COMPLETED, ()), report
        busy.questions.ask(held, first=order.choice(list(First)), is_dead=False)
        struck += bool(script.struck)
    assert struck > len(plays) * 0.8
