"""The audit: reading some extents that need not be read, to catch a change list that lies.

Every job reads at least `minimum` extents or `share` of those it could skip, extents of zeros included.
Half are drawn at random; the others rotate, as many as it takes to see every skipped extent within `cycle`
jobs.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from math import ceil

import numpy as np

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

    `turn` counts the disk's jobs and moves the rotating part.
    """
    skipped = [_skipped(plan, segment) for segment in range(plan.segments)]
    total = sum(skipped)
    count = min(total, max(policy.minimum, ceil(total * policy.share)))
    rotating = min(total, max(count // 2, ceil(total / policy.cycle)))
    chosen = {(turn * rotating + step) % total for step in range(rotating)}
    wanted = min(total, rotating + count - count // 2)
    while len(chosen) < wanted:
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
