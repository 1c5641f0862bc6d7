"""One answer for all who ask at the same time, and for all whom one of a while ago serves as well.

Many disks of a resource group are looked at in one job, and Azure lists snapshots only by group: a list for
each disk would cost the square of their number. Whoever asks gets a list that was begun after they asked, or
after a moment that they name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Generic, TypeVar

from vsa.errors import RunStopped
from vsa.stop import Stop

T = TypeVar("T")

LOOK_SECONDS = 0.5
"""How long somebody who waits for another's answer is deaf to a stop."""


class Fresh(Generic[T]):
    """Shares what `fetch` returns, or raises, between threads; for any number of them.

    Nobody gets an answer that was begun before they asked, so nothing that a caller has done before is
    missing from it; but for those who say since when one is new enough. While one is fetched, all who come
    wait for the next one, which one of them fetches; another one of them, if that one is told to stop.
    """

    def __init__(self, fetch: Callable[[Stop], T], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never goes back; moments are its."""
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._next: Future[T] = Future()
        self._fetching = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self, *, stop: Stop, since: float | None = None) -> T:
        """An answer begun after this call, or after the moment `since`. RunStopped upon a stop."""
        with self._lock:
            mine = self._next
        with self._turn(stop):
            if since is not None and self._last is not None and self._last[0] >= since:
                return self._last[1]
            if not mine.done():
                with self._lock:
                    self._next = Future()
                self._answer(mine, stop)
        return mine.result()

    @contextmanager
    def _turn(self, stop: Stop) -> Iterator[None]:
        while not self._fetching.acquire(timeout=LOOK_SECONDS):
            stop.check()
        try:
            yield
        finally:
            self._fetching.release()

    def _answer(self, future: Future[T], stop: Stop) -> None:
        begun = self._clock()
        try:
            found = self._fetch(stop)
        except RunStopped:
            # Left without an answer: the next one of those who wait for it fetches.
            raise
        except BaseException as error:
            future.set_exception(error)
            # An error of the others is theirs to handle; what ends this thread is not.
            if not isinstance(error, Exception):
                raise
        else:
            self._last = begun, found
            future.set_result(found)
