"""Waiting and repeating: bounded, as long as the service wishes, and never deaf to a stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.errors import AccessDenied, RunStopped, TryAgainLater
from vsa.stop import DEFAULT_DELAYS, LONGEST_WAIT, Stop, again


class Clockless(Stop):
    """A stop that notes how long it was to wait, and does not."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.waits: list[float] = []
        self._stop_at = stop_at

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        if len(self.waits) == self._stop_at:
            self.set()
        self.check()


def failing(times: int, error: Exception | None = None) -> tuple[Callable[[], str], list[int]]:
    """A call that raises so many times and then answers, and a list that grows with each call."""
    calls: list[int] = []

    def call() -> str:
        calls.append(len(calls))
        if len(calls) <= times:
            raise error or TryAgainLater("busy")
        return "done"

    return call, calls


@given(st.integers(0, len(DEFAULT_DELAYS)))
def test_a_call_is_repeated_until_it_succeeds(failures: int) -> None:
    call, calls = failing(failures)
    stop = Clockless()
    assert again(call, stop=stop, jitter=lambda: 0.0) == "done"
    assert len(calls) == failures + 1
    assert tuple(stop.waits) == DEFAULT_DELAYS[:failures]


def test_the_last_error_comes_out_when_patience_ends() -> None:
    call, calls = failing(100)
    with pytest.raises(TryAgainLater, match="busy; asked 3 times in vain: look whether"):
        again(call, stop=Clockless(), delays=(1, 2))
    assert len(calls) == 3


def test_what_to_do_is_said_once_by_a_call_that_repeats_others() -> None:
    call, calls = failing(100, TryAgainLater("busy", retry_after=7.5))
    with pytest.raises(TryAgainLater) as failed:
        again(lambda: again(call, stop=Clockless(), delays=(1,)), stop=Clockless(), delays=(1,))
    assert len(calls) == 4
    assert str(failed.value).count("in vain") == 1
    assert failed.value.retry_after == 7.5


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (TryAgainLater("no answer"), "look whether that service is down or out of reach from here"),
        (TryAgainLater("503", retry_after=0.0), "it was busy all the time"),
        (TryAgainLater("429", is_busy=True), "it was busy all the time"),
    ],
)
def test_who_was_busy_is_not_called_down(error: TryAgainLater, cause: str) -> None:
    """This stands in what a job says is pending, which the next one does: it must not ask to be run again."""
    call, _ = failing(100, error)
    with pytest.raises(TryAgainLater) as failed:
        again(call, stop=Clockless(), delays=(1,))
    assert str(failed.value) == f"{error}; asked 2 times in vain: {cause}"
    assert failed.value.is_busy == error.is_busy


def test_other_errors_are_not_repeated() -> None:
    call, calls = failing(1, AccessDenied("no"))
    with pytest.raises(AccessDenied):
        again(call, stop=Clockless())
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("wish", "waited"), [(None, 1.0), (7.5, 7.5), (0.0, 0.05), (10 * LONGEST_WAIT, LONGEST_WAIT)]
)
def test_the_wish_of_the_service_counts_before_our_own(wish: float | None, waited: float) -> None:
    call, _ = failing(1, TryAgainLater("busy", retry_after=wish))
    stop = Clockless()
    again(call, stop=stop, jitter=lambda: 0.0)
    assert stop.waits == [waited]


@given(st.floats(0, 1))
def test_jitter_only_ever_waits_longer(jitter: float) -> None:
    call, _ = failing(1, TryAgainLater("busy", retry_after=4.0))
    stop = Clockless()
    again(call, stop=stop, jitter=lambda: jitter)
    assert 4.0 <= stop.waits[0] <= 5.0


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_stop_ends_the_waiting_and_nothing_is_called_after_it(stop_at: int) -> None:
    call, calls = failing(100)
    with pytest.raises(RunStopped):
        again(call, stop=Clockless(stop_at), delays=(1,) * 10)
    assert len(calls) == stop_at


def test_a_stop_that_came_before_lets_nothing_be_called() -> None:
    call, calls = failing(0)
    stop = Stop()
    stop.set()
    for delays in ((), (1.0,)):
        with pytest.raises(RunStopped):
            again(call, stop=stop, delays=delays)
    assert calls == []


def test_a_wait_ends_when_another_thread_asks_for_a_stop() -> None:
    stop = Stop()
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    with pytest.raises(RunStopped):
        stop.wait(30)
    assert time.monotonic() - began < 5


def test_a_wait_without_a_stop_returns() -> None:
    Stop().wait(0.001)
