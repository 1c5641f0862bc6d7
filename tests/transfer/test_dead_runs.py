"""Which runs are dead by the signs of life that they gave, whatever the clocks say."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tests.media.making import NOW, a_disk, an_intent, new_media
from vsa.media.media import Media
from vsa.media.signs import LONGEST_SPACING_SECONDS, SILENT_AFTER, Heard, Sign
from vsa.model import Intent
from vsa.transfer.dead_runs import (
    ASK_OF_LIVE_AFTER,
    JobState,
    JudgedRun,
    OpenRuns,
    Verdict,
    earlier_runs,
    judge,
)
from vsa.transfer.liveness import this_process

MINUTE = dt.timedelta(minutes=1)
RUNNING = JobState("Running", is_over=False)
CRASHED = JobState("Crashed", is_over=True)
INTENT = an_intent("run-1", disks=(a_disk(),))


@pytest.fixture
def media(tmp_path: Path) -> Media:
    return new_media(tmp_path / "media")


def a_sign(age: dt.timedelta, *, number: int = 5, every_seconds: int = 300) -> Sign:
    return Sign(run="run-1", number=number, at=NOW - age, every_seconds=every_seconds)


def listed(sign: Sign | None, highest: int = 0) -> dict[str, Heard]:
    return {"run-1": Heard(sign, max(highest, sign.number))} if sign else {}


def judged(
    media: Media,
    sign: Sign | None,
    *,
    job: JobState | None = None,
    named: bool = False,
    before: Sign | None = None,
    second: bool = False,
    highest: int = 0,
) -> JudgedRun:
    """The verdict of a first look or, with `second`, of one after a first that found `before` silent;
    `highest` is the number of a sign that is listed now and cannot be read."""
    runs = OpenRuns((INTENT,), signs=listed(sign, highest))
    silent = listed(before) if second else None
    jobs = {"job-1": job} if job else None
    (run,) = judge(runs, jobs, ["run-1"] if named else [], media, now=NOW, silent=silent)
    return run


def test_a_run_that_gives_signs_lives(media: Media) -> None:
    for age in (dt.timedelta(0), 7 * MINUTE, SILENT_AFTER, -7 * MINUTE):
        run = judged(media, a_sign(age))
        assert run.verdict is Verdict.LIVE, run.reason
    assert judged(media, a_sign(7 * MINUTE)).reason == "its last sign of life is 7 minutes old"


def test_somebody_should_look_at_a_run_that_lives_for_more_than_a_week(media: Media) -> None:
    run = judged(media, a_sign(MINUTE))
    began = run.intent.started_at
    assert not run.asks_for_somebody(began + ASK_OF_LIVE_AFTER)
    assert run.asks_for_somebody(began + ASK_OF_LIVE_AFTER + MINUTE)


def test_a_run_that_gives_none_at_all_is_not_judged_by_that(media: Media) -> None:
    later = NOW + dt.timedelta(days=30)
    (run,) = judge(OpenRuns((INTENT,)), None, (), media, now=later, silent={})
    assert run.verdict is Verdict.UNKNOWN
    assert run.asks_for_somebody(later)


def test_the_first_look_calls_no_run_dead_for_its_silence(media: Media) -> None:
    run = judged(media, a_sign(SILENT_AFTER + MINUTE))
    assert run.verdict is Verdict.SILENT
    assert run.reason == "its last sign of life is 3 hours old; it is dead if a second look finds no other"


def test_the_second_look_does_if_it_finds_no_other_sign(media: Media) -> None:
    old = a_sign(SILENT_AFTER + MINUTE)
    run = judged(media, old, second=True, before=old)
    assert run.verdict is Verdict.DEAD
    assert run.reason == "its last sign of life is 3 hours old, and a second look found no other"


def test_a_run_that_gave_a_sign_between_two_looks_lives_whatever_the_clocks_say(media: Media) -> None:
    before, after = a_sign(48 * SILENT_AFTER, number=5), a_sign(48 * SILENT_AFTER, number=6)
    run = judged(media, after, second=True, before=before)
    assert run.verdict is Verdict.LIVE
    assert run.reason.endswith("6 days old: a clock is wrong, here or on proxy-1")


def test_a_sign_that_cannot_be_read_proves_life_by_its_number(media: Media) -> None:
    old = a_sign(SILENT_AFTER + MINUTE, number=5)
    run = judged(media, old, second=True, before=old, highest=6)
    assert run.verdict is Verdict.LIVE
    assert run.reason == "it goes on, though its last sign of life is 3 hours old: sign 6 cannot be read"


def test_a_run_that_has_become_silent_since_the_first_look_is_left_to_the_next_sweep(media: Media) -> None:
    run = judged(media, a_sign(SILENT_AFTER + MINUTE), second=True)
    assert run.verdict is Verdict.UNKNOWN
    assert "the next sweep decides" in run.reason


def test_a_run_that_gives_signs_seldom_is_given_time_for_several(media: Media) -> None:
    seldom = dt.timedelta(seconds=LONGEST_SPACING_SECONDS)
    for missed, verdict in ((3.9, Verdict.LIVE), (4.1, Verdict.SILENT)):
        sign = a_sign(missed * seldom, every_seconds=LONGEST_SPACING_SECONDS)
        assert judged(media, sign).verdict is verdict


def test_a_sign_far_ahead_of_the_clock_says_nothing(media: Media) -> None:
    run = judged(media, a_sign(-SILENT_AFTER - MINUTE))
    assert run.verdict is Verdict.UNKNOWN
    assert "3 hours ahead of the clock here" in run.reason


def test_silence_counts_more_than_a_server_that_has_not_noticed(media: Media) -> None:
    old = a_sign(SILENT_AFTER + MINUTE)
    for named in (False, True):
        run = judged(media, old, job=RUNNING, named=named)
        assert (run.verdict, run.refused) == (Verdict.SILENT, False)
        assert judged(media, old, job=RUNNING, named=named, second=True, before=old).verdict is Verdict.DEAD
    fresh = judged(media, a_sign(MINUTE), job=RUNNING, named=True)
    assert (fresh.verdict, fresh.refused) == (Verdict.LIVE, True)


@pytest.mark.parametrize("age", [MINUTE, SILENT_AFTER + MINUTE])
def test_what_is_known_otherwise_needs_no_second_look(media: Media, age: dt.timedelta) -> None:
    assert judged(media, a_sign(age), job=CRASHED).reason.endswith("is over: Crashed")
    run = judged(media, a_sign(age), named=True)
    assert (run.verdict, run.reason) == (Verdict.DEAD, "an operator named it")


GONE = this_process().model_copy(update={"started": "1"})
"""A process of this machine that has ended."""


def begun(run: str, job: str, *, subclient: str = "ours", disk: str = "os", gone: bool = False) -> Intent:
    made = an_intent(run, disks=(a_disk(disk),))
    process = GONE if gone else made.process
    return made.model_copy(update={"job": job, "subclient": subclient, "process": process})


def test_a_job_that_begins_holds_for_dead_what_is_known_of_its_own_subclient() -> None:
    opened = (
        begun("crashed", "job-1"),
        begun("running", "job-2", disk="data"),
        begun("theirs", "job-3", subclient="theirs", disk="logs"),
        begun("unknown", "job-4", disk="more"),
        begun("ended", "job-5", gone=True),
    )
    jobs = {"job-1": CRASHED, "job-2": RUNNING, "job-3": CRASHED}
    earlier = earlier_runs(opened, "ours", jobs)
    assert [(run.intent.run, run.reason) for run in earlier.dead] == [
        ("crashed", "its job's flow run job-1 is over: Crashed"),
        ("ended", f"its process {GONE.id} on {GONE.host} has ended"),
    ]
    assert earlier.given_up == ("job-1", "job-5")
    assert earlier.in_use == {opened[number].disks[0].key for number in (1, 2, 3)}


def test_a_job_that_is_retried_keeps_its_streams_while_its_first_attempt_is_cleaned_up() -> None:
    """Both attempts have the flow run's id."""
    opened = begun("first", "job-1", gone=True), begun("second", "job-1")
    earlier = earlier_runs(opened, "ours", {"job-1": RUNNING})
    assert [run.intent.run for run in earlier.dead] == ["first"]
    assert earlier.given_up == ()
