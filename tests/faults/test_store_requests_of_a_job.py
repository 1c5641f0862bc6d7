"""Each request of a backup job to a media in the cloud is throttled, cut, lost or misreported on its way.

The media is a bucket of a real S3 server, which keeps objects as files of a folder, or a container of
Azurite. Between it and the job stands a network that fails (`tests/media/stores/faulty_network.py`). A job is
run once to count its requests. Then a job is run for each request and each fault; what the client repeats are
requests more. Such a fault passes: it costs the job nothing. After each the five questions are asked
(`tests/engine/questions.py`).
(F19, F20 and F35 of the reliability study, of the media.)
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from azsim.control import Control
from tests.engine.questions import First, Held
from tests.engine.story import run_job
from tests.engine.waits import virtual_waits
from tests.faults.busy_world import BusyWorld, busy_worlds
from tests.media.stores.conftest import Site
from tests.media.stores.faulty_network import Fault, FaultyNetwork, faulty_network
from tests.servers.azurite import ACCOUNT, azurite, missing
from tests.servers.localbucket_server import localbucket
from tests.soak import chosen, more_in_ci, only_in_ci, seeded
from vsa.media.access import StoreAccess
from vsa.media.cloud import Patience
from vsa.media.entries import Result
from vsa.media.media import Media
from vsa.media.retrying import RetryingStore
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


@dataclass(frozen=True)
class Cloud:
    """A server of media, and the worlds that have theirs in it."""

    origin: str
    worlds: Iterator[BusyWorld]
    site_of: Callable[[BusyWorld], Site]


@contextmanager
def in_buckets(control: Control, folder: Path) -> Iterator[Cloud]:
    """The folder of each world is a bucket, in which its media has a prefix of its own."""
    pytest.importorskip("localbucket", reason="needs localbucket, an S3 server")
    with localbucket(folder) as server, closing(busy_worlds(control, server.folder)) as worlds:
        access = StoreAccess(s3_key_id="key", s3_secret=Secret("of-the-bucket"), s3_endpoint=server.endpoint)
        yield Cloud(
            server.endpoint, worlds, lambda busy: Site(f"s3://{busy.world.folder.name}/media", access)
        )


@contextmanager
def in_containers(control: Control, folder: Path) -> Iterator[Cloud]:
    """Each world has its media in a container of its own."""
    if reason := missing():
        pytest.skip(reason)
    with azurite(folder) as server:

        def media_of(name: str) -> dict[str, Any]:
            server.make_container(name)
            access = StoreAccess(blob_sas=Secret(server.sas(name, "rcwdl")), blob_endpoint=server.endpoint)
            return {"location": f"azure://{ACCOUNT}/{name}", "access": access}

        with closing(busy_worlds(control, folder, media_of=media_of)) as worlds:
            yield Cloud(server.origin, worlds, lambda busy: Site(busy.world.location, busy.world.access))


CLOUDS = {"S3": (in_buckets, 4), "Azure Blob": (in_containers, 2)}
"""Where the media is, and how many plays CI has."""


class Once:
    """The request of this number, counted from 0, meets the fault."""

    def __init__(self, number: int, fault: Fault) -> None:
        self._number = number
        self._fault = fault
        self._count = 0
        self._counting = threading.Lock()
        self.struck = ""

    def __str__(self) -> str:
        return f"{self._fault.name} at request {self._number}"

    def __call__(self, method: str, target: str) -> Fault:
        with self._counting:
            number, self._count = self._count, self._count + 1
        if number != self._number:
            return Fault.NONE
        # Behind the path a container's requests have their SAS.
        self.struck = f"{method} {target.partition('?')[0]}"
        return self._fault


def in_the_cloud(site: Site, network: FaultyNetwork, sleep: Callable[[float], None]) -> Media:
    """A world's media behind the network, opened for writing as jobs do."""
    store = RetryingStore(site.behind(network.origin).store(patience=PATIENCE), sleep=sleep)
    store.prepare_for_writing()
    return Media(store, write=True)


def requests_of_a_job(cloud: Cloud, network: FaultyNetwork) -> int:
    """How many requests a job like those of this test makes of its media."""
    busy = next(cloud.worlds)
    busy.work("counted")
    before = len(network.requests)
    report = busy.world.back_up(media=in_the_cloud(cloud.site_of(busy), network, lambda _: None))
    assert report.result is Result.COMPLETED, report
    return len(network.requests) - before


@more_in_ci
@pytest.mark.parametrize("kind", ["S3", pytest.param("Azure Blob", marks=only_in_ci)])
def test_each_request_with_each_fault(control: Control, tmp_path: Path, kind: str) -> None:
    make, in_ci = CLOUDS[kind]
    with make(control, tmp_path) as cloud, faulty_network(cloud.origin) as network:
        order, requests = seeded(f"{kind}: what comes first"), requests_of_a_job(cloud, network)
        plays = chosen(kind, list(product(range(requests), FAULTS)), by_default=1, in_ci=in_ci)
        for number, fault in plays:
            while not played(number, fault, cloud, network, order):
                # A job may make fewer requests than the one that was counted.
                assert number > 0, "no request of a job meets its fault: the test proves nothing"
                number = order.randrange(number)  # noqa: PLW2901


def played(number: int, fault: Fault, cloud: Cloud, network: FaultyNetwork, order: Random) -> bool:
    """Whether the job had a request of this number for the fault to strike."""
    sys.stdout.write(f"{fault.name}, request {number}\n")
    busy, script = next(cloud.worlds), Once(number, fault)
    held = play(busy, cloud.site_of(busy), network, script)
    busy.questions.ask(held, first=order.choice(list(First)), is_dead=False)
    return bool(script.struck)


def play(busy: BusyWorld, site: Site, network: FaultyNetwork, script: Once) -> Held:
    """A job that one fault costs nothing; what the disks held."""
    held, waits = busy.work(str(script)), []
    network.script = script
    with virtual_waits(busy.world.control):
        report = run_job(busy.world.job(media=in_the_cloud(site, network, waits.append)))
    network.script = lambda _method, _target: Fault.NONE
    sys.stdout.write(f"  {script.struck}, waits {waits}\n")
    assert (report.result, report.alarms) == (Result.COMPLETED, ()), report
    return held
