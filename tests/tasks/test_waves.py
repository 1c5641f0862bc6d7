"""Many at a time, as they end, and what waits for others besides: Prefect's own futures, ended by tests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future as Running
from typing import Any
from uuid import uuid4

import pytest
from prefect.futures import PrefectConcurrentFuture

from tasks.waves import Future, some_at_a_time
from vsa.stop import Stop


class Runs:
    """Futures by name, each ended when told."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._running: dict[str, Running[Any]] = {}
        self._futures: dict[str, Future] = {}

    def begin(self, name: str) -> Future:
        self.begun.append(name)
        return self[name]

    def __getitem__(self, name: str) -> Future:
        if name not in self._futures:
            self._running[name] = Running()
            self._futures[name] = PrefectConcurrentFuture(uuid4(), self._running[name])
        return self._futures[name]

    def end(self, *names: str) -> None:
        for name in names:
            assert self[name]
            self._running[name].set_result(name)


@pytest.fixture
def runs() -> Runs:
    return Runs()


def names(some: Iterator[tuple[str, Future]], count: int) -> list[str]:
    return [next(some)[0] for _ in range(count)]


def test_no_more_than_so_many_are_under_way_and_each_comes_as_it_ends(runs: Runs) -> None:
    runs.end("b")
    some = some_at_a_time(runs.begin, "abcd", at_once=2, stop=Stop())
    assert names(some, 1) == ["b"]
    assert runs.begun == ["a", "b"]
    runs.end("c", "d", "a")
    assert sorted(names(some, 3)) == ["a", "c", "d"]
    assert list(some) == []


def test_what_waits_for_another_is_overtaken_and_takes_no_place(runs: Runs) -> None:
    runs.end("a", "b", "c")
    some = some_at_a_time(
        runs.begin,
        "abc",
        at_once=1,
        stop=Stop(),
        after=lambda name: None if name == "c" or runs["other"].wrapped_future.done() else runs["other"],  # type: ignore[attr-defined]
        longest=60,
    )
    assert names(some, 1) == ["c"]
    assert runs.begun == ["a", "b", "c"]
    threading.Timer(0.1, runs.end, ["other"]).start()
    assert names(some, 2) == ["a", "b"]
    assert list(some) == []


def test_it_is_asked_again_and_may_wait_for_the_next(runs: Runs) -> None:
    waits = iter(["x", "y", None])

    def after(_: str) -> Future | None:
        name = next(waits)
        return None if name is None else runs[name]

    runs.end("a", "x")
    some = some_at_a_time(runs.begin, "a", at_once=1, stop=Stop(), after=after, longest=60)
    threading.Timer(0.1, runs.end, ["y"]).start()
    assert names(some, 1) == ["a"]
    assert list(waits) == []


def test_it_waits_no_longer_than_it_may(runs: Runs) -> None:
    runs.end("a", "b")
    some = some_at_a_time(
        runs.begin, "ab", at_once=1, stop=Stop(), after=lambda _: runs["never"], longest=0.2
    )
    began = time.monotonic()
    assert names(some, 2) == ["a", "b"]
    assert 0.2 <= time.monotonic() - began < 30
    assert list(some) == []


def test_after_a_stop_nobody_waits_any_more_nor_begins_to(runs: Runs) -> None:
    stop, asked = Stop(), list[str]()

    def after(name: str) -> Future:
        asked.append(name)
        return runs["never"]

    runs.end("a", "b")
    some = some_at_a_time(runs.begin, "abc", at_once=1, stop=stop, after=after, longest=3600)
    threading.Timer(0.1, stop.set).start()
    began = time.monotonic()
    assert names(some, 2) == ["a", "b"]
    assert time.monotonic() - began < 30
    runs.end("c")
    assert names(some, 1) == ["c"]
    assert asked == ["a", "b"]
    assert list(some) == []
