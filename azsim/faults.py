"""Scripted failures: rules that match requests on any plane and spoil their answers.

A rule counts the requests that match it, lets the first `skip` of them pass, then acts on `times` of
them (or for ever). Rules that fire together wrap each other, the first added outermost. Rules live in
memory: a restarted simulation is healthy.
"""

from __future__ import annotations

import dataclasses
import random
import re
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from azsim.fault_actions import ACTIONS, Interference

PLANES = ("arm", "blob", "token", "vault", "any")


@dataclass(frozen=True, slots=True)
class Seen:
    """What of a request a rule can look at. Header names are in lower case."""

    plane: str
    method: str
    path: str
    query: str
    headers: frozenset[str]


@dataclass(frozen=True, slots=True)
class Match:
    """Which requests a rule is about; what is not given matches everything.

    `path` and `query` are regular expressions found anywhere, without regard to case; `header` is the
    name of a header that must be present.
    """

    plane: str = "any"
    method: str | None = None
    path: str | None = None
    query: str | None = None
    header: str | None = None

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise ValueError(f"plane is {self.plane!r}, expected one of {', '.join(PLANES)}")
        for pattern in filter(None, (self.path, self.query)):
            re.compile(pattern)

    def accepts(self, seen: Seen) -> bool:
        return (
            self.plane in ("any", seen.plane)
            and (self.method is None or self.method.upper() == seen.method)
            and (self.path is None or re.search(self.path, seen.path, re.IGNORECASE) is not None)
            and (self.query is None or re.search(self.query, seen.query, re.IGNORECASE) is not None)
            and (self.header is None or self.header.lower() in seen.headers)
        )


@dataclass(slots=True)
class Rule:
    """One scripted failure. `times` None means for ever; `chance` below 1 draws from `seed`."""

    match: Match
    action: str
    options: dict[str, Any]
    interference: Interference
    skip: int = 0
    times: int | None = 1
    chance: float = 1.0
    seed: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    matched: int = 0
    fired: int = 0
    _random: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311 - repeatable failures, no secret

    def is_due(self, seen: Seen) -> bool:
        """Count the request if it matches, and decide whether the rule acts on it."""
        if not self.match.accepts(seen):
            return False
        self.matched += 1
        if self.matched <= self.skip or (self.times is not None and self.fired >= self.times):
            return False
        if self._random.random() >= self.chance:
            return False
        self.fired += 1
        return True

    def report(self) -> dict[str, Any]:
        """The rule as JSON, with how often it matched and fired."""
        return {
            "id": self.id,
            "match": {name: value for name, value in dataclasses.asdict(self.match).items() if value},
            "action": self.action,
            "options": self.options,
            "skip": self.skip,
            "times": self.times,
            "chance": self.chance,
            "matched": self.matched,
            "fired": self.fired,
        }


class Faults:
    """The rules in force. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: dict[str, Rule] = {}

    def add(
        self,
        *,
        action: str,
        match: dict[str, Any] | None = None,
        skip: int = 0,
        times: int | None = 1,
        chance: float = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> dict[str, Any]:
        """Put a rule in force and return its report; ValueError for a rule that means nothing."""
        if action not in ACTIONS:
            raise ValueError(f"action is {action!r}, expected one of {', '.join(sorted(ACTIONS))}")
        try:
            interference = ACTIONS[action](**options)
            matched = Match(**(match or {}))
        except (TypeError, re.error) as error:
            raise ValueError(f"fault rule {action!r}: {error}") from error
        rule = Rule(matched, action, options, interference, skip=skip, times=times, chance=chance, seed=seed)
        with self._lock:
            self._rules[rule.id] = rule
        return rule.report()

    def reports(self) -> list[dict[str, Any]]:
        with self._lock:
            return [rule.report() for rule in self._rules.values()]

    def clear(self, ids: Iterable[str] = ()) -> int:
        """Lift the named rules, or all of them; returns how many were in force."""
        with self._lock:
            names = list(ids) or list(self._rules)
            return sum(self._rules.pop(name, None) is not None for name in names)

    def due(self, seen: Seen) -> list[Rule]:
        """The rules that act on this request, in the order in which they were added."""
        with self._lock:
            return [rule for rule in self._rules.values() if rule.is_due(seen)]
