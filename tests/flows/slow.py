"""Streams that last long enough to be interrupted, and end as soon as a test wants them to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azsim.control import Control
from tests.engine.world import MIB
from tests.flows.site import managed


def slow_disk(name: str) -> dict[str, Any]:
    """A disk with room for many extents far from one another: a read each, four at a time."""
    return managed(name, size=512 * MIB)


@contextmanager
def read_slowly(control: Control) -> Iterator[None]:
    """Every read takes three seconds for the length of a block; without it all are as quick as ever.

    A stream of a slow disk lasts for six minutes then, however long a busy machine takes to stop it.
    """
    rule = control.add_fault("delay", seconds=3, plane="blob", header="x-ms-range", times=None)
    try:
        yield
    finally:
        control.clear_faults(rule)
