"""What holds for all tests: they share the processors with others, and `make test` runs them in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.shared import PREFECT, end_group, group_of
from tests.soak import DEPTH, ONLY_IN_CI, PART, PARTS, SEED

# Their asserts, too, say what they found.
pytest.register_assert_rewrite("tests.engine", "tests.faults")

# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# The simulated Azure is never asked through a proxy; that said, nobody looks for one before each request.
os.environ["no_proxy"] = ",".join(
    ["127.0.0.1", *filter(None, [os.environ.get("no_proxy") or os.environ.get("NO_PROXY")])]
)

# Outside of the tests that use Prefect nothing is logged to a server, and none is started for it unseen.
os.environ["PREFECT_LOGGING_TO_API_ENABLED"] = "false"
os.environ["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "false"

LONG = (
    *PREFECT,
    "tests/engine/test_faults_data_plane.py",
    "tests/engine/test_faults_control_plane.py",
    "tests/engine/test_killed.py",
    "tests/engine/test_random_history.py",
    "tests/faults/",
    "tests/installation/",
    "tests/demo/",
    "tests/engine/",
    "tests/azsim/",
)
"""Where tests take long, the longest first, so that the processes of a parallel run end together."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a parallel run the long ones come first; otherwise the order stays."""
    for item in items:
        if DEPTH < 1 and item.get_closest_marker("only_in_ci"):
            item.add_marker(ONLY_IN_CI)
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """Also when a fixture's own end has failed."""
    try:
        return (yield)
    finally:
        end_group(item, nextitem)


def _place(nodeid: str) -> int:
    return next((place for place, start in enumerate(LONG) if nodeid.startswith(start)), len(LONG))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    soak = os.environ.get("AZURE_VSA_SOAK", "")
    part = f" AZURE_VSA_SOAK_PART={PART}/{PARTS}" if PARTS > 1 else ""
    terminalreporter.write_line(f"AZURE_VSA_SOAK={soak} AZURE_VSA_SEED={SEED}{part}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files to one process but for the longest, and all that share a server to the same one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid) or str(super()._split_scope(nodeid))

    config.option.loadscopereorder = False
    return Scheduling(config, log)
