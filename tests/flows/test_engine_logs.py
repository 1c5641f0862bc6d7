"""The engine's log records among Prefect's own; no server is needed to hand them over."""

from __future__ import annotations

import logging

import pytest

from tasks.logs import ENGINE, show_engine_logs


class Ear(logging.Handler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@pytest.fixture(autouse=True)
def loggers_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (ENGINE, "prefect", "prefect.extra", ""):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    monkeypatch.setattr(logging.getLogger(ENGINE), "level", logging.WARNING)


@pytest.mark.parametrize(
    "places", [("prefect",), ("prefect.extra",), ("prefect", "prefect.extra"), ("prefect", "")]
)
def test_a_handler_hears_each_record_of_the_engine_once_wherever_it_stands(places: tuple[str, ...]) -> None:
    ear = Ear()
    for place in places:
        logging.getLogger(place).addHandler(ear)
    show_engine_logs("a-run")
    show_engine_logs("another-run")
    logging.getLogger(f"{ENGINE}.media").warning("said")
    assert ear.heard == ["said"]
