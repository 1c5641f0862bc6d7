"""The engine's log records in Prefect: on the run that caused them, on the terminal, and without secrets."""

from __future__ import annotations

import logging

from vsa.redact import install

ENGINE = "vsa"

# Everything whose records may pass a URL or a header: ours, Prefect's, the Azure SDK's, its transports'.
_SPEAKERS = (
    ENGINE,
    "prefect",
    "prefect.extra",
    "prefect.flow_runs",
    "prefect.task_runs",
    "azure",
    "urllib3",
    "",
)


def show_engine_logs() -> None:
    """Send the engine's records where Prefect's own go, and redact them all. Repeating it changes nothing."""
    engine = logging.getLogger(ENGINE)
    engine.setLevel(logging.getLogger("prefect").getEffectiveLevel())
    for speaker in ("prefect.extra", "prefect"):
        for handler in logging.getLogger(speaker).handlers:
            if handler not in engine.handlers:
                engine.addHandler(handler)
    for speaker in _SPEAKERS:
        install(logging.getLogger(speaker))
