"""Nobody reads faster than was said, whoever else reads, and no turn is lost to a pause."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.errors import RunStopped
from vsa.ranges import MIB
from vsa.rate import Rate


class Clock:
    """Goes on when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.now += seconds


@given(st.lists(st.tuples(st.integers(1, 4 * MIB), st.floats(0, 3)), min_size=1, max_size=50))
def test_no_span_of_time_sees_more_than_the_rate_and_one_read(reads: list[tuple[int, float]]):
    clock = Clock()
    rate = Rate(2 * MIB, clock=clock)
    begun: list[tuple[float, int]] = []
    for count, pause in reads:
        rate.take(count, wait=clock.wait)
        begun.append((clock.now, count))
        clock.now += pause
    for first in range(len(begun)):
        total = 0
        for moment, count in begun[first:]:
            assert total <= (moment - begun[first][0]) * 2 * MIB + 1
            total += count


def test_who_keeps_to_the_rate_waits_for_nothing():
    clock = Clock()
    rate = Rate(MIB, clock=clock)
    for _ in range(10):
        rate.take(MIB, wait=lambda seconds: pytest.fail(f"waited for {seconds} s"))
        clock.now += 1.0


def test_no_rate_is_no_wait():
    for _ in range(1000):
        Rate().take(4 * MIB, wait=lambda seconds: pytest.fail(f"waited for {seconds} s"))


def test_threads_share_it():
    """Four threads at once wait in a row, not each by itself."""
    waits: list[float] = []
    rate = Rate(MIB, clock=lambda: 0.0)
    threads = [
        threading.Thread(target=rate.take, args=(MIB,), kwargs={"wait": waits.append}) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits) == [1.0, 2.0, 3.0]


def test_a_stop_ends_the_wait():
    def stopped(seconds: float) -> None:
        raise RunStopped("told to stop")

    rate = Rate(MIB, clock=lambda: 0.0)
    rate.take(MIB, wait=stopped)
    with pytest.raises(RunStopped):
        rate.take(MIB, wait=stopped)
