"""Exceptions of other people's libraries in real task runs: what Prefect's states say of them."""

from __future__ import annotations

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from tasks.edge import task
from tasks.policy import REPEATED, STAGE
from tests.flows.prefect_server import PrefectServer, flow_run_of, task_runs_of
from vsa.errors import RunStopped, TryAgainLater

LEAK = "cannot reach postgresql://vsa:hunter2@db/prefect"
AT_ONCE = REPEATED | {"retries": 1, "retry_delay_seconds": 0, "retry_jitter_factor": None}


@task(name="of others", **STAGE)
def of_others() -> None:
    raise OSError(LEAK)


@task(name="busy", **AT_ONCE)
def busy() -> None:
    raise TryAgainLater("busy")


@task(name="stopped", **AT_ONCE)
def stopped() -> None:
    raise RunStopped("fenced")


@flow(persist_result=False)
def everything() -> None:
    for stage in (of_others, busy, stopped):
        stage(return_state=True)


@pytest.fixture
def ended(prefect_server: PrefectServer) -> State[None]:
    return everything(return_state=True)


def test_states_name_what_failed_without_its_secret_and_only_what_may_pass_is_repeated(
    ended: State[None],
) -> None:
    flow_run = flow_run_of(ended)
    runs = {run.name.rpartition("-")[0]: run for run in task_runs_of(flow_run, expected=3)}
    assert {name: run.run_count for name, run in runs.items()} == {"of others": 1, "busy": 2, "stopped": 1}
    with get_client(sync_client=True) as client:
        states = {name: client.read_task_run(run.id).state for name, run in runs.items()}
    messages = {name: state.message for name, state in states.items() if state}
    assert "OSError: cannot reach postgresql://vsa:REDACTED@db/prefect" in str(messages["of others"])
    assert "TryAgainLater: busy" in str(messages["busy"])
    assert "RunStopped: fenced" in str(messages["stopped"])
    assert "hunter2" not in str(messages)
