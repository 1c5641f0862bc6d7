"""Operations that are accepted now and take effect later: when their time has come, or when told to.

A snapshot whose PUT was answered by 202 is not there until its operation is done, neither in a GET nor in a
list; where it is to be seen before, its `provisioningState` is not final. A DELETE that was accepted leaves
the thing in state Deleting until it is done ("Asynchronous API Reference" of the contract of Azure's resource
providers). Which of the two a snapshot's PUT is, no recording tells: both can be had.

What was accepted takes effect whether its client lives or not, and over a restart of the simulation.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from azsim.arm_protocol import ResourceId, Wire
from azsim.clock import Clock
from azsim.documents import Documents

_KIND = "late"


class Change(StrEnum):
    """What will become of a resource."""

    APPEARS = "appears"
    IS_MADE = "is made"
    GOES = "goes"
    OPENS = "opens"
    CLOSES = "closes"


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late: after `seconds` of virtual time, or when the control API says so (None).

    `shown`: a snapshot that is being made is there, in state Creating. `told`: polls say InProgress until the
    effect; otherwise they say Succeeded before it, and what is shown meanwhile is what was.
    """

    seconds: float | None = None
    shown: bool = False
    told: bool = True


@dataclass(frozen=True, slots=True)
class Effect:
    """A change of one resource that is still to come; `details` are what it needs, as JSON."""

    operation: str
    change: Change
    id: ResourceId
    told: bool
    details: Wire


class LateEffects:
    """What was accepted and has not taken effect. The caller holds the lock of all changes."""

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock

    def defer(
        self, operation: str, change: Change, resource: ResourceId, late: Lateness, **details: object
    ) -> None:
        """Keep the effect of an operation for later."""
        due = None if late.seconds is None else self._clock.now() + dt.timedelta(seconds=late.seconds)
        body = {
            "change": change,
            "id": dataclasses.asdict(resource),
            "due": due and due.isoformat(),
            "told": late.told,
            "details": details,
        }
        self._documents.put(_KIND, operation, body)

    def due(self) -> list[Effect]:
        """Those whose time has come, the first accepted first."""
        now = self._clock.now().isoformat()
        ready = [
            (body["due"], _effect(operation, body))
            for operation, body in self._documents.items(_KIND)
            if body["due"] is not None and body["due"] <= now
        ]
        return [effect for _, effect in sorted(ready, key=lambda item: item[0])]

    def of(self, resource: ResourceId) -> Iterator[Effect]:
        """Those that one resource is still to see."""
        effects = (_effect(operation, body) for operation, body in self._documents.items(_KIND))
        return (effect for effect in effects if effect.id.key == resource.key)

    def is_awaited(self, operation: str) -> bool:
        """Whether polls of the operation must say that it goes on."""
        body = self._documents.get(_KIND, operation)
        return body is not None and bool(body["told"])

    def done(self, effect: Effect) -> None:
        self._documents.delete(_KIND, effect.operation)

    def hasten(self) -> int:
        """Let the time of all have come; returns how many there are."""
        waiting = list(self._documents.items(_KIND))
        for operation, body in waiting:
            self._documents.put(_KIND, operation, {**body, "due": self._clock.now().isoformat()})
        return len(waiting)


def _effect(operation: str, body: Wire) -> Effect:
    return Effect(operation, Change(body["change"]), ResourceId(**body["id"]), body["told"], body["details"])
