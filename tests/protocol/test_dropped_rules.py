"""Each rule dropped in turn: the search finds what is lost by it, or shows that it guards something else."""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.protocol.explorer import explore
from tests.protocol.model import Rules
from tests.protocol.variants import HELD_FOR_DEAD, LOSING, NEEDED_FOR_MORE_THAN_DATA, Variant


@pytest.mark.parametrize("variant", LOSING, ids=lambda variant: variant.title)
def test_a_dropped_rule_loses_data(variant: Variant) -> None:
    found = explore(variant.scenario, variant.rules, losses_only=True, limit=100_000)
    print(found.counterexample)  # shown when the test fails, or with -s
    assert found.counterexample is not None
    assert len(found.counterexample.steps) == variant.steps


@pytest.mark.parametrize("variant", NEEDED_FOR_MORE_THAN_DATA, ids=lambda variant: variant.title)
def test_a_rule_that_guards_more_than_data_loses_none_when_dropped(variant: Variant) -> None:
    found = explore(variant.scenario, variant.rules, losses_only=True)
    assert found.exhausted, str(found.counterexample)


def test_a_run_that_ignores_its_fence_commits_after_it() -> None:
    found = explore(HELD_FOR_DEAD, Rules().without("points_heed_fences"))
    assert found.counterexample is not None
    assert "run A commits though it is fenced" in found.counterexample.fault


def test_every_rule_is_dropped_by_some_variant() -> None:
    dropped = {name for variant in (*LOSING, *NEEDED_FOR_MORE_THAN_DATA) for name in variant.dropped}
    assert dropped == {field.name for field in fields(Rules)}
