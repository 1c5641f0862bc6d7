"""A Prefect server in its own process with its own home, and what tests ask it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTaskRunId,
    TaskRunFilter,
    TaskRunFilterState,
    TaskRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, Log, State, StateType, TaskRun
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

from demo.installation import DATABASE, free_port
from demo.prefect_processes import CHECKOUT, HOST, PrefectApi, environment, prefect_server
from demo.served import ServedProcess
from tests.certificates import certificate_of

ROOT = CHECKOUT
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0
T = TypeVar("T")


def wait_for(what: str, look: Callable[[], T | None], *, seconds: float = 30.0, every: float = 0.1) -> T:
    """The first answer of `look` that is not None or False; AssertionError, naming it, if none comes."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = look()
        if answer is not None and answer is not False:
            return answer
        time.sleep(every)
    raise AssertionError(f"waited {seconds:.0f} s for {what}")


@dataclass
class PrefectServer:
    """`prefect server start` on a free port of the loopback address; `settings` are environment variables."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    _process: ServedProcess | None = None

    def start(self) -> PrefectServer:
        """Return once it answers; one that was stopped comes back at its address, with its database."""
        self.port = self.port or free_port()
        # A server that comes back has clients already, which read it at any time.
        if not self._authorities.exists():
            self._authorities.parent.mkdir(parents=True, exist_ok=True)
            self._authorities.write_text(certificate_of("nobody"))
        made = prefect_server(self.home, port=self.port, log=self.log, ui=False, settings=self.settings)
        self._process = made.start()
        made.await_ready(PrefectApi(self.url).answers, seconds=_START_SECONDS)
        return self

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/api"

    @property
    def access(self) -> dict[str, str]:
        """The settings of whoever talks to it, as environment variables.

        Each of Prefect's clients reads all authorities that it trusts, which takes 20 ms with those of the
        public web, and there are several for each task. This server speaks no TLS: one will do.
        """
        return {"PREFECT_API_URL": self.url, "PREFECT_API_SSL_CERT_FILE": str(self._authorities)}

    @property
    def _authorities(self) -> Path:
        return self.home / "authorities.pem"

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop(seconds=_STOP_SECONDS)

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def database(self) -> Path:
        return self.home / "prefect.db"

    @property
    def is_on_sqlite(self) -> bool:
        return DATABASE not in self.settings

    def environment(self, **changes: str) -> Mapping[str, str]:
        """The environment of a process that talks to this server, with the server's own settings."""
        settings = {**self.access, **self.settings, **changes}
        return environment(self.home / "client", **settings)

    def copy_to(self, home: Path) -> Path:
        """A Prefect home whose own database holds what this server's holds now: blocks and their keys.

        Skips the test if the server is not on SQLite: `make test` plays it, where every server is.
        """
        if not self.is_on_sqlite:
            pytest.skip("only a server on SQLite can be copied, and in CI this one is on PostgreSQL")
        home.mkdir(parents=True)
        with (
            contextlib.closing(sqlite3.connect(self.database)) as source,
            contextlib.closing(sqlite3.connect(home / "prefect.db")) as target,
        ):
            source.backup(target)
        return home

    @contextlib.contextmanager
    def in_use(self) -> Iterator[PrefectServer]:
        """Let this process talk to the server for the length of a block."""
        home = self.home / "tests"
        # Without heartbeats: their thread lets every flow run last a second at least.
        settings = {
            PREFECT_API_URL: self.url,
            PREFECT_API_SSL_CERT_FILE: str(self._authorities),
            PREFECT_HOME: home,
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,
            PREFECT_LOGGING_TO_API_ENABLED: True,
        }
        with temporary_settings(settings):
            yield self
            # Nothing may be on its way when the server stops, and no thread may draw random numbers while
            # other tests play with chance.
            APILogWorker.instance().drain()
            EventsWorker.drain_all()


def task_runs_of(run: FlowRun, *, expected: int) -> list[TaskRun]:
    """The flow run's finished task runs once the server has recorded at least `expected` of them.

    The server records task runs from events, some time after they happened.
    """
    finished = TaskRunFilter(
        state=TaskRunFilterState(
            type=TaskRunFilterStateType(
                any_=[StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED]
            )
        )
    )

    def look() -> list[TaskRun] | None:
        with get_client(sync_client=True) as client:
            found = client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])), task_run_filter=finished
            )
        return found if len(found) >= expected else None

    return wait_for(f"{expected} finished task runs of {run.name}", look)


def flow_run_of(state: State[Any]) -> FlowRun:
    """The flow run whose final state this is."""
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        return client.read_flow_run(state.state_details.flow_run_id)


def messages_of(run: FlowRun | TaskRun) -> list[str]:
    """What the run's log says in the UI; a flow run's log holds its tasks' too."""
    return [log.message for log in logs_of(run)]


def logs_of(run: FlowRun | TaskRun) -> list[Log]:
    """The run's log as the UI has it; a flow run's holds its tasks' too."""
    only = {"any_": [run.id]}
    asked = LogFilter(
        flow_run_id=LogFilterFlowRunId(**only) if isinstance(run, FlowRun) else None,
        task_run_id=LogFilterTaskRunId(**only) if isinstance(run, TaskRun) else None,
    )
    with get_client(sync_client=True) as client:
        return client.read_logs(log_filter=asked)
