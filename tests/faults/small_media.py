"""A small media with a history, and the upkeep that is due on it: forgetting, pruning, repacking."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.media.making import NOW, a_disk, an_intent, back_up, new_media, noise, read_point
from tests.media.moving import copied, moved, packs_of, places_in
from vsa.errors import PointGone
from vsa.media.entries import Damaged, DamageEntry
from vsa.media.index import Offer
from vsa.media.media import Media
from vsa.media.sharing import Sharing
from vsa.media.store import Store
from vsa.model import ProcessName, SourceDisk
from vsa.transfer.liveness import has_ended, this_process
from vsa.upkeep.forgetting import Limits, forget, named, plan_forgetting
from vsa.upkeep.prune import PruneReport, carry_out, plan_prune

LATER = dt.datetime.now(dt.UTC) + dt.timedelta(days=30)
"""When upkeep is done: every point is older than any grace."""

GONE = 5
"""The slot of the point in `grown_media` which nobody shares anything with."""

Contents = dict[int, bytes]


def grown_media(folder: Path, scratch: Path) -> dict[str, Contents]:
    """Four points of one disk, packs half empty, one of another, and one of a disk that has gone, which has
    its index and its pack for itself; what each run's point holds.

    All but the other one's is offered to whoever stores the same, and that one has some of it once more.
    """
    media = new_media(folder)
    sharing = media.sharing(Offer.MEDIA)
    held: dict[str, Contents] = {}
    contents: Contents = {}
    slot: int | None = None
    for number in range(4):
        # Each change replaces most of the one before, so that old packs have little left to hold.
        changes = {at: noise((number, at)) for at in range(number, number + 8)}
        slot = grow(media, f"r{number}", a_disk(), changes, scratch=scratch, parent=slot, sharing=sharing)
        contents = contents | changes
        held[f"r{number}"] = contents
    other = {at: noise((3, at)) for at in range(3, 6)}
    grow(media, "other", a_disk("data"), other, scratch=scratch)
    gone = {at: noise(("gone", at)) for at in range(4)}
    assert grow(media, "gone", a_disk("gone"), gone, scratch=scratch, sharing=sharing) == GONE
    return held | {"other": other, "gone": gone}


def healed_media(folder: Path, scratch: Path) -> dict[str, Contents]:
    """Three points of one disk. A frame of the first went bad and was healed by the second; the third has
    other bytes there, so that with the second nobody but the first needs what healed it."""
    media = new_media(folder)
    first = {at: noise(("first", at)) for at in range(8)}
    slot = grow(media, "r0", a_disk(), first, scratch=scratch)
    (path,) = packs_of(folder, "r0")
    bad = places_in(media, path)[:1]
    ((ref, frame),) = bad
    damage = (Damaged(name=ref.name, offsets=(frame.offset,)),)
    media.append(DamageEntry(objects=damage, reason="a flipped bit"))
    media.begin_run(an_intent("healer"))
    new = copied(media, bad, run="healer")
    entry = moved(media, bad, new, run="healer")
    media.append(entry.model_copy(update={"healed": damage}), run="healer")
    second = first | {5: noise("second")}
    slot = grow(media, "r1", a_disk(), {5: second[5]}, scratch=scratch, parent=slot)
    third = second | {at: noise(("third", at)) for at in (0, 1, 5)}
    grow(media, "r2", a_disk(), {at: third[at] for at in (0, 1, 5)}, scratch=scratch, parent=slot)
    return {"r0": first, "r1": second, "r2": third}


def grow(
    media: Media,
    run: str,
    disk: SourceDisk,
    changes: Contents,
    *,
    scratch: Path,
    parent: int | None = None,
    started_at: dt.datetime = NOW,
    absorbs: bool = False,
    sharing: Sharing | None = None,
) -> int:
    """One more point, on the point `parent` of the same disk. A prune judges by its start if it lives.
    `absorbs`: its index takes over older ones where a job's would.

    PointGone if that point has been pruned since the caller saw it.
    """
    base = ()
    if parent is not None:
        made = media.view().points.get(parent)
        if made is None:
            raise PointGone(f"recovery point {parent} has been pruned")
        base = made.point.disks[0].indexes
    return back_up(
        media,
        changes,
        run=run,
        scratch=scratch,
        disk=disk,
        base=base,
        parent=parent,
        started_at=started_at,
        absorbs=absorbs,
        sharing=sharing,
    )


def forget_points(media: Media, *slots: int) -> None:
    """Forget those of the points that are there and wanted."""
    view = media.view()
    wanted = [slot for slot in slots if slot in view.points and slot not in view.forgotten]
    if wanted:
        plan = plan_forgetting(media, named(wanted), now=LATER, limits=Limits(override_share=True))
        forget(media, plan, now=LATER)


def prune(
    media: Media,
    *,
    threshold: float = 0.6,
    now: dt.datetime = LATER,
    process: ProcessName | None = None,
) -> PruneReport:
    """A prune without grace: safety must not come from clocks. By its `now` it judges whether runs live."""
    with tempfile.TemporaryDirectory() as scratch:
        plan = plan_prune(
            media,
            now=now,
            scratch=Path(scratch),
            grace=dt.timedelta(0),
            threshold=threshold,
            has_ended=has_ended,
            trust_clock=True,
        )
        return carry_out(plan, process=process or this_process(), random=os.urandom)


def upkeep(store: Store, points: Sequence[int] = (0, 1, GONE)) -> None:
    """What is due, with a checkpoint before the prune and one after it: here each entry is worth one."""
    media = Media(store, write=True)
    forget_points(media, *points)
    media.checkpoint_if_due(every=1)
    prune(media)
    media.checkpoint_if_due(every=1)


def require_all_points(media: Media, held: dict[str, Contents]) -> None:
    """Every point that was not given up, forgotten or not, holds what its run stored."""
    for slot, made in media.view().points.items():
        assert read_point(media, slot) == held[made.run], f"the point of {made.run} in slot {slot}"
