"""Proxies as Prefect knows them, without a process: what a worker would tell the server, a test tells it."""

from __future__ import annotations

from itertools import count

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun, State, Worker
from prefect.states import Pending, Scheduled
from prefect.workers.process import ProcessWorker

from tasks.pools import STREAM_FLOW, seen_by_prefect
from tests.flows.prefect_server import wait_for
from vsa.transfer.proxies import Proxy

_numbers = count(1)


class Station:
    """A proxy as Prefect knows it: a work pool, a deployment in it, and the heartbeats of its worker."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client
        name = f"Station-{next(_numbers)}"
        self.proxy = Proxy(name=name, pool=name.lower())
        self.make_pool()

    def make_pool(self, kind: str = ProcessWorker.type) -> None:
        template = ProcessWorker.get_default_base_job_template()
        self.client.create_work_pool(
            WorkPoolCreate(name=self.proxy.pool, type=kind, base_job_template=template)
        )

    def deploy(self, pool: str = "") -> None:
        flow_id = self.client.create_flow_from_name(STREAM_FLOW)
        self.deployment = self.client.create_deployment(
            flow_id=flow_id, name=self.proxy.name, work_pool_name=pool or self.proxy.pool
        )

    def change_pool(self, **changes: object) -> None:
        self.client.update_work_pool(self.proxy.pool, WorkPoolUpdate(**changes))

    def beat(self, worker: str = "worker", *, every: float | None = 30) -> None:
        """What the worker's process sends to the server."""
        self.client.send_worker_heartbeat(self.proxy.pool, worker, heartbeat_interval_seconds=every)

    def worker(self) -> Worker:
        return self.client.read_workers_for_work_pool(self.proxy.pool, limit=1)[0]

    def run(self) -> FlowRun:
        """One more run in its pool, of whomever."""
        return self.client.create_flow_run_from_deployment(self.deployment, state=Scheduled())

    def state_of(self, run: FlowRun) -> str | None:
        return self.client.read_flow_run(run.id).state_name

    def forget_worker(self) -> None:
        """Somebody deletes its worker in the dashboard."""
        self.client.request(
            "DELETE",
            "/work_pools/{work_pool_name}/workers/{name}",
            path_params={"work_pool_name": self.proxy.pool, "name": "worker"},
        )

    def runs(self) -> list[FlowRun]:
        """The runs that were asked of it, the oldest first."""
        asked = DeploymentFilter(id=DeploymentFilterId(any_=[self.deployment]))
        return sorted(self.client.read_flow_runs(deployment_filter=asked), key=lambda run: run.created)

    def takes(self) -> FlowRun:
        """Claims the next run that waits here, as a worker does, once there is one."""
        waiting = wait_for(
            f"a run in pool {self.proxy.pool}",
            lambda: next((run for run in self.runs() if run.state and run.state.is_scheduled()), None),
        )
        self.tells(waiting, Pending())
        return waiting

    def tells(self, run: FlowRun, state: State) -> None:
        """What the run's process, or the worker in its place, tells the server of it."""
        self.client.set_flow_run_state(run.id, state)

    @property
    def refusal(self) -> str:
        (seen,) = seen_by_prefect([self.proxy])
        assert seen.model_copy(update={"refusal": ""}) == self.proxy
        return seen.refusal
