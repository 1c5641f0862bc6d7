"""A store that fails on request, around a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import TypeVar

from vsa.media.store import Buffer, Store
from vsa.ranges import ByteRange

T = TypeVar("T")


class Moment(Enum):
    """Whether the wrapped store did what was asked before the caller hears of the failure."""

    BEFORE = "before"
    AFTER = "after"


class FaultyStore:
    """Counts calls and lets `script` fail them: (call number from 0, method, name) -> when and with what."""

    def __init__(
        self, store: Store, script: Callable[[int, str, str], tuple[Moment, Exception] | None]
    ) -> None:
        self._store = store
        self._script = script
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []

    @property
    def location(self) -> str:
        return self._store.location

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        self._do("create", name, lambda: self._store.create(name, parts))

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        return self._do("read", name, lambda: self._store.read(name, at, limit=limit))

    def size(self, name: str) -> int:
        return self._do("size", name, lambda: self._store.size(name))

    def delete(self, name: str) -> None:
        self._do("delete", name, lambda: self._store.delete(name))

    def prepare_for_writing(self) -> None:
        self._do("prepare_for_writing", "", self._store.prepare_for_writing)

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._do("folders", prefix, lambda: list(self._store.folders(prefix))))

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return iter(self._do("names", prefix, lambda: list(self._store.names(prefix, after=after))))

    def _do(self, method: str, name: str, call: Callable[[], T]) -> T:
        with self._lock:
            number = len(self.calls)
            self.calls.append((method, name))
        fault = self._script(number, method, name)
        if fault is None:
            return call()
        moment, error = fault
        if moment is Moment.AFTER:
            call()
        raise error


def fail_call(
    number: int, moment: Moment, error: Exception
) -> Callable[[int, str, str], tuple[Moment, Exception] | None]:
    """Fail exactly one call."""
    return lambda call, _method, _name: (moment, error) if call == number else None


def no_fault(_number: int, _method: str, _name: str) -> None:
    """Only count."""
