"""A proxy's lane in one job: so many child runs at one time, and small disks together in one.

Each stream comes in a thread of its own. One of those that wait leads: it takes a free place, takes along
what may share its child run, and has it run; the others get what it brings back. So a lane needs no thread of
its own, and a child run stands under the task that led it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from vsa.errors import VsaError
from vsa.media.outcomes import StreamOutcome
from vsa.ranges import GIB
from vsa.stop import Stop
from vsa.transfer.order import StreamOrder

SMALL = 64 * GIB
"""Disks up to this size may share a child run: starting one costs more than most of them have to say."""
TOGETHER = 16
"""Disks that share a child run at most: they go with it if it dies."""
_LOOK_AT_STOP = 1.0

RunTogether = Callable[[Sequence[StreamOrder]], Sequence[StreamOutcome | VsaError]]
"""Has streams carried out by one child run; says what became of each, in the order given."""


@dataclass(eq=False)
class _Waiting:
    order: StreamOrder
    alone: bool
    outcome: Future[StreamOutcome] = field(default_factory=Future)
    taken: bool = False


class Lane:
    """Any number of threads may carry streams through one lane."""

    def __init__(
        self, places: int, run: RunTogether, *, stop: Stop, small: int = SMALL, together: int = TOGETHER
    ) -> None:
        self._places = self._free = places
        self._run = run
        self._stop = stop
        self._small = small
        self._together = together
        self._waiting: list[_Waiting] = []
        self._changed = threading.Condition()

    def carry(self, order: StreamOrder, *, alone: bool = False) -> StreamOutcome:
        """What the stream came to; raises what `run` said of it, or raised for all that it ran together.

        `alone` keeps it from sharing a child run. RunStopped if a stop was asked for before its turn came.
        """
        mine = _Waiting(order, alone or order.snapshot.size > self._small)
        led = self._turn(mine)
        if led:
            self._lead(led)
        return mine.outcome.result()

    def _turn(self, mine: _Waiting) -> list[_Waiting]:
        """The streams to lead, `mine` first; none if another one has taken `mine` along."""
        with self._changed:
            self._waiting.append(mine)
            try:
                while not mine.taken and not self._free:
                    self._stop.check()
                    self._changed.wait(_LOOK_AT_STOP)
                if mine.taken:
                    return []
                self._stop.check()
            except BaseException:
                if not mine.taken:
                    self._waiting.remove(mine)
                    raise
                return []
            self._free -= 1
            led = [mine, *self._companions(mine)]
            for item in led:
                item.taken = True
                self._waiting.remove(item)
            self._changed.notify_all()
            return led

    def _companions(self, mine: _Waiting) -> list[_Waiting]:
        if mine.alone:
            return []
        fitting = [item for item in self._waiting if item is not mine and not item.alone]
        # Each place its share: the streams of a child run go one after the other, and places must not idle.
        share = math.ceil((1 + len(fitting)) / self._places)
        return fitting[: min(share, self._together) - 1]

    def _lead(self, led: Sequence[_Waiting]) -> None:
        try:
            outcomes = self._run([item.order for item in led])
            for item, outcome in zip(led, outcomes, strict=True):
                if isinstance(outcome, VsaError):
                    item.outcome.set_exception(outcome)
                else:
                    item.outcome.set_result(outcome)
        except BaseException as error:
            # Nobody may be left waiting, whatever ended this thread's work.
            for item in led:
                if not item.outcome.done():
                    item.outcome.set_exception(error)
            raise
        finally:
            with self._changed:
                self._free += 1
                self._changed.notify_all()
