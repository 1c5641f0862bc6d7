"""The engine's waits in virtual time: the clock of the simulated Azure is advanced, and nothing sleeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from azsim.control import Control
from vsa.stop import Stop


class Clock:
    """What the budgets of the worlds' connections count by: real time, and what was waited virtually."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


CLOCK = Clock()
CALM_SECONDS = 0.05


def await_calm(control: Control) -> None:
    """Let Azure serve what other threads of a dead process had asked of it."""
    served = -1
    while (last := control.last_request()) != served:
        served = last
        time.sleep(CALM_SECONDS)


@contextmanager
def virtual_waits(control: Control) -> Iterator[list[float]]:
    """For the length of a block, of this process alone; gives the seconds of every wait, in their order.

    What the SDK waits for by itself is real: between polls, and where signing in is throttled.
    """
    waits: list[float] = []

    def wait(stop: Stop, seconds: float) -> None:
        waits.append(seconds)
        stop.check()
        control.advance_clock(seconds)
        CLOCK.ahead += seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stop, "wait", wait)
        yield waits
