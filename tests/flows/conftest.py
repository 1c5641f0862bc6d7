from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azsim_process import AzsimProcess
from tests.flows.fleet import Fleet
from tests.flows.prefect_server import PrefectServer
from tests.flows.shared_servers import shared_server
from tests.flows.site import Site
from tests.shared import at_end_of_group


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


@pytest.fixture(scope="session")
def _fleet(
    pytestconfig: pytest.Config, simulation: AzsimProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    server = shared_server(pytestconfig, tmp_path_factory)
    fleet = Fleet(server, tmp_path_factory.mktemp("workers"))
    with server.in_use():
        fleet.register()
    at_end_of_group(pytestconfig, fleet.stop)
    yield fleet
    fleet.stop()


@pytest.fixture
def fleet(_fleet: Fleet, prefect_server: PrefectServer) -> Fleet:
    """The workers of both proxies, which are usable."""
    _fleet.make_ready()
    return _fleet


@pytest.fixture
def sites(simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path: Path) -> Iterator[list[Site]]:
    """Three sites whose jobs can run at the same time."""
    made = [Site(simulation.control, tmp_path) for _ in range(3)]
    yield made
    simulation.control.clear_faults()
    for site in made:
        site.require_standing()


@pytest.fixture
def site(simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Site]:
    made = Site(simulation.control, tmp_path)
    yield made
    simulation.control.clear_faults()
    made.require_standing()
