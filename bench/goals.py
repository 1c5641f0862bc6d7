"""The goals of the comparison: each a ratio of medians of one run, or an amount, and the most it may be."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.measures import Row
from vsa.ranges import MIB

Medians = Mapping[str, Row]
FULL_PEERS = ("borg/full", "restic/full", "benji/full", "qemu-img/full")
WITHOUT_HINTS = ("borg/incremental-0.1", "restic/incremental-0.1", "benji/incremental-0.1")


@dataclass(frozen=True)
class Goal:
    """What is wanted: that `found` of the medians is at most `most`, or at least; None: not measured."""

    name: str
    found: Callable[[Medians], float | None]
    most: float
    least: bool = False
    unit: str = "x"


@dataclass(frozen=True)
class Verdict:
    """What became of a goal."""

    goal: Goal
    found: float | None

    @property
    def reached(self) -> bool | None:
        if self.found is None:
            return None
        return self.found >= self.goal.most if self.goal.least else self.found <= self.goal.most


def medians(rounds: Iterable[Mapping[str, Row]]) -> dict[str, Row]:
    """The median of every figure of every measure, over the rounds that have it."""
    found: dict[str, dict[str, list[float]]] = {}
    for measures in rounds:
        for key, row in measures.items():
            for name, value in row.items():
                found.setdefault(key, {}).setdefault(name, []).append(value)
    return {
        key: {name: statistics.median(values) for name, values in row.items()} for key, row in found.items()
    }


def judged(found: Medians, changed: Mapping[str, int], cores: int | None = None) -> list[Verdict]:
    """Every goal; `changed` are the bytes that differ between the versions of the image."""
    goals = _goals(changed, cores or os.cpu_count() or 1)
    return [Verdict(goal, goal.found(found)) for goal in goals]


def _goals(changed: Mapping[str, int], cores: int) -> list[Goal]:
    goals = [
        Goal(f"reader CPU a byte against curl, {transport}", _reader(transport), 1.1)
        for transport in ("plain", "tls")
    ]
    goals += [
        Goal("full, wall against the best peer, plain", _against("us/full/plain", FULL_PEERS), 0.6),
        Goal("full, wall against the best peer, tls", _against("us/full/tls", FULL_PEERS), 0.75),
        Goal("full, CPU against zstd -1 -T1, plain", _against("us/full/plain", ["zstd/full"], "cpu"), 1.0),
        Goal("full, CPU against zstd -1 -T1, tls", _against("us/full/tls", ["zstd/full"], "cpu"), 1.1),
    ]
    goals += [
        Goal(f"full, cores kept busy, {transport}", _busy(f"us/full/{transport}", cores), 0.9, least=True)
        for transport in ("plain", "tls")
    ]
    for transport in ("plain", "tls"):
        for percent, most in (("1", 0.08), ("0.1", 0.04)):
            ours = f"us/cbt-{percent}/{transport}"
            borg, benji = [f"borg/incremental-{percent}"], [f"benji/hints-{percent}"]
            goals.append(Goal(f"CBT {percent} %, wall against borg, {transport}", _against(ours, borg), most))
            goals.append(
                Goal(
                    f"CBT {percent} %, wall against benji with hints, {transport}",
                    _against(ours, benji),
                    0.15,
                )
            )
        goals.append(
            Goal(
                f"CRC 0.1 %, wall against the best peer without hints, {transport}",
                _against(f"us/crc-0.1/{transport}", WITHOUT_HINTS),
                0.45,
            )
        )
    for percent, size in changed.items():
        goals.append(
            Goal(f"CBT {percent} %, bytes read for each changed, audit apart", _read(percent, size), 5.0)
        )
        goals.append(Goal(f"CBT {percent} %, bytes stored for each changed", _stored(percent, size), 2.0))
    goals += [
        Goal("restore, wall against qemu-img", _against("us/restore/plain", ["qemu-img/restore"]), 0.6),
        Goal(
            "restore without the checksum of the whole disk, wall against qemu-img",
            _against("us/restore/plain no-checksum", ["qemu-img/restore"]),
            0.6,
        ),
        Goal("peak memory of a stream", _memory("us/full/tls"), 256.0, unit=" MiB"),
        Goal("peak memory of a stream, 32 TiB sparse", _memory("us/sparse/tls"), 384.0, unit=" MiB"),
    ]
    return goals


Found = Callable[[Medians], float | None]


def _against(ours: str, others: Sequence[str], what: str = "wall") -> Found:
    """Ours divided by the best of the others."""

    def found(rows: Medians) -> float | None:
        best = min((rows[other][what] for other in others if other in rows), default=None)
        return rows[ours][what] / best if ours in rows and best else None

    return found


def _reader(transport: str) -> Found:
    def found(rows: Medians) -> float | None:
        ours, curl = (rows.get(f"reader/{side}/{transport}") for side in ("ours", "curl"))
        return ours["cpu"] / curl["cpu"] if ours and curl and curl["cpu"] else None

    return found


def _busy(ours: str, cores: int) -> Found:
    def found(rows: Medians) -> float | None:
        row = rows.get(ours)
        return (row["cpu"] + row["servers"]) / (cores * row["wall"]) if row else None

    return found


def _read(percent: str, size: int) -> Found:
    def found(rows: Medians) -> float | None:
        row = rows.get(f"us/cbt-{percent}/tls")
        return (row["read"] - row["audited"]) / size if row else None

    return found


def _stored(percent: str, size: int) -> Found:
    def found(rows: Medians) -> float | None:
        row = rows.get(f"us/cbt-{percent}/tls")
        return row["stored"] / size if row else None

    return found


def _memory(key: str) -> Found:
    def found(rows: Medians) -> float | None:
        row = rows.get(key)
        return row["memory"] / MIB if row else None

    return found
