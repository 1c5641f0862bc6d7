"""A VM with two small disks that is at work and has been backed up, for the faults of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from azsim.control import Control
from tests.engine.questions import Questions
from tests.engine.world import EXTENT, MANAGED, MIB, World, random_bytes

PLAYS = 6
"""So many are played on one world: every point of it is restored after each."""


class BusyWorld:
    """The world, its questions, and what its guest does."""

    def __init__(self, control: Control, folder: Path, kind: str = MANAGED, **media: Any) -> None:
        """`media`: where a `World` has it and what lets one in."""
        self.world = World(control, folder, **media)
        disks = {"os": random_bytes(3 * MIB, "os"), "data": random_bytes(MIB, "data")}
        self.world.add_vm(disks, kind=kind)
        for _ in range(2):
            self.world.back_up()
        self.questions = Questions(self.world)

    def work(self, seed: object) -> dict[str, dict[str, bytes]]:
        """Let the guest write a little to both disks; what they hold then."""
        for extent in range(4):
            self.world.write("os", extent * 8 * EXTENT, random_bytes(512, (seed, extent)))
        self.world.write("data", 512, random_bytes(512, seed))
        return self.world.held()


def busy_worlds(
    control: Control,
    folder: Path,
    kind: str = MANAGED,
    *,
    media_of: Callable[[str], dict[str, Any]] = lambda _: {},
) -> Iterator[BusyWorld]:
    """One for each play, for ever: the same a few times, then another. To be closed."""
    for number in count(1):
        name = f"world-{number}"
        busy = BusyWorld(control, folder / name, kind, **media_of(name))
        try:
            for _ in range(PLAYS):
                yield busy
        finally:
            control.clear_faults()
            busy.world.delete()
