"""The records of engine and stages in Prefect: on the run that caused them, on the terminal, no secrets."""

from __future__ import annotations

import logging

from prefect.context import FlowRunContext, TaskRunContext

from vsa.redact import install

OURS = ("vsa", "tasks")

# Everything whose records may pass a URL or a header: ours, Prefect's, the Azure SDK's, its transports'.
_SPEAKERS = (
    *OURS,
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
    """Send our own records where Prefect's own go, those of this flow run to it, and redact them all.

    Repeating it changes nothing; with another flow run, that one takes the place of the last.
    """
    for name in OURS:
        logging.getLogger(name).setLevel(logging.getLogger("prefect").getEffectiveLevel())
    for speaker in ("prefect.extra", "prefect"):
        for handler in logging.getLogger(speaker).handlers:
            for name in OURS:
                _add(handler, logging.getLogger(name))
            for previous in [item for item in handler.filters if isinstance(item, _OfRun)]:
                handler.removeFilter(previous)
            handler.addFilter(_OfRun(flow_run_id))
    for speaker in _SPEAKERS:
        install(logging.getLogger(speaker))


def _add(handler: logging.Handler, logger: logging.Logger) -> None:
    """Let the handler hear the logger once: not if it hears the root's, which has the record too."""
    if handler not in {*logger.handlers, *logging.getLogger().handlers}:
        logger.addHandler(handler)
