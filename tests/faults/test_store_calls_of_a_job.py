"""Each call of a backup job to its store fails, is lost, or is the last thing that the process does; or it
fails, and all that follow.

After each the five questions are asked (`tests/engine/questions.py`). (F01-F11, F15, F27, F29 of the
reliability study.)
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from azsim.control import Control
from tests.engine.job_process import in_another_process
from tests.engine.questions import First
from tests.engine.story import run_job
from tests.engine.waits import virtual_waits
from tests.engine.world import World
from tests.faults.busy_world import BusyWorld, busy_worlds
from tests.faults.dying_store import Death
from tests.media.faulty_store import FaultyStore, Moment, fail_call, fail_from, no_fault
from tests.soak import chosen, more_in_ci, rounds, seeded
from vsa.errors import MediaUnusable, TryAgainLater, VsaError
from vsa.media.entries import Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media

LOST = TryAgainLater("the answer was lost")
FULL = MediaUnusable("the file system is full")
AWAY = MediaUnusable("the media is away")


@pytest.fixture
def worlds(control: Control, tmp_path: Path) -> Iterator[Iterator[BusyWorld]]:
    with closing(busy_worlds(control, tmp_path)) as made:
        yield made


def calls_of_a_job(busy: BusyWorld) -> Sequence[str]:
    """The calls that a job like those of these tests makes, by their methods."""
    busy.work("counted")
    store = FaultyStore(FolderStore(busy.world.folder / "media"), no_fault)
    report = busy.world.back_up(media=Media(store, write=True))
    assert report.result is Result.COMPLETED, report
    return [method for method, _ in store.calls]


@more_in_ci
def test_killed_in_any_call(worlds: Iterator[BusyWorld]) -> None:
    order, calls = seeded("killed in any call: what comes first"), len(calls_of_a_job(next(worlds)))
    deaths = [Death(number, moment) for number in range(calls) for moment in Moment]
    for death, busy in zip(chosen("killed in any call", deaths, by_default=3, in_ci=8), worlds, strict=False):
        held = busy.work(death)
        process = in_another_process(busy.world, run_job, around=death.store)
        process.join()
        # Threads may make a call less than when they were counted: then the job has ended before its death.
        assert process.exitcode in (-signal.SIGKILL, 0), death
        busy.questions.ask(held, first=order.choice(list(First)), is_dead=True)


@more_in_ci
@pytest.mark.parametrize(
    ("error", "moment"), [(LOST, Moment.AFTER), (LOST, Moment.BEFORE), (FULL, Moment.BEFORE)]
)
def test_any_call_fails(worlds: Iterator[BusyWorld], error: VsaError, moment: Moment) -> None:
    name, calls = f"{error} {moment}", range(len(calls_of_a_job(next(worlds))))
    order = seeded(f"{name}: what comes first")
    for number, busy in zip(chosen(name, calls, by_default=1, in_ci=6), worlds, strict=False):
        held, world = busy.work(number), busy.world
        store = FaultyStore(FolderStore(world.folder / "media"), fail_call(number, moment, error))
        try:
            with virtual_waits(world.control):
                run_job(world.job(media=Media(store, write=True)))
        except VsaError as failed:
            assert str(error) in str(failed)
        busy.questions.ask(held, first=order.choice(list(First)), is_dead=False)


def leaves_something(world: World) -> bool:
    """Whether there is in Azure what no job and no point needs."""
    try:
        world.require_no_leftovers()
    except AssertionError:
        return True
    return False


@more_in_ci
def test_every_call_fails_from_one_on(worlds: Iterator[BusyWorld], caplog: pytest.LogCaptureFixture) -> None:
    """A disk that is full takes nothing more; media that is away answers nothing either.

    A run that can no longer be fenced keeps its snapshots, and says so. It gives back its access, unless it
    cannot even read what is its own.
    """
    order, calls = seeded("fails from one on: what comes first"), calls_of_a_job(next(worlds))
    full = [(number, FULL, "create") for number, method in enumerate(calls) if method == "create"]
    away = [(number, error, "") for error in (AWAY, LOST) for number in range(len(calls))]
    name, pending, plays = "fails from one on", 0, 0
    for play, busy in zip(chosen(name, full + away, by_default=2, in_ci=5), worlds, strict=False):
        plays += 1
        (number, error, method), held, world = play, busy.work(play), busy.world
        caplog.clear()
        store = FaultyStore(FolderStore(world.folder / "media"), fail_from(number, error, method=method))
        try:
            with virtual_waits(world.control):
                run_job(world.job(media=Media(store, write=True)))
        except VsaError as failed:
            assert str(error) in str(failed)
        if error is FULL:
            world.require_no_access()
        if leaves_something(world):
            assert "cleanup pending" in caplog.text, play
            pending += 1
        busy.questions.ask(held, first=order.choice(list(First)), is_dead=False)
    sys.stdout.write(f"{plays} plays; in {pending} something was pending\n")


@more_in_ci
def test_killed_at_random_again_and_again(worlds: Iterator[BusyWorld]) -> None:
    """One to three jobs die one after the other before one is let through."""
    choose, calls = seeded("killed at random"), len(calls_of_a_job(next(worlds)))
    for number, busy in zip(range(rounds(1, 4, 300)), worlds, strict=False):
        held = busy.work(number)
        for _ in range(choose.choice([1, 2, 3])):
            death = Death(choose.randrange(calls), choose.choice(list(Moment)))
            process = in_another_process(busy.world, run_job, around=death.store)
            process.join()
        busy.questions.ask(held, first=choose.choice(list(First)), is_dead=True)
