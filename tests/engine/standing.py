"""Canaries that stand in every test on managed disks: what looks like ours in every way but one.

Those of `tests/engine/canaries.py` are more and of more kinds, and take a run and time to place.
"""

from __future__ import annotations

from typing import Any

from azsim.control import Control
from vsa.model import name_key

RUN = "5" * 16


class Standing:
    """Two snapshots of others beside a managed disk: one by a name of ours with the marks of another media,
    one with the marks of this media by another name."""

    def __init__(self, control: Control, disk: str, media: str) -> None:
        """`disk` is its id."""
        self._control = control
        key = name_key(disk)
        marks = {"vsa-run": RUN, "vsa-disk": key}
        self.ids = {
            control.leave_snapshot(disk, f"vsa-{RUN}-{key}", marks | {"vsa-media": "another-media"}).lower(),
            control.leave_snapshot(disk, f"vsa-{RUN}-{key}-copy", marks | {"vsa-media": media}).lower(),
        }
        self._as_placed = self._rows()
        assert self._as_placed.keys() == self.ids

    def _rows(self) -> dict[str, dict[str, Any]]:
        rows = {row["id"].lower(): row for row in self._control.inventory()["snapshots"]}
        return {identity: rows[identity] for identity in self.ids & rows.keys()}

    def require_untouched(self) -> None:
        """Both are as they were placed: marks, access and all."""
        assert self._rows() == self._as_placed
