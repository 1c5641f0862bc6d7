"""A run that looks after itself: it stops when its own run is over, a child also with its job's, told or not.

A job that is killed tells its children nothing, and a worker that has died delivers no cancellation. A child
that went on would read snapshots that are being deleted, and keep granting itself access to them.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Self
from uuid import UUID

from tasks.flow_runs import NO_ANSWER, is_over

EVERY_SECONDS = 3.0
LAST_LOOK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Watch:
    """Looks at flow runs now and then, in a thread of its own, and calls `stop` once one of them is over.

    The first look is before anything is done: a child may begin when its job has ended. A server that does
    not answer says nothing of the runs.
    """

    def __init__(
        self,
        flow_runs: tuple[UUID, ...],
        stop: Callable[[], None],
        *,
        every_seconds: float = EVERY_SECONDS,
    ) -> None:
        self._flow_runs = flow_runs
        self._stop = stop
        self._every_seconds = every_seconds
        self._ended = threading.Event()
        # The context goes along: which server is asked, and whose log the last word is in.
        look = partial(contextvars.copy_context().run, self._look)
        self._thread = threading.Thread(target=look, name="watch", daemon=True)

    def __enter__(self) -> Self:
        if not self._one_is_over():
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            # It may be waiting for a server that does not answer; nobody needs what it would say now.
            self._thread.join(LAST_LOOK_SECONDS)

    def _look(self) -> None:
        while not self._ended.wait(self._every_seconds):
            if self._one_is_over():
                return

    def _one_is_over(self) -> bool:
        """Whether one of the runs is over; then whoever watches is told."""
        for flow_run in self._flow_runs:
            try:
                over = is_over(flow_run)
            except NO_ANSWER as error:
                _log.debug("no word of run %s: %s", flow_run, type(error).__name__)
                continue
            if over:
                _log.warning("run %s is over or being cancelled: stopping", flow_run)
                self._stop()
                return True
        return False
