"""Which entry may follow which view: what keeps committed points whole (docs/media-format.md, "Commit")."""

from __future__ import annotations

from collections.abc import Callable, Collection

from vsa.errors import BadRequest, MediaConflict, RunStopped
from vsa.media import layout
from vsa.media.entries import (
    DoomEntry,
    DoubtEntry,
    EntryBody,
    ForgetEntry,
    PinEntry,
    PointEntry,
    RelocateEntry,
    RotateEntry,
    UnforgetEntry,
)
from vsa.media.view import View

Requirement = Callable[[View], None]
"""Raises ObjectsDoomed or MediaConflict if what a point or a relocation needs is not there under a view."""


def admit(view: View, body: EntryBody, *, run: str | None, require: Requirement) -> int | None:
    """None if the entry may be written; the slot of the run's point if that is already committed.

    RunStopped if the run is fenced, MediaConflict if the entry contradicts the log or needs what is doomed,
    BadRequest for what makes no sense.
    """
    require_unfenced(view, run)
    match body:
        case PointEntry():
            if run is not None and run in view.committed:
                return view.committed[run]
            require(view)
        case RelocateEntry():
            require(view)
        case DoomEntry():
            _admit_doom(view, body)
        case DoubtEntry(points=points):
            _require_points(view, points)
        case ForgetEntry(points=points):
            _admit_forget(view, points)
        case UnforgetEntry(points=points):
            _admit_unforget(view, points)
        case PinEntry(points=points):
            _require_points(view, points)
        case RotateEntry(key=key) if key <= view.key:
            raise MediaConflict(
                f"keys/{key} is not newer than keys/{view.key}: all documents before that are retired already"
            )
    return None


def require_unfenced(view: View, run: str | None) -> None:
    if run is not None and run in view.fenced:
        raise RunStopped(
            f"run {run} was fenced: another process holds it for dead and may delete its snapshots"
        )


def _admit_doom(view: View, doom: DoomEntry) -> None:
    """Only objects of runs that have ended. That no point which stays needs them, the planner must know."""
    if committed := sorted(run for run in doom.runs if run in view.committed):
        raise MediaConflict(
            f"run {committed[0]} has committed slot {view.committed[committed[0]]}: it cannot be fenced"
        )
    fenced_now = set(doom.runs)
    for name in doom.objects:
        run = layout.run_of(name)
        if not (run in fenced_now or run in view.fenced or run in view.committed):
            raise MediaConflict(f"{name} cannot be doomed: its run is neither committed nor fenced")
    for slot in doom.points:
        if slot not in view.forgotten or slot in view.pinned:
            raise MediaConflict(f"point {slot} cannot be given up: it is not forgotten, or it is pinned")


def _admit_forget(view: View, points: Collection[int]) -> None:
    _require_points(view, points)
    for slot in sorted(points):
        if slot in view.forgotten:
            raise MediaConflict(f"point {slot} is forgotten already")
        if slot in view.pinned:
            raise MediaConflict(f"point {slot} is pinned: unpin it first if it may go")


def _admit_unforget(view: View, points: Collection[int]) -> None:
    for slot in sorted(points):
        if slot in view.given_up:
            raise MediaConflict(f"point {slot} cannot be called back: its data has been given up by a prune")
        if slot not in view.forgotten:
            raise BadRequest(f"point {slot} is not forgotten")


def _require_points(view: View, points: Collection[int]) -> None:
    if unknown := sorted(slot for slot in points if slot not in view.points):
        raise BadRequest(f"slot {unknown[0]} holds no recovery point: `vsa points` lists those of this media")
