"""What all stages share: which failures are worth another attempt, and what Prefect may keep.

Two kinds of repetition are never mixed: the engine repeats a request, Prefect repeats a stage. A stage
that was stopped, refused or given bad input is not repeated.
"""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from vsa.errors import TryAgainLater


def can_try_again(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether the stage failed for a reason that may pass."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TryAgainLater)


# Results stay in memory: they may name things, but the log is the record, not Prefect's storage.
STAGE: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}

REPEATED: dict[str, Any] = STAGE | {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": can_try_again,
}
