"""Workers as they are started on a proxy: real processes that can be killed, and what runs below them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.flows.prefect_server import ROOT, PrefectServer


class ProxyWorker:
    """`prefect worker start --pool NAME` in a process group of its own."""

    def __init__(self, server: PrefectServer, pool: str, folder: Path) -> None:
        self.pool = pool
        self.scratch = folder / f"{pool}-scratch"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"{pool}.log"
        # A short query interval, so that tests need not wait; the rest is as deployments/units says.
        settings = {"PREFECT_WORKER_QUERY_SECONDS": "1", "TMPDIR": str(self.scratch)}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool],
                env=dict(server.environment(**settings)),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def streams(self) -> list[int]:
        """Ids of the processes below the worker that run Prefect's engine."""
        return [child for child in descendants(self._process.pid) if _runs_a_flow(child)]

    def kill(self, *, with_streams: bool = False) -> None:
        """SIGKILL the worker, and what runs below it if asked."""
        victims = [self._process.pid, *(descendants(self._process.pid) if with_streams else [])]
        for victim in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
        self._process.wait(20)

    def stop(self) -> None:
        """End it and everything of it, whatever state it is in."""
        if self._process.poll() is None:
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


def _runs_a_flow(process: int) -> bool:
    with contextlib.suppress(OSError):
        environment = Path(f"/proc/{process}/environ").read_bytes()
        return b"PREFECT__FLOW_RUN_ID=" in environment
    return False
