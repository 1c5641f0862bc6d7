"""A store whose process is killed in the midst of a call, before the call has its effect or after."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tests.media.faulty_store import Moment
from vsa.media.store import Buffer, Store
from vsa.ranges import ByteRange

T = TypeVar("T")


@dataclass(frozen=True)
class Death:
    """The process dies in call `number`, counted from 0; nothing of it runs on, not even a `finally`."""

    number: int
    moment: Moment

    def store(self, inner: Store) -> DyingStore:
        return DyingStore(inner, self)


class DyingStore:
    def __init__(self, store: Store, death: Death) -> None:
        self._store = store
        self._death = death
        self._calls = 0
        self._counting = threading.Lock()

    @property
    def location(self) -> str:
        return self._store.location

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        self._do(lambda: self._store.create(name, parts))

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        return self._do(lambda: self._store.read(name, at, limit=limit))

    def size(self, name: str) -> int:
        return self._do(lambda: self._store.size(name))

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._do(lambda: list(self._store.folders(prefix))))

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return iter(self._do(lambda: list(self._store.names(prefix, after=after))))

    def delete(self, name: str) -> None:
        self._do(lambda: self._store.delete(name))

    def prepare_for_writing(self) -> None:
        self._store.prepare_for_writing()

    def _do(self, call: Callable[[], T]) -> T:
        with self._counting:
            number, self._calls = self._calls, self._calls + 1
        if number == self._death.number and self._death.moment is Moment.BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call()
        finally:
            # Also after a refusal: an object that is not there is an answer, too.
            if number == self._death.number:
                os.kill(os.getpid(), signal.SIGKILL)
