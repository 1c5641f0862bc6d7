from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.installation.local_installation import LocalInstallation, local_installation


@pytest.fixture(scope="package")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalInstallation]:
    """One that has started, for tests that do no harm to it and, after them, the one that ends it."""
    with local_installation(tmp_path_factory.mktemp("installation") / "server") as made:
        yield made.start()
