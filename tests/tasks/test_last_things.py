"""What a job does last: signals wait for it, and it waits for nobody longer than it may."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from prefect.exceptions import TerminationSignal

from tasks import last_things
from tasks.last_things import LastThings, why_cut_short

SECONDS = 30.0


@pytest.fixture(autouse=True)
def prefects_handler() -> Iterator[None]:
    """As Prefect has it while a flow runs."""

    def end(number: int, _frame: object) -> None:
        raise TerminationSignal(signal=number)

    before = signal.signal(signal.SIGTERM, end)
    yield
    signal.signal(signal.SIGTERM, before)


def told_to_end_and_then_slow() -> str:
    """Goes on for a while after a signal has reached the process."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.5)
    return "done"


def test_a_signal_waits_until_the_work_is_done() -> None:
    last = LastThings()
    for _ in range(3):
        assert last.carry(told_to_end_and_then_slow) == "done"
    with pytest.raises(TerminationSignal):
        last.let_go()


def test_what_the_work_raises_is_raised() -> None:
    last = LastThings()
    with pytest.raises(ValueError, match="no entry"):
        last.carry(lambda: int("no entry"))
    last.let_go()


def test_what_can_be_missed_is_not_waited_for_once_the_job_is_told_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(last_things, "TOLD_SECONDS", 0.2)
    never = threading.Event()
    try:
        began = time.monotonic()
        assert not LastThings(TerminationSignal(signal.SIGTERM)).attempt(never.wait, "told before")
        last = LastThings()

        def hear_it() -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            never.wait()

        assert not last.attempt(hear_it, "told meanwhile")
        assert time.monotonic() - began < SECONDS < last_things.SHOWN_SECONDS
    finally:
        never.set()
    with pytest.raises(TerminationSignal):
        last.let_go()


def test_what_can_be_missed_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    last = LastThings()
    assert last.attempt(lambda: None, "nothing is wrong")
    assert not last.attempt(lambda: int("x"), "the report is not shown")
    last.let_go()
    (said,) = caplog.messages
    assert said.startswith("the report is not shown: ValueError: ")


def test_each_end_has_its_words() -> None:
    assert why_cut_short(RuntimeError("odd")).endswith("cut short: RuntimeError: odd")
    assert why_cut_short(TerminationSignal(signal.SIGTERM)).endswith("its process was told to end")
