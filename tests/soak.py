"""How much a test with many rounds plays: a slice by default, a larger one in CI, all of it in the soak.

AZURE_VSA_SOAK=ci    what `.ci/run` adds to `make test`
AZURE_VSA_SOAK=1     `make soak`
AZURE_VSA_SEED=N     the choices of an earlier run, which prints its seed
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

DEPTH = {"": 0, "0": 0, "ci": 1, "1": 2}[os.environ.get("AZURE_VSA_SOAK", "")]


def rounds(by_default: int, in_ci: int, in_soak: int) -> int:
    return (by_default, in_ci, in_soak)[DEPTH]


def seeded(name: str) -> random.Random:
    """The choices of one test; the seed is in its output, which pytest shows when it fails."""
    seed = int(
        os.environ.get("AZURE_VSA_SEED", "1" if DEPTH < 2 else str(random.SystemRandom().getrandbits(32)))
    )
    sys.stdout.write(f"{name}: AZURE_VSA_SEED={seed}\n")
    return random.Random(f"{name} {seed}")


def chosen(name: str, items: Sequence[T], *, by_default: int, in_ci: int) -> list[T]:
    """So many of the items, spread over all of them; in the soak every one."""
    count = (by_default, in_ci, len(items))[DEPTH]
    if count >= len(items):
        return list(items)
    choose, step = seeded(name), len(items) / count
    return [items[min(len(items) - 1, int((place + choose.random()) * step))] for place in range(count)]
