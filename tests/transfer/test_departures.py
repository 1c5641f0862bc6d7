"""What Azure says to have deleted is looked for until it is gone, all together and not for ever. (F12)"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.subclient.builders import a_source_disk
from vsa.errors import AccessDenied, RunStopped, TryAgainLater
from vsa.stop import Stop
from vsa.transfer.departures import LOOK_AGAIN, Departures

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


def test_what_cannot_be_looked_at_is_told_and_keeps_nothing_else_from_being_looked_for() -> None:
    def denied() -> bool:
        raise AccessDenied("read snapshot: 403", code="AuthorizationFailed")

    slow, stop = Thing(1), Waits()
    ((departure, error),) = departed(denied, slow).still_there(stop)
    assert (departure.what, type(error)) == ("snapshot 0", AccessDenied)
    assert slow.seen == 2


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
