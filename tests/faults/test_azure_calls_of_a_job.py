"""Each call of a backup job to Azure is refused, lost, throttled, torn, or the last thing its process does.

A job is run once to count its calls, on all planes: signing in, Azure Resource Manager, blobs. Then a job is
run for each call and each kind of fault. A call is known by its place in the job. Threads may change the
order, so the same number may be another call the next time; and now and then a job makes a call less than it
did when it was counted, which is then a play without a fault. After each play the five questions are asked
(`tests/engine/questions.py`). A fault that passes costs the job nothing, either.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.client import TOO_MANY_REQUESTS
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from azsim.control import Control
from tests.engine.job_process import in_another_process
from tests.engine.questions import First
from tests.engine.story import run_job
from tests.engine.waits import await_calm, virtual_waits
from tests.engine.world import MANAGED, PREMIUM_VHD, World, connection_to
from tests.faults.busy_world import BusyWorld, busy_worlds
from tests.soak import chosen, more_in_ci, seeded
from vsa.azure.connection import AzureConnection
from vsa.media.entries import Result
from vsa.model import Method
from vsa.transfer.backup_job import BackupJob

WISH = 2
"""Seconds that a throttled caller is told to wait, more than it would by itself. Signing in really waits."""


@dataclass(frozen=True)
class Fault:
    """An action of azsim on one request, and what it is called here."""

    name: str
    action: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


BROKEN: dict[str, Any] = {"status": 500, "code": "InternalServerError"}
FAULTS = [
    Fault("refused before the effect", "status", BROKEN),
    Fault("reset before the effect", "cut", {"when": "before"}),
    Fault("answer lost", "cut", {"when": "after"}),
    Fault("refused after the effect", "status", BROKEN | {"when": "after"}),
    Fault("throttled", "status", {"status": 429, "code": "TooManyRequests", "retry_after": WISH}),
    Fault("busy", "status", {"status": 503, "code": "ServerBusy", "retry_after": WISH}),
    Fault("answer without its body", "truncate", {"bytes": 0}),
    Fault("answer without its end", "truncate", {"bytes": -1}),
]
DEATHS = [
    Fault("killed before the effect", "kill", {"when": "before"}),
    Fault("killed after the effect", "kill", {"when": "after"}),
]


@dataclass(frozen=True)
class Scene:
    """Of which kind the disks are, and by which method the job goes; None: by comparison with the base."""

    kind: str
    by: Method | None = None


SCENES = {
    "managed disks by CBT": Scene(MANAGED),
    "managed disks by CRC": Scene(MANAGED, Method.CRC),
    "premium VHDs": Scene(PREMIUM_VHD),
}


@more_in_ci
@pytest.mark.parametrize("title", SCENES)
def test_each_call_with_each_fault(control: Control, tmp_path: Path, title: str) -> None:
    scene, order = SCENES[title], seeded(f"{title}: what comes first")
    struck = 0
    with closing(busy_worlds(control, tmp_path, scene.kind)) as worlds:
        calls = range(calls_of_a_job(next(worlds), scene))
        plays = chosen(title, list(product(calls, FAULTS + DEATHS)), by_default=1, in_ci=12)
        for (call, fault), busy in zip(plays, worlds, strict=False):
            sys.stdout.write(f"{title}: {fault}, call {call} of {len(calls)}\n")
            struck += play(busy, scene, fault, call, order.choice(list(First)))
    sys.stdout.write(f"{title}: {len(plays)} plays, in {struck} of them the fault struck\n")
    assert struck > len(plays) * 0.8


def calls_of_a_job(busy: BusyWorld, scene: Scene) -> int:
    """How many calls a job like those of these tests makes."""
    busy.work("counted")
    since, world = busy.world.control.last_request(), busy.world
    report = world.back_up(by=scene.by, connection=not_signed_in(world))
    assert report.result is Result.COMPLETED, report
    return len(world.control.requests(since=since))


def not_signed_in(world: World) -> AzureConnection:
    """A new connection, as every job has."""
    return connection_to(world.control.endpoint)


def play(busy: BusyWorld, scene: Scene, fault: Fault, call: int, first: First) -> bool:
    """Whether the fault struck."""
    held = busy.work((scene.kind, fault.name, call))
    if fault in DEATHS:
        struck = die(busy.world, scene, fault, call)
    else:
        struck = suffer(busy.world, scene, fault, call)
    busy.questions.ask(held, first=first, is_dead=fault in DEATHS)
    return struck


def suffer(world: World, scene: Scene, fault: Fault, call: int) -> bool:
    """A job in which one call fails: it is completed all the same, and no wish of the service is ignored."""
    since = world.control.last_request()
    rule = world.control.add_fault(fault.action, skip=call, **fault.options)
    with virtual_waits(world.control) as waits:
        report = run_job(world.job(by=scene.by, connection=not_signed_in(world)))
    world.control.clear_faults()
    requests = world.control.requests(since=since)
    struck = [row for row in requests if rule in row["faults"]]
    assert report.result is Result.COMPLETED, report
    assert report.alarms == (), report.alarms
    if struck and "retry_after" in fault.options and must_be_waited_for(struck[0], requests):
        # In slices, and a little of it in real time.
        assert sum(waits) > WISH - 0.1, (struck, waits)
    return bool(struck)


def must_be_waited_for(refused: dict[str, Any], requests: Sequence[dict[str, Any]]) -> bool:
    """Whether Azure's wish concerns what this job asked for next: after a 429 everything, otherwise the same.

    Nobody asks again how a revocation goes on that Azure was too busy to say: the snapshot is deleted next.
    """
    if refused["plane"] == "token":
        return False
    if refused["status"] == TOO_MANY_REQUESTS:
        return True
    same = ("method", "path", "query")
    later = (row for row in requests if row["number"] > refused["number"])
    return any(all(row[key] == refused[key] for key in same) for row in later)


def die(world: World, scene: Scene, fault: Fault, call: int) -> bool:
    """A job in a process of its own, which is killed in one call."""
    die_in = partial(run_until_killed, world.control.state, call, fault.options)
    process = in_another_process(world, die_in, by=scene.by)
    process.join()
    await_calm(world.control)
    world.control.clear_faults()
    assert process.exitcode in (-signal.SIGKILL, 0), process.exitcode
    return process.exitcode != 0


def run_until_killed(azsim: Path, call: int, options: dict[str, Any], job: BackupJob) -> None:
    Control(azsim).add_fault("kill", skip=call, process=os.getpid(), **options)
    run_job(job)
