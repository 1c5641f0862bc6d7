"""The last things that a job does, which nothing may cut short, and how long it takes over those it can miss.

Prefect ends a job by SIGTERM and kills it thirty seconds later: first comes what Azure would go on billing,
then the report for the log, then what people are shown. What is missed of that, the hook makes up for.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from prefect.exceptions import TerminationSignal

T = TypeVar("T")

SHOWN_SECONDS = 60.0
"""How long a job that has ended by itself waits for the server to hear of it."""
TOLD_SECONDS = 5.0
"""The same for one that was told to end, and will be killed if it does not."""

_log = logging.getLogger(__name__)


class LastThings:
    """Work that a signal does not cut short: it is held until `let_go`, and raised there.

    Python runs the handlers of signals in the main thread, wherever that is; so the work is done in another
    one, for which it waits. Prefect's handler stays in its place: without it, Prefect takes a cancelled run
    for a crashed one. A second Ctrl-C is not held: whoever presses it means it.
    """

    def __init__(self, cause: BaseException | None = None) -> None:
        """`cause` is what has cut the job short, if anything has."""
        self._told = isinstance(cause, TerminationSignal)
        self._held: BaseException | None = None

    def carry(self, work: Callable[[], T]) -> T:
        """Do it, however long that takes."""
        piece = _Piece(work)
        self._wait_for(piece, None)
        return piece.future.result()

    def attempt(self, work: Callable[[], object], failed: str) -> bool:
        """Do it if it takes no longer than it may. Whether it is done; if not, `failed` is logged, and why.

        What takes longer goes on in its thread while the process lives.
        """
        piece = _Piece(work)
        self._wait_for(piece, time.monotonic() + SHOWN_SECONDS)
        if not piece.ended.is_set():
            _log.warning("%s: the server took too long", failed)
            return False
        error = piece.future.exception()
        if error is not None:
            _log.warning("%s: %s: %s", failed, type(error).__name__, error)
        return error is None

    def let_go(self) -> None:
        """Raise what was held meanwhile, if anything was."""
        if self._held is not None:
            raise self._held

    def _wait_for(self, piece: _Piece[T], deadline: float | None) -> None:
        told_at = time.monotonic() if self._told else None
        while not piece.ended.is_set():
            try:
                piece.begin()
                ends = deadline
                if deadline is not None and told_at is not None:
                    ends = min(deadline, told_at + TOLD_SECONDS)
                piece.ended.wait(None if ends is None else max(0.0, ends - time.monotonic()))
                return
            except KeyboardInterrupt:
                raise
            except BaseException as held:  # noqa: BLE001 - raised again in let_go
                self._held = held
                if isinstance(held, TerminationSignal):
                    self._told, told_at = True, time.monotonic()


class _Piece(Generic[T]):
    """A piece of work in a thread and with the context of whoever has asked for it."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._context = contextvars.copy_context()
        self._taken = threading.Lock()
        self.future: Future[T] = Future()
        self.ended = threading.Event()

    def begin(self) -> None:
        """May be repeated: a signal may come while the thread is being made."""
        if not self._taken.locked():
            threading.Thread(target=self._carry_out, name="last things", daemon=True).start()

    def _carry_out(self) -> None:
        if not self._taken.acquire(blocking=False):
            return
        try:
            self.future.set_result(self._context.run(self._work))
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self.future.set_exception(error)
        self.ended.set()


def why_cut_short(error: BaseException) -> str:
    """In words, what ended a job before its time."""
    if isinstance(error, TerminationSignal):
        return "the job was cut short: its process was told to end"
    if isinstance(error, asyncio.CancelledError):
        return "the job was cut short: its flow ran out of time"
    if isinstance(error, KeyboardInterrupt):
        return "the job was cut short: it was interrupted from the keyboard"
    return f"the job was cut short: {type(error).__name__}: {error}"
