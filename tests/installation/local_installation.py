"""The local installation of `make server`, started and stopped as a person does it."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from azsim.control import Control
from demo.installation import DATABASE, Installation, free_port
from demo.postgresql import postgresql, programs
from demo.process_tree import Seen, family
from demo.served import ServedProcess

DISKS = 6
"""Of the VMs that the installation's own subclient selects."""
READY = "Ctrl-C stops everything."
_START_SECONDS = 400.0


class LocalInstallation:
    """`python -m demo.server` on a folder and a port; what it says is in `said`."""

    def __init__(self, folder: Path, *, database: str = "") -> None:
        self.here = Installation(folder, free_port(), database)
        command = [sys.executable, "-m", "demo.server", folder, "--port", str(self.here.port)]
        environment = dict(os.environ) | ({DATABASE: database} if database else {})
        log = folder.with_suffix(".said")
        self._process = ServedProcess("the local installation", command, log=log, environment=environment)
        self._began = 0

    def start(self) -> LocalInstallation:
        """Return when it says that everything is there."""
        self._began = self._process.log.stat().st_size if self._process.log.exists() else 0
        self._process.start()
        self._process.await_ready(lambda: READY in self.said, seconds=_START_SECONDS)
        self._put_schedules_off()
        return self

    def _put_schedules_off(self) -> None:
        """By half a day: tests play at any hour, and a scheduled job would begin beside those they watch."""
        far = dt.datetime.now(dt.UTC) + dt.timedelta(hours=12)
        cron = {"cron": f"{far.minute} {far.hour} * * *", "timezone": "UTC"}
        assert self.here.api.change_schedules({"schedule": cron}), "no deployment has a schedule"

    @property
    def said(self) -> str:
        """What it said since the last start."""
        return self._process.log.read_bytes()[self._began :].decode()

    @property
    def control(self) -> Control:
        """The simulated Azure's controls."""
        return Control(self.here.azure)

    @property
    def snapshots(self) -> list[str]:
        """The names of all snapshots of managed disks in the simulated Azure."""
        return sorted(row["name"] for row in self.control.inventory()["snapshots"])

    @property
    def runs_now(self) -> int:
        """How many flow runs have begun and not ended."""
        begun = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        return int(self.here.api.ask("POST", "/flow_runs/count", {"flow_runs": begun}))

    def start_a_job(self) -> str:
        """A full one, of its own subclient, on the proxies; the id of its flow run."""
        deployment = self.here.api.ask("GET", "/deployments/name/backup-subclient/ad-hoc")
        run = self.here.api.ask(
            "POST",
            f"/deployments/{deployment['id']}/create_flow_run",
            {"parameters": {"subclient": "production", "full": True}},
        )
        return str(run["id"])

    def read_slowly(self) -> str:
        """Every read takes five seconds from now on; the fault to ask after."""
        return self.control.add_fault("delay", seconds=5, plane="blob", header="x-ms-range", times=None)

    def processes(self) -> set[Seen]:
        """Everything that runs for it now."""
        return family([self._process.id]) if self._process.id else set()

    @property
    def runs(self) -> bool:
        return self._process.id is not None

    @property
    def process_id(self) -> int:
        assert self._process.id, f"the installation has ended: {self.said}"
        return self._process.id

    def interrupt(self, *, seconds: float) -> None:
        """Press Ctrl-C and wait for its end; ProcessFailed if it complains or takes longer."""
        os.kill(self.process_id, signal.SIGINT)
        self._process.await_end(seconds=seconds)

    def kill(self) -> None:
        """Kill the command itself, and nothing that it has started."""
        os.kill(self.process_id, signal.SIGKILL)
        self._process.collect()

    def end(self) -> None:
        """Nothing of it stays, whatever the test did."""
        self._process.stop(seconds=20)


def wait_for(look: Callable[[], object], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)


@contextlib.contextmanager
def local_installation(folder: Path) -> Iterator[LocalInstallation]:
    """One that is not started yet; its server is on PostgreSQL if that is installed.

    On its SQLite, whoever asks for much at once is refused some of it while others write, now and then for a
    minute.
    """
    with contextlib.ExitStack() as stack:
        programs_in = programs()
        database = stack.enter_context(postgresql(programs_in)) if programs_in else ""
        made = LocalInstallation(folder, database=database)
        stack.callback(made.end)
        yield made
