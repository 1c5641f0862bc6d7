"""Which runs are dead: begun, neither committed nor fenced, and known to go on no more. Deciding is pure.

What a flow run's state says is given by whoever knows the server. A run that is held for dead wrongly stops
cleanly, since it is fenced before anything of it is removed; even so nothing is judged by its age.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from vsa.errors import BadRequest, TryAgainLater, VsaError
from vsa.media.media import Media
from vsa.model import Intent
from vsa.transfer.liveness import has_ended
from vsa.transfer.owned import is_over

ASK_AFTER = dt.timedelta(days=2)
"""A run that cannot be judged is anybody's guess for so long; then somebody should look."""


class Verdict(StrEnum):
    DEAD = "dead"
    LIVE = "live"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JobState:
    """What the server says of a job's flow run."""

    name: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """The runs that the log knows no end of; `unreadable` says whose intents cannot be read, and why."""

    intents: tuple[Intent, ...]
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run, what became of it, and how that is known. `refused`: somebody called it dead, and it is not."""

    intent: Intent
    verdict: Verdict
    reason: str
    refused: bool = False

    def age(self, now: dt.datetime) -> dt.timedelta:
        return now - self.intent.started_at

    def asks_for_somebody(self, now: dt.datetime) -> bool:
        """Whether a person should say what became of it."""
        return self.refused or (self.verdict is Verdict.UNKNOWN and self.age(now) > ASK_AFTER)


def open_runs(media: Media) -> OpenRuns:
    """The runs that may have left something in Azure and have not ended by the log.

    One whose intent cannot be read does not keep the others from being found.
    """
    view = media.view()
    intents: list[Intent] = []
    unreadable: list[str] = []
    for run in media.runs():
        if is_over(run, view):
            continue
        try:
            intent = media.intent(run)
        except TryAgainLater:
            raise
        except VsaError as error:
            unreadable.append(f"what run {run} left cannot be found by its intent: {error}")
        else:
            # Runs of a prune or a rebuild have no disks: they make nothing in Azure.
            intents += [intent] if intent and intent.disks else []
    return OpenRuns(tuple(intents), tuple(unreadable))


def judge(
    runs: OpenRuns, jobs: Mapping[str, JobState] | None, named: Collection[str], media: Media
) -> tuple[JudgedRun, ...]:
    """A verdict for each open run. `jobs` has the flow runs that the server knows, by id, None if no server
    was asked; `named` are the runs that an operator calls dead. BadRequest if there is no such run."""
    known = {intent.run for intent in runs.intents}
    view = media.view()
    strange = sorted(run for run in named if run not in known and not is_over(run, view))
    if strange:
        listed = ", ".join(sorted(known)) or "none"
        raise BadRequest(f"media {media.id} has no open run {', '.join(strange)}: open are {listed}")
    asked = "this server knows no" if jobs is not None else "no server was asked for"
    states = jobs or {}
    return tuple(
        _judged(intent, states.get(intent.job), named=intent.run in named, asked=asked)
        for intent in runs.intents
    )


def _judged(intent: Intent, job: JobState | None, *, named: bool, asked: str) -> JudgedRun:
    process = intent.process
    if has_ended(process):
        return JudgedRun(intent, Verdict.DEAD, f"its process {process.id} on {process.host} has ended")
    if job is not None and job.is_over:
        return JudgedRun(intent, Verdict.DEAD, f"its job's flow run {intent.job} is over: {job.name}")
    if job is not None:
        told = (
            "; it was named, but only a flow run that is over can be swept: cancel it first" if named else ""
        )
        reason = f"its job's flow run {intent.job} is not over: {job.name}{told}"
        return JudgedRun(intent, Verdict.LIVE, reason, refused=named)
    if named:
        return JudgedRun(intent, Verdict.DEAD, "an operator named it")
    return JudgedRun(
        intent,
        Verdict.UNKNOWN,
        f"{asked} flow run {intent.job}, and process {process.id} on {process.host} may still "
        "live: if you know that it has ended, name the run",
    )


def of_verdict(runs: Collection[JudgedRun], *verdicts: Verdict) -> Iterator[JudgedRun]:
    return (run for run in runs if run.verdict in verdicts)
