"""The engine's log records among Prefect's own; no server is needed to hand them over."""

from __future__ import annotations

import logging

import pytest

from tasks.logs import OURS, show_engine_logs


class Ear(logging.Handler):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())


@pytest.fixture(autouse=True)
def loggers_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OURS, "prefect", "prefect.extra", ""):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [])
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    for name in OURS:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.WARNING)


@pytest.mark.parametrize("speaker", OURS)
@pytest.mark.parametrize(
    "places", [("prefect",), ("prefect.extra",), ("prefect", "prefect.extra"), ("prefect", "")]
)
def test_a_handler_hears_each_of_our_records_once_wherever_it_stands(
    places: tuple[str, ...], speaker: str
) -> None:
    ear = Ear()
    for place in places:
        logging.getLogger(place).addHandler(ear)
    show_engine_logs("a-run")
    show_engine_logs("another-run")
    logging.getLogger(f"{speaker}.of_it").warning("said")
    assert ear.heard == ["said"]
