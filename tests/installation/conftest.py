from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation.local_installation import LocalInstallation, local_installation
from tests.shared import at_end_of_group


@pytest.fixture(scope="session")
def _installation(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalInstallation]:
    with local_installation(tmp_path_factory.mktemp("installation") / "server") as made:
        at_end_of_group(pytestconfig, made.end)
        yield made


@pytest.fixture
def installation(_installation: LocalInstallation) -> LocalInstallation:
    """One that runs, whatever the test before has done to it."""
    if not _installation.runs:
        _installation.start()
    _installation.control.clear_faults()
    return _installation
