"""How much a test with many rounds plays: a slice by default, a larger one in CI, all of it in the soak.

AZURE_VSA_SOAK=ci    what `.ci/run` plays
AZURE_VSA_SOAK=1     `make soak`
AZURE_VSA_SEED=N     the choices of an earlier run, which prints its seed
AZURE_VSA_SOAK_PART=2/5  with AZURE_VSA_SOAK=1: the second fifth of what is drawn from lists; five such runs,
                     after one another or beside each other and whatever their seeds, play all of it

The seed is drawn once and handed down to every process of the run; only the soak draws another each time.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import hypothesis
import pytest

T = TypeVar("T")

SOAK = 2
DEPTH = {"": 0, "0": 0, "ci": 1, "1": SOAK}[os.environ.get("AZURE_VSA_SOAK", "")]
SEED = int(
    os.environ.setdefault(
        "AZURE_VSA_SEED", "1" if DEPTH < SOAK else str(random.SystemRandom().getrandbits(32))
    )
)
PART, PARTS = map(int, (os.environ.get("AZURE_VSA_SOAK_PART", "") or "1/1").split("/"))
if not 1 <= PART <= PARTS or (PARTS > 1 and DEPTH < SOAK):
    raise pytest.UsageError(
        f"AZURE_VSA_SOAK_PART={PART}/{PARTS}: expected a part from 1/{PARTS} to {PARTS}/{PARTS}, and"
        " AZURE_VSA_SOAK=1 beside it"
    )

only_in_ci = pytest.mark.only_in_ci
"""Of a test that starts processes for long, or shows more of the same: `make test` passes over it."""
more_in_ci = pytest.mark.more_in_ci
"""Of a test that plays some of its rounds in `make test`, and more of them in CI."""
ONLY_IN_CI = pytest.mark.skip(reason="starts processes for long; AZURE_VSA_SOAK=ci plays it")
only_in_soak = pytest.mark.skipif(DEPTH < SOAK, reason="takes minutes; AZURE_VSA_SOAK=1 plays it")


def rounds(by_default: int, in_ci: int | None, in_soak: int) -> int:
    """`in_ci` is None where CI plays no more of it than `make test`: that would take longer than CI has. Of
    another number `tests/test_ci.py` asks that CI plays it."""
    return (by_default, by_default if in_ci is None else in_ci, in_soak)[DEPTH]


def seeded(name: str) -> random.Random:
    """The choices of one test; the seed is in its output, which pytest shows when it fails."""
    sys.stdout.write(f"{name}: AZURE_VSA_SEED={SEED}\n")
    return random.Random(f"{name} {SEED}")


def part_of(items: Sequence[T], part: int = PART, parts: int = PARTS) -> list[T]:
    """What this run plays of the items: all of them, or its part. Each is in exactly one part.

    Of every `parts` neighbours each part has one, and another one in every row of them: where items are all
    pairs of two things every part has some of each.
    """
    return [item for place, item in enumerate(items) if (place + place // parts) % parts == part - 1]


def chosen(name: str, items: Sequence[T], *, by_default: int, in_ci: int) -> list[T]:
    """So many of the items, spread over all of them; in the soak every one, or every one of its
    part, in a drawn order, so that a soak which is ended early has been everywhere."""
    items = part_of(items)
    count, choose = (by_default, in_ci, len(items))[DEPTH], seeded(name)
    if count >= len(items):
        return choose.sample(items, len(items))
    step = len(items) / max(count, 1)
    return [items[min(len(items) - 1, int((place + choose.random()) * step))] for place in range(count)]


def examples(by_default: int, in_ci: int | None, in_soak: int, **more: Any) -> Callable[[T], T]:
    """So many examples of a property, counted as rounds are, which follow from the seed; `more` are other
    settings of Hypothesis."""
    settings = hypothesis.settings(
        max_examples=rounds(by_default, in_ci, in_soak), deadline=None, print_blob=True, **more
    )
    return lambda test: settings(hypothesis.seed(SEED)(test))  # type: ignore[type-var]
