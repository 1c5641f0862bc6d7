"""Which runs are dead: begun, neither committed nor fenced, and known to go on no more. Deciding is pure.

What a flow run's state says is given by whoever knows the server. A run that is held for dead wrongly stops
cleanly, since it is fenced before anything of it is removed; even so nothing is judged by its age alone. A
run that has stopped giving signs of life is silent at the first look, and dead if a second one finds it as it
was: clocks may differ, so what counts is what one observer sees standing still (decision 0017).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vsa.errors import BadRequest, TryAgainLater, VsaError
from vsa.media.media import Media
from vsa.media.signs import Sign, is_fresh, is_silent, newest
from vsa.model import Intent
from vsa.text import age_text
from vsa.transfer.liveness import has_ended
from vsa.transfer.owned import is_over

ASK_AFTER = dt.timedelta(days=2)
"""A run that cannot be judged is anybody's guess for so long; then somebody should look."""


class Verdict(StrEnum):
    DEAD = "dead"
    SILENT = "silent"
    LIVE = "live"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JobState:
    """What the server says of a job's flow run."""

    name: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class OpenRuns:
    """The runs that the log knows no end of, and by their ids the last sign of life of those that give any;
    `unreadable` says whose intents cannot be read, and why."""

    intents: tuple[Intent, ...]
    unreadable: tuple[str, ...] = ()
    signs: Mapping[str, Sign] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run, what became of it, and how that is known. `refused`: somebody called it dead, and it is not.
    `sign`: its last sign of life."""

    intent: Intent
    verdict: Verdict
    reason: str
    refused: bool = False
    sign: Sign | None = None

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
    last = {intent.run: newest(media, intent.run) for intent in intents}
    return OpenRuns(tuple(intents), tuple(unreadable), {run: sign for run, sign in last.items() if sign})


def judge(
    runs: OpenRuns,
    jobs: Mapping[str, JobState] | None,
    named: Collection[str],
    media: Media,
    *,
    now: dt.datetime,
    silent: Mapping[str, Sign] | None = None,
) -> tuple[JudgedRun, ...]:
    """A verdict for each open run. `jobs` has the flow runs that the server knows, by id, None if no server
    was asked; `named` are the runs that an operator calls dead. BadRequest if there is no such run.

    `silent` has the last signs of the runs that were silent at a first look, so long ago that a live one
    would have given another; None at the first look.
    """
    known = {intent.run for intent in runs.intents}
    view = media.view()
    strange = sorted(run for run in named if run not in known and not is_over(run, view))
    if strange:
        listed = ", ".join(sorted(known)) or "none"
        raise BadRequest(f"media {media.id} has no open run {', '.join(strange)}: open are {listed}")
    bench = _Bench(jobs, named, runs.signs, now, silent)
    return tuple(map(bench.judged, runs.intents))


@dataclass(frozen=True)
class _Bench:
    """What is known when runs are judged, as `judge` has it."""

    jobs: Mapping[str, JobState] | None
    named: Collection[str]
    signs: Mapping[str, Sign]
    now: dt.datetime
    silent: Mapping[str, Sign] | None

    def judged(self, intent: Intent) -> JudgedRun:
        known_by, sign = self._known_dead(intent), self.signs.get(intent.run)
        if known_by:
            return JudgedRun(intent, Verdict.DEAD, known_by, sign=sign)
        if sign is not None and is_silent(sign, self.now):
            return self._by_silence(intent, sign)
        if job := self._job(intent):
            named = intent.run in self.named
            told = "; it was named, but only a flow run that is over can be swept: cancel it first"
            reason = f"its job's flow run {intent.job} is not over: {job.name}{told if named else ''}"
            return JudgedRun(intent, Verdict.LIVE, reason, refused=named, sign=sign)
        if sign is not None and is_fresh(sign, self.now):
            return JudgedRun(intent, Verdict.LIVE, _heard(sign, self.now), sign=sign)
        heard = f"; {_heard(sign, self.now)}" if sign else ""
        return JudgedRun(intent, Verdict.UNKNOWN, f"{self._unknown(intent)}{heard}", sign=sign)

    def _job(self, intent: Intent) -> JobState | None:
        return (self.jobs or {}).get(intent.job)

    def _known_dead(self, intent: Intent) -> str:
        """By what a run is known to be dead, whatever signs it has given; empty if by nothing."""
        job, process = self._job(intent), intent.process
        if has_ended(process):
            return f"its process {process.id} on {process.host} has ended"
        if job is not None and job.is_over:
            return f"its job's flow run {intent.job} is over: {job.name}"
        return "an operator named it" if job is None and intent.run in self.named else ""

    def _by_silence(self, intent: Intent, sign: Sign) -> JudgedRun:
        heard = _heard(sign, self.now)
        if self.silent is None:
            reason = f"{heard}; it is dead if a second look finds no other"
            return JudgedRun(intent, Verdict.SILENT, reason, sign=sign)
        before = self.silent.get(intent.run)
        if before is None:
            reason = f"{heard}, and was not as old at the first look: the next sweep decides"
            return JudgedRun(intent, Verdict.UNKNOWN, reason, sign=sign)
        if sign.number > before.number:
            reason = f"it goes on, though {heard}: a clock is wrong, here or on {intent.process.host}"
            return JudgedRun(intent, Verdict.LIVE, reason, sign=sign)
        return JudgedRun(intent, Verdict.DEAD, f"{heard}, and a second look found no other", sign=sign)

    def _unknown(self, intent: Intent) -> str:
        asked = "this server knows no" if self.jobs is not None else "no server was asked for"
        return (
            f"{asked} flow run {intent.job}, and process {intent.process.id} on {intent.process.host} may "
            "still live: if you know that it has ended, name the run"
        )


def _heard(sign: Sign, now: dt.datetime) -> str:
    seconds = (now - sign.at).total_seconds()
    how = f"{age_text(seconds)} old" if seconds >= 0 else f"{age_text(-seconds)} ahead of the clock here"
    return f"its last sign of life is {how}"


def of_verdict(runs: Collection[JudgedRun], *verdicts: Verdict) -> Iterator[JudgedRun]:
    return (run for run in runs if run.verdict in verdicts)
