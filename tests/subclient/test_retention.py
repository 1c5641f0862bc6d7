"""Retention as arithmetic: laws that hold for any policy and any points, however their clocks ran."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vsa.retention import MadePoint, Retention, select

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
counts = st.integers(0, 4)
policies = st.builds(
    Retention, keep_last=st.integers(1, 4), daily=counts, weekly=counts, monthly=counts, yearly=counts
)
times = st.integers(-20_000, 20_000).map(lambda hours: START + dt.timedelta(hours=hours))
points = st.lists(times, max_size=30).map(lambda made: [MadePoint(at * 3, t) for at, t in enumerate(made)])


def daily_at(*hours: float) -> list[MadePoint]:
    return [MadePoint(at, START + dt.timedelta(hours=hour)) for at, hour in enumerate(hours)]


@given(policies, policies, points)
def test_a_policy_that_asks_for_more_keeps_all_that_one_keeps_that_asks_for_less(one, other, made):
    both = {name: max(getattr(one, name), getattr(other, name)) for name in Retention.model_fields}
    assert select(one, made).keys() <= select(Retention(**both), made).keys()


@given(policies, points, st.sets(st.integers(0, 90)))
def test_forgetting_what_was_not_kept_changes_nothing_about_what_is(policy, made, pinned):
    kept = select(policy, made)
    left = [item for item in made if item.slot in kept or item.slot in pinned]
    assert select(policy, left) == kept


@given(policies, points)
def test_the_newest_points_are_always_kept(policy, made):
    assert {item.slot for item in made[-policy.keep_last :]} <= select(policy, made).keys()


@given(policies, points)
def test_the_order_in_which_points_are_given_does_not_matter(policy, made):
    assert select(policy, made[::-1]) == select(policy, made)


@given(points, st.integers(1, 4))
def test_no_more_than_one_point_is_kept_for_each_period(made, count):
    kept = select(Retention(daily=count), made[:-1])
    assert len(kept) <= count + 1


@given(points.filter(bool), st.lists(times, max_size=30), st.integers(1, 5))
def test_points_that_come_later_with_earlier_times_displace_nothing(made, bogus, days):
    """F50: whoever may write points can add them, but not put them in the place of others."""
    latest = max(item.taken_at for item in made)
    later = [MadePoint(made[-1].slot + 1 + at, min(time, latest)) for at, time in enumerate(bogus)]
    before = [slot for slot, reason in select(Retention(daily=days), made).items() if "day" in reason]
    assert set(before) <= select(Retention(daily=days), made + later).keys()


def test_the_first_point_of_a_day_is_its_point():
    made = daily_at(0, 6, 12, 24, 30, 48)
    assert list(select(Retention(daily=2), made)) == [5, 3]
    assert select(Retention(daily=2), made)[5] == "one of the last 1, first of its day"


def test_days_without_points_do_not_count():
    assert set(select(Retention(daily=3), daily_at(0, 240, 480, 720))) == {1, 2, 3}


def test_weeks_begin_on_monday_and_years_on_the_first_of_january():
    # 2026-01-01 is a Thursday; hour 96 is the Monday after.
    made = daily_at(-1, 0, 95, 96, 97)
    assert set(select(Retention(weekly=2), made)) == {0, 3, 4}
    assert set(select(Retention(yearly=2), made)) == {0, 1, 4}
    assert set(select(Retention(monthly=9), made)) == {0, 1, 4}


def test_times_of_other_zones_are_taken_in_utc():
    east = dt.timezone(dt.timedelta(hours=14))
    made = [MadePoint(0, START), MadePoint(1, (START + dt.timedelta(hours=23)).astimezone(east))]
    assert set(select(Retention(daily=2), made)) == {0, 1}
    assert "day" not in select(Retention(daily=2), made)[1]


@pytest.mark.parametrize("policy", [{"keep_last": 0}, {"daily": -1}, {"keep_last": -3}, {"hourly": 1}])
def test_policies_that_make_no_sense_are_refused(policy):
    with pytest.raises(ValidationError):
        Retention(**policy)


def test_of_no_points_none_are_kept():
    assert select(Retention(daily=3), []) == {}
