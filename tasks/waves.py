"""Many task runs, some at a time, each handed back as it ends.

A mapped task submits all its runs at once, and the thread pool takes them in that order: the next stage of
the first would wait for this stage of the last. Here a stage overtakes.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Generic, TypeVar
from uuid import UUID

from prefect.futures import PrefectFuture

from vsa.stop import Stop

_LOOK_AT_STOP = 1.0

T = TypeVar("T")
Future = PrefectFuture[Any]


@dataclass(eq=False)
class _Held(Generic[T]):
    """An item whose own future has ended, and that waits for another's, until a moment of the clock."""

    item: T
    future: Future
    until: float
    is_over: bool = False


def _nobody(_item: object) -> None:
    return None


def some_at_a_time(
    begin: Callable[[T], Future],
    items: Iterable[T],
    *,
    at_once: int,
    stop: Stop,
    after: Callable[[T], Future | None] = _nobody,
    longest: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[T, Future]]:
    """Items with their futures, in the order in which these end; no more than `at_once` are under way.

    `after` is asked what an item whose future has ended waits for besides. It is handed back once there is
    nothing: asked again when that has ended, or else after `longest` seconds. Items that wait so are not
    under way: any number may. Once `stop` is set none does: all are handed back, and `after` is not asked.
    """
    waiting, under_way = deque(items), dict[UUID, tuple[T, Future]]()
    held, by_age = dict[UUID, tuple[Future, list[_Held[T]]]](), deque[_Held[T]]()
    ended: queue.SimpleQueue[UUID] = queue.SimpleQueue()

    def watch(future: Future) -> None:
        future.add_done_callback(lambda done: ended.put(done.task_run_id))

    def waits_no_more(some: _Held[T]) -> bool:
        return some.until <= clock() or stop.is_set

    while waiting or under_way or by_age:
        while waiting and len(under_way) < at_once:
            item = waiting.popleft()
            future = begin(item)
            under_way[future.task_run_id] = item, future
            watch(future)
        known = _next(ended, min(_LOOK_AT_STOP, max(0.0, by_age[0].until - clock())) if by_age else None)
        asked: list[_Held[T]] = []
        # A future that nobody waited for asks the server for its state, which learns of it some time later.
        if known in under_way:
            item, future = under_way.pop(known)
            future.wait()
            asked.append(_Held(item, future, clock() + longest))
            by_age.append(asked[0])
        elif known in held:
            other, asked = held.pop(known)
            other.wait()
        asked += [some for some in takewhile(waits_no_more, by_age) if some not in asked]
        for some in (some for some in asked if not some.is_over):
            waits_for = None if waits_no_more(some) else after(some.item)
            if waits_for is None:
                some.is_over = True
                yield some.item, some.future
                continue
            if waits_for.task_run_id not in held:
                held[waits_for.task_run_id] = waits_for, []
                watch(waits_for)
            held[waits_for.task_run_id][1].append(some)
        while by_age and by_age[0].is_over:
            by_age.popleft()


def _next(ended: queue.SimpleQueue[UUID], seconds: float | None) -> UUID | None:
    """The next that has ended; None if none does within so many seconds."""
    try:
        return ended.get(timeout=seconds)
    except queue.Empty:
        return None
