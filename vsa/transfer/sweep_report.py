"""What a sweep found, removed and left, as values and in words."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vsa.model import SourceDisk
from vsa.transfer.dead_runs import JudgedRun
from vsa.transfer.pending import Leftover, Price, age_of, total_text


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will do: fence `dead` and remove `leftovers`, of as many `disks` as it looked at.

    `silent` runs have stopped giving signs of life; if a second look finds no other, they are dead, and
    `doubted` goes as well. After a second look there are none of either.
    `troubles` are what could not be looked at, and things that somebody must look at, in words; `notes` say
    under what the plan was made.
    """

    media: str
    subscription: str
    planned_at: dt.datetime
    dead: tuple[JudgedRun, ...]
    left_alone: tuple[JudgedRun, ...]
    leftovers: tuple[Leftover, ...]
    disks: int
    price: Price
    troubles: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    silent: tuple[JudgedRun, ...] = ()
    doubted: tuple[Leftover, ...] = ()

    @property
    def patience_seconds(self) -> float:
        """How long to wait for another sign of the silent runs: twice as long as one needs, and a minute for
        a writer that has many to give."""
        spacings = [run.sign.every_seconds for run in self.silent if run.sign]
        return 2.0 * max(spacings) + 60 if spacings else 0.0

    @property
    def other_disks(self) -> tuple[SourceDisk, ...]:
        """The disks with leftovers that the release of the dead runs does not clear."""
        cleared = {disk.key for run in self.dead for disk in run.intent.disks}
        others = {item.disk.key: item.disk for item in self.leftovers if item.disk.key not in cleared}
        return tuple(others.values())

    @property
    def in_use(self) -> frozenset[str]:
        """Keys of the disks of runs that may go on."""
        return frozenset(disk.key for run in (*self.left_alone, *self.silent) for disk in run.intent.disks)

    @property
    def given_up_jobs(self) -> tuple[str, ...]:
        """The jobs of dead runs that have no run which may go on: nobody waits for their streams."""
        going_on = {run.intent.job for run in (*self.left_alone, *self.silent)}
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
                *_listed("would be removed:", _texts(self.leftovers, self.planned_at, self.price)),
                *_listed("together:", _total(self.leftovers, self.planned_at, self.price)),
                *_listed("silent:", (run_text(run, self.planned_at) for run in self.silent)),
                *_listed("would be removed then:", _texts(self.doubted, self.planned_at, self.price)),
                *_listed("left alone:", (run_text(run, self.planned_at) for run in self.left_alone)),
                *_listed("needs attention:", self.attention),
                *_listed("note:", self.notes),
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

    def after(self, first: SweepReport) -> SweepReport:
        """This report of what a second look found, with what was done before it."""
        runs = {run.intent.run for run in self.plan.dead}
        again = {item.identity for item in self.plan.leftovers}
        dead = (run for run in first.plan.dead if run.intent.run not in runs)
        leftovers = (item for item in first.plan.leftovers if item.identity not in again)
        removed = (item for item in first.removed if item.identity not in again)
        plan = replace(
            self.plan,
            dead=(*dead, *self.plan.dead),
            leftovers=(*leftovers, *self.plan.leftovers),
        )
        return replace(self, plan=plan, removed=(*removed, *self.removed))

    @property
    def attention(self) -> tuple[str, ...]:
        """What a person should look at."""
        still = _listed("still there:", _texts(self.remaining, self.ended_at, self.plan.price))
        total = _listed("cleanup pending:", _total(self.remaining, self.ended_at, self.plan.price))
        return (*self.pending, *still, *total, *self.plan.attention)

    def text(self) -> str:
        """What was done, for people."""
        return "\n".join(
            [
                f"{_found(self.plan)}; {len(self.removed)} removed.",
                *_listed("fenced:", (run_text(run, self.ended_at) for run in self.plan.dead)),
                *_listed("removed:", _texts(self.removed, self.ended_at, self.plan.price)),
                *_listed("left alone:", (run_text(run, self.ended_at) for run in self.plan.left_alone)),
                *_listed("needs attention:", self.attention),
                *_listed("note:", self.plan.notes),
            ]
        )


def run_text(run: JudgedRun, now: dt.datetime) -> str:
    intent = run.intent
    return f"run {intent.run} of VM {intent.vm_name}, {age_of(intent.started_at, now)} old: {run.reason}"


def _found(plan: SweepPlan) -> str:
    runs, things = len(plan.dead), len(plan.leftovers)
    return f"{runs} dead runs and {things} leftovers on {plan.disks} disks"


def _listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield from (f"{title} {line}" for line in lines)


def _texts(items: Iterable[Leftover], now: dt.datetime, price: Price) -> Iterator[str]:
    return (item.text(now, price) for item in items)


def _total(items: Iterable[Leftover], now: dt.datetime, price: Price) -> list[str]:
    text = total_text(items, now, price)
    return [text] if text else []
