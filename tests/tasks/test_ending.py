"""How long a flow that is cut short may clean up: as long as nobody kills it."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext

from tasks.ending import BY_HAND_SECONDS, WORKER_SECONDS, seconds_to_end

PREFECT_KILLS_AFTER = 30


@pytest.mark.parametrize(("deployment", "seconds"), [(uuid4(), WORKER_SECONDS), (None, BY_HAND_SECONDS)])
def test_what_a_worker_runs_has_less_time_than_what_is_run_by_hand(
    deployment: UUID | None, seconds: float
) -> None:
    flow_run = FlowRun(flow_id=uuid4(), deployment_id=deployment)
    with FlowRunContext.model_construct(flow_run=flow_run):
        assert seconds_to_end() == seconds
    assert WORKER_SECONDS < PREFECT_KILLS_AFTER < BY_HAND_SECONDS


def test_outside_of_a_flow_run_nobody_kills_it_soon() -> None:
    assert seconds_to_end() == BY_HAND_SECONDS
