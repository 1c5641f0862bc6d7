"""A store that fails on request, around a real one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from enum import Enum
from typing import TypeVar

from tests.media.around_store import AroundStore
from vsa.media.store import Store

T = TypeVar("T")


class Moment(Enum):
    """Whether the wrapped store did what was asked before the caller hears of the failure."""

    BEFORE = "before"
    AFTER = "after"


class FaultyStore(AroundStore):
    """Counts calls and lets `script` fail them: (call number from 0, method, name) -> when and with what."""

    def __init__(
        self, store: Store, script: Callable[[int, str, str], tuple[Moment, Exception] | None]
    ) -> None:
        super().__init__(store)
        self._script = script
        self._lock = threading.Lock()
        self.calls: list[tuple[str, str]] = []

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


def fail_from(
    number: int, error: Exception, *, method: str = ""
) -> Callable[[int, str, str], tuple[Moment, Exception] | None]:
    """Fail this call and all that follow, or those of this method alone: what is full or away stays so."""
    return lambda call, called, _name: (
        (Moment.BEFORE, error) if call >= number and method in (called, "") else None
    )


def no_fault(_number: int, _method: str, _name: str) -> None:
    """Only count."""
