"""Which share of the media a verify looks at: half drawn at random, half rotating by the date.

Nothing is remembered between runs. Every name falls into one of a prime number of places; the days turn a
window over them. A step of days that is no multiple of the prime, kept up from run to run, comes to every
place: so each name is seen within `cycle` runs, whether they are daily, weekly or monthly.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
from dataclasses import dataclass
from math import ceil

_SMALLEST_CYCLE = 11
"""Smaller primes divide the days of a week, a fortnight or a month."""


@dataclass(frozen=True)
class Sample:
    """A share of all names, from 0 (exclusive) to 1; `day` is the date's ordinal."""

    share: float
    day: int
    rng: random.Random

    @classmethod
    def on(cls, date: dt.date, share: float, rng: random.Random) -> Sample:
        return cls(share, date.toordinal(), rng)

    @property
    def cycle(self) -> int:
        """Runs, a fixed number of days apart, within which every name was chosen."""
        return 1 if self.share >= 1 else _prime_from(max(_SMALLEST_CYCLE, ceil(2 / self.share)))

    def has(self, name: str) -> bool:
        """Whether the name belongs to it. Random: the answer for one name may differ when asked again."""
        return self.share >= 1 or self._has_turn(name) or self.rng.random() < self.share / 2

    def _has_turn(self, name: str) -> bool:
        cycle = self.cycle
        width = ceil(cycle * self.share / 2)
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % cycle
        return (place - self.day * width) % cycle < width


def _prime_from(number: int) -> int:
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
