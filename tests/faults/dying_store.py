"""A store whose process is killed in the midst of a call, before the call has its effect or after."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.media.around_store import AroundStore
from tests.media.faulty_store import Moment
from vsa.media.store import Store

T = TypeVar("T")


@dataclass(frozen=True)
class Death:
    """The process dies in call `number`, counted from 0; nothing of it runs on, not even a `finally`."""

    number: int
    moment: Moment

    def store(self, inner: Store) -> DyingStore:
        return DyingStore(inner, self)


class DyingStore(AroundStore):
    def __init__(self, store: Store, death: Death) -> None:
        super().__init__(store)
        self._death = death
        self._calls = 0
        self._counting = threading.Lock()

    def prepare_for_writing(self) -> None:
        """Before anything of ours is there, nobody need die."""
        self._store.prepare_for_writing()

    def _do(self, method: str, name: str, call: Callable[[], T]) -> T:
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
