"""How flows end: the name of the state between success and failure, and what a command line makes of each."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

WITH_ERRORS = "Completed with errors"
"""Name of the state of a run that did its work and says what needs attention. Its type is Completed."""

WORKER_SECONDS = 25.0
"""For the end of a job under a worker, its streams' included: Prefect kills it after thirty seconds. Streams
that do not answer take 21 of them (tasks/flow_runs.py, tasks/proxies.py)."""
BY_HAND_SECONDS = 60.0
"""The same by hand: systemd, say, kills after ninety (systemd-system.conf(5), DefaultTimeoutStopSec)."""


def is_under_worker() -> bool:
    """Whether a worker runs the running flow, and kills it some time after it was cancelled. What a worker
    runs is of a deployment."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    return bool(flow_run and flow_run.deployment_id)


def seconds_to_end() -> float:
    """How long the running flow may clean up once its process is told to end."""
    return WORKER_SECONDS if is_under_worker() else BY_HAND_SECONDS


def tell(state: State[Any]) -> int:
    """Print how the run ended; exit code 0 completed, 3 completed with errors, 1 failed or stopped."""
    sys.stdout.write(f"{state.name}: {state.message}\n")
    if not state.is_completed():
        return 1
    return 3 if state.name == WITH_ERRORS else 0


def why_cut_short(error: BaseException) -> str:
    """In words, what ended a flow before its time. Prefect raises a flow's timeout as a cancellation."""
    if isinstance(error, TerminationSignal):
        return "the job was cut short: its process was told to end"
    if isinstance(error, asyncio.CancelledError):
        return "the job was cut short: its flow ran out of time"
    if isinstance(error, KeyboardInterrupt):
        return "the job was cut short: it was interrupted from the keyboard"
    return f"the job was cut short: {type(error).__name__}"
