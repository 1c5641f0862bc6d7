"""Jobs, sweeps, prunes and restores, each in a process of its own to which something may happen."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.engine.job_process import as_it_is
from tests.engine.story import run_job
from tests.engine.world import PROXIES, World, connection_to
from tests.faults.small_media import forget_points, prune
from tests.processes import PROCESSES
from vsa import fault_points
from vsa.errors import AzureRefused, MediaUnusable, TryAgainLater, VsaError
from vsa.fault_points import FaultPoint, Interference
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.store import Store
from vsa.model import Method
from vsa.restore.disk import Format, restore_disk
from vsa.retention import Retention
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.sweep import Sweep
from vsa.upkeep.forgetting import Limits, by_policy, forget, plan_forgetting

FAILED, BROKE = 3, 4
"""How a process ends whose work failed with one of our errors, or with one that nobody foresaw."""

_LONGEST_STALL = 300.0


class Kind(StrEnum):
    """What may happen at a point.

    An error there is both: the answer to what came before is lost, and what comes next is not done. LOST may
    be repeated, FULL and REFUSED may not, BROKEN is a mistake of ours.
    """

    KILLED = "killed"
    STALLED = "stalled"
    FULL = "the media is full"
    REFUSED = "Azure refuses"
    LOST = "the answer is lost"
    BROKEN = "a mistake in the code"


_ERRORS: dict[Kind, Callable[[], Exception]] = {
    Kind.FULL: lambda: MediaUnusable("the file system is full"),
    Kind.REFUSED: lambda: AzureRefused("refused on purpose", code="OperationNotAllowed"),
    Kind.LOST: lambda: TryAgainLater("the answer was lost", retry_after=0.05),
    Kind.BROKEN: lambda: RuntimeError("a mistake in the code"),
}


@dataclass(frozen=True)
class Mishap:
    """What happens at a point that was passed `passes` times before; a stall is told in `folder`."""

    point: FaultPoint
    kind: Kind
    passes: int = 0
    folder: Path = Path()

    def __str__(self) -> str:
        return f"{self.point.name} after {self.passes} passes: {self.kind}"

    def interference(self) -> Interference:
        numbers = itertools.count()

        def interfere(point: FaultPoint) -> None:
            if point is self.point and next(numbers) == self.passes:
                self._strike()

        return interfere

    def _strike(self) -> None:
        if self.kind is Kind.KILLED:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind is not Kind.STALLED:
            raise _ERRORS[self.kind]()
        self._stalled.touch()
        until = time.monotonic() + _LONGEST_STALL
        while not self._let_go.exists():
            if time.monotonic() > until:
                os._exit(1)
            time.sleep(0.005)

    @property
    def _stalled(self) -> Path:
        return self.folder / "stalled"

    @property
    def _let_go(self) -> Path:
        return self.folder / "let-go"

    def wait_for_stall(self, process: BaseProcess) -> bool:
        """Whether the process stands at the point now; False if it has ended without."""
        while not self._stalled.exists():
            if not process.is_alive():
                return self._stalled.exists()
            time.sleep(0.005)
        return True

    def let_go(self) -> None:
        self._let_go.touch()


@dataclass(frozen=True)
class Site:
    """Where an errand goes: it shares no connection and no open media with the tests. `ahead`: seconds that
    its clock is ahead of the machine's."""

    endpoint: dict[str, str]
    media: str
    ahead: float = 0.0

    @classmethod
    def of(cls, world: World, *, ahead: float = 0.0) -> Site:
        return cls(world.control.endpoint, world.media.location, ahead)

    def now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC) + dt.timedelta(seconds=self.ahead)

    def opened(self, around: Callable[[Store], Store] = as_it_is) -> Media:
        return Media(around(FolderStore(Path(self.media))), write=True, clock=self.now)


Work = Callable[[Site, Media], Any]


@dataclass(frozen=True)
class Backup:
    """A whole job, stage by stage."""

    id: str
    scratch: Path
    subclient: Subclient
    method: Method | None = None
    full: bool = False

    def __call__(self, site: Site, media: Media) -> Any:
        return run_job(
            BackupJob(
                self.id,
                subclient=self.subclient,
                connection=connection_to(site.endpoint),
                media=media,
                proxies=PROXIES,
                scratch=self.scratch,
                method=self.method,
                full=self.full,
                now=site.now,
            )
        )


@dataclass(frozen=True)
class Sweeping:
    """A whole sweep, as `flows/sweep_leftovers.py` tells it. With `all_open` an operator, who is wrong, calls
    every open run dead."""

    all_open: bool = False

    def __call__(self, site: Site, media: Media) -> Any:
        sweep = Sweep(connection_to(site.endpoint), media.read_anew(), now=site.now)
        found = sweep.open_runs()
        named = [intent.run for intent in found.intents] if self.all_open else []
        return sweep.carry_out(sweep.plan(found, {}, named))


@dataclass(frozen=True)
class Pruning:
    """Points are forgotten, and pruned at once, with every pack repacked that is worth it; `later`: when, by
    the clock of whoever prunes. If that is much, every open run is old by then."""

    points: tuple[int, ...] = ()
    later: dt.timedelta = dt.timedelta(0)
    retention: Retention | None = None

    def __call__(self, site: Site, media: Media) -> Any:
        forget_points(media, *self.points)
        if self.retention is not None:
            policy = by_policy(lambda _: self.retention)
            plan = plan_forgetting(media, policy, now=site.now(), limits=Limits(override_share=True))
            forget(media, plan, now=site.now())
        return prune(media, threshold=1.0, now=site.now() + self.later)


@dataclass(frozen=True)
class Restoring:
    """All disks of these points into a folder, each unless it is there already."""

    points: tuple[int, ...]
    folder: Path

    def __call__(self, site: Site, media: Media) -> Any:
        for slot in self.points:
            for backup in media.view().points[slot].point.disks:
                target = self.target(slot, backup.disk.name)
                if not target.exists():
                    restore_disk(media, backup, target, format=Format.RAW)

    def target(self, slot: int, disk: str) -> Path:
        return self.folder / f"{slot}-{disk}.img"


@dataclass(frozen=True)
class Errand:
    """Work, where it is done, and what happens to it there."""

    site: Site
    work: Work
    mishap: Mishap | None = None
    around: Callable[[Store], Store] = as_it_is

    def with_mishap(self, mishap: Mishap | None) -> Errand:
        return replace(self, mishap=mishap)

    def started(self) -> BaseProcess:
        process = PROCESSES.Process(target=self._carry_out)
        process.start()
        return process

    def _carry_out(self) -> None:
        """In the process of its own; any other error than those that were meant ends it with status 1."""
        if self.mishap:
            fault_points.install(self.mishap.interference())
        try:
            self.work(self.site, self.site.opened(self.around))
        except VsaError as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            sys.exit(FAILED)
        except RuntimeError as error:
            if not (self.mishap and self.mishap.kind is Kind.BROKEN):
                raise
            sys.stderr.write(f"{error}\n")
            sys.exit(BROKE)

    def recorded(self) -> list[FaultPoint]:
        """Do the work in this process and tell every point that it passed."""
        passed: list[FaultPoint] = []
        fault_points.install(passed.append)
        try:
            self.work(self.site, self.site.opened(self.around))
        finally:
            fault_points.install(None)
        return passed


def ends(kind: Kind | None) -> set[int]:
    """How a process may end that this happens to; work may go round an error, or wait for it to pass."""
    if kind is Kind.KILLED:
        return {-signal.SIGKILL}
    return {0, FAILED, BROKE} if kind is Kind.BROKEN else {0, FAILED}
