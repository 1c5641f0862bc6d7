"""Which recovery points a policy keeps. Pure: the same points and policy give the same answer, with reasons.

Recency is the order of the log, never a clock. Time only says to which day, week, month or year a point
belongs, in UTC, and it never goes back: a point whose time lies before that of an earlier point belongs
where that one does. So a point that comes later, whatever time it claims, cannot take the place of one that
is there, and forgetting what was not kept changes nothing about what is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import Field

from vsa.model import Noun

Period = Callable[[dt.datetime], object]


class Retention(Noun):
    """How many recovery points of a VM are kept, and how far apart. A point that any rule keeps is kept."""

    keep_last: int = Field(default=1, ge=1, description="The newest points, however close together they are.")
    daily: int = Field(
        default=0,
        ge=0,
        description="Days, counted back from the newest with a point: the first point of each.",
    )
    weekly: int = Field(
        default=0, ge=0, description="The same for weeks, which begin on Monday; all times are UTC."
    )
    monthly: int = Field(default=0, ge=0, description="The same for months.")
    yearly: int = Field(default=0, ge=0, description="The same for years.")

    def __str__(self) -> str:
        stated = self.model_dump()
        return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in stated.items() if count)


@dataclass(frozen=True, slots=True)
class MadePoint:
    """A point as retention sees it: its log slot, and the time of its first snapshot."""

    slot: int
    taken_at: dt.datetime


def select(retention: Retention, points: Sequence[MadePoint]) -> Mapping[int, str]:
    """The slots that the policy keeps, each with its reason; `points` are one client's, in any order."""
    in_order = sorted(points, key=lambda made: made.slot)
    kept: dict[int, list[str]] = {}
    for slot, reason in _reasons(retention, in_order):
        kept.setdefault(slot, []).append(reason)
    return {slot: ", ".join(reasons) for slot, reasons in kept.items()}


def _reasons(retention: Retention, points: Sequence[MadePoint]) -> Iterator[tuple[int, str]]:
    for made in points[-retention.keep_last :]:
        yield made.slot, f"one of the last {retention.keep_last}"
    for name, count, period in (
        ("day", retention.daily, _day),
        ("week", retention.weekly, _week),
        ("month", retention.monthly, _month),
        ("year", retention.yearly, _year),
    ):
        for slot in _firsts(points, period)[-count:] if count else []:
            yield slot, f"first of its {name}"


def _firsts(points: Sequence[MadePoint], period: Period) -> list[int]:
    """The point that begins each period, in log order."""
    times = list(_never_back(points))
    begun = [after.slot for (_, before), (after, now) in pairwise(times) if period(before) != period(now)]
    return [points[0].slot, *begun] if points else []


def _never_back(points: Sequence[MadePoint]) -> Iterator[tuple[MadePoint, dt.datetime]]:
    latest = dt.datetime.min.replace(tzinfo=dt.UTC)
    for made in points:
        latest = max(latest, made.taken_at.astimezone(dt.UTC))
        yield made, latest


def _day(time: dt.datetime) -> object:
    return time.date()


def _week(time: dt.datetime) -> object:
    return time.isocalendar()[:2]


def _month(time: dt.datetime) -> object:
    return time.year, time.month


def _year(time: dt.datetime) -> object:
    return time.year
