"""The audit: reading some extents that need not be read, to catch a change list that lies.

Every job reads at least `minimum` extents or `share` of those it could skip, extents of zeros included.
Half are drawn at random, half rotate: with the defaults each skipped extent is seen within 2,000 jobs.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from itertools import accumulate
from math import ceil

import numpy as np

from vsa.transfer.reads import READ, ReadPlan

DEFAULT_MINIMUM = 16
DEFAULT_SHARE = 0.001


def choose_audit(
    plan: ReadPlan, *, minimum: int, share: float, turn: int, rng: random.Random
) -> dict[int, list[int]]:
    """Positions to audit for each segment, ascending, among the extents that the plan does not read.

    `turn` counts the disk's jobs and moves the rotating half.
    """
    skipped = [_skipped(plan, segment) for segment in range(plan.segments)]
    total = sum(skipped)
    count = min(total, max(minimum, ceil(total * share)))
    rotating = count // 2
    chosen = {(turn * max(rotating, 1) + step) % total for step in range(rotating)}
    while len(chosen) < count:
        chosen.add(rng.randrange(total))
    return _by_segment(plan, skipped, sorted(chosen))


def _skipped(plan: ReadPlan, segment: int) -> int:
    marks = plan.marks(segment)
    length = plan.segment_length(segment)
    return length if marks is None else length - int(np.count_nonzero(marks == READ))


def _by_segment(plan: ReadPlan, skipped: list[int], ordinals: list[int]) -> dict[int, list[int]]:
    """Numbers counted over all skipped extents, turned into positions within their segments."""
    ends = list(accumulate(skipped))
    chosen: dict[int, list[int]] = {}
    positions: dict[int, np.ndarray[tuple[int], np.dtype[np.intp]]] = {}
    for ordinal in ordinals:
        segment = bisect_right(ends, ordinal)
        within = ordinal - (ends[segment] - skipped[segment])
        marks = plan.marks(segment)
        if marks is not None:
            if segment not in positions:
                positions[segment] = np.flatnonzero(marks != READ)
            within = int(positions[segment][within])
        chosen.setdefault(segment, []).append(within)
    return chosen
