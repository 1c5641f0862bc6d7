"""One answer for all who ask at the same time, and never an old one."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from queue import Queue

import pytest

from vsa.azure.fresh import Fresh
from vsa.errors import RunStopped
from vsa.stop import Stop


def test_who_asks_again_gets_a_new_answer() -> None:
    numbers = count()
    fresh = Fresh(lambda _: next(numbers))
    assert [fresh.get(stop=Stop()) for _ in range(3)] == [0, 1, 2]


def test_all_who_wait_for_the_same_answer_share_it_and_it_is_none_that_was_begun_before() -> None:
    begun, go_on, numbers = threading.Semaphore(0), threading.Event(), count()

    def fetch(_: Stop) -> int:
        number = next(numbers)
        if number == 0:
            begun.release()
            assert go_on.wait(20)
        return number

    fresh = Fresh(fetch)
    with ThreadPoolExecutor(max_workers=21) as pool:
        first = pool.submit(fresh.get, stop=Stop())
        assert begun.acquire(timeout=20)
        others = [pool.submit(fresh.get, stop=Stop()) for _ in range(20)]
        while pool._work_queue.qsize():  # until all of them have asked
            threading.Event().wait(0.01)
        threading.Event().wait(0.1)
        go_on.set()
        assert first.result(20) == 0
        assert {other.result(20) for other in others} == {1}


def test_an_error_reaches_all_who_asked_and_nobody_after_them() -> None:
    answers = iter([ValueError("busy"), None])

    def fetch(_: Stop) -> str:
        if error := next(answers):
            raise error
        return "fine"

    fresh = Fresh(fetch)
    with pytest.raises(ValueError, match="busy"):
        fresh.get(stop=Stop())
    assert fresh.get(stop=Stop()) == "fine"


def test_who_says_since_when_gets_the_last_answer_that_was_begun_then_or_later() -> None:
    numbers, moments = count(), iter([10.0, 20.0, 30.0])
    fresh = Fresh(lambda _: next(numbers), clock=lambda: next(moments))
    assert fresh.get(stop=Stop(), since=5.0) == 0
    assert fresh.get(stop=Stop(), since=10.0) == 0
    assert fresh.get(stop=Stop(), since=10.5) == 1
    assert fresh.get(stop=Stop(), since=0.0) == 1
    assert fresh.get(stop=Stop()) == 2


def test_an_error_does_not_take_the_place_of_the_last_answer() -> None:
    answers = iter(["first", ValueError("busy")])

    def fetch(_: Stop) -> str:
        answer = next(answers)
        if isinstance(answer, ValueError):
            raise answer
        return answer

    fresh = Fresh(fetch, clock=lambda: 1.0)
    assert fresh.get(stop=Stop()) == "first"
    with pytest.raises(ValueError, match="busy"):
        fresh.get(stop=Stop())
    assert fresh.get(stop=Stop(), since=1.0) == "first"


def test_those_who_wait_while_one_is_fetched_that_serves_them_take_it() -> None:
    begun, go_on, numbers = threading.Semaphore(0), threading.Event(), count()

    def fetch(_: Stop) -> int:
        begun.release()
        assert go_on.wait(20)
        return next(numbers)

    fresh = Fresh(fetch)
    with ThreadPoolExecutor(max_workers=6) as pool:
        first = pool.submit(fresh.get, stop=Stop(), since=0.0)
        assert begun.acquire(timeout=20)
        others = [pool.submit(fresh.get, stop=Stop(), since=0.0) for _ in range(5)]
        go_on.set()
        assert first.result(20) == 0
        assert {other.result(20) for other in others} == {0}


def test_who_is_told_to_stop_waits_for_no_answer_and_is_none_for_the_others() -> None:
    fetching: Queue[Stop] = Queue()

    def fetch(stop: Stop) -> str:
        fetching.put(stop)
        # As a page that is refused for coming too often.
        stop.wait(0 if stop is last else 600)
        return "fine"

    fresh = Fresh(fetch)
    waiting = last = Stop()
    with ThreadPoolExecutor(max_workers=4) as pool:
        first = pool.submit(fresh.get, stop=Stop())
        stop_of_first = fetching.get(timeout=20)
        asked = {stop: pool.submit(fresh.get, stop=stop) for stop in (waiting, Stop(), Stop())}
        waiting.set()
        with pytest.raises(RunStopped):
            asked.pop(waiting).result(20)
        assert not first.done()
        stop_of_first.set()
        with pytest.raises(RunStopped):
            first.result(20)
        # Both wait for the same answer. Whoever fetches it is told to stop; then the other one fetches.
        stopped = fetching.get(timeout=20)
        (last,) = asked.keys() - {stopped}
        stopped.set()
        with pytest.raises(RunStopped):
            asked[stopped].result(20)
        assert asked[last].result(20) == "fine"
