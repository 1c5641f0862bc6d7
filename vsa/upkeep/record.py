"""Damage into the log, so that nothing new refers to it and the next backup reads those extents again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from vsa.media.entries import Damaged, DamageEntry, Harm
from vsa.media.media import Media
from vsa.media.view import WHOLE, View
from vsa.upkeep.harm import joined
from vsa.upkeep.report import Finding, VerifyReport

_NUMBERS = 500_000
"""Slots, bounds of ranges and offsets in the harm of one entry, of at most fifteen bytes each: a document has
at most 16 MiB. What harms more takes more entries."""

_POINTS = 100_000
_RANGES = 50_000
"""Of one harm in one entry."""


def record_damage(media: Media, report: VerifyReport) -> tuple[int, ...]:
    """Commit a damage entry for each object that is damaged and belongs in the log; the slots of what was
    news.

    `media` is open for writing.
    """
    slots = [
        media.append_planned(partial(_news, entry))
        for finding in report.for_the_log
        for entry in damage_entries(finding)
    ]
    return tuple(slot for slot in slots if slot is not None)


def damage_entries(finding: Finding) -> Iterator[DamageEntry]:
    """What the log is to say of one object."""
    damaged = Damaged(name=finding.name, offsets=finding.offsets)
    for harm in _portions(finding.harm) or [[]]:
        yield DamageEntry(objects=(damaged,), harm=tuple(harm), reason=finding.reason)


def _portions(harm: Iterable[Harm]) -> list[list[Harm]]:
    portions: list[list[Harm]] = []
    held = 0
    for item in (part for whole in harm for part in _cut(whole)):
        if not portions or held + _numbers_in(item) > _NUMBERS:
            portions.append([])
            held = 0
        portions[-1].append(item)
        held += _numbers_in(item)
    return portions


def _numbers_in(harm: Harm) -> int:
    """How many numbers it takes; what else it is made of counts as eight."""
    return 8 + len(harm.points) + 2 * len(harm.ranges) + len(harm.offsets)


def _cut(harm: Harm) -> Iterator[Harm]:
    for first in range(0, len(harm.ranges), _RANGES):
        part = slice(first, first + _RANGES)
        some = {"ranges": harm.ranges[part], "offsets": harm.offsets[part]}
        for slot in range(0, len(harm.points), _POINTS):
            yield harm.model_copy(update={**some, "points": harm.points[slot : slot + _POINTS]})


def _news(entry: DamageEntry, view: View) -> DamageEntry | None:
    """What of the entry the log does not say yet; None if that is nothing."""
    (damaged,) = entry.objects
    if damaged.name in view.doomed:
        return None
    harm = tuple(_of_points(entry.harm, view))
    if _is_known(damaged, view) and all(_is_told(item, damaged.name, view) for item in harm):
        return None
    return entry.model_copy(update={"harm": harm})


def _of_points(harm: Iterable[Harm], view: View) -> Iterator[Harm]:
    """Without points that have been given up since."""
    for item in harm:
        if points := tuple(slot for slot in item.points if slot in view.points):
            yield item.model_copy(update={"points": points})


def _is_known(damaged: Damaged, view: View) -> bool:
    known = view.damaged.get(damaged.name)
    if known is None or not damaged.offsets:
        return known == WHOLE
    return known == WHOLE or known.issuperset(damaged.offsets)


def _is_told(harm: Harm, name: str, view: View) -> bool:
    """Whether the log says already that all these points have lost all these bytes by that object."""
    return all(_covers(_told(slot, harm.disk_key, name, view), harm.ranges) for slot in harm.points)


def _told(slot: int, disk_key: str, name: str, view: View) -> tuple[tuple[int, int], ...]:
    return joined(
        told
        for damage in view.damages
        if name in {item.name for item in damage.entry.objects}
        for harm in damage.entry.harm
        if slot in harm.points and harm.disk_key == disk_key
        for told in harm.ranges
    )


def _covers(told: tuple[tuple[int, int], ...], ranges: Iterable[tuple[int, int]]) -> bool:
    return joined((*told, *ranges)) == told
