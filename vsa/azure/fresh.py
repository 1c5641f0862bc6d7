"""One answer for all who ask at the same time.

Many disks of a resource group are looked at in one job, and Azure lists snapshots only by group: a list for
each disk would cost the square of their number. Whoever asks gets a list that was begun after they asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Fresh(Generic[T]):
    """Shares what `fetch` returns, or raises, between threads; for any number of them.

    Nobody gets an answer that was begun before they asked, so nothing that a caller has done before is
    missing from it. While one is fetched, all who come wait for the next one, which one of them fetches.
    """

    def __init__(self, fetch: Callable[[], T]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._next: Future[T] = Future()
        self._fetching = threading.Lock()

    def get(self) -> T:
        """An answer begun after this call."""
        with self._lock:
            mine = self._next
        with self._fetching:
            if not mine.done():
                with self._lock:
                    self._next = Future()
                self._answer(mine)
        return mine.result()

    def _answer(self, future: Future[T]) -> None:
        try:
            future.set_result(self._fetch())
        except BaseException as error:
            future.set_exception(error)
            # An error of the others is theirs to handle; what ends this thread is not.
            if not isinstance(error, Exception):
                raise
