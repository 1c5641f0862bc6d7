"""A Prefect server and its workers as processes of their own, and the few questions asked of the server.

Nothing here loads Prefect, whose import takes longer than all the rest.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any

from demo.served import ServedProcess

CHECKOUT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
# Longer than writers of its SQLite wait for one another (PRAGMA busy_timeout, a minute).
_ANSWER_SECONDS = 90.0
_TRIES = 20
_AGAIN_SECONDS = 1.0


def environment(home: Path, **changes: str) -> dict[str, str]:
    """The environment of a process that keeps Prefect's things in `home` and knows no server by itself."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return inherited | {
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLI_COLORS": "false",
        "PREFECT_CLI_WRAP_LINES": "false",
        "PYTHONPATH": str(CHECKOUT),
        **changes,
    }


def prefect_server(
    home: Path, *, port: int, log: Path, ui: bool = True, settings: Mapping[str, str] | None = None
) -> ServedProcess:
    """A server on the loopback address; `settings` are environment variables. Its database is in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    # The dashboard asks the port of the settings, 4200, whatever port the server was started on.
    seen = {"PREFECT_SERVER_UI_API_URL": f"http://{HOST}:{port}/api"}
    seen["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] = "false"
    return ServedProcess(
        "the Prefect server",
        command if ui else [*command, "--no-ui"],
        log=log,
        environment=environment(home, **seen, **(settings or {})),
        folder=home,
    )


def prefect_worker(pool: str, *, log: Path, environment: Mapping[str, str]) -> ServedProcess:
    """A worker of the pool as it runs on a proxy; flows are those of this checkout."""
    command = [sys.executable, "-m", "deployments.worker", pool]
    return ServedProcess(f"the worker of {pool}", command, log=log, environment=environment, folder=CHECKOUT)


@dataclass(frozen=True, slots=True)
class PrefectApi:
    """`url` ends in /api."""

    url: str

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            return self.ask("GET", "/health") is True
        except (OSError, HTTPException):
            return False

    def worker_is_online(self, pool: str, *, since: dt.datetime) -> bool:
        """Whether a worker of the pool has said after `since` that it is there."""
        try:
            workers = self.ask("POST", f"/work_pools/{pool}/workers/filter", {})
        except urllib.error.HTTPError:
            return False
        return any(
            worker["status"] == "ONLINE" and dt.datetime.fromisoformat(worker["last_heartbeat_time"]) >= since
            for worker in workers
        )

    def change_schedules(self, change: Mapping[str, Any]) -> list[str]:
        """Change every schedule of every deployment alike; says which there are.

        What was planned by them for later is planned anew; what is due already begins.
        """
        said = []
        for deployment in self.ask("POST", "/deployments/filter", {}):
            flow = self.ask("GET", f"/flows/{deployment['flow_id']}")
            for schedule in deployment["schedules"]:
                path = f"/deployments/{deployment['id']}/schedules/{schedule['id']}"
                # What is not named keeps its value, but for the parameters: without them they would be none.
                self.ask("PATCH", path, {"parameters": schedule["parameters"], **change})
                said.append(f"{flow['name']}/{deployment['name']}")
        return sorted(said)

    def count_runs(self, pool: str) -> int:
        """How many flow runs there ever were in the work pool."""
        return int(self.ask("POST", "/flow_runs/count", {"work_pools": {"name": {"any_": [pool]}}}))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the server answers, from JSON; HTTPError if it refuses, or stays busy for long."""
        request = urllib.request.Request(  # noqa: S310 - an address of our own making
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        text = _answer(request)
        return json.loads(text) if text else None


def _answer(request: urllib.request.Request) -> bytes:
    """What the server answers. On SQLite it says 503 while others write: asked again, it answers."""
    for left in reversed(range(_TRIES)):
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:  # noqa: S310
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or not left:
                raise
            time.sleep(_AGAIN_SECONDS)
    raise AssertionError("the last try answers or raises")
