"""The signs of life of a job's runs, given from a thread of its own as long as runs are open.

The job gives them also for streams that proxies carry: when it is gone, nobody commits what they bring.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections import Counter
from collections.abc import Callable

from vsa.media.media import Media
from vsa.media.signs import Sign, give
from vsa.redact import redact

EVERY_SECONDS = 300
"""Twelve small objects an hour for each open run; a sweep that doubts one waits for twice as long."""

_log = logging.getLogger(__name__)


class SignsOfLife:
    """Gives a sign when a run begins and then every so many seconds, until it ends. Never an error."""

    def __init__(
        self, media: Media, *, now: Callable[[], dt.datetime], every_seconds: int = EVERY_SECONDS
    ) -> None:
        self._media = media
        self._now = now
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._open: set[str] = set()
        self._numbers: Counter[str] = Counter()
        self._none_left = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self, run: str) -> None:
        """Give the run's first sign; nothing if it has begun before."""
        with self._lock:
            if run in self._open:
                return
            self._open.add(run)
            self._have_a_thread()
        self._give(run)

    def end(self, run: str) -> None:
        """Give no more signs of the run; nothing if it has not begun."""
        with self._lock:
            self._open.discard(run)
            if not self._open:
                self._none_left.set()
                self._thread = None

    def give(self) -> None:
        """One sign of each open run."""
        with self._lock:
            runs = sorted(self._open)
        for run in runs:
            self._give(run)

    def _have_a_thread(self) -> None:
        """Start one, unless there is one that lives; without it, the next run that begins tries again."""
        if self._thread is not None and self._thread.is_alive():
            return
        none_left = threading.Event()
        # A daemon: a job that dies gives no sign any more.
        thread = threading.Thread(target=self._go_on, args=[none_left], name="signs of life", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning("no thread gives signs of life: %s", error)
        else:
            self._none_left, self._thread = none_left, thread

    def _go_on(self, none_left: threading.Event) -> None:
        while not none_left.wait(self._every_seconds):
            self.give()

    def _give(self, run: str) -> None:
        with self._lock:
            if run not in self._open:
                return
            number = self._numbers[run]
            # Taken whatever becomes of it: a create whose answer is lost may still come about.
            self._numbers[run] += 1
        try:
            give(
                self._media,
                Sign(run=run, number=number, at=self._now(), every_seconds=self._every_seconds),
            )
        except Exception as error:  # noqa: BLE001
            # Whatever it is, the next one may succeed; were it raised, no run would give a sign any more.
            what = redact(f"{type(error).__name__}: {error}")
            _log.warning("run %s goes on, which could not be said on the media: %s", run, what)
