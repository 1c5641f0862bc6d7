"""What runs leave in Azure, found and removed: snapshots, access grants, staging blobs.

What that is, `vsa/transfer/owned.py` says. Any of this may be repeated, by a retry, by another process after
a crash, or by the next job on the same disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from vsa.azure.budget import cleaning
from vsa.azure.grants import end_access, title
from vsa.azure.marks import FoundSnapshot
from vsa.azure.snapshots import snapshots_of
from vsa.azure.staging import FoundStaging, StagingBlobs, staging_url
from vsa.errors import MediaUnusable, RunStopped, TryAgainLater, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.media.entries import DoomEntry
from vsa.media.media import Media
from vsa.model import DiskKind, Intent, SnapshotName, SourceDisk
from vsa.stop import Stop, again
from vsa.transfer.departures import Departures
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.liveness import has_ended
from vsa.transfer.owned import Excess, excess_of, is_over, ours_of, require_witnessed, staging_of
from vsa.transfer.pending import pending_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What keeps a disk from being clear: looks that failed, and removals that were refused."""

    unseen: list[VsaError] = field(default_factory=list)
    refused: list[VsaError] = field(default_factory=list)

    @property
    def errors(self) -> list[VsaError]:
        """All of it; what needs nothing but time comes last."""
        return sorted([*self.unseen, *self.refused], key=lambda error: isinstance(error, TryAgainLater))


def tried(clear: Callable[[], Kept], *, stop: Stop) -> Kept:
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


def make_room(disk: SourceDisk, env: RunEnvironment) -> None:
    """Clear the disk before its snapshots are read; what will not go is logged, and tried again when the run
    is released, which says so.

    MediaDamaged as `clear_disk` has it; raises what keeps it from being looked at.
    """
    # What is still shown of it the release of the run finds, which looks for all that was there by name.
    kept = tried(lambda: clear_disk(disk, env, departures=Departures()), stop=env.stop)
    for refusal in kept.refused:
        _log.warning("%s", pending_text(disk.name, refusal))
    env.stop.check()
    if kept.unseen:
        raise kept.unseen[0]


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


def _clear_snapshot(
    disk: SourceDisk, item: FoundSnapshot, excess: Excess, env: RunEnvironment, departures: Departures
) -> list[VsaError]:
    refused = let_go(item.name, disk, excess, env, departures)
    if excess.snapshot and not refused:
        _log.info("disk %s: snapshot of run %s deleted", disk.name, item.run)
    return refused


def let_go(
    name: SnapshotName, disk: SourceDisk, excess: Excess, env: RunEnvironment, departures: Departures
) -> list[VsaError]:
    """Remove what is too much of a snapshot; what refuses. Access ends with what it is access to."""
    snapshots = snapshots_of(env.connection, name.kind)

    def end() -> None:
        end_access(env.connection, name, env.stop)
        reached(FaultPoint.ACCESS_ENDED)

    def delete() -> None:
        snapshots.delete(name, env.stop)
        departures.add(disk, title(name), partial(snapshots.is_shown, name))
        reached(FaultPoint.SNAPSHOT_DELETED)

    refused = _refusals([end] if excess.grant else [])
    if not excess.snapshot:
        return refused
    kept = _refusals([delete])
    return [*refused, *kept] if kept else []


def _unstaged(disk: SourceDisk, url: str, env: RunEnvironment, departures: Departures) -> list[VsaError]:
    """Delete a staging blob; what refuses."""
    blobs = StagingBlobs(env.connection)

    def delete() -> None:
        blobs.delete(url)
        departures.add(disk, f"staging blob {url}", partial(blobs.is_shown, url))

    return _refusals([delete])


def withdraw(disk: SourceDisk, env: RunEnvironment, *, run: str, departures: Departures) -> Kept:
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
    """The intents that can be read; one that cannot must not keep the others from being cleaned up.

    RunStopped if one that cannot be read now is met when no time is left to ask for it again.
    """
    for run in runs:
        try:
            intent = media.intent(run)
        except RunStopped:
            raise
        except VsaError as error:
            _log.error("what run %s left cannot be found by its intent: %s", run, error)
            continue
        if intent is not None:
            yield intent
