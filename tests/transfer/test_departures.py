"""What Azure says to have deleted is looked for until it is gone, all together and not for ever. (F12)"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.subclient.builders import a_source_disk
from vsa.azure.budget import Purpose, current_purpose
from vsa.errors import AccessDenied, RunStopped, TryAgainLater
from vsa.stop import Stop, wait_here
from vsa.transfer.departures import LONGEST_LOOKING, LONGEST_TURN, LOOK_AGAIN, LOOKS_AT_ONCE, Departures

DISK = a_source_disk()


class Waits(Stop):
    """A stop that nobody asks for, and what was waited for with it; nothing sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Thing:
    """Shown for so many looks."""

    def __init__(self, looks: float) -> None:
        self.left = looks
        self.seen = 0

    def __call__(self) -> bool:
        self.seen += 1
        self.left -= 1
        return self.left >= 0


def departed(*things: Callable[[], bool]) -> Departures:
    departures = Departures()
    for number, thing in enumerate(things):
        departures.add(DISK, f"snapshot {number}", thing)
    return departures


def test_what_is_gone_costs_one_look_and_no_time() -> None:
    things, stop = [Thing(0), Thing(0)], Waits()
    assert departed(*things).still_there(stop) == []
    assert ([thing.seen for thing in things], stop.seconds) == ([1, 1], [])


def test_only_what_is_still_shown_is_looked_for_again() -> None:
    gone, slow, stop = Thing(0), Thing(2), Waits()
    assert departed(gone, slow).still_there(stop) == []
    assert (gone.seen, slow.seen, stop.seconds) == (1, 3, [*LOOK_AGAIN[:2]])


def test_many_wait_together_and_no_longer_than_one() -> None:
    stop = Waits()
    still = departed(*(Thing(float("inf")) for _ in range(50))).still_there(stop)
    assert len(still) == 50
    assert stop.seconds == list(LOOK_AGAIN)
    departure, error = still[7]
    assert (departure.disk, departure.what) == (DISK, "snapshot 7")
    assert isinstance(error, TryAgainLater)
    assert str(error) == "delete snapshot 7: Azure says that it is done, and still shows it"


def test_what_cannot_be_looked_at_is_logged_and_keeps_nothing_else_from_being_looked_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks: list[int] = []

    def denied() -> bool:
        looks.append(1)
        raise AccessDenied("read snapshot: 403", code="AuthorizationFailed")

    slow, stop = Thing(1), Waits()
    assert departed(denied, slow).still_there(stop) == []
    assert (slow.seen, len(looks)) == (2, 1), "time does not help against a refusal"
    told = "snapshot 0 is deleted, as Azure says; it could not be looked at: read snapshot: 403"
    assert [record.levelname for record in caplog.records if record.getMessage() == told] == ["WARNING"]


def test_looks_that_azure_is_too_busy_for_take_no_longer_and_alarm_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    looks: list[int] = []

    def busy() -> bool:
        looks.append(1)
        raise TryAgainLater("read snapshot: 503", retry_after=900)

    stop = Waits()
    assert departed(*[busy] * 20).still_there(stop) == []
    assert (stop.seconds, len(looks)) == (list(LOOK_AGAIN), 20 * (1 + len(LOOK_AGAIN)))
    assert caplog.text.count("it could not be looked at: read snapshot: 503") == 20


def test_what_was_still_shown_before_looks_failed_is_told() -> None:
    answers = iter([True])

    def shown_once() -> bool:
        try:
            return next(answers)
        except StopIteration:
            raise TryAgainLater("busy") from None

    ((_, error),) = departed(shown_once).still_there(Waits())
    assert "still shows it" in str(error)


def test_a_look_waits_for_its_turn_for_a_bounded_time() -> None:
    def out_of_budget() -> bool:
        for _ in range(900):
            wait_here(1.0)
        return True

    stop = Waits()
    assert departed(out_of_budget).still_there(stop) == []
    assert sum(stop.seconds) <= sum(LOOK_AGAIN) + (1 + len(LOOK_AGAIN)) * LONGEST_TURN


def test_when_looks_take_long_no_more_begin() -> None:
    times = iter([0.0, 1.0])
    departures = Departures(clock=lambda: next(times, LONGEST_LOOKING + 1))
    slow = [Thing(float("inf")) for _ in range(3)]
    for number, thing in enumerate(slow):
        departures.add(DISK, f"snapshot {number}", thing)
    assert len(departures.still_there(Waits())) == 1
    assert sum(thing.seen for thing in slow) == 1


def test_many_looks_are_under_way_at_a_time_in_the_callers_context() -> None:
    together = threading.Barrier(LOOKS_AT_ONCE)
    purposes: list[Purpose] = []

    def gone() -> bool:
        together.wait(timeout=60)
        purposes.append(current_purpose())
        return False

    assert departed(*[gone] * LOOKS_AT_ONCE).still_there(Waits()) == []
    assert purposes == [Purpose.CLEANUP] * LOOKS_AT_ONCE


def test_after_a_stop_nothing_is_looked_for() -> None:
    thing, stop = Thing(9), Stop()
    stop.set()
    assert departed(thing).still_there(stop) == []
    assert thing.seen == 0


def test_a_look_that_azure_is_too_busy_for_is_repeated() -> None:
    answers = iter([TryAgainLater("busy"), None])

    def busy() -> bool:
        if problem := next(answers):
            raise problem
        return False

    assert departed(busy).still_there(Waits()) == []


def test_when_the_time_is_over_what_was_seen_is_told() -> None:
    class Over(Waits):
        def wait(self, seconds: float) -> None:
            raise RunStopped("the time for cleaning up is over")

    ((_, error),) = departed(Thing(0), Thing(9)).still_there(Over())
    assert "still shows it" in str(error)


@pytest.mark.parametrize("times", [1, 3])
def test_what_is_deleted_repeatedly_is_looked_for_once(times: int) -> None:
    thing, departures = Thing(0), Departures()
    for _ in range(times):
        departures.add(DISK, "snapshot", thing)
    assert departures.still_there(Waits()) == []
    assert departures.still_there(Waits()) == []
    assert thing.seen == 1
