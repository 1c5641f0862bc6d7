"""The audit: reading some extents that need not be read, to catch a change list that lies.

Every job reads at least `minimum` extents or `share` of those it could skip, extents of zeros included.
Half are drawn at random; for the others a window moves over the disk, so wide that every extent is read or
audited within `cycle` jobs.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from vsa.media.layout import SEGMENT
from vsa.transfer.reads import READ, ReadPlan

Extents = npt.NDArray[np.int64]
"""Numbers of extents, or places in an order of them."""


@dataclass(frozen=True)
class AuditPolicy:
    """How much to audit: `minimum` extents, `share` of the skipped, all of them within `cycle` jobs."""

    minimum: int = 16
    share: float = 0.001
    cycle: int = 2000


def choose_audit(
    plan: ReadPlan, policy: AuditPolicy, *, turn: int, rng: random.Random
) -> dict[int, array[int]]:
    """Positions to audit for each segment, ascending, among the extents that the plan does not read.

    `turn` counts the disk's jobs and moves the window.
    """
    skipped = _Skipped(plan)
    count = max(policy.minimum, ceil(len(skipped) * policy.share))
    window = _window(plan, policy, turn)
    due = window[skipped.holds(window)]
    wanted = min(len(skipped), max(count, len(due) + count - count // 2))
    # As many as are wanted, whatever the window has of them already.
    drawn = skipped.extents(_drawn(len(skipped), wanted, rng))
    drawn = drawn[~np.isin(drawn, due)][: wanted - len(due)]
    chosen = np.sort(np.concatenate([due, drawn]))
    return {segment: array("H", _positions(chosen[part])) for segment, part in _parts(chosen // SEGMENT)}


def _positions(extents: Extents) -> bytes:
    """Two bytes for each, as SEGMENT allows: a large disk has half a million."""
    return (extents % SEGMENT).astype(np.uint16).tobytes()


def _window(plan: ReadPlan, policy: AuditPolicy, turn: int) -> Extents:
    """The extents whose turn it is.

    Width and place depend on the disk's size alone: were they counted in skipped extents, whose number is
    another one in each job, the window would jump, and could jump over an extent for ever.
    """
    width = min(plan.extents, max(policy.minimum // 2, ceil(plan.extents / policy.cycle)))
    return (turn * width % plan.extents + np.arange(width)) % plan.extents


def _drawn(count: int, wanted: int, rng: random.Random) -> Extents:
    """So many of the numbers below `count`, all different, in the order in which they were drawn."""
    if 4 * wanted > count:
        return np.array(rng.sample(range(count), wanted), np.int64)
    # Eight bytes are so many more than any count that none is drawn more often than another.
    drawn = np.empty(0, np.uint64)
    while len(drawn) < wanted:
        more = np.frombuffer(rng.randbytes(8 * (wanted - len(drawn))), np.uint64) % np.uint64(count)
        drawn = np.concatenate([drawn, more])
        _, first = np.unique(drawn, return_index=True)
        drawn = drawn[np.sort(first)]
    return drawn.astype(np.int64)


def _parts(segments: Extents) -> Iterator[tuple[int, slice]]:
    """Each of these segments, which ascend, and where it stands."""
    numbers = np.unique(segments)
    starts = np.searchsorted(segments, numbers).tolist()
    ends = np.searchsorted(segments, numbers, side="right").tolist()
    for number, start, end in zip(numbers.tolist(), starts, ends, strict=True):
        yield number, slice(start, end)


class _Skipped:
    """The extents that a plan does not read, in order, without a list of them."""

    def __init__(self, plan: ReadPlan) -> None:
        self._plan = plan
        self._ends = np.cumsum([self._count(segment) for segment in range(plan.segments)])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def holds(self, extents: Extents) -> npt.NDArray[np.bool_]:
        """Of each extent whether it is among them."""
        found, order = np.ones(len(extents), np.bool_), np.argsort(extents)
        for segment, part in _parts(extents[order] // SEGMENT):
            marks = self._plan.marks(segment)
            if marks is not None:
                found[order[part]] = marks[extents[order[part]] % SEGMENT] != READ
        return found

    def extents(self, ordinals: Extents) -> Extents:
        """The extents at these places of the order, each where its place is."""
        found, order = np.empty(len(ordinals), np.int64), np.argsort(ordinals)
        for segment, part in _parts(np.searchsorted(self._ends, ordinals[order], side="right")):
            within = ordinals[order[part]] - (self._ends[segment - 1] if segment else 0)
            marks = self._plan.marks(segment)
            positions = within if marks is None else np.flatnonzero(marks != READ)[within]
            found[order[part]] = segment * SEGMENT + positions
        return found

    def _count(self, segment: int) -> int:
        length = self._plan.segment_length(segment)
        marks = self._plan.marks(segment)
        return length if marks is None else length - int(np.count_nonzero(marks == READ))
