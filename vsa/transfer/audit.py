"""The audit: reading some extents that need not be read, to catch a change list that lies.

Every job reads at least `minimum` extents or `share` of those it could skip, extents of zeros included.
Half are drawn at random; for the others a window moves over the disk, so wide that every extent is read or
audited within `cycle` jobs.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, groupby, islice
from math import ceil

import numpy as np

from vsa.media.layout import SEGMENT
from vsa.transfer.reads import READ, ReadPlan


@dataclass(frozen=True)
class AuditPolicy:
    """How much to audit: `minimum` extents, `share` of the skipped, all of them within `cycle` jobs."""

    minimum: int = 16
    share: float = 0.001
    cycle: int = 2000


def choose_audit(
    plan: ReadPlan, policy: AuditPolicy, *, turn: int, rng: random.Random
) -> dict[int, list[int]]:
    """Positions to audit for each segment, ascending, among the extents that the plan does not read.

    `turn` counts the disk's jobs and moves the window.
    """
    skipped = _Skipped(plan)
    count = max(policy.minimum, ceil(len(skipped) * policy.share))
    chosen = {extent for extent in _window(plan, policy, turn) if extent in skipped}
    wanted = min(len(skipped), max(count, len(chosen) + count - count // 2))
    # As many as are wanted, whatever the window has of them already.
    drawn = skipped.extents(rng.sample(range(len(skipped)), wanted))
    rng.shuffle(drawn)
    chosen.update(islice((extent for extent in drawn if extent not in chosen), wanted - len(chosen)))
    by_segment: dict[int, list[int]] = {}
    for extent in sorted(chosen):
        by_segment.setdefault(extent // SEGMENT, []).append(extent % SEGMENT)
    return by_segment


def _window(plan: ReadPlan, policy: AuditPolicy, turn: int) -> Iterator[int]:
    """The extents whose turn it is.

    Width and place depend on the disk's size alone: were they counted in skipped extents, whose number is
    another one in each job, the window would jump, and could jump over an extent for ever.
    """
    width = min(plan.extents, max(policy.minimum // 2, ceil(plan.extents / policy.cycle)))
    for step in range(width):
        yield (turn * width + step) % plan.extents


class _Skipped:
    """The extents that a plan does not read, in order, without a list of them."""

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._ends = list(accumulate(self._count(segment) for segment in range(plan.segments)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __contains__(self, extent: int) -> bool:
        marks = self._plan.marks(extent // SEGMENT)
        return marks is None or bool(marks[extent % SEGMENT] != READ)

    def extents(self, ordinals: Iterable[int]) -> list[int]:
        """The extents at these places of the order, ascending."""
        found: list[int] = []
        for segment, items in groupby(sorted(ordinals), key=partial(bisect_right, self._ends)):
            first = self._ends[segment - 1] if segment else 0
            marks = self._plan.marks(segment)
            within = np.array([item - first for item in items])
            positions = within if marks is None else np.flatnonzero(marks != READ)[within]
            found += (segment * SEGMENT + positions).tolist()
        return found

    def _count(self, segment: int) -> int:
        length = self._plan.segment_length(segment)
        marks = self._plan.marks(segment)
        return length if marks is None else length - int(np.count_nonzero(marks == READ))
