"""What is left: its age, what it costs about, and whose turn it is."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.subclient.builders import a_source_disk
from vsa.azure.errors import from_answer
from vsa.errors import MediaUnusable, TryAgainLater, VsaError
from vsa.ranges import GIB
from vsa.transfer.pending import Leftover, Price, Thing, advice_on, total_text

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def a_leftover(thing: Thing = Thing.SNAPSHOT, *, used: int | None = None, days: int = 3) -> Leftover:
    return Leftover(thing, "vsa-1", a_source_disk("os"), "1", NOW - dt.timedelta(days=days), 128 * GIB, used)


def test_the_used_size_is_what_counts_if_it_is_known_and_else_the_size_of_the_disk() -> None:
    assert a_leftover().text(NOW, Price()).endswith("3 days old, 128 GiB, about 6.40 USD a month)")
    used = a_leftover(used=10 * GIB).text(NOW, Price(0.5))
    assert used.endswith("3 days old, 10 GiB, about 5.00 USD a month)")


def test_a_grant_costs_nothing_by_itself() -> None:
    assert "USD" not in a_leftover(Thing.GRANT).text(NOW, Price())


def test_together_they_have_the_age_of_the_oldest_and_the_cost_of_all() -> None:
    text = total_text([a_leftover(), a_leftover(days=40), a_leftover(Thing.GRANT)], NOW, Price())
    assert text.startswith(
        "3 things, the oldest 40 days old, about 12.80 USD a month: an estimate at 0.05 USD"
    )
    assert total_text([], NOW, Price()) == ""


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (from_answer("delete", 409, "ScopeLocked", ""), "a lock keeps it"),
        (from_answer("delete", 403, "RequestDisallowedByPolicy", ""), "a policy keeps it"),
        (from_answer("delete", 409, "BlobImmutableDueToPolicy", ""), "an immutability policy keeps it"),
        (from_answer("delete", 403, "AuthorizationFailed", ""), "a right is missing"),
        (from_answer("delete", 412, "LeaseIdMissing", ""), "a lease keeps it"),
        (from_answer("delete", 429, "TooManyRequests", ""), "the next sweep tries again"),
        (from_answer("delete", 409, "OperationNotAllowed", ""), "it was refused, the next sweep tries again"),
        (TryAgainLater("no answer"), "the next sweep tries again"),
        (MediaUnusable("read-only"), "the media takes no entry"),
    ],
)
def test_what_needs_a_person_is_told_apart_from_what_only_needs_time(error: VsaError, advice: str) -> None:
    assert advice in advice_on(error)
    assert ("somebody" in advice_on(error)) is ("keeps" in advice or "right" in advice)
