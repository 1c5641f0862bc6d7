"""What a sweep found, removed and left, as values and in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from vsa.model import SourceDisk
from vsa.text import age_text
from vsa.transfer.dead_runs import JudgedRun


class Thing(StrEnum):
    """What a run can leave in Azure."""

    SNAPSHOT = "snapshot"
    GRANT = "access grant"
    STAGING_BLOB = "staging blob"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing in Azure that nobody needs.

    `name` is the snapshot's (of a VHD: its moment) or the blob's URL; `since` is when it was made, as far as
    that is known.
    """

    thing: Thing
    name: str
    disk: SourceDisk
    run: str
    since: dt.datetime | None

    @property
    def identity(self) -> tuple[str, ...]:
        return self.thing, self.disk.key, self.name.lower()

    def text(self, now: dt.datetime) -> str:
        of = "to snapshot " if self.thing is Thing.GRANT else ""
        age = f", {age_of(self.since, now)} old" if self.since else ""
        return f"{self.thing} {of}{self.name} of disk {self.disk.name} (run {self.run}{age})"


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will do: fence `dead` and remove `leftovers`, of as many `disks` as it looked at.

    `troubles` are what could not be looked at, and things that somebody must look at, in words.
    """

    media: str
    subscription: str
    planned_at: dt.datetime
    dead: tuple[JudgedRun, ...]
    left_alone: tuple[JudgedRun, ...]
    leftovers: tuple[Leftover, ...]
    disks: int
    troubles: tuple[str, ...] = ()

    @property
    def other_disks(self) -> tuple[SourceDisk, ...]:
        """The disks with leftovers that the release of the dead runs does not clear."""
        cleared = {disk.key for run in self.dead for disk in run.intent.disks}
        others = {item.disk.key: item.disk for item in self.leftovers if item.disk.key not in cleared}
        return tuple(others.values())

    @property
    def given_up_jobs(self) -> tuple[str, ...]:
        """The jobs of dead runs that have no run which may go on: nobody waits for their streams."""
        going_on = {run.intent.job for run in self.left_alone}
        return tuple(sorted({run.intent.job for run in self.dead} - going_on))

    @property
    def attention(self) -> tuple[str, ...]:
        """What a person should look at."""
        asking = (run for run in self.left_alone if run.asks_for_somebody(self.planned_at))
        return (*self.troubles, *(run_text(run, self.planned_at) for run in asking))

    def text(self) -> str:
        """What would be done, for people."""
        return "\n".join(
            [
                f"{_found(self)}. Nothing was touched.",
                *_listed("would be fenced:", (run_text(run, self.planned_at) for run in self.dead)),
                *_listed("would be removed:", (item.text(self.planned_at) for item in self.leftovers)),
                *_listed("left alone:", (run_text(run, self.planned_at) for run in self.left_alone)),
                *_listed("needs attention:", self.attention),
            ]
        )


@dataclass(frozen=True)
class SweepReport:
    """What became of a plan. `remaining` is what is still there; `pending` says why, in words."""

    plan: SweepPlan
    ended_at: dt.datetime
    removed: tuple[Leftover, ...]
    remaining: tuple[Leftover, ...]
    pending: tuple[str, ...]

    @property
    def attention(self) -> tuple[str, ...]:
        """What a person should look at."""
        still = (f"still there: {item.text(self.ended_at)}" for item in self.remaining)
        return (*self.pending, *still, *self.plan.attention)

    def text(self) -> str:
        """What was done, for people."""
        return "\n".join(
            [
                f"{_found(self.plan)}; {len(self.removed)} removed.",
                *_listed("fenced:", (run_text(run, self.ended_at) for run in self.plan.dead)),
                *_listed("removed:", (item.text(self.ended_at) for item in self.removed)),
                *_listed("left alone:", (run_text(run, self.ended_at) for run in self.plan.left_alone)),
                *_listed("needs attention:", self.attention),
            ]
        )


def age_of(moment: dt.datetime, now: dt.datetime) -> str:
    """`47 hours`"""
    return age_text((now - moment).total_seconds())


def run_text(run: JudgedRun, now: dt.datetime) -> str:
    intent = run.intent
    return f"run {intent.run} of VM {intent.vm_name}, {age_of(intent.started_at, now)} old: {run.reason}"


def _found(plan: SweepPlan) -> str:
    runs, things = len(plan.dead), len(plan.leftovers)
    return f"{runs} dead runs and {things} leftovers on {plan.disks} disks"


def _listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from (f"{title} {line}" for line in lines)
