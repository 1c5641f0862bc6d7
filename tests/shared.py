"""Which tests share servers, whose start costs more than most files: one process runs all that share one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.soak import DEPTH

PREFECT = ("tests/flows/", "tests/blocks/")
"""Where tests share a Prefect server."""

GROUPS = {
    # A control machine and proxies; these tests mostly wait, each group beside the other.
    "fleet 1": ("tests/flows/test_proxies", "tests/flows/test_memory_of_a_stream.py"),
    "fleet 2": (
        "tests/flows/test_jobs_that_are_stopped.py",
        "tests/flows/test_server_away.py",
        "tests/flows/test_cancelled_by_hand.py",
    ),
    "installation": ("tests/installation/",),
} | ({"Prefect, apart": ("tests/flows/test_register.py", "tests/flows/test_deployments.py")} if DEPTH else {})
"""What each process of a parallel run keeps together. In CI there is one more whose tests wait for what their
own server does by itself, too long to be waited for by all others."""

ALONE = ("tests/faults/test_schedules.py",)
"""Where tests share nothing that takes time, and take long."""

_ENDS = pytest.StashKey[list[Callable[[], None]]]()


def group_of(test: str) -> str:
    """The name of the group of a test, by its id; empty for one that goes with its file."""
    named = (name for name, files in GROUPS.items() if test.startswith(files))
    return next(named, "Prefect" if test.startswith(PREFECT) else test if test.startswith(ALONE) else "")


def at_end_of_group(config: pytest.Config, end: Callable[[], None]) -> None:
    """Have this called, as often as may be, when the last test of a group has run in this process.

    What the tests of a group share takes as much of the machine as a test does.
    """
    config.stash.setdefault(_ENDS, []).append(end)


def end_group(item: pytest.Item, following: pytest.Item | None) -> None:
    """The test has run, and that one comes next in this process."""
    if following is None or group_of(following.nodeid) != group_of(item.nodeid):
        for end in item.config.stash.get(_ENDS, []):
            end()
