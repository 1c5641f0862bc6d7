"""Whether a checkpoint says what the log says: writers commit on its word."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from vsa.errors import MediaDamaged, ObjectMissing
from vsa.media import layout, recall
from vsa.media.media import Media
from vsa.media.view import CommittedPoint, ReportedJob, View
from vsa.model import Noun


def complaints(media: Media, slots: Iterable[int], view: View) -> dict[int, str]:
    """What is wrong with the checkpoints of these slots, by slot; `view` is what the log itself says.

    The newest that can be believed are read on from, up to the view, and must come to the same: these are
    the ones that readers go by.
    """
    found: dict[int, str] = {}
    good = 0
    for slot in sorted(set(slots), reverse=True):
        name = layout.checkpoint(slot)
        if slot >= view.head:
            found[slot] = f"{name} is passed over: the log does not have its slot"
        elif reason := recall.misfit(media.store, slot, media.id):
            found[slot] = f"{name} is passed over, and replaced in time: {reason}"
        elif good < recall.KEPT:
            good += 1
            if reason := _contradiction(media, slot, view):
                found[slot] = reason
    return found


def _contradiction(media: Media, slot: int, view: View) -> str:
    """Empty also if it has been deleted."""
    try:
        table = difference(media.read_on(slot, view.head), view)
    except ObjectMissing:
        return ""
    except MediaDamaged as error:
        return f"{layout.checkpoint(slot)} cannot be read on from: {error}"
    if not table:
        return ""
    name = layout.checkpoint(slot)
    return f"{name} is believed, and says of {table} something else than the log: delete it, nothing is lost"


def difference(one: View, other: View) -> str:
    """What two views do not agree on, by the name of its table; nothing if they say the same.

    Nobody judges by a time that a checkpoint gives, and older ones give others: they are not compared.
    """
    names = (field.name for field in dataclasses.fields(View) if field.name != "latest")
    return next((name.lstrip("_") for name in names if not _same(one, other, name)), "")


def _same(one: View, other: View, name: str) -> bool:
    first, second = getattr(one, name), getattr(other, name)
    if name == "forgotten":
        return bool(first.keys() == second.keys())
    # Other versions may have packed the same nouns into other bytes.
    return bool(first == second) or (name in _PACKED and _unpacked(first) == _unpacked(second))


_PACKED = ("points", "jobs")


def _unpacked(table: Mapping[int, CommittedPoint | ReportedJob]) -> dict[int, tuple[object, Noun]]:
    return {slot: (dataclasses.replace(made, _packed=b""), _noun(made)) for slot, made in table.items()}


def _noun(made: CommittedPoint | ReportedJob) -> Noun:
    return made.point if isinstance(made, CommittedPoint) else made.job
