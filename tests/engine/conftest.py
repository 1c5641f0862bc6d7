from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from azsim.control import Control
from tests.azsim_process import AzsimProcess
from tests.engine.world import World


@pytest.fixture(scope="session")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim")) as process:
        yield process


@pytest.fixture
def control(azure: AzsimProcess) -> Iterator[Control]:
    yield azure.control
    azure.control.clear_faults()


@pytest.fixture
def world(control: Control, tmp_path: Path) -> Iterator[World]:
    made = World(control, tmp_path)
    yield made
    control.clear_faults()
    made.standing.require_untouched()
    made.delete()
