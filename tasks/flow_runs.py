"""Flow runs as the Prefect server knows them: how they are, and ending them.

Prefect tells children of a cancelled job only once the job has ended: a job ends them itself, before it
cleans up. A server that does not answer must keep no job from that: what ends runs does what it can.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.client.base import ServerType
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelled, Cancelling

from vsa.transfer.dead_runs import JobState

STOP_SECONDS = 18.0
"""How long a job that ends waits for its streams: Prefect grants thirty seconds for all of its end."""
LOOK_SECONDS = 0.5
_AT_ONCE = 100

NO_ANSWER = (httpx.HTTPError, PrefectHTTPStatusError)
"""What Prefect's client raises when the server is away or will not say."""

_log = logging.getLogger(__name__)


def has_server() -> bool:
    """Whether there is a Prefect server that workers can reach, and not one inside of this process."""
    with get_client(sync_client=True) as client:
        return client.server_type is not ServerType.EPHEMERAL


def state_of(flow_run: UUID) -> State | None:
    """The run's state; None if the run was deleted. NO_ANSWER if the server does not say."""
    with get_client(sync_client=True) as client:
        try:
            return client.read_flow_run(flow_run).state
        except ObjectNotFound:
            return None


def is_over(flow_run: UUID) -> bool:
    """Whether the run has ended, is being cancelled, or was deleted. NO_ANSWER if the server does not say."""
    state = state_of(flow_run)
    return state is None or _says_over(state)


def _says_over(state: State) -> bool:
    """Also of one that is being cancelled: Prefect lets it end only if its worker says so, and that may be
    gone. One that lives stops, as it was told to."""
    return state.is_final() or state.type is StateType.CANCELLING


def states_of(jobs: Iterable[str]) -> dict[str, JobState]:
    """What the server says of the flow runs of these jobs, by their ids; of those that it does not know,
    nothing. NO_ANSWER if it does not say."""
    ids = list(flow_run_ids(jobs))
    found: dict[str, JobState] = {}
    with get_client(sync_client=True) as client:
        for start in range(0, len(ids), _AT_ONCE):
            asked = FlowRunFilter(id=FlowRunFilterId(any_=ids[start : start + _AT_ONCE]))
            for run in client.read_flow_runs(flow_run_filter=asked, limit=_AT_ONCE):
                if run.state is not None:
                    found[str(run.id)] = JobState(name=str(run.state.name), is_over=_says_over(run.state))
    return found


def flow_run_ids(jobs: Iterable[str]) -> Iterator[UUID]:
    """Of jobs: a job's id is that of its flow run, unless something else than a flow made it."""
    for job in jobs:
        with suppress(ValueError):
            yield UUID(job)


def states_if_known(jobs: Collection[str]) -> dict[str, JobState]:
    """The same; nothing if there is no server, or it does not say."""
    try:
        return states_of(jobs) if jobs and has_server() else {}
    except NO_ANSWER as error:
        _log.warning("whether earlier jobs are over is not known: %s", type(error).__name__)
        return {}


def is_being_cancelled(flow_run: UUID) -> bool:
    """Whether somebody has cancelled the run, as far as the server says. Nothing else can it become then."""
    return _is_said_to_be(flow_run, StateType.CANCELLING)


def is_held_for_dead(flow_run: UUID) -> bool:
    """Whether the server says of a run that it has crashed; who asks for itself knows better."""
    return _is_said_to_be(flow_run, StateType.CRASHED)


def _is_said_to_be(flow_run: UUID, kind: StateType) -> bool:
    try:
        state = state_of(flow_run)
    except NO_ANSWER:
        return False
    return state is not None and state.type is kind


def children_of(job: UUID) -> list[UUID]:
    """The job's child runs that have not ended, in any order, as far as the server knows.

    It is asked for all of them, in pages of the one order that is total and that their end does not change: a
    page of the open ones alone would skip as many as have ended since the page before.
    """
    asked = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[job]))
    found: dict[UUID, FlowRun] = {}
    read = 0
    with get_client(sync_client=True) as client:
        while page := client.read_flow_runs(flow_run_filter=asked, sort=FlowRunSort.ID_DESC, offset=read):
            read += len(page)
            found |= {run.id: run for run in page}
    return [run.id for run in found.values() if run.state is None or not run.state.is_final()]


def end_children(job: UUID, *, wait_seconds: float = STOP_SECONDS) -> bool:
    """Cancel the job's child runs that are still under way, and wait; whether all of them have ended."""
    try:
        return cancel(children_of(job), wait_seconds=wait_seconds)
    except NO_ANSWER as error:
        _log.warning("the job's child runs are not known: %s", type(error).__name__)
        return False


def cancel(flow_runs: Sequence[UUID], *, wait_seconds: float = STOP_SECONDS) -> bool:
    """Cancel these runs and wait so long for their end; whether all of them have ended.

    One that has not begun by then has ended for us: it looks at its state before it does anything.

    It does what it can: a server that does not answer must not keep a job from its cleanup.
    """
    left = set(flow_runs)
    deadline = time.monotonic() + wait_seconds
    asked = False
    while left:
        try:
            with get_client(sync_client=True) as client:
                if not asked:
                    for flow_run in left:
                        _ask_to_end(client, flow_run)
                    asked = True
                left = {flow_run for flow_run in left if not _has_ended(client, flow_run)}
        except NO_ANSWER as error:
            _log.warning("child runs could not be cancelled yet: %s", type(error).__name__)
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(LOOK_SECONDS)
    if left and wait_seconds:
        _log.error(
            "streams that have not ended %.0f s after they were cancelled: %s", wait_seconds, _ids(left)
        )
    return not left


def _ask_to_end(client: SyncPrefectClient, flow_run: UUID) -> None:
    if not _has_ended(client, flow_run):
        client.set_flow_run_state(flow_run, Cancelling(message="the job has ended or does not need it"))


def say_cancelled(flow_run: UUID) -> None:
    """Say of a run that is being cancelled that it has ended; of any other, say nothing."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run).state
            if state is not None and state.type is StateType.CANCELLING:
                client.set_flow_run_state(flow_run, Cancelled(message="all its streams have stopped"))
    except (*NO_ANSWER, ObjectNotFound) as error:
        _log.warning("the end of run %s could not be told: %s", flow_run, type(error).__name__)


def _has_ended(client: SyncPrefectClient, flow_run: UUID) -> bool:
    try:
        found = client.read_flow_run(flow_run)
    except ObjectNotFound:
        return True
    state = found.state
    if state is None:
        return False
    return state.is_final() or (state.type is StateType.CANCELLING and found.start_time is None)


def _ids(flow_runs: set[UUID]) -> str:
    return ", ".join(sorted(map(str, flow_runs)))
