"""Times of the blob service: ticks of 100 ns since year 1, which its ETags and snapshot ids are made of."""

from __future__ import annotations

import datetime as dt
import re
import threading
from email.utils import format_datetime, parsedate_to_datetime

from azsim.clock import Clock

_YEAR_ONE = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
_SNAPSHOT_ID = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")


class Ticker:
    """Virtual time in ticks; no two calls get the same one, so ETags and snapshot ids are unique."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, to_ticks(self._clock.now()))
            return self._last


def to_ticks(moment: dt.datetime) -> int:
    return (moment - _YEAR_ONE) // dt.timedelta(microseconds=1) * 10


def from_ticks(ticks: int) -> dt.datetime:
    return _YEAR_ONE + dt.timedelta(microseconds=ticks // 10)


def etag(ticks: int) -> str:
    """An ETag without its quotes, such as 0x8D6D4174F131E9D."""
    return f"0x{ticks:X}"


def snapshot_id(ticks: int) -> str:
    """A snapshot's DateTime value, always with seven decimals."""
    return f"{from_ticks(ticks):%Y-%m-%dT%H:%M:%S}.{ticks % 10**7:07d}Z"


def is_snapshot_id(text: str) -> bool:
    return _SNAPSHOT_ID.fullmatch(text) is not None


def http_date(ticks: int) -> str:
    """RFC 1123, whole seconds."""
    return format_datetime(from_ticks(ticks).replace(microsecond=0), usegmt=True)


def parse_http_date(text: str) -> dt.datetime:
    """Raises ValueError when the text is no date."""
    moment = parsedate_to_datetime(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def parse_sas_time(text: str) -> dt.datetime:
    """A SAS start or expiry: ISO 8601 in UTC, to the day, minute, second or finer. Raises ValueError."""
    moment = dt.datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
