"""Canaries that stand in every test: what looks like ours in every way but one.

Those of `tests/engine/canaries.py` are more and of more kinds, and take a run and time to place. Here azsim
leaves things as if made long ago: Azure takes one snapshot of a premium VHD in ten minutes.
"""

from __future__ import annotations

import datetime as dt
from email.utils import format_datetime
from typing import Any

from azsim.control import Control
from vsa.azure.marks import ASKED, in_metadata
from vsa.azure.staging import CONTAINER
from vsa.model import name_key

RUN = "5" * 16

Rows = dict[str, dict[str, Any]]


def asked_at(control: Control) -> dict[str, str]:
    """The mark that a blob snapshot of ours has of when it was asked for: now, by Azure's clock."""
    now = dt.datetime.fromisoformat(control.clock()["now"])
    return {in_metadata(ASKED): format_datetime(now, usegmt=True)}


class Standing:
    """Things of others in Azure. `things` are ids of managed snapshots in lower case, moments of blob
    snapshots, names of blobs."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._as_placed: Rows = {}

    @property
    def things(self) -> set[str]:
        return set(self._as_placed)

    def beside_disk(self, disk: str, media: str) -> None:
        """Two snapshots of a managed disk (its id): one by a name of ours with the marks of another media,
        one with the marks of this media by another name."""
        key = name_key(disk)
        marks = {"vsa-run": RUN, "vsa-disk": key}
        leave = self._control.leave_snapshot
        self._place(
            leave(disk, f"vsa-{RUN}-{key}", marks | {"vsa-media": "another-media"}).lower(),
            leave(disk, f"vsa-{RUN}-{key}-copy", marks | {"vsa-media": media}).lower(),
        )

    def in_the_place_of(self, disk: str, run: str, media: str, *, wrong: str) -> None:
        """By the very name that a run gave to its snapshot of a managed disk (its id), which is gone: one
        with all our marks, but of these the wrong one is another's."""
        key = name_key(disk)
        marks = {"vsa-media": media, "vsa-run": run, "vsa-disk": key}
        snapshot = self._control.leave_snapshot(
            disk, f"vsa-{run}-{key}", marks | {wrong: f"another-{wrong[4:]}"}
        )
        self._place(snapshot.lower())

    def beside_vhd(self, vhd: str, url: str, media: str, *, run: str = RUN) -> None:
        """Two snapshots of a VHD (`account/container/blob`): one with all our marks but another media's, one
        with all but another disk's."""
        marks = self._marks(url, media, run) | asked_at(self._control)
        leave = self._control.leave_blob_snapshot
        self._place(
            leave(vhd, marks | {"vsa_media": "another-media"}),
            leave(vhd, marks | {"vsa_disk": name_key(f"{url}.old")}),
        )

    def beside_staging_blobs(self, account: str, url: str, media: str, *, run: str = RUN) -> None:
        """Two blobs where those of a VHD are staged: one by a name of ours with the marks of another media,
        one with the marks of this media by another name."""
        marks, name = self._marks(url, media, run), f"vsa-{run}-{name_key(url)}"
        blobs = {
            f"{name}.vhd": marks | {"vsa_media": "another-media"},
            f"{name}-copy.vhd": marks,
        }
        for blob, metadata in blobs.items():
            self._control.leave_blob(f"{account}/{CONTAINER}/{blob}", metadata)
        self._place(*blobs)

    def _marks(self, url: str, media: str, run: str) -> dict[str, str]:
        return {"vsa_media": media, "vsa_run": run, "vsa_disk": name_key(url)}

    def _place(self, *things: str) -> None:
        rows = self._rows()
        self._as_placed |= {thing: rows[thing] for thing in things}

    def _rows(self) -> Rows:
        """All that could be one of them, by what it is called here."""
        inventory = self._control.inventory()
        managed = {row["id"].lower(): row for row in inventory["snapshots"]}
        return managed | {row["snapshot"] or row["name"]: row for row in inventory["blobs"]}

    def require_untouched(self) -> None:
        """All are as they were placed: marks, access and all."""
        there = self._rows()
        assert {thing: there.get(thing) for thing in self._as_placed} == self._as_placed
