"""How long work tells how far it is, without knowing who watches.

The engine calls a `Progress`; a terminal draws a bar, a pipe gets a line now and then, a task of the
flows updates an artifact, and most tests listen to nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TextIO

from vsa.text import printable, size_text

Clock = Callable[[], float]

_BAR_WIDTH = 30


class Progress(Protocol):
    """Told of one piece of work after another; `advanced` may be called from any thread."""

    def started(self, label: str, total_bytes: int) -> None:
        """Work on `label` begins; zero means that the amount is not known."""

    def advanced(self, count: int) -> None:
        """So many more bytes are done."""

    def finished(self) -> None:
        """The work has ended, whether it succeeded or not."""


class Silent:
    """Nobody watches."""

    def started(self, label: str, total_bytes: int) -> None:
        pass

    def advanced(self, count: int) -> None:
        pass

    def finished(self) -> None:
        pass


SILENT = Silent()


@dataclass
class Work:
    """How far one piece of work is; times are the clock's seconds."""

    label: str
    total: int
    began: float
    done: int = 0

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0

    def figures(self, now: float) -> str:
        """`37%  1.5 GiB of 4 GiB  210 MiB/s  0:00:12 left`, as far as total and rate are known."""
        rate = self.done / (now - self.began) if now > self.began else 0.0
        amount = size_text(self.done)
        if self.total:
            amount = f"{self.share:.0%}  {amount} of {size_text(self.total)}"
        text = f"{amount}  {size_text(int(rate))}/s"
        if rate > 0 and self.done < self.total:
            text += f"  {_duration((self.total - self.done) / rate)} left"
        return text


Rendering = Callable[[Work, float, bool], str]
"""What to write for a piece of work at a time; the flag says that it has ended."""


class Watched:
    """Writes renderings of the work to a stream, no more often than asked."""

    def __init__(self, stream: TextIO, clock: Clock, rendering: Rendering, *, every_seconds: float) -> None:
        self._stream = stream
        self._clock = clock
        self._rendering = rendering
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._work = Work("", 0, clock())
        self._told = clock()

    def started(self, label: str, total_bytes: int) -> None:
        with self._lock:
            self._work = Work(printable(label), total_bytes, self._clock())
            self._tell(ended=False)

    def advanced(self, count: int) -> None:
        with self._lock:
            self._work.done += count
            if self._clock() - self._told >= self._every_seconds:
                self._tell(ended=False)

    def finished(self) -> None:
        with self._lock:
            self._tell(ended=True)

    def _tell(self, *, ended: bool) -> None:
        self._told = self._clock()
        self._stream.write(self._rendering(self._work, self._told, ended))
        self._stream.flush()


def bar(stream: TextIO, clock: Clock = time.monotonic) -> Watched:
    """One line of a terminal, drawn over and over until the work ends."""
    return Watched(stream, clock, _as_bar, every_seconds=0.1)


def lines(stream: TextIO, clock: Clock = time.monotonic) -> Watched:
    """A line at the start, one every ten seconds, one at the end: for logs and pipes."""
    return Watched(stream, clock, _as_line, every_seconds=10.0)


def watched_on(stream: TextIO, clock: Clock = time.monotonic) -> Progress:
    """A bar where the stream is a terminal, plain lines elsewhere."""
    return bar(stream, clock) if stream.isatty() else lines(stream, clock)


def _as_bar(work: Work, now: float, ended: bool) -> str:
    filled = round(work.share * _BAR_WIDTH)
    drawn = "#" * filled + "." * (_BAR_WIDTH - filled)
    return f"\r{work.label} [{drawn}] {work.figures(now)}\x1b[K" + ("\n" if ended else "")


def _as_line(work: Work, now: float, ended: bool) -> str:
    return f"{work.label}: {'ended, ' if ended else ''}{work.figures(now)}\n"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
