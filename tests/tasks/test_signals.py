"""A flow that waits for its threads hears its signals; Python alone does not see to it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from tasks.signals import heard_at_once

TIMES = 300
WAIT_SECONDS = 1.0
LONG_SECONDS = 10.0
"""Of a wait whose end nobody should see: a busy machine may take its time."""


class Told(BaseException):
    """What the handler raises, as Prefect's does."""


@pytest.fixture(autouse=True)
def _told() -> Iterator[None]:
    def tell(*_: object) -> None:
        raise Told

    previous = signal.signal(signal.SIGTERM, tell)
    yield
    signal.signal(signal.SIGTERM, previous)


def _is_heard(wait_seconds: float) -> bool:
    """Whether a signal that comes as the main thread begins to wait is heard before the wait is over."""
    go, over = threading.Event(), threading.Event()

    def tell() -> None:
        go.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        over.wait(wait_seconds)
        over.set()

    teller = threading.Thread(target=tell)
    teller.start()
    started = time.monotonic()
    try:
        go.set()
        over.wait()
        time.sleep(wait_seconds)
    except Told:
        pass
    took = time.monotonic() - started
    over.set()
    teller.join()
    return took < wait_seconds


def _times_heard(
    listening: Callable[[], AbstractContextManager[None]], times: int, wait_seconds: float
) -> int:
    with listening():
        return sum(_is_heard(wait_seconds) for _ in range(times))


def test_every_signal_is_heard_that_comes_as_a_wait_begins() -> None:
    assert _times_heard(heard_at_once, TIMES, LONG_SECONDS) == TIMES


def test_python_alone_loses_some_until_the_wait_is_over() -> None:
    """Otherwise the test above shows nothing."""
    if not any(_times_heard(nullcontext, 20, WAIT_SECONDS) < 20 for _ in range(TIMES // 20)):
        pytest.skip(f"of {TIMES} signals none was lost here")


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_afterwards_all_is_as_it_was() -> None:
    threads = threading.active_count()
    files = _open_files()
    with heard_at_once():
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads
    assert _open_files() == files
    assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_whoever_listens_already_goes_on_listening() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    try:
        with heard_at_once(), pytest.raises(Told):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(WAIT_SECONDS)
        assert os.read(reader, 8) == bytes([signal.SIGTERM])
    finally:
        assert signal.set_wakeup_fd(-1) == writer
        os.close(reader)
        os.close(writer)


def test_in_another_thread_than_the_main_one_it_does_nothing() -> None:
    entered = []

    def enter() -> None:
        with heard_at_once():
            entered.append(signal.getsignal(signal.SIGURG))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [signal.SIG_DFL]
