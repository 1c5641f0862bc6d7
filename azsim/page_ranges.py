"""Ranges of pages as the page store answers them, and its refusals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from azsim.page_slots import PAGE

WRITTEN, CLEARED = 1, 2
Acts = NDArray[np.uint8]
"""One number for each page: 0 for no act, WRITTEN or CLEARED."""


class PageError(Exception):
    """The page store refuses; nothing was changed."""


class UnknownImage(PageError):
    """No image or version has this id."""


class NotSameImage(PageError):
    """The two ends of a difference belong to different images."""


class GenerationMismatch(PageError):
    """The image was overwritten as a whole between the two ends of a difference."""


class OlderIsNewer(PageError):
    """The version given as the older end was frozen after the newer one."""


class Range(NamedTuple):
    """Bytes [start, end) of an image, all written or all cleared."""

    start: int
    end: int
    cleared: bool = False


def runs_of(acts: Acts, first_page: int) -> Iterator[Range]:
    """Maximal runs of equal acts as byte ranges; pages without an act are left out."""
    edges = np.concatenate([[0], np.flatnonzero(np.diff(acts)) + 1, [len(acts)]])
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end > begin and acts[begin]:
            start, stop = (first_page + begin) * PAGE, (first_page + end) * PAGE
            yield Range(start, stop, bool(acts[begin] == CLEARED))


def joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Make one of ranges that touch and are alike; they come in offset order."""
    pending: Range | None = None
    for found in ranges:
        if pending and pending.end == found.start and pending.cleared == found.cleared:
            pending = pending._replace(end=found.end)
            continue
        if pending:
            yield pending
        pending = found
    if pending:
        yield pending
