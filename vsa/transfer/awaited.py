"""Snapshots that a job has had accepted and never seen: they may appear when nobody waits any more."""

from __future__ import annotations

from vsa.azure.marks import snapshot_name
from vsa.model import SourceDisk


class Awaited:
    """What Azure still owes the runs of one job. Thread-safe: no thread looks through it."""

    def __init__(self) -> None:
        self._owed: set[tuple[str, str]] = set()

    def add(self, run: str, disk: SourceDisk) -> None:
        self._owed.add((run, disk.key))

    def came(self, run: str, disk: SourceDisk) -> None:
        self._owed.discard((run, disk.key))

    def of(self, run: str, disk: SourceDisk) -> str:
        """What is awaited of a managed disk, as people know it; empty if nothing is."""
        return f"snapshot {snapshot_name(run, disk.key)}" if (run, disk.key) in self._owed else ""
