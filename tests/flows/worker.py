"""Workers as they are started on a proxy: real processes that can be killed or frozen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import UUID

from tests.flows.prefect_server import ROOT, PrefectServer

# A worker is missed after three of them; no shorter, since a busy machine may keep it waiting.
HEARTBEAT_SECONDS = 10
MISSED_SECONDS = 35
"""By then the server has heard of a worker's last heartbeat, and has missed three."""


class ProxyWorker:
    """`python -m deployments.worker POOL` in a process group of its own."""

    def __init__(self, server: PrefectServer, pool: str, folder: Path) -> None:
        self.pool = pool
        self.scratch = folder / f"{pool}-scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{pool}.log"
        # A short query interval, so that tests need not wait; the rest is as deployments/units says.
        settings = {
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": str(HEARTBEAT_SECONDS),
            "TMPDIR": str(self.scratch),
        }
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "deployments.worker", pool],
                env=dict(server.environment(**settings)),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def process_of(self, flow_run: UUID) -> int | None:
        """The process below the worker that runs this flow run; None if there is none (yet)."""
        return next((child for child in self.processes if _runs(child, flow_run)), None)

    @property
    def processes(self) -> list[int]:
        """All processes below the worker."""
        return descendants(self._process.pid)

    def kill(self) -> None:
        """SIGKILL the worker alone; what runs below it goes on without it."""
        self._process.kill()
        self._process.wait(20)

    def freeze(self) -> None:
        """Keep the worker, and not its streams, from doing anything at all."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it and everything of it, whatever state it is in."""
        if self.lives:
            self.thaw()
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)


def descendants(process: int) -> list[int]:
    """Ids of all processes below one, children before theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _runs(process: int, flow_run: UUID) -> bool:
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{process}/environ").read_bytes()
        return f"PREFECT__FLOW_RUN_ID={flow_run}".encode() in environment
    return False
