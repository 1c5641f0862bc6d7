"""One answer for all who ask at the same time, and for all whom one of a while ago serves as well.

Many disks of a resource group are looked at in one job, and Azure lists snapshots only by group: a list for
each disk would cost the square of their number. Whoever asks gets a list that was begun after they asked, or
after a moment that they name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """Shares what `fetch` returns, or raises, between threads; for any number of them.

    Nobody gets an answer that was begun before they asked, so nothing that a caller has done before is
    missing from it; but for those who say since when one is new enough. While one is fetched, all who come
    wait for the next one, which one of them fetches.
    """

    def __init__(self, fetch: Callable[[], T], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` counts seconds and never goes back; moments are its."""
        self._fetch = fetch
        self._clock = clock
        self._lock = threading.Lock()
        self._next: Future[T] = Future()
        self._fetching = threading.Lock()
        self._last: tuple[float, T] | None = None

    def get(self, *, since: float | None = None) -> T:
        """An answer begun after this call, or after the moment `since`."""
        with self._lock:
            mine = self._next
        with self._fetching:
            if since is not None and self._last is not None and self._last[0] >= since:
                return self._last[1]
            if not mine.done():
                with self._lock:
                    self._next = Future()
                self._answer(mine)
        return mine.result()

    def _answer(self, future: Future[T]) -> None:
        begun = self._clock()
        try:
            found = self._fetch()
        except BaseException as error:
            future.set_exception(error)
            # An error of the others is theirs to handle; what ends this thread is not.
            if not isinstance(error, Exception):
                raise
        else:
            self._last = begun, found
            future.set_result(found)
