"""How far a stream is, in its task's log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from vsa.progress import Work

EVERY_SECONDS = 10.0

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class LoggedProgress:
    """A line now and then while work goes on; short work says nothing. Any thread may report."""

    def __init__(
        self,
        logger: Logger,
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._every_seconds = every_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._work = Work("", 0, clock())
        self._told = clock()

    def started(self, label: str, total_bytes: int) -> None:
        with self._lock:
            self._told = self._clock()
            self._work = Work(label, total_bytes, self._told)

    def advanced(self, count: int) -> None:
        with self._lock:
            self._work.done += count
            now = self._clock()
            if now - self._told < self._every_seconds:
                return
            self._told = now
            said = self._work.figures(now)
        self._logger.info("disk %s: %s", self._work.label, said)

    def finished(self) -> None:
        """The engine's own last line says what came of it."""
