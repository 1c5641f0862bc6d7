"""Whatever a guest did, and however its disks were backed up: every point is the disks of its moment.

The model is a bytearray for each disk and a copy of it for each point. A few histories are played by
default and in CI, always the same ones; the soak plays many, always others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from azsim.control import Control
from tests.engine.world import EXTENT, KIB, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.media.making import a_key
from tests.soak import DEPTH, examples
from vsa.media.entries import Result
from vsa.media.wrapping import Passphrase
from vsa.model import Method, Reason

SECTOR = 512
LARGEST = 8 * MIB
SMALL_EXTENT = 4 * KIB

HISTORIES = examples(
    3,
    None,
    40,
    # A history takes seconds; shrinking one takes hours, and those that are drawn can be read.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Place:
    """Somewhere on some disk, in sectors; wrapped so that it fits whatever disks there are."""

    disk: int
    sector: int
    sectors: int


@dataclass(frozen=True)
class Write:
    """Guests write new bytes, zeros, and what was there before."""

    at: Place
    what: str
    seed: int


@dataclass(frozen=True)
class Clear:
    at: Place


@dataclass(frozen=True)
class Grow:
    disk: int
    sectors: int


@dataclass(frozen=True)
class Attach:
    sectors: int
    seed: int


@dataclass(frozen=True)
class Detach:
    disk: int


@dataclass(frozen=True)
class BackUp:
    by: Method
    full: bool = False


# Where extents of both sizes begin, give or take a sector, and anywhere else.
sectors = st.one_of(
    st.builds(
        lambda extent, by: max(0, extent * EXTENT // SECTOR + by), st.integers(0, 127), st.integers(-2, 2)
    ),
    st.integers(0, LARGEST // SECTOR - 1),
)
lengths = st.one_of(
    st.integers(1, 16),
    st.sampled_from([SMALL_EXTENT // SECTOR, EXTENT // SECTOR, 2 * EXTENT // SECTOR]),
    st.integers(1, 2 * MIB // SECTOR),
)
sizes = st.one_of(st.integers(4 * MIB // SECTOR, LARGEST // SECTOR), st.sampled_from([8 * MIB // SECTOR]))
places = st.builds(Place, st.integers(0, 7), sectors, lengths)
seeds = st.integers(0, 2**16)
writes = st.builds(Write, places, st.sampled_from(["new", "new", "zeros", "same"]), seeds)
clears = st.builds(Clear, places)
changes = st.one_of(
    writes,
    writes,
    writes,
    clears,
    clears,
    st.builds(Grow, st.integers(0, 7), st.integers(1, MIB // SECTOR)),
    st.builds(Attach, sizes, seeds),
    st.builds(Detach, st.integers(0, 7)),
)
CBT, CRC, FULL = BackUp(Method.CBT), BackUp(Method.CRC), BackUp(Method.CBT, full=True)
rounds = st.lists(changes, min_size=1, max_size=4)
# A history of every method in any order or, where there is time, of anything at all.
every_method = st.tuples(*[rounds] * 4, st.permutations([CBT, CRC, CBT, FULL])).map(
    lambda drawn: list(zip(drawn[:-1], drawn[-1], strict=True))
)
anything = st.lists(st.tuples(rounds, st.sampled_from([CBT, CBT, CRC, FULL])), min_size=3, max_size=9)
histories = st.one_of(every_method, anything) if DEPTH else every_method


@dataclass
class Model:
    """What the disks of one VM hold, what each point must hold, and why each disk is read as it is."""

    world: World
    kind: str
    vm: str
    disks: dict[str, bytearray]
    points: dict[int, dict[str, bytes]] = field(default_factory=dict)
    backed_up: set[str] = field(default_factory=set)
    based: set[str] = field(default_factory=set)
    made: int = 1

    def play(self, change: object) -> None:
        match change:
            case Write(at, what, seed):
                name, offset, length = self._wrapped(at)
                data = self._bytes(name, offset, length, what, seed)
                self.disks[name][offset : offset + length] = data
                self.world.write(name, offset, data)
            case Clear(at):
                name, offset, length = self._wrapped(at)
                self.disks[name][offset : offset + length] = bytes(length)
                self.world.clear(name, offset, length)
            case Grow(disk, more):
                name = self._named(disk)
                self.disks[name] += bytes(more * SECTOR)
                self.world.grow(name, len(self.disks[name]))
            case Attach(size, seed):
                name = f"data-{self.made}"
                self.made += 1
                self.disks[name] = bytearray(half_empty(size * SECTOR, seed))
                self.world.attach(self.vm, name, bytes(self.disks[name]), kind=self.kind)
            case Detach(disk) if self._named(disk) != "os":
                name = self._named(disk)
                del self.disks[name]
                self.world.detach(self.vm, name)

    def back_up(self, backup: BackUp) -> None:
        expected = {name: self._reason(name, backup) for name in self.disks}
        report = self.world.back_up(by=backup.by, full=backup.full)
        assert report.result is Result.COMPLETED, report
        assert self.world.reasons(report) == expected
        slot = report.vms[0].point
        assert slot is not None
        self.points[slot] = {name: bytes(held) for name, held in self.disks.items()}
        self.backed_up |= set(self.disks)
        self.based &= set(self.disks)
        if backup.by is Method.CBT:
            self.based |= set(self.disks)

    def require_every_point(self) -> None:
        assert list(self.world.media.view().points) == list(self.points)
        for slot, held in self.points.items():
            self.world.require_restores(slot, held)
        self.world.require_no_leftovers()
        assert len(self.world.bases) == len(self.based)
        assert self.world.media.view().doubtful == {}

    def _reason(self, disk: str, backup: BackUp) -> Reason:
        if disk not in self.backed_up:
            return Reason.FULL_FIRST
        if backup.full:
            return Reason.FULL_REQUESTED
        if backup.by is Method.CRC:
            return Reason.CRC_REQUESTED
        return Reason.CBT if disk in self.based else Reason.CRC_NO_BASE

    def _named(self, disk: int) -> str:
        return list(self.disks)[disk % len(self.disks)]

    def _wrapped(self, at: Place) -> tuple[str, int, int]:
        """A disk's name, and an offset and a length in bytes that fit it."""
        name = self._named(at.disk)
        held = len(self.disks[name]) // SECTOR
        sector = at.sector % held
        return name, sector * SECTOR, min(at.sectors, held - sector) * SECTOR

    def _bytes(self, disk: str, offset: int, length: int, what: str, seed: int) -> bytes:
        if what == "new":
            return random_bytes(length, seed)
        return bytes(length) if what == "zeros" else bytes(self.disks[disk][offset : offset + length])


def half_empty(size: int, seed: object) -> bytes:
    """Data, then nothing, then data up to the last sector."""
    quarter = size // 4
    return random_bytes(quarter, seed) + bytes(size - 2 * quarter) + random_bytes(quarter, f"{seed} end")


@pytest.mark.timeout(7200 if DEPTH else 300)
@pytest.mark.parametrize(
    ("kind", "extent_size", "key"),
    [
        (MANAGED, EXTENT, None),
        (MANAGED, SMALL_EXTENT, a_key()),
        (STANDARD_VHD, EXTENT, a_key()),
        (PREMIUM_VHD, SMALL_EXTENT, None),
    ],
)
@HISTORIES
@given(size=sizes, history=histories)
def test_every_point_of_any_history_is_the_disks_of_its_moment(
    control: Control,
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    extent_size: int,
    key: Passphrase | None,
    size: int,
    history: list[tuple[list[Any], BackUp]],
) -> None:
    world = World(control, tmp_path_factory.mktemp("world"), extent_size=extent_size, key=key)
    with_world(world, kind, size * SECTOR, history)


def with_world(world: World, kind: str, size: int, history: list[tuple[list[Any], BackUp]]) -> None:
    try:
        disks = {"os": bytearray(half_empty(size, "os"))}
        vm = world.add_vm({"os": bytes(disks["os"])}, kind=kind)
        model = Model(world, kind, vm, disks)
        for made, backup in history:
            for change in made:
                model.play(change)
            model.back_up(backup)
        model.require_every_point()
    finally:
        world.delete()
