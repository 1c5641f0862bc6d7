from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation.local_installation import LocalInstallation, local_installation
from tests.shared import is_last_of_group

_SHARED = pytest.StashKey[LocalInstallation]()


@pytest.fixture(scope="session")
def _installation(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalInstallation]:
    with local_installation(tmp_path_factory.mktemp("installation") / "server") as made:
        pytestconfig.stash[_SHARED] = made
        yield made


@pytest.fixture
def installation(_installation: LocalInstallation) -> LocalInstallation:
    """One that runs, whatever the test before has done to it."""
    if not _installation.runs:
        _installation.start()
    _installation.control.clear_faults()
    return _installation


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """It takes as much of the machine as a test does, and goes when no test here follows."""
    try:
        return (yield)
    finally:
        if _SHARED in item.config.stash and is_last_of_group(item, nextitem):
            item.config.stash[_SHARED].end()
