"""Many task runs, some at a time, each handed back as it ends.

A mapped task submits all its runs at once, and the thread pool takes them in that order: the next stage of
the first would wait for this stage of the last. Here a stage overtakes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar
from uuid import UUID

from prefect.futures import PrefectFuture, as_completed

T = TypeVar("T")


def some_at_a_time(
    begin: Callable[[T], PrefectFuture[Any]], items: Iterable[T], *, at_once: int
) -> Iterator[tuple[T, PrefectFuture[Any]]]:
    """Items with their futures, in the order in which these end; no more than `at_once` are under way."""
    waiting = deque(items)
    under_way: dict[UUID, tuple[T, PrefectFuture[Any]]] = {}
    while waiting or under_way:
        while waiting and len(under_way) < at_once:
            item = waiting.popleft()
            future = begin(item)
            under_way[future.task_run_id] = item, future
        ended = next(as_completed([future for _, future in under_way.values()]))
        # A future that nobody waited for asks the server for its state, which learns of it some time later.
        ended.wait()
        yield under_way.pop(ended.task_run_id)
