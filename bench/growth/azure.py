"""A simulated Azure for measurements: its process, a connection, and waiting in virtual time."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azsim.control import Control
from demo.endpoint import connection_to
from vsa.azure.connection import AzureConnection
from vsa.stop import Stop

_START_SECONDS = 120


class SimulatedAzure:
    """`python -m azsim serve` on a state folder, and what is known of it."""

    def __init__(self, state: Path, process: subprocess.Popen[str]) -> None:
        self.control = Control(state)
        self.process = process.pid
        self._connections: list[AzureConnection] = []

    def close(self) -> None:
        """End the connections to it, before it ends itself."""
        self.control.close()
        for connection in self._connections:
            for client in ("compute", "storage", "credential"):
                if client in vars(connection):
                    vars(connection)[client].close()

    def connection(self, time: VirtualTime) -> AzureConnection:
        made = connection_to(self.control.endpoint, polling_seconds=0.01, clock=time.now)
        self._connections.append(made)
        return made


@contextmanager
def simulated_azure(state: Path, **options: Any) -> Iterator[SimulatedAzure]:
    """Serve a state folder; `options` are flags of `azsim serve`."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "azsim", "serve", "--state", str(state), *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise RuntimeError(f"azsim did not start on {state}")
            azure = SimulatedAzure(state, process)
            try:
                yield azure
            finally:
                azure.close()
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


class VirtualTime:
    """The seconds that were asked to be waited are not: the clocks here and in the simulation go on by them.

    For one thread: what several wait for at the same time would be added up.
    """

    def __init__(self, control: Control) -> None:
        self._control = control
        self._lock = threading.Lock()
        self.waited = 0.0
        self.cpu = 0.0
        """What moving the simulation's clock cost this process."""

    def now(self) -> float:
        return time.monotonic() + self.waited

    def wait(self, seconds: float) -> None:
        began = time.thread_time()
        with self._lock:
            self._control.advance_clock(seconds)
            self.waited += seconds
        self.cpu += time.thread_time() - began

    @contextmanager
    def instead_of_waiting(self) -> Iterator[None]:
        """Inside, the waits of this process pass so, those of the engine's own cleaning up included."""
        waits, own = Stop.wait, self.wait

        def wait(stop: Stop, seconds: float) -> None:
            stop.check()
            own(seconds)

        setattr(Stop, "wait", wait)  # noqa: B010 - a method is not assigned to
        try:
            yield
        finally:
            setattr(Stop, "wait", waits)  # noqa: B010
