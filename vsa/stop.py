"""How a run is told to stop, and how the engine waits without becoming deaf to it."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from vsa.errors import RunStopped, TryAgainLater

T = TypeVar("T")
_log = logging.getLogger(__name__)

DEFAULT_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
LONGEST_WAIT = 900.0

_IN_VAIN = "times in vain"
_BUSY = "it was busy all the time"
_SILENT = "look whether that service is down or out of reach from here"

_wait: ContextVar[Callable[[float], None]] = ContextVar("wait", default=time.sleep)


class Stop:
    """A request to stop that every loop and every wait of a job looks at; `why` is what they say then."""

    def __init__(self, why: str = "the job was told to stop") -> None:
        self._event = threading.Event()
        self._why = why

    def set(self) -> None:
        self._event.set()

    def set_in(self, seconds: float) -> None:
        """Ask for it when so many seconds have passed. The process may end before that."""
        timer = threading.Timer(seconds, self.set)
        timer.daemon = True
        timer.start()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise RunStopped once a stop was asked for."""
        if self._event.is_set():
            raise RunStopped(self._why)

    def wait(self, seconds: float) -> None:
        """Sleep, but no longer than until a stop is asked for."""
        if self._event.wait(seconds):
            self.check()


def wait_here(seconds: float) -> None:
    """Sleep as whoever has made this call sleeps, through libraries that know nothing of a stop.

    Raises RunStopped, before and after, where `waiting` or `again` was told to hear one.
    """
    _wait.get()(seconds)


@contextmanager
def waiting(wait: Callable[[float], None]) -> Iterator[None]:
    """Inside, this thread's calls of `wait_here` sleep so."""
    token = _wait.set(wait)
    try:
        yield
    finally:
        _wait.reset(token)


def again(
    call: Callable[[], T],
    *,
    stop: Stop,
    delays: Sequence[float] = DEFAULT_DELAYS,
    jitter: Callable[[], float] = random.random,
) -> T:
    """Repeat a call while it raises TryAgainLater, waiting `delays` seconds or what the service asked for.

    Waits carry up to 25 % of jitter so that streams which were throttled together do not return together.
    When the delays are used up the last error is raised, with how often it was asked and what to look at.
    """
    for delay in delays:
        stop.check()
        try:
            with waiting(stop.wait):
                return call()
        except TryAgainLater as error:
            wished = delay if error.retry_after is None else max(error.retry_after, 0.05)
            seconds = min(wished, LONGEST_WAIT) * (1 + 0.25 * jitter())
            _log.warning("%s; trying again in %.1f s", error, seconds)
            stop.wait(seconds)
    stop.check()
    try:
        with waiting(stop.wait):
            return call()
    except TryAgainLater as error:
        raise _given_up(error, attempts=len(delays) + 1) from error


def _given_up(error: TryAgainLater, *, attempts: int) -> TryAgainLater:
    """Once: a call that repeats calls of its own may be repeated itself."""
    cause = _BUSY if error.is_busy else _SILENT
    advice = "" if _IN_VAIN in str(error) else f"; asked {attempts} {_IN_VAIN}: {cause}"
    return TryAgainLater(f"{error}{advice}", retry_after=error.retry_after, is_busy=error.is_busy)
