"""The protocol as it is meant: searched to the end, nothing that must be whole ever lacks anything."""

from __future__ import annotations

from functools import cache

import pytest

from tests.protocol.explorer import Exploration, explore
from tests.protocol.model import Rules
from tests.protocol.scenarios import QUICK, TAKES_MINUTES
from tests.protocol.variants import (
    CALLED_BACK,
    FOLD_AND_HEAL,
    LEFT_BEHIND,
    PRUNED_CHILD,
    SHARED_CHILD,
    SHARING,
    SLOW_PRUNING,
    TWO_REPACKINGS,
)
from tests.protocol.world import Scenario
from tests.soak import chosen, more_in_ci

SOME = chosen("many steps", TAKES_MINUTES, by_default=0, in_ci=1)

searched = cache(explore)


def _assert_safe(found: Exploration) -> None:
    print(f"{found.states} states, {found.transitions} transitions, depth {found.depth}: {found.title}")
    assert found.counterexample is None, str(found.counterexample)
    assert found.exhausted


@pytest.mark.parametrize(
    "scenario", (*QUICK, SLOW_PRUNING, SHARED_CHILD), ids=lambda scenario: scenario.title
)
def test_no_order_of_steps_loses_anything(scenario: Scenario) -> None:
    _assert_safe(searched(scenario, Rules()))


@more_in_ci
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scenario", TAKES_MINUTES, ids=lambda scenario: scenario.title)
def test_no_order_of_many_steps_loses_anything(scenario: Scenario) -> None:
    if scenario not in SOME:
        pytest.skip("takes minutes; AZURE_VSA_SOAK=ci searches one of these, AZURE_VSA_SOAK=1 all")
    _assert_safe(explore(scenario, Rules()))


@pytest.mark.parametrize(
    ("scenario", "first", "second"),
    [
        (PRUNED_CHILD, "P Doom", "A Point"),
        (PRUNED_CHILD, "A Point", "P Doom"),
        (SHARING, "P Doom", "B Point"),
        (SHARING, "A Point", "B Point"),
        (SHARING, "B Point", "A Point"),
        (CALLED_BACK, "P Forget", "U Unforget"),
        (LEFT_BEHIND, "A Point", "F Relocate"),
        (LEFT_BEHIND, "F Relocate", "A Point"),
        (LEFT_BEHIND, "F Doom", "A Point"),
        (TWO_REPACKINGS, "G Relocate", "F Doom"),
        (FOLD_AND_HEAL, "E Damage", "H Relocate"),
        (FOLD_AND_HEAL, "F Relocate", "E Damage"),
        (FOLD_AND_HEAL, "H Relocate", "H Point"),
    ],
    ids=lambda value: getattr(value, "title", value),
)
def test_what_a_scenario_is_about_does_happen_in_it(scenario: Scenario, first: str, second: str) -> None:
    """A search of orders in which actors only ever give up would prove nothing."""
    assert (first, second) in searched(scenario, Rules()).orders


def test_what_must_not_stand_together_never_does() -> None:
    found = searched(FOLD_AND_HEAL, Rules())
    assert ("E Damage", "F Relocate") not in found.orders
