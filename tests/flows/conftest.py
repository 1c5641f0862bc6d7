from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azsim_process import AzsimProcess
from tests.flows.prefect_server import PrefectServer, shared_server
from tests.flows.site import Site


@pytest.fixture(scope="module", autouse=True)
def prefect_server(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrefectServer]:
    with shared_server(pytestconfig, tmp_path_factory).in_use() as server:
        yield server


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim")) as process:
        yield process


@pytest.fixture
def site(simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Site]:
    yield Site(simulation.control, tmp_path)
    simulation.control.clear_faults()
