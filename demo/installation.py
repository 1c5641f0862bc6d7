"""A complete local installation in one folder: what is where, and the commands that run there.

azure/   the simulated Azure          images/             what its disks held at first
media/   the backup media             prefect/            Prefect's home, with its database
logs/    one file for each process    installation.json   the marker, and what the next start must know
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.prefect_processes import CHECKOUT, HOST, PrefectApi, environment, prefect_server, prefect_worker
from demo.process_tree import Seen, family, living
from demo.served import ServedProcess

PROXIES = ("proxy-a", "proxy-b")
POOLS = ("control", *PROXIES)
DATABASE = "PREFECT_SERVER_DATABASE_CONNECTION_URL"
"""The environment variable that names a Prefect server's database, by an URL with a password."""
_USUAL_PORT = 4200
_MARKER = "installation.json"
_LOCK = "lock"


class CannotUse(Exception):
    """The folder or the port cannot be used; says why and what to do."""


@dataclass(frozen=True)
class Installation:
    """The installation in `folder` with its dashboard on `port`; nothing here starts by itself.

    `database` is the URL of the Prefect server's PostgreSQL; without one it keeps an SQLite in the folder.
    """

    folder: Path
    port: int
    database: str = ""

    @property
    def azure(self) -> Path:
        return self.folder / "azure"

    @property
    def fleet_file(self) -> Path:
        """Written when all images are built."""
        return self.folder / "images" / "FLEET.json"

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def dashboard(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def api(self) -> PrefectApi:
        return PrefectApi(f"{self.dashboard}/api")

    def environment(self) -> dict[str, str]:
        """For everything that talks to the server, its workers included.

        Workers look often for runs, so that nobody who watches waits. Heartbeats of runs tell the server
        when a run's machine has died.
        """
        return environment(
            self.folder / "prefect",
            PREFECT_API_URL=self.api.url,
            PREFECT_WORKER_QUERY_SECONDS="2",
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY="30",
        )

    def server(self) -> ServedProcess:
        settings = {DATABASE: self.database} if self.database else {}
        home, log = self.folder / "prefect", self._log("prefect-server")
        return prefect_server(home, port=self.port, log=log, settings=settings)

    def worker(self, pool: str) -> ServedProcess:
        log = self._log(f"worker-{pool}")
        return prefect_worker(pool, log=log, environment=self.environment())

    def simulated_azure(self) -> ServedProcess:
        """Its ready file is the sign that it serves."""
        self.azure_ready.unlink(missing_ok=True)
        return self.command(
            "the simulated Azure",
            *("azsim", "serve", "--state", str(self.azure), "--ready-file", str(self.azure_ready)),
        )

    @property
    def azure_ready(self) -> Path:
        return self.folder / "azure.ready"

    def command(self, name: str, module: str, *arguments: str) -> ServedProcess:
        """`python -m MODULE ARGUMENTS` in this checkout; `name` is what people call it."""
        return ServedProcess(
            name,
            [sys.executable, "-m", module, *arguments],
            log=self._log(name.removeprefix("the ").lower().replace(" ", "-")),
            environment=self.environment(),
            folder=CHECKOUT,
        )

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"

    def remember(self, processes: Iterable[Seen]) -> None:
        """What the next start must know: the port, and whom to look for if this start is killed."""
        note = {"port": self.port, "processes": sorted(processes)}
        (self.folder / _MARKER).write_text(json.dumps(note) + "\n")


@contextlib.contextmanager
def sole_use(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made if it is not there; CannotUse if it is in use or not an installation."""
    marker = folder / _MARKER
    if folder.exists() and not marker.exists() and any(folder.iterdir()):
        raise CannotUse(f"{folder} holds something that is no local installation: name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if not marker.exists():
        marker.write_text("{}\n")
    with (folder / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotUse(f"{folder} is in use: stop the installation that runs there first") from None
        yield


def left_behind(folder: Path) -> set[Seen]:
    """What still runs of the last start, because that was killed."""
    noted = {Seen(*process) for process in _note(folder).get("processes", [])}
    return family(seen.id for seen in living(noted))


def empty(folder: Path) -> None:
    """Remove the installation; the folder must be held (`sole_use`), and nothing of it may run."""
    for entry in folder.iterdir():
        if entry.name in (_LOCK, _MARKER):
            continue
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def choose_port(folder: Path, asked: int) -> int:
    """The port asked for, else that of the last start, 4200 or any: the first that is free."""
    if asked:
        if not _is_free(asked):
            raise CannotUse(f"port {asked} of {HOST} is in use: name another with --port, or none")
        return asked
    usual = (int(_note(folder).get("port", _USUAL_PORT)), _USUAL_PORT)
    return next((port for port in usual if _is_free(port)), 0) or free_port()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As servers do: a port whose last connections are still being forgotten is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def _note(folder: Path) -> dict[str, Any]:
    """What the last start has remembered."""
    with contextlib.suppress(OSError, ValueError):
        note: dict[str, Any] = json.loads((folder / _MARKER).read_text())
        return note
    return {}
