"""A Prefect server in its own process with its own home, and what tests ask it."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
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
    PREFECT_API_URL,
    PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
    PREFECT_HOME,
    PREFECT_LOGGING_TO_API_ENABLED,
    temporary_settings,
)

ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 90.0
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


def environment(home: Path, **changes: str) -> dict[str, str]:
    """The environment of a process that keeps Prefect's things in `home` and knows no server by itself."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_CLI_WRAP_LINES": "false",
        "PYTHONPATH": str(ROOT),
        **changes,
    }


@dataclass
class PrefectServer:
    """`prefect server start` on a free port of the loopback address; `settings` are environment variables."""

    home: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> PrefectServer:
        port = _free_port()
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "prefect", "server", "start"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(port), "--no-ui"],
                env=environment(self.home, **self.settings),
                cwd=self.home,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.url = f"http://127.0.0.1:{port}/api"
        wait_for("the Prefect server", self._answers, seconds=_START_SECONDS)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the Prefect server ended: {self.log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def log(self) -> Path:
        return self.home / "server.log"

    @property
    def database(self) -> Path:
        return self.home / "prefect.db"

    def environment(self, **changes: str) -> Mapping[str, str]:
        """The environment of a process that talks to this server."""
        return environment(self.home / "client", PREFECT_API_URL=self.url, **changes)

    def copy_to(self, home: Path) -> Path:
        """A Prefect home whose own database holds what this server's holds now: blocks and their keys."""
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


_SHARED = pytest.StashKey[PrefectServer]()


def shared_server(config: pytest.Config, factory: pytest.TempPathFactory) -> PrefectServer:
    """The one server of a test run, also for folders whose fixtures do not know of each other."""
    if _SHARED not in config.stash:
        server = PrefectServer(factory.mktemp("prefect"))
        config.add_cleanup(server.stop)
        config.stash[_SHARED] = server.start()
    return config.stash[_SHARED]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


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
