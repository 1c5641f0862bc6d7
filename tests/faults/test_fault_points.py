"""At each named place of the engine its process dies, stands still, or meets an error. (F15, F16, F41.)

Every place is passed by a job, a sweep, a prune or a restore; which, a run of each tells. After every mishap
the same five questions are asked (tests/faults/estate_questions.py).
"""

from __future__ import annotations

import datetime as dt
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import vsa
from tests.azsim_process import AzsimProcess
from tests.engine.questions import Held
from tests.engine.world import BETWEEN_JOBS, EXTENT, KIB, MIB, PREMIUM_VHD, World, random_bytes
from tests.faults.errands import (
    Backup,
    Errand,
    Kind,
    Mishap,
    Pruning,
    Restoring,
    Site,
    Sweeping,
    Work,
    ends,
)
from tests.faults.estate_questions import EstateQuestions
from tests.soak import chosen, more_in_ci, seeded
from vsa import fault_points
from vsa.fault_points import FaultPoint, reached
from vsa.media.entries import Result
from vsa.subclient import Subclient

ROOT = Path(vsa.__file__).parent
LATER = dt.timedelta(days=30)


class Stage:
    """A world in which one errand after the other goes wrong: a VM with managed disks and one with a VHD."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.questions = EstateQuestions(world)
        self._cases = 0
        world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(256 * KIB, "data")})
        world.add_vm({"vhd": random_bytes(512 * KIB, "vhd")}, kind=PREMIUM_VHD)
        world.back_up()
        self.questions.add_canaries("os")
        self.questions.add_canaries("vhd")

    @property
    def site(self) -> Site:
        return Site.of(self.world)

    def folder(self) -> Path:
        self._cases += 1
        made = self.world.folder / f"case-{self._cases}"
        made.mkdir()
        return made

    def work(self) -> Held:
        """Let guests write a little; what disks hold then."""
        self._cases += 1
        for disk, places in (("os", 3), ("data", 1), ("vhd", 2)):
            for place in range(places):
                self.world.write(disk, place * 128 * KIB, random_bytes(512, (self._cases, disk, place)))
        return self.world.held()

    def a_job(self) -> Work:
        identity, scratch = self.world.begin_job()
        return Backup(identity, scratch, Subclient(name="tests", vms=tuple(self.world.vms)))

    def forget_old_points(self) -> None:
        """Few points are left, so that each case asks for few. The newest stay, and those that bases need."""
        Errand(self.site, Pruning(self._old_points())).recorded()

    def _old_points(self) -> tuple[int, ...]:
        """All but the last two of each VM."""
        slots: dict[str, list[int]] = {}
        for slot, made in sorted(self.world.media.view().points.items()):
            slots.setdefault(made.client, []).append(slot)
        return tuple(slot for its in slots.values() for slot in its[:-2])

    # Each scene prepares what its work needs to pass all its points, and gives the work.

    def backup(self) -> Work:
        return self.a_job()

    def backup_that_gives_up_a_base(self) -> Work:
        """A disk has left its VM since the last job."""
        name = f"extra{self._cases}"
        self.world.attach(self.world.vms[0], name, random_bytes(64 * KIB, name))
        self.world.back_up()
        self.world.detach(self.world.vms[0], name)
        return self.a_job()

    def sweep(self) -> Work:
        """A job has died with snapshots that it had access to."""
        dying = Errand(self.site, self.a_job(), Mishap(FaultPoint.READS_PLANNED, Kind.KILLED, passes=1))
        process = dying.started()
        process.join(120)
        assert process.exitcode in ends(Kind.KILLED)
        return Sweeping()

    def prune(self) -> Work:
        """Points are to be given up, and a pack of the oldest of them is needed in part: it is repacked."""
        for written in ((4, 5, 6, 7), (4, 5), (6,)):
            for extent in written:
                self.world.write("os", extent * EXTENT, random_bytes(EXTENT, (self.world.jobs, extent)))
            self.world.back_up()
        return Pruning(self._old_points(), LATER)

    def restore(self) -> Work:
        return Restoring(tuple(self.world.media.view().points)[-2:], self.folder())


SCENES: dict[str, Callable[[Stage], Work]] = {
    "backup": Stage.backup,
    "backup that gives up a base": Stage.backup_that_gives_up_a_base,
    "sweep": Stage.sweep,
    "prune": Stage.prune,
    "restore": Stage.restore,
}


@dataclass(frozen=True)
class Case:
    scene: str
    mishap: Mishap
    passed: int
    """How often the scene passes the point, when nothing happens."""

    def __str__(self) -> str:
        return f"{self.scene}: {self.mishap}"


@pytest.fixture(scope="module")
def stage(azure: AzsimProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    world = World(azure.control, tmp_path_factory.mktemp("world"))
    yield Stage(world)
    world.delete()


@pytest.fixture(scope="module")
def passed(stage: Stage) -> dict[str, Counter[FaultPoint]]:
    """Which points each scene passes, and how often."""
    found: dict[str, Counter[FaultPoint]] = {}
    for name, prepare in SCENES.items():
        work = prepare(stage)
        held = stage.work()
        found[name] = Counter(Errand(stage.site, work).recorded())
        stage.questions.learn(held)
    stage.questions.require_all(held)
    return found


def test_every_declared_point_is_passed(passed: dict[str, Counter[FaultPoint]]) -> None:
    assert set(FaultPoint) - set().union(*passed.values()) == set()


def test_every_point_stands_in_one_place_of_the_engine() -> None:
    used: Counter[str] = Counter()
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "fault_points.py":
            used.update(re.findall(r"\breached\(FaultPoint\.(\w+)\)", path.read_text()))
    assert used == Counter(point.name for point in FaultPoint)


def test_nothing_but_tests_can_install_anything() -> None:
    """Nor does the engine look at anything that somebody could set from outside of the process. Measurements
    alone, which back up nobody's data, look at the time at a point, as tests do."""
    for name in ("vsa", "tasks", "flows", "blocks", "deployments", "demo"):
        for path in sorted((ROOT.parent / name).rglob("*.py")):
            if path != ROOT / "fault_points.py":
                assert not re.search(
                    r"fault_points(\.| import .*)(install|_interference)", path.read_text()
                ), path
    own = (ROOT / "fault_points.py").read_text()
    assert re.findall(r"^(?:from|import) (\S+)", own, re.MULTILINE) == [
        "__future__",
        "collections.abc",
        "enum",
    ]
    assert fault_points._interference is None


def test_a_point_does_nothing_where_nothing_is_installed() -> None:
    for point in FaultPoint:
        reached(point)


def cases(passed: dict[str, Counter[FaultPoint]]) -> list[Case]:
    """Every mishap at the first pass of every point of every scene."""
    return [
        Case(scene, Mishap(point, kind), count)
        for scene, counts in passed.items()
        for point, count in counts.items()
        if scene != "backup that gives up a base" or point not in passed["backup"]
        for kind in Kind
    ]


@more_in_ci
def test_anything_may_happen_at_any_point(stage: Stage, passed: dict[str, Counter[FaultPoint]]) -> None:
    choose = seeded("which pass")
    played = chosen("any point", cases(passed), by_default=2, in_ci=20)
    for case in played:
        # The first pass of a point may be another disk's, entry's or object's than a later one.
        passes = choose.choice([0, choose.randrange(case.passed)])
        play(
            stage, Case(case.scene, Mishap(case.mishap.point, case.mishap.kind, passes), case.passed), choose
        )
    sys.stdout.write(f"{len(played)} mishaps\n")


def play(stage: Stage, case: Case, choose: random.Random) -> None:
    sys.stdout.write(f"{case}\n")
    stage.forget_old_points()
    work = SCENES[case.scene](stage)
    mishap = replace(case.mishap, folder=stage.folder())
    held = stage.work()
    process = Errand(stage.site, work, mishap).started()
    if mishap.kind is Kind.STALLED and mishap.wait_for_stall(process):
        meanwhile = choose.choice(list(MEANWHILE))
        sys.stdout.write(f"  meanwhile {meanwhile}\n")
        MEANWHILE[meanwhile](stage)
        mishap.let_go()
    process.join(300)
    # Threads and random names may make a pass less than when they were counted; the first is always reached.
    allowed = ends(mishap.kind) | ({0} if mishap.passes else set())
    assert process.exitcode in allowed, f"{case}: ended with {process.exitcode}"
    stage.questions.require_all(held)
    if isinstance(work, Restoring):
        require_restored(stage, work)


def require_restored(stage: Stage, work: Restoring) -> None:
    """No image is there that is not whole, and the next restore makes those that are missing."""
    held = {slot: stage.world.points[slot] for slot in work.points}
    there = set(work.folder.glob("[!.]*"))
    for path in there:
        slot, _, disk = path.stem.partition("-")
        assert path.read_bytes() == held[int(slot)][stage.world.plain(disk)], path
    Errand(stage.site, work).recorded()
    assert len(list(work.folder.glob("[!.]*"))) == sum(map(len, held.values()))


def another_job(stage: Stage) -> None:
    report = stage.world.back_up()
    assert report.result is Result.COMPLETED, report
    # Azure takes one snapshot of a premium VHD in ten minutes, and the job that stands may want its own.
    stage.world.control.advance_clock(BETWEEN_JOBS)


MEANWHILE: dict[str, Callable[[Stage], object]] = {
    "another job": another_job,
    "a sweep": lambda stage: Errand(stage.site, Sweeping()).recorded(),
    "a sweep that holds all for dead": lambda stage: Errand(stage.site, Sweeping(all_open=True)).recorded(),
    "a prune that holds all for dead": lambda stage: Errand(stage.site, Pruning((), LATER)).recorded(),
    "a prune": lambda stage: Errand(stage.site, Pruning()).recorded(),
}
