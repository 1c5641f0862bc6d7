"""A budget that many share: one refusal is heard by all, and cleaning up keeps its share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.azure.budget import (
    HEAD_START_SECONDS,
    LAST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    MOST_SPACING_SECONDS,
    SPACING_SECONDS,
    Budget,
    Purpose,
    Turn,
    cleaning,
    current_purpose,
)
from vsa.errors import RunStopped


class Clock:
    """Stands still but for those who wait."""

    def __init__(self) -> None:
        self.now = 0.0
        self.while_waiting: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds
        act, self.while_waiting = self.while_waiting, lambda: None
        act()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def budget(clock: Clock) -> Budget:
    return Budget("a place", clock=clock)


def turn(budget: Budget, clock: Clock, purpose: Purpose = Purpose.WORK) -> Turn:
    return budget.take(purpose, wait=clock.wait)


def came(budget: Budget, clock: Clock, count: int, purpose: Purpose = Purpose.WORK) -> list[float]:
    """When so many callers, who all came now, had their turns."""
    now, moments = clock.now, []
    for _ in range(count):
        clock.now = now
        turn(budget, clock, purpose)
        moments.append(clock.now)
    return moments


def test_nobody_waits_as_long_as_nobody_is_refused(budget: Budget, clock: Clock) -> None:
    for purpose in Purpose:
        assert came(budget, clock, 100, purpose) == [0.0] * 100


def test_after_a_refusal_all_wait_as_long_as_azure_wishes_and_come_back_one_by_one(
    budget: Budget, clock: Clock
) -> None:
    budget.refused(turn(budget, clock), 7.0)
    expected = [7.0 + SPACING_SECONDS * number for number in range(5)]
    assert came(budget, clock, 5) == pytest.approx(expected)


def test_cleaning_up_goes_on_when_work_was_refused(budget: Budget, clock: Clock) -> None:
    budget.refused(turn(budget, clock), 7.0)
    assert came(budget, clock, 1, Purpose.CLEANUP) == [0.0]


def test_when_cleaning_up_is_refused_itself_all_wait_and_it_comes_first(budget: Budget, clock: Clock) -> None:
    budget.refused(turn(budget, clock, Purpose.CLEANUP), 7.0)
    assert came(budget, clock, 1, Purpose.CLEANUP) == pytest.approx([7.0])
    clock.now = 0.0
    assert came(budget, clock, 1) == pytest.approx([7.0 + HEAD_START_SECONDS])


def test_who_waits_while_another_is_refused_waits_on(budget: Budget, clock: Clock) -> None:
    early = turn(budget, clock)
    budget.refused(turn(budget, clock), 2.0)
    clock.while_waiting = lambda: budget.refused(early, 5.0)
    turn(budget, clock)
    assert clock.now == pytest.approx(1.0 + 5.0)


def test_what_was_under_way_at_the_refusal_says_nothing_new(budget: Budget, clock: Clock) -> None:
    for early in [turn(budget, clock) for _ in range(8)]:
        budget.refused(early, 1.0)
    assert came(budget, clock, 2) == pytest.approx([1.0, 1.0 + SPACING_SECONDS])


@pytest.mark.parametrize(("wishes", "opens"), [((1.0, 5.0), 5.0), ((5.0, 1.0), 5.0)])
def test_the_longest_wish_counts(
    budget: Budget, clock: Clock, wishes: tuple[float, ...], opens: float
) -> None:
    early = [turn(budget, clock) for _ in wishes]
    for mine, wish in zip(early, wishes, strict=True):
        budget.refused(mine, wish)
    assert came(budget, clock, 1) == pytest.approx([opens])


def test_no_wish_is_followed_for_ever(budget: Budget, clock: Clock) -> None:
    budget.refused(turn(budget, clock), 1e9)
    assert came(budget, clock, 1) == pytest.approx([LONGEST_PAUSE_SECONDS])


def test_where_azure_names_no_time_each_refusal_doubles_the_pause(budget: Budget, clock: Clock) -> None:
    pauses = []
    for _ in range(8):
        mine, began = turn(budget, clock), clock.now
        budget.refused(mine, None)
        turn(budget, clock)
        pauses.append(round(clock.now - began))
        clock.now += 10 * MOST_SPACING_SECONDS
    assert pauses == [1, 2, 4, 8, 16, 32, 32, 32]
    assert pauses[-1] == LAST_PAUSE_SECONDS


def test_an_answer_ends_the_doubling_and_answers_end_the_holding_back(budget: Budget, clock: Clock) -> None:
    for _ in range(3):
        budget.refused(turn(budget, clock), None)
    assert clock.now == 1 + 2
    for _ in range(40):
        budget.answered(turn(budget, clock))
    assert came(budget, clock, 50) == pytest.approx([clock.now] * 50)
    began = clock.now
    budget.refused(turn(budget, clock), None)
    turn(budget, clock)
    assert clock.now - began == pytest.approx(1.0)


def test_an_answer_to_what_was_asked_before_a_refusal_says_nothing_of_it(
    budget: Budget, clock: Clock
) -> None:
    early = [turn(budget, clock) for _ in range(20)]
    budget.refused(early[0], 1.0)
    for mine in early[1:]:
        budget.answered(mine)
    assert came(budget, clock, 2) == pytest.approx([1.0, 1.0 + SPACING_SECONDS])


def test_who_is_told_to_stop_while_it_waits_stops(budget: Budget, clock: Clock) -> None:
    budget.refused(turn(budget, clock), 7.0)

    def stopped(_seconds: float) -> None:
        raise RunStopped("the job was told to stop")

    with pytest.raises(RunStopped):
        budget.take(Purpose.WORK, wait=stopped)


@pytest.mark.parametrize("purpose", Purpose)
def test_who_gives_up_leaves_no_gap(budget: Budget, clock: Clock, purpose: Purpose) -> None:
    budget.refused(turn(budget, clock, purpose), 7.0)

    def stopped(_seconds: float) -> None:
        raise RunStopped("the job was told to stop")

    for _ in range(100):
        with pytest.raises(RunStopped):
            budget.take(purpose, wait=stopped)
    assert came(budget, clock, 2, purpose) == pytest.approx([7.0, 7.0 + SPACING_SECONDS])


def stand_in_line(
    budget: Budget, clock: Clock, callers: int, then: Callable[[], None], purpose: Purpose = Purpose.WORK
) -> list[float]:
    """So many come while the first of them waits, and all wait; `then` something happens. When they had
    their turns: of those who wake at the same time, the last who came first."""
    moments: list[float] = []

    def come(behind: int) -> None:
        once = [then if behind == 0 else partial(come, behind - 1)]

        def wait(seconds: float) -> None:
            if once:
                once.pop()()
            else:
                clock.wait(seconds)

        budget.take(purpose, wait=wait)
        moments.append(clock.now)

    come(callers - 1)
    return moments


@pytest.mark.parametrize("purpose", Purpose)
def test_when_azure_answers_again_nobody_waits_for_what_was_held_back_before(
    budget: Budget, clock: Clock, purpose: Purpose
) -> None:
    for _ in range(6):
        budget.refused(turn(budget, clock, purpose), 1.0)
    answered = turn(budget, clock, purpose)
    newcomer: list[float] = []

    def recover() -> None:
        for _ in range(60):
            budget.answered(answered)
        newcomer.extend(came(budget, clock, 1, purpose))

    now = clock.now
    moments = stand_in_line(budget, clock, 50, recover, purpose)
    assert newcomer == [now]
    assert moments == [now] * 50


def test_who_waits_in_line_has_a_turn_after_those_before_it(budget: Budget, clock: Clock) -> None:
    """And those before it, if they sleep that long, keep their distance from it."""
    budget.refused(turn(budget, clock), 7.0)
    moments = stand_in_line(budget, clock, 3, lambda: None)
    assert moments == pytest.approx([7.0 + SPACING_SECONDS * number for number in (2, 4, 5)])


def test_a_lane_is_that_of_the_block_and_ends_with_it() -> None:
    assert current_purpose() is Purpose.WORK
    with cleaning():
        with cleaning():
            assert current_purpose() is Purpose.CLEANUP
        assert current_purpose() is Purpose.CLEANUP
    assert current_purpose() is Purpose.WORK


@given(
    refill=st.sampled_from([1.0, 10.0, 25.0]),
    size=st.integers(1, 50),
    callers=st.integers(1, 200),
    wish=st.sampled_from([None, 0.0, 1.0, 5.0]),
)
def test_of_a_token_bucket_few_are_refused_and_all_are_served(
    refill: float, size: int, callers: int, wish: float | None
) -> None:
    """All come at once; a refused one comes again when it may, as the engine does."""
    clock = Clock()
    budget = Budget("a bucket", clock=clock)
    tokens, filled_at, refusals = float(size), 0.0, 0
    waiting = callers
    while waiting:
        mine = turn(budget, clock)
        tokens = min(size, tokens + (clock.now - filled_at) * refill)
        filled_at = clock.now
        if tokens >= 1:
            tokens -= 1
            waiting -= 1
            budget.answered(mine)
        else:
            refusals += 1
            budget.refused(mine, wish)
    beyond = max(0, callers - size)
    assert refusals <= beyond + 5
    assert clock.now <= (beyond + 1) * (LAST_PAUSE_SECONDS + 8)
