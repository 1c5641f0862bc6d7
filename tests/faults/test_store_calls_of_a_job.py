"""Each call of a backup job to its store fails, is lost, or is the last thing that the process does.

After each: every committed point restores to what its disks held, the next job succeeds without a human,
and Azure holds our bases and nothing else. (F01-F11, F15, F27 of the reliability study.)
"""

from __future__ import annotations

import signal

import pytest

from tests.engine.job_process import in_another_process
from tests.engine.story import run_job
from tests.engine.world import EXTENT, MIB, World, random_bytes
from tests.faults.dying_store import Death
from tests.media.faulty_store import FaultyStore, Moment, fail_call, no_fault
from tests.soak import chosen, rounds, seeded
from vsa.errors import MediaUnusable, TryAgainLater, VsaError
from vsa.media.entries import Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media

LOST = TryAgainLater("the answer was lost")
FULL = MediaUnusable("the file system is full")


@pytest.fixture
def busy(world: World) -> World:
    """A VM with two small disks that has been backed up once."""
    world.add_vm({"os": random_bytes(3 * MIB, "os"), "data": random_bytes(MIB, "data")})
    world.back_up()
    return world


def work(world: World, seed: object) -> dict[str, dict[str, bytes]]:
    """Let the guest write a little to both disks; what they hold then."""
    for extent in range(4):
        world.write("os", extent * 8 * EXTENT, random_bytes(512, (seed, extent)))
    world.write("data", 512, random_bytes(512, seed))
    return world.held()


def calls_of_a_job(world: World) -> int:
    """How many calls a job like those of these tests makes."""
    work(world, "counted")
    store = FaultyStore(FolderStore(world.folder / "media"), no_fault)
    held = world.held()
    report = run_job(world.job(media=Media(store, write=True)))
    assert report.vms[0].point is not None
    world.points[report.vms[0].point] = held[report.vms[0].name]
    return len(store.calls)


def require_that_nothing_was_lost(world: World, held: dict[str, dict[str, bytes]]) -> None:
    for slot in world.media.view().points.keys() - world.points.keys():
        (world.points[slot],) = held.values()
    report = world.back_up()
    assert report.result is Result.COMPLETED, report
    world.require_sound()


def test_killed_in_any_call(busy: World) -> None:
    deaths = [Death(number, moment) for number in range(calls_of_a_job(busy)) for moment in Moment]
    for death in chosen("killed in any call", deaths, by_default=4, in_ci=40):
        held = work(busy, death)
        process = in_another_process(busy, run_job, around=death.store)
        process.join(120)
        # Threads may make a call less than when they were counted: then the job has ended before its death.
        assert process.exitcode in (-signal.SIGKILL, 0), death
        require_that_nothing_was_lost(busy, held)


@pytest.mark.parametrize(
    ("error", "moment"), [(LOST, Moment.AFTER), (LOST, Moment.BEFORE), (FULL, Moment.BEFORE)]
)
def test_any_call_fails(busy: World, error: VsaError, moment: Moment) -> None:
    calls = range(calls_of_a_job(busy))
    for number in chosen(f"{error} {moment}", calls, by_default=2, in_ci=20):
        held = work(busy, number)
        store = FaultyStore(FolderStore(busy.folder / "media"), fail_call(number, moment, error))
        try:
            run_job(busy.job(media=Media(store, write=True)))
        except VsaError as failed:
            assert str(error) in str(failed)
        require_that_nothing_was_lost(busy, held)


def test_killed_at_random_again_and_again(busy: World) -> None:
    """Two or three jobs die one after the other before one is let through."""
    choose, calls = seeded("killed at random"), calls_of_a_job(busy)
    for number in range(rounds(1, 12, 300)):
        held = work(busy, number)
        for _ in range(choose.choice([1, 2, 3])):
            death = Death(choose.randrange(calls), choose.choice(list(Moment)))
            process = in_another_process(busy, run_job, around=death.store)
            process.join(120)
        require_that_nothing_was_lost(busy, held)
