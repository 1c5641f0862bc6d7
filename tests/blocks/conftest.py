from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows.prefect_server import PrefectServer
from tests.flows.shared_servers import shared_server


@pytest.fixture(scope="module", autouse=True)
def prefect_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrefectServer]:
    with shared_server(pytestconfig, tmp_path_factory).in_use() as server:
        yield server
