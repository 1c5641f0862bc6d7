"""Which tests share servers, whose start costs more than most files: one process runs all that share one."""

from __future__ import annotations

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


def group_of(test: str) -> str:
    """The name of the group of a test, by its id; empty for one that goes with its file."""
    named = (name for name, files in GROUPS.items() if test.startswith(files))
    return next(named, "Prefect" if test.startswith(PREFECT) else test if test.startswith(ALONE) else "")


def is_last_of_group(item: pytest.Item, following: pytest.Item | None) -> bool:
    """Whether no test of the same group comes next in this process."""
    return following is None or group_of(following.nodeid) != group_of(item.nodeid)
