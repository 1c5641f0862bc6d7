"""Breadth-first search through every order in which a scenario's steps can happen.

Breadth first, so the first counterexample is a shortest one. An actor that crashes is one that is never
scheduled again; a search that visits every state has therefore seen crashes everywhere.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from tests.protocol.model import Entry, Rules
from tests.protocol.world import Scenario, State, World


@dataclass(frozen=True)
class Counterexample:
    """A shortest way to a state that must not be."""

    fault: str
    steps: tuple[str, ...]
    log: tuple[Entry, ...]

    def __str__(self) -> str:
        numbered = (f"  {number:2}. {step}" for number, step in enumerate(self.steps, 1))
        return "\n".join((f"{self.fault}, after {len(self.steps)} steps:", *numbered))


@dataclass(frozen=True)
class Exploration:
    """How far a search came. `exhausted`: every state that can be reached was looked at."""

    title: str
    states: int
    transitions: int
    depth: int
    exhausted: bool
    orders: frozenset[tuple[str, str]]
    """Pairs of "<who> <what>" that were put in this order: what the scenario has shown at all."""
    counterexample: Counterexample | None
    seconds: float


def explore(
    scenario: Scenario, rules: Rules, *, limit: int = 10_000_000, losses_only: bool = False
) -> Exploration:
    """Search until all states are seen, one of them is a fault, or `limit` states are known.

    `losses_only` lets pass entries that must not stand in the log as long as no data is lost by them.
    """
    began = time.perf_counter()
    world = World(scenario, rules)
    start = world.start()
    parents: dict[State, tuple[State, Any] | None] = {start: None}
    waiting = deque([(start, 0)])
    transitions = depth = 0
    bad: State | None = None
    while waiting and len(parents) <= limit:
        state, depth = waiting.popleft()
        if world.fault(state, losses_only=losses_only):
            bad = state
            break
        for step, after in world.successors(state):
            transitions += 1
            if after not in parents:
                parents[after] = (state, step)
                waiting.append((after, depth + 1))
    return Exploration(
        title=scenario.title,
        states=len(parents),
        transitions=transitions,
        depth=depth,
        exhausted=bad is None and not waiting,
        orders=world.orders(),
        counterexample=bad and _traced(world, bad, parents, losses_only=losses_only),
        seconds=time.perf_counter() - began,
    )


def _traced(
    world: World, bad: State, parents: dict[State, tuple[State, Any] | None], *, losses_only: bool
) -> Counterexample:
    steps = []
    state = bad
    while (came := parents[state]) is not None:
        state, step = came
        steps.append(world.describe(step))
    fault = world.fault(bad, losses_only=losses_only)
    assert fault is not None
    return Counterexample(fault, tuple(reversed(steps)), world.log_of(bad))
