"""Random histories against plain byte arrays: whatever a guest did, every point restores to its moment.

`VSA_PROPERTY_HISTORIES` sets how many histories are tried; the default keeps the test below a minute.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from azsim.control import Control
from tests.engine.world import EXTENT, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.media.entries import Result
from vsa.model import Method, Reason

HISTORIES = int(os.environ.get("VSA_PROPERTY_HISTORIES", "20"))
PAGE = 512
LARGEST = 3 * MIB


@dataclass(frozen=True)
class Write:
    """Guest writes; `pages` are the seed's bytes, or zeros, or the same bytes as before."""

    at: float
    pages: int
    what: str


@dataclass(frozen=True)
class Clear:
    at: float
    pages: int


@dataclass(frozen=True)
class Grow:
    pages: int


@dataclass(frozen=True)
class BackUp:
    method: Method
    full: bool


Act = Write | Clear | Grow | BackUp

# Lengths around an extent's border are where arithmetic goes wrong.
LENGTHS = st.one_of(
    st.integers(1, 4),
    st.sampled_from([EXTENT // PAGE - 1, EXTENT // PAGE, EXTENT // PAGE + 1, 2 * EXTENT // PAGE]),
    st.integers(1, 1000),
)
PLACES = st.floats(0, 1, exclude_max=True)
BACK_UP = st.builds(
    BackUp,
    method=st.sampled_from([Method.CBT] * 3 + [Method.CRC]),
    full=st.sampled_from([False] * 5 + [True]),
)
CHANGES = st.one_of(
    st.builds(Write, at=PLACES, pages=LENGTHS, what=st.sampled_from(["new", "new", "zeros", "same"])),
    st.builds(Write, at=PLACES, pages=LENGTHS, what=st.just("new")),
    st.builds(Clear, at=PLACES, pages=LENGTHS),
    st.builds(Grow, pages=LENGTHS),
)
ROUNDS = st.lists(st.tuples(st.lists(CHANGES, max_size=5), BACK_UP), min_size=2, max_size=5)


class Disk:
    """A disk of the simulation and the plain bytes that it must hold."""

    def __init__(self, world: World, size: int) -> None:
        self._world = world
        self._writes = 0
        self.model = bytearray(random_bytes(size // 3, "first") + bytes(size - size // 3))

    def apply(self, act: Write | Clear | Grow) -> None:
        match act:
            case Grow(pages):
                size = min(len(self.model) + pages * PAGE, LARGEST)
                self.model.extend(bytes(size - len(self.model)))
                self._world.grow("os", size)
            case Clear(at, pages):
                offset, end = self._place(at, pages)
                self.model[offset:end] = bytes(end - offset)
                self._world.clear("os", offset, end - offset)
            case Write(at, pages, what):
                offset, end = self._place(at, pages)
                self._writes += 1
                data = {
                    "new": random_bytes(end - offset, self._writes),
                    "zeros": bytes(end - offset),
                    "same": bytes(self.model[offset:end]),
                }[what]
                self.model[offset:end] = data
                self._world.write("os", offset, data)

    def _place(self, at: float, pages: int) -> tuple[int, int]:
        offset = int(at * (len(self.model) // PAGE)) * PAGE
        return offset, min(offset + pages * PAGE, len(self.model))


@given(
    kind=st.sampled_from([MANAGED, STANDARD_VHD, PREMIUM_VHD]),
    pages=st.integers(1, 2 * MIB // PAGE),
    rounds=ROUNDS,
)
@settings(
    max_examples=HISTORIES,
    deadline=None,
    derandomize=HISTORIES <= 20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_point_of_every_history_restores(
    control: Control, kind: str, pages: int, rounds: list[tuple[list[Write | Clear | Grow], BackUp]]
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="vsa-property-"))
    world = World(control, folder)
    try:
        disk = Disk(world, pages * PAGE)
        world.add_vm({"os": bytes(disk.model)}, kind=kind)
        for changes, back_up in rounds:
            for change in changes:
                disk.apply(change)
            assert world.contents("os") == disk.model, "the simulation and the model disagree"
            report = world.back_up(by=back_up.method, full=back_up.full)
            assert report.result is Result.COMPLETED, report.vms[0].error
            assert world.reasons(report)["os"] is not Reason.CRC_AUDIT_FAILED
        world.require_sound()
        assert len(world.points) == len(rounds)
    finally:
        world.delete()
        shutil.rmtree(folder)
