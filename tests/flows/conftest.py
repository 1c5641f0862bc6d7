from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

from tests.azsim_process import AzsimProcess
from tests.flows.prefect_server import PrefectServer
from tests.flows.site import Site


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    try:
        with server.start().in_use():
            yield server
            APILogWorker.instance().drain()
            EventsWorker.drain_all()
    finally:
        server.stop()


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim")) as process:
        yield process


@pytest.fixture
def site(simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path: Path) -> Iterator[Site]:
    yield Site(simulation.control, tmp_path)
    simulation.control.clear_faults()
