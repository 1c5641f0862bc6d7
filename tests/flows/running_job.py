"""A job in a thread of the test's process, so that the test can act while it runs."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Collection
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort

from flows.backup_subclient import backup_subclient
from tests.flows.fleet import children_of
from tests.flows.prefect_server import wait_for
from tests.flows.site import Site

SECONDS = 600.0


class RunningJob:
    """One job on the proxies, from its start on; `options` are the flow's parameters."""

    def __init__(self, site: Site, **options: Any) -> None:
        self._site = site
        self._before = {run.id for run in _jobs_of(site)}
        self._ended: State[Any] | BaseException | None = None
        run = partial(site.back_up, **{"in_process": False, **options})
        # The thread needs the context: it says which server the test talks to.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=self._run, args=(partial(context.run, run),), daemon=True)
        self._thread.start()

    def _run(self, job: Any) -> None:
        try:
            self._ended = job()
        except BaseException as error:  # noqa: BLE001 - raised where the test waits for the job
            self._ended = error

    @property
    def id(self) -> UUID:
        """Of its flow run, once the server knows it."""

        return newest_job_of(self._site, other_than=self._before)

    @property
    def children(self) -> list[FlowRun]:
        return children_of(self.id)

    @property
    def runs(self) -> bool:
        return self._thread.is_alive()

    def ended(self, seconds: float = SECONDS) -> State[Any]:
        """Its final state; AssertionError if it takes longer."""
        self._thread.join(seconds)
        assert not self.runs, f"the job of {self._site.name} has not ended after {seconds:.0f} s"
        assert self._ended is not None
        if isinstance(self._ended, BaseException):
            raise self._ended
        return self._ended


def newest_job_of(site: Site, *, other_than: Collection[UUID] = ()) -> UUID:
    """The flow run of the site's newest job that is not one of these, once there is one."""

    def look() -> UUID | None:
        return next((run.id for run in _jobs_of(site) if run.id not in other_than), None)

    return wait_for(f"the job of {site.name}", look, seconds=120, every=0.3)


def _jobs_of(site: Site) -> list[FlowRun]:
    """The site's jobs, the newest first."""
    asked = FlowFilter(name=FlowFilterName(any_=[backup_subclient.name]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_filter=asked, sort=FlowRunSort.START_TIME_DESC, limit=50)
    return [run for run in runs if run.parameters.get("subclient") == site.name]
