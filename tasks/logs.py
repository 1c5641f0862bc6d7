"""The engine's log records in Prefect: on the run that caused them, on the terminal, and without secrets."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext, TaskRunContext

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


class _OfRun(logging.Filter):
    """Gives what is said outside of any run's context, in a hook or a bare thread, to one flow run."""

    def __init__(self, flow_run_id: str) -> None:
        super().__init__()
        self._flow_run_id = flow_run_id

    def filter(self, record: logging.LogRecord) -> bool:
        if FlowRunContext.get() is None and TaskRunContext.get() is None:
            record.flow_run_id = getattr(record, "flow_run_id", self._flow_run_id)
        return True


def show_engine_logs(flow_run_id: str) -> None:
    """Send the engine's records where Prefect's own go, those of this flow run to it, and redact them all.

    Repeating it changes nothing; with another flow run, that one takes the place of the last.
    """
    engine = logging.getLogger(ENGINE)
    engine.setLevel(logging.getLogger("prefect").getEffectiveLevel())
    heard = {*engine.handlers, *logging.getLogger().handlers}  # the root's by propagation
    for speaker in ("prefect.extra", "prefect"):
        for handler in logging.getLogger(speaker).handlers:
            if handler not in heard:
                engine.addHandler(handler)
            for previous in [item for item in handler.filters if isinstance(item, _OfRun)]:
                handler.removeFilter(previous)
            handler.addFilter(_OfRun(flow_run_id))
    for speaker in _SPEAKERS:
        install(logging.getLogger(speaker))
