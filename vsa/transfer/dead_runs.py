"""Which runs are dead: begun, neither committed nor fenced, and known to go on no more. Deciding is pure.

What a flow run's state says is given by whoever knows the server. A run that is held for dead wrongly stops
cleanly, since it is fenced before anything of it is removed; even so nothing is judged by its age alone. A
run that has stopped giving signs of life is silent at the first look, and dead if a second one finds it as it
was: clocks may differ, so what counts is what one observer sees standing still (decision 0017).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from vsa.errors import BadRequest, TryAgainLater, VsaError
from vsa.media.media import Media
from vsa.media.signs import Heard, Sign, heard, is_fresh, is_silent
from vsa.model import Intent
from vsa.text import age_text
from vsa.transfer.liveness import has_ended
from vsa.transfer.owned import is_over

ASK_AFTER = dt.timedelta(days=2)
"""A run that cannot be judged is anybody's guess for so long; then somebody should look."""
ASK_OF_LIVE_AFTER = dt.timedelta(days=7)
"""Longer than a backup should take: a run that still gives signs hangs, or somebody else gives them."""


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
    """The runs that the log knows no end of, and by their ids what those have said that give signs of life;
    `unreadable` says whose intents cannot be read, and why."""

    intents: tuple[Intent, ...]
    unreadable: tuple[str, ...] = ()
    signs: Mapping[str, Heard] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class JudgedRun:
    """A run, what became of it, and how that is known. `refused`: somebody called it dead, and it is not.
    `heard`: its signs of life."""

    intent: Intent
    verdict: Verdict
    reason: str
    refused: bool = False
    heard: Heard | None = None

    @property
    def sign(self) -> Sign | None:
        """Its last sign of life that can be read."""
        return self.heard.last if self.heard else None

    def age(self, now: dt.datetime) -> dt.timedelta:
        return now - self.intent.started_at

    def asks_for_somebody(self, now: dt.datetime) -> bool:
        """Whether a person should say what became of it."""
        patience = {Verdict.UNKNOWN: ASK_AFTER, Verdict.LIVE: ASK_OF_LIVE_AFTER}.get(self.verdict)
        return self.refused or (patience is not None and self.age(now) > patience)


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
    said = {intent.run: heard(media, intent.run) for intent in intents}
    return OpenRuns(tuple(intents), tuple(unreadable), {run: signs for run, signs in said.items() if signs})


def judge(
    runs: OpenRuns,
    jobs: Mapping[str, JobState] | None,
    named: Collection[str],
    media: Media,
    *,
    now: dt.datetime,
    silent: Mapping[str, Heard] | None = None,
) -> tuple[JudgedRun, ...]:
    """A verdict for each open run. `jobs` has the flow runs that the server knows, by id, None if no server
    was asked; `named` are the runs that an operator calls dead. BadRequest if there is no such run.

    `silent` has the signs of the runs that were silent at a first look, so long ago that a live one
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


def known_dead(intent: Intent, job: JobState | None) -> str:
    """By what a run is known to be dead, whatever signs it has given; empty if it may live."""
    process = intent.process
    if has_ended(process):
        return f"its process {process.id} on {process.host} has ended"
    return f"its job's flow run {intent.job} is over: {job.name}" if job is not None and job.is_over else ""


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """What a job that begins does about the open runs: `dead` are those of its own subclient, `given_up` the
    jobs of which no run may live, `in_use` the keys of disks that runs have which may."""

    dead: tuple[JudgedRun, ...]
    given_up: tuple[str, ...]
    in_use: frozenset[str]


def earlier_runs(opened: Iterable[Intent], subclient: str, jobs: Mapping[str, JobState]) -> EarlierRuns:
    """Decide on the open runs of a media at the start of a job; `jobs` as `judge` has them."""
    dead: list[JudgedRun] = []
    live: list[Intent] = []
    for intent in opened:
        why = known_dead(intent, jobs.get(intent.job)) if intent.subclient == subclient else ""
        if why:
            dead.append(JudgedRun(intent, Verdict.DEAD, why))
        else:
            live.append(intent)
    given_up = {run.intent.job for run in dead} - {intent.job for intent in live}
    in_use = frozenset(disk.key for intent in live for disk in intent.disks)
    return EarlierRuns(tuple(dead), tuple(sorted(given_up)), in_use)


@dataclass(frozen=True)
class _Bench:
    """What is known when runs are judged, as `judge` has it."""

    jobs: Mapping[str, JobState] | None
    named: Collection[str]
    signs: Mapping[str, Heard]
    now: dt.datetime
    silent: Mapping[str, Heard] | None

    def judged(self, intent: Intent) -> JudgedRun:
        known_by, signs = self._known_dead(intent), self.signs.get(intent.run)
        sign = signs.last if signs else None
        if known_by:
            return JudgedRun(intent, Verdict.DEAD, known_by, heard=signs)
        if signs is not None and sign is not None and is_silent(sign, self.now):
            return self._by_silence(intent, sign, signs)
        if job := self._job(intent):
            named = intent.run in self.named
            told = "; it was named, but only a flow run that is over can be swept: cancel it first"
            reason = f"its job's flow run {intent.job} is not over: {job.name}{told if named else ''}"
            return JudgedRun(intent, Verdict.LIVE, reason, refused=named, heard=signs)
        if sign is not None and is_fresh(sign, self.now):
            return JudgedRun(intent, Verdict.LIVE, _how_old(sign, self.now), heard=signs)
        how = f"; {_how_old(sign, self.now)}" if sign else ""
        return JudgedRun(intent, Verdict.UNKNOWN, f"{self._unknown(intent)}{how}", heard=signs)

    def _job(self, intent: Intent) -> JobState | None:
        return (self.jobs or {}).get(intent.job)

    def _known_dead(self, intent: Intent) -> str:
        """By what a run is known to be dead, whatever signs it has given; empty if by nothing."""
        job = self._job(intent)
        if why := known_dead(intent, job):
            return why
        return "an operator named it" if job is None and intent.run in self.named else ""

    def _by_silence(self, intent: Intent, sign: Sign, signs: Heard) -> JudgedRun:
        how = _how_old(sign, self.now)
        if self.silent is None:
            reason = f"{how}; it is dead if a second look finds no other"
            return JudgedRun(intent, Verdict.SILENT, reason, heard=signs)
        before = self.silent.get(intent.run)
        if before is None:
            reason = f"{how}, and was not as old at the first look: the next sweep decides"
            return JudgedRun(intent, Verdict.UNKNOWN, reason, heard=signs)
        if signs.highest > before.highest:
            doubt = f"a clock is wrong, here or on {intent.process.host}"
            if signs.highest > sign.number:
                doubt = f"sign {signs.highest} cannot be read"
            reason = f"it goes on, though {how}: {doubt}"
            return JudgedRun(intent, Verdict.LIVE, reason, heard=signs)
        return JudgedRun(intent, Verdict.DEAD, f"{how}, and a second look found no other", heard=signs)

    def _unknown(self, intent: Intent) -> str:
        asked = "this server knows no" if self.jobs is not None else "no server was asked for"
        return (
            f"{asked} flow run {intent.job}, and process {intent.process.id} on {intent.process.host} may "
            "still live: if you know that it has ended, name the run"
        )


def _how_old(sign: Sign, now: dt.datetime) -> str:
    seconds = (now - sign.at).total_seconds()
    how = f"{age_text(seconds)} old" if seconds >= 0 else f"{age_text(-seconds)} ahead of the clock here"
    return f"its last sign of life is {how}"


def of_verdict(runs: Collection[JudgedRun], *verdicts: Verdict) -> Iterator[JudgedRun]:
    return (run for run in runs if run.verdict in verdicts)
