"""What was measured, as it is kept: one row a measure, by a key of who did what, and how."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.meter import Taken

Row = dict[str, float]


@dataclass(frozen=True)
class Measure:
    """Seconds and bytes of one measure; `more` are figures that only some have. None: not measured."""

    key: str
    wall: float
    cpu: float
    servers: float | None = None
    read: int | None = None
    stored: int | None = None
    memory: int | None = None
    more: Row = field(default_factory=dict)

    def row(self) -> Row:
        named = {
            "wall": self.wall,
            "cpu": self.cpu,
            "servers": self.servers,
            "read": self.read,
            "stored": self.stored,
            "memory": self.memory,
        }
        return {name: value for name, value in named.items() if value is not None} | self.more


@dataclass(frozen=True)
class Failed:
    """A measure that was not had, and why."""

    key: str
    reason: str


Session = Iterator[Measure | Failed]
"""Measures that build on each other, one after the other."""


def of_command(key: str, taken: Taken, *, stored: int | None = None) -> Measure:
    return Measure(
        key,
        wall=taken.wall,
        cpu=taken.cpu,
        read=taken.read,
        stored=stored,
        memory=taken.memory,
        more={"synced": taken.synced},
    )
