"""Signals that a flow hears while it waits for its threads.

Python runs a signal's handler in the main thread, between two of its instructions. A signal that comes while
that thread is about to wait for a lock, but has to hand the interpreter to another thread first, interrupts
nothing: the main thread falls asleep, and the handler runs when the lock is released (CPython's
`Modules/_threadmodule.c`, `acquire_timed`). A flow that waits for an hour of streams would be deaf for that
hour, and be killed without having cleaned up. It happened to some of the jobs that were told to end as their
streams began, one in fifty or so.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_POKE = signal.SIGURG
"""Interrupts the main thread and means nothing: nobody here uses urgent data of sockets."""
_POKE_SECONDS = 0.05
_NOBODY = -1


@contextmanager
def heard_at_once() -> Iterator[None]:
    """Inside, the main thread hears every signal that has a handler, whatever it waits for.

    The part of Python that every signal reaches at once writes its number into a pipe; a thread reads it and
    interrupts the main thread until that has had its turn. Elsewhere than in the main thread, and where an
    event loop listens already, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    others = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    if others != _NOBODY:
        signal.set_wakeup_fd(others)
        os.close(reader)
        os.close(writer)
        yield
        return
    listener = _Listener(reader)
    previous: Any = signal.signal(_POKE, listener.hear)
    try:
        listener.start()
        yield
    finally:
        # Whatever a signal interrupts here: the thread ends once its pipe is closed.
        try:
            signal.set_wakeup_fd(_NOBODY)
        finally:
            os.close(writer)
        try:
            listener.join()
        finally:
            signal.signal(_POKE, previous)


class _Listener(threading.Thread):
    """Interrupts the thread that made it for each signal that the pipe tells of, until it has heard it."""

    def __init__(self, reader: int) -> None:
        super().__init__(name="signals", daemon=True)
        self._reader = reader
        self._listening = threading.get_ident()
        self._is_heard = False

    def hear(self, *_: Any) -> None:
        """The handler of a poke. Of those that have come Python calls lower numbers before, SIGINT's and
        SIGTERM's too.

        It takes no lock: it may interrupt itself.
        """
        self._is_heard = True

    def run(self) -> None:
        while told := os.read(self._reader, 64):
            self._is_heard = set(told) == {_POKE}
            while not self._is_heard:
                signal.pthread_kill(self._listening, _POKE)
                time.sleep(_POKE_SECONDS)
        os.close(self._reader)
