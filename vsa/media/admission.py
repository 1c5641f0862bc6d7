"""Which entry may follow which view: what keeps committed points whole (docs/media-format.md, "Commit")."""

from __future__ import annotations

from vsa.errors import BadRequest, MediaConflict, RunStopped
from vsa.media import layout
from vsa.media.entries import DamageEntry, DoomEntry, EntryBody, PointEntry
from vsa.media.view import View


def admit(view: View, body: EntryBody, *, run: str | None, needs: frozenset[str]) -> int | None:
    """None if the entry may be written; the slot of the run's point if that is already committed.

    `needs` are all packs and indexes that a point refers to. RunStopped if the run is fenced, MediaConflict
    if something needed is doomed or something doomed is needed, BadRequest for what makes no sense.
    """
    if run is not None and run in view.fenced:
        raise RunStopped(
            f"run {run} was fenced: another process holds it for dead and may delete its snapshots"
        )
    match body:
        case PointEntry():
            return _admit_point(view, run, needs)
        case DoomEntry():
            _admit_doom(view, body)
        case DamageEntry():
            _admit_damage(view, body)
    return None


def _admit_point(view: View, run: str | None, needs: frozenset[str]) -> int | None:
    if run is None:
        raise BadRequest("a recovery point needs the run that made it")
    if run in view.committed:
        return view.committed[run]
    if doomed := sorted(needs & view.doomed):
        raise MediaConflict(
            f"{doomed[0]} and {len(doomed) - 1} more that the point refers to are being deleted: "
            "read those extents again from the snapshot"
        )
    return None


def _admit_doom(view: View, doom: DoomEntry) -> None:
    """Only what no committed point can need: objects of runs that are fenced, by this entry or before it."""
    if committed := sorted(set(doom.runs) & view.committed.keys()):
        raise MediaConflict(
            f"run {committed[0]} has committed slot {view.committed[committed[0]]}: it cannot be fenced"
        )
    dead = view.fenced | set(doom.runs)
    for name in doom.objects:
        if layout.run_of(name) not in dead:
            raise MediaConflict(f"{name} cannot be doomed: its run is not fenced")


def _admit_damage(view: View, damage: DamageEntry) -> None:
    if unknown := sorted(set(damage.points) - view.points.keys()):
        raise BadRequest(f"slot {unknown[0]} holds no recovery point that could be doubtful")
