"""How far a stream is: in its task's log, and as an artifact that the dashboard shows while it moves."""

from __future__ import annotations

import contextvars
import logging
import math
import threading
import time
from collections.abc import Callable
from copy import copy
from types import TracebackType
from typing import Self

from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from tasks.artifacts import artifact_key, run_link
from tasks.markup import escaped
from tasks.progress_artifact import ProgressArtifact
from vsa.model import SourceDisk
from vsa.progress import Work
from vsa.text import duration_text, size_text

EVERY_SECONDS = 10.0
SHOWN_EVERY_SECONDS = 5.0
# A stream that is shorter tells the server once, when it has ended.
FIRST_SHOWN_AFTER_SECONDS = 1.0
# How long the end of a stream waits for the server to hear of it.
LAST_WORD_SECONDS = 5.0

Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]
Show = Callable[[float, str], None]
"""Told of percent and description; may be slow and may fail."""


class LoggedProgress:
    """A line now and then while work goes on; short work says nothing. Any thread may report."""

    def __init__(
        self,
        logger: Logger,
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._every_seconds = every_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._work = Work("", 0, clock())
        self._told = clock()

    def started(self, label: str, total_bytes: int) -> None:
        with self._lock:
            self._told = self._clock()
            self._work = Work(label, total_bytes, self._told)

    def advanced(self, count: int) -> None:
        with self._lock:
            self._work.done += count
            now = self._clock()
            if now - self._told < self._every_seconds:
                return
            self._told = now
            said = self._work.figures(now)
        self._logger.info("disk %s: %s", self._work.label, said)

    def finished(self) -> None:
        """The engine's own last line says what came of it."""


class StreamProgress(LoggedProgress):
    """Logs the same, and shows the work to a server that may be slow or away.

    To be entered around the work. A thread of its own looks at how far the work is and tells the server:
    the threads that move bytes only count. While an answer is awaited nothing piles up, for the thread looks
    again when it is free. A server that does not answer costs the stream LAST_WORD_SECONDS at its end.
    """

    def __init__(
        self,
        logger: Logger,
        show: Show,
        *,
        suffix: str = "",
        shown_every_seconds: float = SHOWN_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`suffix` is Markdown at the end of every description."""
        super().__init__(logger, clock=clock)
        self._show = show
        self._suffix = suffix
        self._shown_every_seconds = shown_every_seconds
        self._context: contextvars.Context | None = None
        self._watcher: threading.Thread | None = None
        self._ended = threading.Event()
        self._succeeded: bool | None = None
        self._given_up = False

    def __enter__(self) -> Self:
        # The context goes along: the task's client and settings, and whose log it is.
        self._context = contextvars.copy_context()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._succeeded = kind is None
            self._ended.set()
        if self._watcher is not None:
            self._watcher.join(LAST_WORD_SECONDS)
        # Whatever is said later might overwrite what the task's next attempt says.
        self._given_up = True

    def advanced(self, count: int) -> None:
        super().advanced(count)
        with self._lock:
            if self._watcher is None and self._context is not None and not self._ended.is_set():
                run = self._context.run
                self._watcher = threading.Thread(
                    target=run, args=(self._watch,), name="progress", daemon=True
                )
                self._watcher.start()

    def finished(self) -> None:
        """More work may follow, after an audit that failed; leaving the `with` ends it."""

    def _watch(self) -> None:
        wait, said, complained = min(FIRST_SHOWN_AFTER_SECONDS, self._shown_every_seconds), "", False
        while True:
            ended = self._ended.wait(wait)
            wait = self._shown_every_seconds
            percent, description = self._now()
            try:
                if description != said and not self._given_up:
                    self._show(percent, description)
                    said = description
            except Exception as error:  # noqa: BLE001 - a stream goes on, whatever is wrong with the dashboard
                if not (complained or self._given_up):
                    self._logger.warning("the progress cannot be shown, the stream goes on: %s", error)
                complained = True
            if ended:
                return

    def _now(self) -> tuple[float, str]:
        with self._lock:
            work, succeeded = copy(self._work), self._succeeded
        now = self._clock()
        return percent_of(
            work, succeeded
        ), f"disk {escaped(work.label)}: {_said(work, now, succeeded)}{self._suffix}"


def percent_of(work: Work, succeeded: bool | None) -> float:
    """With one digit; 100 only when it has succeeded, for what was read last may still have to be stored."""
    return 100.0 if succeeded else min(99.9, math.floor(work.share * 1000) / 10)


def _said(work: Work, now: float, succeeded: bool | None) -> str:
    """`20 MiB of 100 MiB, 5 MiB/s, 12 s left`, as far as total and rate are known."""
    seconds = now - work.began
    rate = work.done / seconds if seconds > 0 else 0.0
    # An audit reads more than was planned.
    total = max(work.total, work.done)
    if succeeded:
        return f"{size_text(work.done)} in {duration_text(seconds)}, {size_text(int(rate))}/s"
    amount = f"{size_text(work.done)} of {size_text(total)}" if work.total else size_text(work.done)
    if succeeded is False:
        return f"ended early after {amount}"
    left = f", {duration_text((total - work.done) / rate)} left" if rate and work.done < total else ""
    return f"{amount}, {size_text(int(rate))}/s{left}"


def stream_progress(
    disk: SourceDisk, *, job: str = "", every_seconds: float = SHOWN_EVERY_SECONDS
) -> StreamProgress:
    """The progress of the disk that the running task streams; to be called in the task.

    `job` is the job's flow run if the task runs in another one: the artifact then has a link to it. The
    artifacts of a disk's streams are versions of one another.
    """
    context = TaskRunContext.get()
    assert context is not None, "called outside of a task"
    key = artifact_key("stream", disk.name, disk.key[:8])
    artifact = ProgressArtifact(key, context.task_run)
    is_elsewhere = job and job != str(context.task_run.flow_run_id)
    suffix = f", {run_link(job, 'job')}" if is_elsewhere else ""
    return StreamProgress(get_run_logger(), artifact.show, suffix=suffix, shown_every_seconds=every_seconds)
