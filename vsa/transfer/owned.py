"""What in Azure is this media's, and what of it nobody needs.

What may stay is said by the log alone: the base that it names for a disk, and whatever belongs to a run that
is neither committed nor fenced. Everything else that carries this media's marks goes, and what lost its marks
and is named by the intent or the point of its run.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from vsa.azure.marks import FoundSnapshot
from vsa.azure.snapshots import snapshots_of
from vsa.azure.staging import FoundStaging, StagingBlobs
from vsa.errors import BadRequest, MediaDamaged
from vsa.media import layout
from vsa.media.media import Media
from vsa.media.view import View
from vsa.media.witness import Witness
from vsa.model import DiskBackup, DiskKind, Intent, SourceDisk
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.pending import Leftover, Thing

_log = logging.getLogger(__name__)


def ours_of(disk: SourceDisk, env: RunEnvironment, *, run: str = "") -> list[FoundSnapshot]:
    """The disk's snapshots that are this media's.

    In the environment of a job: those that were there when it began, and what `run` has made since, or runs
    that have committed since. The base that the log named then is asked for by its name, too, since lists
    may lack a thing for a while. What others have left since, the next job finds: a list for every disk of
    the job would cost the square of their number.
    """
    snapshots, job = snapshots_of(env.connection, disk.kind), env.job
    if job is None or not run:
        since = job.moment if job else None
        found = [item for _, item in snapshots.ours_of([disk], env.media.id, stop=env.stop, since=since)]
    else:
        view = env.media.view()
        later = {view.points[slot].run for slot in view.points_of_disk(disk.key) if slot >= job.head}
        before = job.base_runs(disk.key)
        found = snapshots.left_by(disk, env.media.id, {run, *before, *later}, stop=env.stop, since=job.moment)
    return [item for item in found if is_proven(disk, item, env.media)]


def is_proven(disk: SourceDisk, item: FoundSnapshot, media: Media) -> bool:
    """Whether a snapshot by our name is ours: by its marks or, where somebody removed them, because the
    intent or the recovery point of its run names it and the very disk that it is of."""
    if item.marked:
        return True
    recorded = _recorded(disk, item, media.view())
    if recorded and recorded.snapshot.source_unique_id == item.source_unique_id:
        return True
    intent = intent_of(item.run, media)
    if intent is None:
        return False
    named = f"{disk.resource_group}/{item.title}".lower() in {name.lower() for name in intent.snapshots}
    meant = {(meant.key, meant.unique_id) for meant in intent.disks}
    return named and (disk.key, item.source_unique_id) in meant


def intent_of(run: str, media: Media) -> Intent | None:
    """What a run that is named somewhere in Azure intended; None if that is no run's name, or if it has no
    intent here that can be trusted."""
    if not layout.is_run(run):
        return None
    try:
        return media.intent(run)
    except MediaDamaged as error:
        _log.warning("what run %s left cannot be told by its intent: %s", run, error)
        return None


class Witnesses:
    """Whether the media knows what snapshots' marks say of it.

    The log is asked for each mark once: those that one job made have the same, and a sweep sees thousands.
    """

    def __init__(self, media: Media) -> None:
        self._media = media
        self._refused: dict[str, MediaDamaged | None] = {}

    def doubt(self, disk: SourceDisk, item: FoundSnapshot) -> str:
        """Why the media may be an older state of what made the snapshot, in words; empty if it is not."""
        if item.witness not in self._refused:
            self._refused[item.witness] = self._ask(item.witness)
        refused = self._refused[item.witness]
        if refused is None:
            return ""
        return (
            f"disk {disk.name}: snapshot {item.title} knows more than the media: {refused}. "
            "If the media was put back on purpose, delete that snapshot"
        )

    def _ask(self, mark: str) -> MediaDamaged | None:
        try:
            self._media.require_witness(Witness.parse(mark))
        except BadRequest:
            # No mark, of an older version or of a log that was empty; or somebody's own text.
            return None
        except MediaDamaged as error:
            return error
        return None


def require_witnessed(found: Sequence[FoundSnapshot], disk: SourceDisk, media: Media) -> None:
    """A log that was put back knows nothing of such snapshots, which may be bases of lost points."""
    witnesses = Witnesses(media)
    for item in found:
        if doubt := witnesses.doubt(disk, item):
            raise MediaDamaged(doubt)


@dataclass(frozen=True)
class Excess:
    """What of a snapshot nobody needs, once its run is over: the access to it, or the whole of it."""

    grant: bool = False
    snapshot: bool = False


def excess_of(disk: SourceDisk, item: FoundSnapshot, view: View, in_use: Collection[str] = ()) -> Excess:
    """What must go of a snapshot with our marks whose run is over, or is about to be fenced.

    On the disks that are `in_use` (keys) access to the base stays: a live run may have asked for it.
    """
    if told := claim_of(disk, item, view):
        _log.warning("%s", told)
        return Excess()
    base = view.base_of(disk.key)
    is_base = base is not None and base[1].is_same(item.name)
    is_read = is_base and disk.key in in_use
    return Excess(grant=item.granted and not is_read, snapshot=not is_base)


def claim_of(disk: SourceDisk, item: FoundSnapshot, view: View) -> str:
    """Why a snapshot with our marks may be a user's own, in words; empty if it is ours."""
    if not item.inherited or _recorded(disk, item, view):
        return ""
    return (
        f"disk {disk.name}: snapshot {item.title} carries marks of run {item.run}, but was not made when "
        "they say, nor does a recovery point name it. If a snapshot of ours was copied over the disk it may "
        "be somebody's own, so it stays; delete it if nobody needs it"
    )


def excess_things(
    disk: SourceDisk, item: FoundSnapshot, view: View, in_use: Collection[str] = ()
) -> Iterator[Leftover]:
    """The same as things that are to go, each with its size."""
    excess = excess_of(disk, item, view, in_use)
    if excess.grant:
        yield Leftover(Thing.GRANT, item.title, disk, item.run, item.taken_at)
    if excess.snapshot:
        used = _used_by(disk, item, view)
        yield Leftover(Thing.SNAPSHOT, item.title, disk, item.run, item.taken_at, item.size, used)


def _used_by(disk: SourceDisk, item: FoundSnapshot, view: View) -> int | None:
    """How many bytes a snapshot holds at most, as its recovery point saw it; None if it has none."""
    recorded = _recorded(disk, item, view)
    return recorded.figures.allocated if recorded else None


def _recorded(disk: SourceDisk, item: FoundSnapshot, view: View) -> DiskBackup | None:
    """The backup that was made from this very snapshot, if its recovery point has not been given up."""
    made = view.points.get(view.committed.get(item.run, -1))
    backups = made.point.disks if made else ()
    return next((b for b in backups if b.disk.key == disk.key and b.snapshot.is_same(item.name)), None)


def staging_of(disk: SourceDisk, env: RunEnvironment) -> list[FoundStaging]:
    """The staging blobs of the disk that are this media's and still there; without their marks only those
    that the intent of their run names."""
    if disk.kind is not DiskKind.UNMANAGED_PREMIUM:
        return []
    found = StagingBlobs(env.connection).of_disk(disk, env.media.id)
    return [item for item in found if item.marked or _is_intended(item, env.media)]


def staging_thing(disk: SourceDisk, blob: FoundStaging) -> Leftover:
    """A staging blob as a thing that is to go."""
    return Leftover(Thing.STAGING_BLOB, blob.url, disk, blob.run, blob.made_at, blob.size)


def _is_intended(item: FoundStaging, media: Media) -> bool:
    intent = intent_of(item.run, media)
    return intent is not None and item.url in intent.staging_blobs


def is_over(run: str, view: View) -> bool:
    """Whether the log knows the run's end: it has committed, or it never may."""
    return run in view.committed or run in view.fenced
