"""Removing what runs leave in Azure: snapshots, access grants, staging blobs.

What may stay is said by the log alone: the base that it names for a disk, and whatever belongs to a run that
is neither committed nor fenced. Everything else that carries this media's marks goes. Any of this may be
repeated, by a retry, by another process after a crash, or by the next job on the same disk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from vsa.azure.grants import revoke
from vsa.azure.snapshots import FoundSnapshot
from vsa.azure.staging import StagingBlobs, staging_url
from vsa.errors import BadRequest, MediaDamaged, VsaError
from vsa.media.entries import DoomEntry
from vsa.media.media import Media
from vsa.media.view import View
from vsa.media.witness import Witness
from vsa.model import DiskKind, Intent, SourceDisk
from vsa.stop import Stop, again
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.liveness import has_ended

_log = logging.getLogger(__name__)


def release(run: str, disks: Sequence[SourceDisk], reason: str, env: RunEnvironment) -> tuple[str, ...]:
    """Remove what a run leaves, and return in words what could not be removed.

    A run that has not committed is fenced first, so that a commit still on its way cannot name snapshots
    that are being deleted here. Where the media takes no fence, its snapshots stay and the rest goes.
    """
    pending: list[str] = []
    clear = partial(clear_disk, env=env)
    try:
        if not is_over(run, env.media.view()):
            fence([run], reason, env.media)
    except VsaError as error:
        pending.append(f"cleanup pending for run {run}, whose snapshots stay until it can be fenced: {error}")
        clear = partial(_withdraw, run=run, env=env)
    for disk in disks:
        try:
            # A stop must not keep a run from being cleaned up.
            again(partial(clear, disk), stop=Stop())
        except VsaError as error:
            pending.append(f"cleanup pending for disk {disk.name}: {error}")
    for message in pending:
        _log.error("%s", message)
    return tuple(pending)


def release_job(job: str, env: RunEnvironment) -> tuple[str, ...]:
    """Release every run of a job that has ended: what hooks do after a cancellation or a crash."""
    return tuple(
        pending
        for intent in _of_job(job, env.media)
        for pending in release(intent.run, intent.disks, "the job was cancelled or crashed", env)
    )


def intents_of_job(job: str, media: Media) -> list[Intent]:
    """What the runs of a job wrote before they began. Reads every intent: for the rare case alone."""
    return list(_of_job(job, media))


def _of_job(job: str, media: Media) -> Iterator[Intent]:
    """The open ones first, which leave the most: the others are all runs that the media ever saw."""
    view = media.view()
    begun = sorted(media.runs(), key=lambda run: is_over(run, view))
    return (intent for intent in _intents(begun, media) if intent.job == job)


def release_dead(subclient: str, env: RunEnvironment) -> tuple[str, ...]:
    """Release the runs of a subclient whose process has ended before it could, whatever disks they had."""
    return tuple(
        pending
        for intent in _open_intents(env)
        if intent.subclient == subclient and has_ended(intent.process)
        for pending in release(intent.run, intent.disks, "the process of the run has ended", env)
    )


def dead_jobs(subclient: str, env: RunEnvironment) -> tuple[str, ...]:
    """The jobs of a subclient whose process has ended before it could release its runs."""
    dead = (intent for intent in _open_intents(env) if intent.subclient == subclient)
    return tuple(sorted({intent.job for intent in dead if has_ended(intent.process)}))


def _open_intents(env: RunEnvironment) -> Iterator[Intent]:
    """The intents of runs that the log knows no end of."""
    view = env.media.view()
    return _intents((run for run in env.media.runs() if not is_over(run, view)), env.media)


def _intents(runs: Iterable[str], media: Media) -> Iterator[Intent]:
    """The intents that can be read; one that cannot must not keep the others from being cleaned up."""
    for run in runs:
        try:
            intent = media.intent(run)
        except VsaError as error:
            _log.error("what run %s left cannot be found by its intent: %s", run, error)
            continue
        if intent is not None:
            yield intent


def clear_disk(disk: SourceDisk, env: RunEnvironment) -> None:
    """Remove from Azure what this media made of the disk and nobody needs.

    Untouched are: snapshots without our marks, the base that the log names, and what live runs own.
    MediaDamaged, and nothing is removed, if a snapshot was made when the log was another or longer.
    """
    found = env.snapshots(disk).ours(disk, env.media.id)
    for item in found:
        require_witnessed(disk, item, env.media)
    staged = staged_runs(disk, env)
    view = _fence_dead({*staged, *(item.run for item in found)}, env)
    for run in staged:
        if is_over(run, view):
            StagingBlobs(env.connection).delete(staging_url(disk, run))
    for item in found:
        if is_over(item.run, view):
            _clear_snapshot(disk, item, view, env)


def require_witnessed(disk: SourceDisk, item: FoundSnapshot, media: Media) -> None:
    """A log that was put back knows nothing of this snapshot, which may be the base of a lost point."""
    try:
        witness = Witness.parse(item.witness)
    except BadRequest:
        # No mark, of an older version or of a log that was empty; or somebody's own text.
        return
    try:
        media.require_witness(witness)
    except MediaDamaged as error:
        raise MediaDamaged(
            f"disk {disk.name}: snapshot {item.name.moment or item.name.id} knows more than the media: "
            f"{error}. If the media was put back on purpose, delete that snapshot"
        ) from error


@dataclass(frozen=True)
class Excess:
    """What of a snapshot nobody needs, once its run is over: the access to it, or the whole of it."""

    grant: bool = False
    snapshot: bool = False


def excess_of(disk: SourceDisk, item: FoundSnapshot, view: View) -> Excess:
    """What must go of a snapshot with our marks whose run is over, or is about to be fenced."""
    if item.inherited and not _is_recorded(disk, item, view):
        _log.warning(
            "disk %s: snapshot %s carries our marks because a snapshot of ours was copied over the disk; "
            "it may be somebody else's and stays",
            disk.name,
            item.name.moment,
        )
        return Excess()
    base = view.base_of(disk.key)
    return Excess(grant=item.granted, snapshot=base is None or not base[1].is_same(item.name))


def _clear_snapshot(disk: SourceDisk, item: FoundSnapshot, view: View, env: RunEnvironment) -> None:
    excess = excess_of(disk, item, view)
    if excess.grant:
        revoke(env.connection, item.name)
    if excess.snapshot:
        env.snapshots(disk).delete(item.name)
        _log.info("disk %s: snapshot of run %s deleted", disk.name, item.run)


def _is_recorded(disk: SourceDisk, item: FoundSnapshot, view: View) -> bool:
    """Whether the run's recovery point names this very snapshot."""
    made = view.points.get(view.committed.get(item.run, -1))
    if made is None:
        return False
    disks = made.point.disks
    return any(held.disk.key == disk.key and held.snapshot.is_same(item.name) for held in disks)


def staged_runs(disk: SourceDisk, env: RunEnvironment) -> list[str]:
    """The runs of this media whose staging blobs of the disk are still there."""
    if disk.kind is not DiskKind.UNMANAGED_PREMIUM:
        return []
    return StagingBlobs(env.connection).runs_of(disk, env.media.id)


def _withdraw(disk: SourceDisk, *, run: str, env: RunEnvironment) -> None:
    """Give back what no commit can need: the run's grants and its staging blob."""
    if disk.kind is DiskKind.UNMANAGED_PREMIUM:
        StagingBlobs(env.connection).delete(staging_url(disk, run))
    for item in env.snapshots(disk).ours(disk, env.media.id):
        if item.run == run and item.granted:
            revoke(env.connection, item.name)


def is_over(run: str, view: View) -> bool:
    """Whether the log knows the run's end: it has committed, or it never may."""
    return run in view.committed or run in view.fenced


def _fence_dead(runs: Iterable[str], env: RunEnvironment) -> View:
    """Fence those of the runs that are open and whose process is known to have ended; the view afterwards."""
    view = env.media.view()
    intents = _intents((run for run in runs if not is_over(run, view)), env.media)
    dead = sorted(intent.run for intent in intents if has_ended(intent.process))
    if dead:
        fence(dead, "the process of the run has ended", env.media)
        view = env.media.view()
    return view


def fence(runs: Sequence[str], reason: str, media: Media) -> None:
    """Say in the log that these runs may no longer commit."""
    media.append(DoomEntry(runs=tuple(runs), reason=reason))
