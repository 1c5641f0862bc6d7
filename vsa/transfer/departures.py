"""What Azure says to have deleted, and whether it is gone: looked for by its name, again until it is.

A deletion that ended says one thing, and what Azure shows may be another: it answers from copies that lag
behind. Lists show what is gone for a quarter of an hour; a look at its name is better, and may lag as well
(github.com/Azure/azure-rest-api-specs, issues 18993, 21221 and 38962). So each name is asked for, which costs
one request for what was deleted, and more only if it is still shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from vsa.azure.budget import cleaning
from vsa.errors import RunStopped, TryAgainLater, VsaError
from vsa.model import SourceDisk
from vsa.stop import Stop, again

LOOK_AGAIN = (1.0, 2.0, 4.0)
"""Seconds between the looks, for all together. A job that is told to end has 25 for all its cleaning up."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Departure:
    """A thing that Azure says to have deleted: of which disk, what it is, and how to look for it."""

    disk: SourceDisk
    what: str
    is_shown: Callable[[], bool]


class Departures:
    """What Azure said to have deleted, and nobody has looked for since."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, str], Departure] = {}

    def add(self, disk: SourceDisk, what: str, is_shown: Callable[[], bool]) -> None:
        self._said[disk.key, what] = Departure(disk, what, is_shown)

    def still_there(self, stop: Stop) -> list[tuple[Departure, VsaError]]:
        """Look for all of it until it is gone, or for as long as that is bearable; what is still there, or
        cannot be looked at, and what to say of it.

        All of it waits together, so many take no longer. A stop ends it, as it ends other cleaning up.
        """
        failed: list[tuple[Departure, VsaError]] = []
        left = list(self._said.values())
        self._said.clear()
        with cleaning():
            for delay in (*LOOK_AGAIN, None):
                left = list(_shown(left, failed, stop))
                if not left or delay is None or not _waited(delay, left, stop):
                    break
        return [*((item, _unwilling(item)) for item in left), *failed]


def _shown(
    items: list[Departure], failed: list[tuple[Departure, VsaError]], stop: Stop
) -> Iterator[Departure]:
    for item in items:
        try:
            if again(partial(item.is_shown), stop=stop):
                yield item
        except VsaError as error:
            failed.append((item, error))


def _waited(seconds: float, left: list[Departure], stop: Stop) -> bool:
    """Whether there was time for it."""
    names = ", ".join(item.what for item in left)
    _log.warning("Azure says that these are deleted, and still shows them; looking again: %s", names)
    try:
        stop.wait(seconds)
    except RunStopped:
        return False
    return True


def _unwilling(item: Departure) -> TryAgainLater:
    return TryAgainLater(f"delete {item.what}: Azure says that it is done, and still shows it")
