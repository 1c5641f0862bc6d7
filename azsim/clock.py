"""The simulation's one clock: real time plus an offset that only ever grows.

Waits that Azure documents (ten minutes between premium snapshots, hours until a SAS expires) are
stepped over by moving the offset. Bearer tokens are the exception: they live in real time, because
the client that holds them judges their age by its own clock.
"""

from __future__ import annotations

import datetime as dt
import threading

from azsim.documents import Documents

_KEY = "offset"


class Clock:
    """Virtual UTC time, monotonic over restarts of the simulation."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._lock = threading.Lock()
        stored = documents.get("clock", _KEY)
        self._offset = dt.timedelta(seconds=stored["seconds"] if stored else 0.0)

    def now(self) -> dt.datetime:
        """The present virtual time, aware and in UTC."""
        return dt.datetime.now(dt.UTC) + self._offset

    @property
    def offset_seconds(self) -> float:
        """How far virtual time is ahead of real time."""
        return self._offset.total_seconds()

    def advance(self, seconds: float) -> dt.datetime:
        """Step forward and return the new time; going back would unmake things already answered."""
        if seconds < 0:
            raise ValueError(f"the clock only goes forward, got {seconds} seconds")
        with self._lock:
            self._offset += dt.timedelta(seconds=seconds)
            self._documents.put("clock", _KEY, {"seconds": self._offset.total_seconds()})
        return self.now()
