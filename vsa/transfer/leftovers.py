"""Removing what runs leave in Azure: snapshots, access grants, staging blobs.

What that is, `vsa/transfer/owned.py` says. Any of this may be repeated, by a retry, by another process after
a crash, or by the next job on the same disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from vsa.azure.budget import cleaning
from vsa.azure.grants import end_access
from vsa.azure.marks import FoundSnapshot
from vsa.azure.snapshots import snapshots_of
from vsa.azure.staging import FoundStaging, StagingBlobs, staging_url
from vsa.errors import MediaConflict, MediaUnusable, RunStopped, TryAgainLater, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.media.entries import DoomEntry
from vsa.media.media import Media
from vsa.model import DiskKind, Intent, SnapshotName, SourceDisk
from vsa.stop import Stop, again, waiting
from vsa.transfer.departures import Departures
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.liveness import has_ended
from vsa.transfer.owned import (
    Excess,
    excess_of,
    excess_things,
    is_over,
    ours_of,
    require_witnessed,
    staging_of,
    staging_thing,
)
from vsa.transfer.pending import Leftover, Price, pending_text


@dataclass(frozen=True)
class Kept:
    """What keeps a disk from being clear: looks that failed, and removals that were refused."""

    unseen: list[VsaError] = field(default_factory=list)
    refused: list[VsaError] = field(default_factory=list)

    @property
    def errors(self) -> list[VsaError]:
        """All of it; what needs nothing but time comes last."""
        return sorted([*self.unseen, *self.refused], key=lambda error: isinstance(error, TryAgainLater))


@dataclass(frozen=True)
class ReleasedJob:
    """The runs that a job had begun, and in words what of them is still there and why."""

    intents: tuple[Intent, ...] = ()
    pending: tuple[str, ...] = ()


Clear = Callable[[SourceDisk, RunEnvironment], Kept]
"""Removes something of a disk, as much as will go."""

_log = logging.getLogger(__name__)


def release(
    run: str,
    disks: Sequence[SourceDisk],
    reason: str,
    env: RunEnvironment,
    *,
    with_rest: bool = True,
    in_use: Collection[str] = (),
) -> tuple[str, ...]:
    """Remove what a run leaves, and return in words what could not be removed; `with_rest`: and what of it
    is still there, its age and its cost. `in_use` as `clear_disk` has it.

    A run that has not committed is fenced first, so that a commit still on its way cannot name snapshots
    that are being deleted here. Where the media takes no fence, its snapshots stay and the rest goes.
    """
    departures = Departures()
    env = env.cleaning_up
    pending = _release(run, disks, reason, env, departures, with_rest=with_rest, in_use=in_use)
    return tuple(pending + _still_there(departures, env, with_rest=with_rest))


def _release(
    run: str,
    disks: Sequence[SourceDisk],
    reason: str,
    env: RunEnvironment,
    departures: Departures,
    *,
    with_rest: bool = True,
    in_use: Collection[str] = (),
) -> list[str]:
    """The same without a look at what is deleted, all of which is added to the departures."""
    pending: list[str] = []
    clear: Clear = partial(clear_disk, run=run, in_use=in_use, departures=departures)
    try:
        _fence_unless_over(run, reason, env.media)
    except VsaError as error:
        pending.append(f"cleanup pending for run {run}, whose snapshots stay until it can be fenced: {error}")
        clear = partial(_withdraw, run=run, departures=departures)
    for disk in disks:
        if refused := _clear_now(disk, env, clear=clear):
            pending.append(refused + (_rest_text(disk, env) if with_rest else ""))
    for message in pending:
        _log.error("%s", message)
    return pending


def release_disk(disk: SourceDisk, env: RunEnvironment, *, in_use: Collection[str]) -> tuple[str, ...]:
    """Remove what runs that are over have left of a disk; in words what could not be removed.
    `in_use` as `clear_disk` has it."""
    departures = Departures()
    env = env.cleaning_up
    clear = partial(clear_disk, in_use=in_use, departures=departures)
    refused = _clear_now(disk, env, clear=clear)
    if refused:
        _log.error("%s", refused)
    pending = [refused] if refused else []
    return tuple(pending + _still_there(departures, env, with_rest=False))


def _still_there(departures: Departures, env: RunEnvironment, *, with_rest: bool) -> list[str]:
    """What Azure said to have deleted and still shows, in words, a line for a disk."""
    pending: list[str] = []
    shown: dict[str, list[tuple[SourceDisk, VsaError]]] = {}
    for item, error in departures.still_there(env.stop):
        shown.setdefault(item.disk.key, []).append((item.disk, error))
    for (disk, first), *others in shown.values():
        text = pending_text(disk.name, first, *(error for _, error in others))
        pending.append(text + (_rest_text(disk, env) if with_rest else ""))
        _log.error("%s", pending[-1])
    return pending


def _fence_unless_over(run: str, reason: str, media: Media) -> None:
    if is_over(run, media.view()):
        return
    try:
        fence([run], reason, media)
    except MediaConflict:
        # Its commit may have come first.
        if not is_over(run, media.view()):
            raise
        return
    reached(FaultPoint.RUN_FENCED)


def _clear_now(disk: SourceDisk, env: RunEnvironment, *, clear: Clear) -> str:
    """Clear a disk, again while that may help, and say in words what is pending; empty if nothing is.

    The work's stop must not keep anything from being cleaned up; only the end of the time for it does.
    """
    env = env.cleaning_up
    return _pending(lambda: clear(disk, env), disk.name, env)


def _pending(clear: Callable[[], Kept], disk: str, env: RunEnvironment) -> str:
    """What is kept at last, in words."""
    try:
        errors = _tried(clear, stop=env.stop).errors
    except VsaError as error:
        errors = [error]
    return pending_text(disk, *errors) if errors else ""


def _tried(clear: Callable[[], Kept], *, stop: Stop) -> Kept:
    """Clear, again while something needs nothing but time; what is kept at last."""
    kept = Kept()

    def once() -> None:
        nonlocal kept
        kept = Kept()
        kept = clear()
        for error in kept.errors:
            if isinstance(error, TryAgainLater):
                raise error

    try:
        with cleaning():
            again(once, stop=stop)
    except TryAgainLater:
        if not kept.errors:
            raise
    except RunStopped as error:
        # What Azure said of it tells a person what to do; that there was no time for more tells nothing.
        if not kept.errors:
            raise
        kept.refused.append(error)
    return kept


def release_bases(bases: Sequence[tuple[SnapshotName, SourceDisk]], env: RunEnvironment) -> list[str]:
    """End the access to bases and delete them; of each in words what keeps it, empty if it is gone."""
    env = env.cleaning_up
    departures = Departures()
    refused = [_release_base(base, disk, env, departures) for base, disk in bases]
    shown = {(item.disk.key, item.what): error for item, error in departures.still_there(env.stop)}
    kept = [shown.get((disk.key, _title(base))) for base, disk in bases]
    return [
        text or (pending_text(disk.name, error) if error else "")
        for text, error, (_, disk) in zip(refused, kept, bases, strict=True)
    ]


def _release_base(base: SnapshotName, disk: SourceDisk, env: RunEnvironment, departures: Departures) -> str:
    excess = Excess(grant=True, snapshot=True)
    reached(FaultPoint.BASE_GIVEN_UP)
    pending = _pending(lambda: Kept(refused=_let_go(base, disk, excess, env, departures)), disk.name, env)
    reached(FaultPoint.BASE_RELEASED)
    return pending


def _rest_text(disk: SourceDisk, env: RunEnvironment) -> str:
    """What of ended runs is still there; empty if that cannot be found out either."""
    try:
        with cleaning(), waiting(env.stop.wait):
            texts = [item.text(env.now(), Price()) for item in _rest(disk, replace(env, job=None))]
    except VsaError:
        return ""
    return f"; still there: {', '.join(texts)}" if texts else ""


def _rest(disk: SourceDisk, env: RunEnvironment) -> Iterator[Leftover]:
    view = env.media.view()
    for item in ours_of(disk, env):
        if is_over(item.run, view):
            yield from excess_things(disk, item, view)
    for blob in staging_of(disk, env):
        if is_over(blob.run, view):
            yield staging_thing(disk, blob)


def release_job(job: str, env: RunEnvironment) -> ReleasedJob:
    """Release every run of a job that has ended: what hooks do after a cancellation or a crash."""
    intents: list[Intent] = []
    pending: list[str] = []
    view, unseen = env.media.view(), 0
    env, departures = env.cleaning_up, Departures()
    # Each as it is found: what the first of them left must not wait until all intents are read.
    for intent in intents_of_job(job, env.media):
        intents.append(intent)
        if env.last.is_set and is_over(intent.run, view):
            # It has cleaned up after itself, most likely. An open one is fenced all the same.
            unseen += 1
            continue
        pending += _release(intent.run, intent.disks, "the job was cancelled or crashed", env, departures)
    pending += _still_there(departures, env, with_rest=True)
    if unseen:
        pending.append(f"no time was left to look again at {unseen} runs that are over: a sweep does")
    return ReleasedJob(intents=tuple(intents), pending=tuple(pending))


def intents_of_job(job: str, media: Media) -> Iterator[Intent]:
    """What the runs of a job wrote before they began. Reads every intent: for the rare case alone, and once.

    The open ones come first, which leave the most: the others are all runs that the media ever saw.
    """
    view = media.view()
    begun = sorted(media.runs(), key=lambda run: is_over(run, view))
    return (intent for intent in _intents(begun, media) if intent.job == job)


def open_intents(media: Media) -> Iterator[Intent]:
    """The intents of runs that the log knows no end of."""
    view = media.view()
    return _intents((run for run in media.runs() if not is_over(run, view)), media)


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


def clear_disk(
    disk: SourceDisk,
    env: RunEnvironment,
    *,
    departures: Departures,
    run: str = "",
    in_use: Collection[str] = (),
) -> Kept:
    """Remove from Azure what this media made of the disk and nobody needs; what cannot be seen or will not go
    is returned, and keeps nothing else from going. `run`: after whom it is cleared, as `ours_of` has it. What
    Azure says to have deleted is added to the `departures`.

    Untouched are: snapshots that are not proven to be ours, the base that the log names, and what live runs
    own; on the disks that are `in_use` (keys) also access to that base. MediaDamaged, and nothing is
    removed, if a snapshot was made when the log was another or longer.
    """
    found: list[FoundSnapshot] = []
    staged: list[FoundStaging] = []
    kept = Kept()
    kept.unseen.extend(
        _refusals(
            [
                lambda: found.extend(ours_of(disk, env, run=run)),
                lambda: staged.extend(staging_of(disk, env)),
            ]
        )
    )
    require_witnessed(found, disk, env.media)
    reached(FaultPoint.LEFTOVERS_LISTED)
    try:
        _fence_dead({*(blob.run for blob in staged), *(item.run for item in found)}, env)
    except (MediaUnusable, TryAgainLater) as error:
        kept.refused.append(error)
    view = env.media.view()
    reached(FaultPoint.DEAD_FENCED)
    for blob in staged:
        if is_over(blob.run, view):
            kept.refused.extend(_unstaged(disk, blob.url, env, departures))
    for item in found:
        if is_over(item.run, view):
            excess = excess_of(disk, item, view, in_use)
            kept.refused.extend(_clear_snapshot(disk, item, excess, env, departures))
    return kept


def _refusals(steps: Iterable[Callable[[], None]]) -> list[VsaError]:
    """Take all of the steps, and say which failed: a lock on one thing must not keep the access to another
    one open, nor may one that is busy for long."""
    refused: list[VsaError] = []
    for step in steps:
        try:
            step()
        except VsaError as error:
            refused.append(error)
    return refused


def make_room(disk: SourceDisk, env: RunEnvironment) -> None:
    """Clear the disk before its snapshots are read; what will not go is logged, and tried again when the run
    is released, which says so.

    MediaDamaged as `clear_disk` has it; raises what keeps it from being looked at.
    """
    # What is still shown of it the release of the run finds, which looks for all that was there by name.
    kept = _tried(lambda: clear_disk(disk, env, departures=Departures()), stop=env.stop)
    for refusal in kept.refused:
        _log.warning("%s", pending_text(disk.name, refusal))
    env.stop.check()
    if kept.unseen:
        raise kept.unseen[0]


def _clear_snapshot(
    disk: SourceDisk, item: FoundSnapshot, excess: Excess, env: RunEnvironment, departures: Departures
) -> list[VsaError]:
    refused = _let_go(item.name, disk, excess, env, departures)
    if excess.snapshot and not refused:
        _log.info("disk %s: snapshot of run %s deleted", disk.name, item.run)
    return refused


def _let_go(
    name: SnapshotName, disk: SourceDisk, excess: Excess, env: RunEnvironment, departures: Departures
) -> list[VsaError]:
    """Remove what is too much of a snapshot; what refuses. Access ends with what it is access to."""
    snapshots = snapshots_of(env.connection, name.kind)

    def end() -> None:
        end_access(env.connection, name, env.stop)
        reached(FaultPoint.ACCESS_ENDED)

    def delete() -> None:
        snapshots.delete(name, env.stop)
        departures.add(disk, _title(name), partial(snapshots.is_shown, name))
        reached(FaultPoint.SNAPSHOT_DELETED)

    refused = _refusals([end] if excess.grant else [])
    if not excess.snapshot:
        return refused
    kept = _refusals([delete])
    return [*refused, *kept] if kept else []


def _title(name: SnapshotName) -> str:
    id_name = name.id.rsplit("/", 1)[-1]
    return f"snapshot {name.moment} of {id_name}" if name.moment else f"snapshot {id_name}"


def _unstaged(disk: SourceDisk, url: str, env: RunEnvironment, departures: Departures) -> list[VsaError]:
    """Delete a staging blob; what refuses."""
    blobs = StagingBlobs(env.connection)

    def delete() -> None:
        blobs.delete(url)
        departures.add(disk, f"staging blob {url}", partial(blobs.is_shown, url))

    return _refusals([delete])


def _withdraw(disk: SourceDisk, env: RunEnvironment, *, run: str, departures: Departures) -> Kept:
    """Give back what no commit can need: the run's grants and its staging blob."""
    kept = Kept()
    if disk.kind is DiskKind.UNMANAGED_PREMIUM:
        kept.refused.extend(_unstaged(disk, staging_url(disk, run), env, departures))
    found: list[FoundSnapshot] = []
    kept.unseen.extend(_refusals([lambda: found.extend(ours_of(disk, env, run=run))]))
    granted = (item for item in found if item.run == run and item.granted)
    kept.refused.extend(
        _refusals(partial(end_access, env.connection, item.name, env.stop) for item in granted)
    )
    return kept


def _fence_dead(runs: Iterable[str], env: RunEnvironment) -> None:
    """Fence those of the runs that are open and whose process is known to have ended."""
    view = env.media.view()
    intents = _intents((run for run in runs if not is_over(run, view)), env.media)
    dead = sorted(intent.run for intent in intents if has_ended(intent.process))
    if dead:
        fence(dead, "the process of the run has ended", env.media)


def fence(runs: Sequence[str], reason: str, media: Media) -> None:
    """Say in the log that these runs may no longer commit."""
    media.append(DoomEntry(runs=tuple(runs), reason=reason))
