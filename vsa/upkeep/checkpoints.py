"""Whether checkpoints say what the log says, for writers commit on their word; and which of them suffice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from vsa.errors import MediaDamaged, ObjectMissing
from vsa.media import layout, recall
from vsa.media.media import Media
from vsa.media.view import CommittedPoint, ReportedJob, View
from vsa.model import Noun


class Complaint(NamedTuple):
    """What is wrong with a checkpoint. `is_believed`: readers go by it all the same."""

    reason: str
    is_believed: bool = False


class Judged(NamedTuple):
    """Checkpoints by slot: what is wrong with some, and the newest good ones, which suffice."""

    complaints: dict[int, Complaint]
    kept: tuple[int, ...]


def judge(media: Media, slots: Iterable[int], view: View, *, until_kept: bool = False) -> Judged:
    """Look at the checkpoints of these slots; `view` is what the log itself says. With `until_kept` not at
    those that are older than what suffices.

    The newest that can be believed are read on from, up to the view, and must come to the same: these are
    the ones that readers go by. One that is gone is not spoken of.
    """
    found: dict[int, Complaint] = {}
    kept: list[int] = []
    for slot in sorted(set(slots), reverse=True):
        if until_kept and len(kept) == recall.KEPT:
            break
        name = layout.checkpoint(slot)
        if slot >= view.head:
            found[slot] = Complaint(f"{name} is passed over: the log does not have its slot")
        elif reason := recall.misfit(media.store, slot, media.id):
            found[slot] = Complaint(f"{name} is passed over, and replaced in time: {reason}")
        elif reason == "" and len(kept) < recall.KEPT:
            if table := _contradiction(media, slot, view):
                said = f"{name} is believed, and says of {table} something else than the log"
                found[slot] = Complaint(f"{said}: prune or delete it, nothing is lost", is_believed=True)
            else:
                kept.append(slot)
    return Judged(found, tuple(kept))


def superseded(media: Media, view: View) -> list[str]:
    """The checkpoints that pruning may delete, as a listing shows them: all but the newest good ones. That
    needs no doom entry, since nothing refers to them. One beyond the view may be somebody's who is ahead."""
    slots = {slot for slot in listed(media) if slot < view.head}
    kept = judge(media, slots, view, until_kept=True).kept
    return [layout.checkpoint(slot) for slot in sorted(slots.difference(kept))]


def listed(media: Media) -> list[int]:
    """The slots of all checkpoints that a listing shows."""
    slots = map(layout.checkpoint_slot, media.store.names(layout.CHECKPOINTS))
    return [slot for slot in slots if slot is not None]


def _contradiction(media: Media, slot: int, view: View) -> str:
    """Of what it says something else; empty also if it has been deleted."""
    try:
        return difference(media.read_on(slot, view.head), view)
    except ObjectMissing:
        return ""
    except MediaDamaged as error:
        return f"what follows ({error})"


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
    if name in _PACKED and first.keys() == second.keys():
        return all(_says_the_same(made, second[slot]) for slot, made in first.items())
    return bool(first == second)


_PACKED = ("points", "jobs")


def _says_the_same(one: CommittedPoint | ReportedJob, other: CommittedPoint | ReportedJob) -> bool:
    """Also if another version has packed the same noun into other bytes."""
    if one == other:
        return True
    bare = [dataclasses.replace(made, _packed=b"") for made in (one, other)]
    return bare[0] == bare[1] and _noun(one) == _noun(other)


def _noun(made: CommittedPoint | ReportedJob) -> Noun:
    return made.point if isinstance(made, CommittedPoint) else made.job
