"""Jobs, prunes and restores on one media at once, as processes and threads that know nothing of each other.
(F40, F41, F44.)"""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.engine.job_process import in_another_process
from tests.engine.story import run_job
from tests.engine.world import MIB, World, random_bytes
from tests.faults.small_media import forget_points, prune
from tests.media.around_store import AroundStore
from vsa.errors import PointGone, VsaError
from vsa.media import layout
from vsa.media.entries import Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.store import Store
from vsa.restore.disk import Format, restore_disk
from vsa.transfer.leftovers import fence

T = TypeVar("T")


@dataclass(frozen=True)
class Slowly:
    """A store whose every call takes its time."""

    seconds: float

    def __call__(self, store: Store) -> SlowStore:
        return SlowStore(store, self.seconds)


@dataclass(frozen=True)
class StandingStill:
    """A process that stops itself before it stores the index of its second disk, until somebody lets it go
    on. It asks Azure for nothing more: what is left to tell it that it was fenced is its commit."""

    def __call__(self, store: Store) -> StandingStore:
        return StandingStore(store)


class StandingStore(AroundStore):
    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._indexes = 0

    def _do(self, method: str, name: str, call: Callable[[], T]) -> T:
        if method == "create" and layout.is_index(name):
            self._indexes += 1
            if self._indexes == 2:
                os.kill(os.getpid(), signal.SIGSTOP)
        return call()


class SlowStore(AroundStore):
    def __init__(self, store: Store, seconds: float) -> None:
        super().__init__(store)
        self._seconds = seconds

    def _do(self, method: str, name: str, call: Callable[[], T]) -> T:
        if method in ("create", "read"):
            time.sleep(self._seconds)
        return call()


@pytest.fixture
def busy(world: World) -> World:
    """A VM with two small disks and three points."""
    world.add_vm({"os": random_bytes(2 * MIB, "os"), "data": random_bytes(MIB, "data")})
    for number in range(3):
        world.write("os", number * 65536, random_bytes(512, number))
        world.back_up()
    world.write("os", 71_680, random_bytes(512, "now"))
    return world


def learn_of_new_points(world: World, held: dict[str, dict[str, bytes]]) -> int:
    new = world.media.view().points.keys() - world.points.keys()
    for slot in new:
        (world.points[slot],) = held.values()
    return len(new)


def is_stopped(process: int) -> bool:
    """Whether the kernel says so (proc(5): the state follows the command's name in brackets)."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_two_jobs_on_one_vm_at_once(busy: World) -> None:
    held = busy.held()
    jobs = [in_another_process(busy, run_job, around=Slowly(0.002)) for _ in range(2)]
    for job in jobs:
        job.join(120)
        assert job.exitcode == 0
    assert learn_of_new_points(busy, held) == 2
    report = busy.back_up()
    assert report.result is Result.COMPLETED, report
    busy.require_sound()


def test_a_job_beside_prunes(busy: World) -> None:
    """They are as bold as can be: no grace, every pack repacked, the job's parents forgotten under it."""
    held = busy.held()
    job = in_another_process(busy, run_job, around=Slowly(0.01))
    old = sorted(busy.points)
    for slot in old:
        media = Media(FolderStore(busy.folder / "media"), write=True)
        forget_points(media, slot)
        prune(media, threshold=1.0, now=dt.datetime.now(dt.UTC))
        busy.points.pop(slot)
    job.join(120)
    assert job.exitcode == 0
    assert learn_of_new_points(busy, held) == 1
    report = busy.back_up()
    assert report.result is Result.COMPLETED, report
    busy.require_sound()


@pytest.mark.parametrize("is_pruned", [False, True])
def test_a_job_that_stands_still_while_others_hold_it_for_dead(busy: World, is_pruned: bool) -> None:
    """Stopped for as long as it takes to fence it, and to delete what it stored or to leave it; then it goes
    on. Where all that it needs is there, the fence alone keeps it from committing."""
    busy.write("data", 512, random_bytes(512, "now"))
    job = in_another_process(busy, run_job, around=StandingStill())
    assert job.pid is not None
    while not is_stopped(job.pid):
        assert job.is_alive()
        time.sleep(0.01)
    media = Media(FolderStore(busy.folder / "media"), write=True)
    view = media.view()
    (run,) = (run for run in media.runs() if run not in view.committed and run not in view.fenced)
    stored = list(busy.folder.glob(f"media/runs/{run}/packs/*"))
    assert stored
    fence([run], "held for dead", media)
    if is_pruned:
        prune(media)
    assert any(pack.exists() for pack in stored) is not is_pruned
    os.kill(job.pid, signal.SIGCONT)
    job.join(120)
    assert job.exitcode == 0
    view = media.view()
    assert run not in view.committed
    assert view.points.keys() == busy.points.keys()
    (outcome,) = view.jobs[max(view.jobs)].job.vms
    assert (outcome.run, outcome.point) == (run, None)
    assert f"run {run} was fenced: another process holds it for dead" in outcome.error
    report = busy.back_up()
    assert report.result is Result.COMPLETED, report
    busy.require_sound()


def test_a_restore_of_a_point_that_a_prune_takes_away_says_so(busy: World, tmp_path: Path) -> None:
    first = min(busy.points)
    slow = Media(SlowStore(FolderStore(busy.folder / "media"), 0.05), write=False)
    backup = slow.view().points[first].point.disks[0]
    errors: list[Exception] = []

    def restore() -> None:
        try:
            restore_disk(slow, backup, tmp_path / "image", format=Format.RAW, threads=1)
        except VsaError as error:
            errors.append(error)

    thread = threading.Thread(target=restore)
    thread.start()
    media = Media(FolderStore(busy.folder / "media"), write=True)
    forget_points(media, *busy.points)
    prune(media)
    thread.join(60)
    assert [type(error) for error in errors] == [PointGone], errors
    assert not (tmp_path / "image").exists()
