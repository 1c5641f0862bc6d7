"""A Prefect worker that finishes what it has begun before it ends.

    python -m deployments.worker POOL

Prefect's own worker kills its flow runs in mid-stream within seconds when it is told to stop, and nobody says
of them that they have ended. This one, told so by SIGTERM or SIGINT,

* the first time takes no new runs, waits for those that have begun, and ends;
* the second time tells those as well: they clean up what they had in Azure and end as crashed.

Linux only, like the flow runs' processes that it finds in /proc.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any

import anyio
from prefect.client.schemas.objects import FlowRun
from prefect.workers.process import ProcessWorker

# Prefect counts a worker's runs only if it has a limit. The pool's own limit is the one that matters.
_NO_LIMIT = 1_000_000
_LOOK_SECONDS = 0.5

SPARING = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}
"""What makes the allocators of a stream's process keep less: only its environment tells them in time. Arrow's
own keeps 10 MiB and more of what an index took, glibc what each of some 18 threads had. It costs no time: the
large buffers are not theirs."""


def make_sparing(environment: MutableMapping[str, str]) -> None:
    """Have the processes that are started in this environment keep less memory; what it says stays."""
    for name, value in SPARING.items():
        environment.setdefault(name, value)


class StoppableWorker(ProcessWorker):
    """A process worker of one existing pool that can be told to take no more runs."""

    def __init__(self, pool: str, name: str) -> None:
        # A wrong pool must not be made: that is what deployments.register is for.
        super().__init__(pool, name=name, create_pool_if_not_found=False, limit=_NO_LIMIT)
        self._asking = anyio.Lock()
        self._stopping = False

    @classmethod
    def __dispatch_key__(cls) -> str:
        """A key of its own: `prefect worker start --type process` stays Prefect's worker."""
        return "azure-vsa"

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """What Prefect calls every few seconds to find runs that are due."""
        async with self._asking:
            return [] if self._stopping else await super().get_and_submit_flow_runs()

    async def sync_with_backend(self) -> None:
        """What Prefect calls to say that the worker lives; one that stops should look as if it were gone."""
        if not self._stopping:
            await super().sync_with_backend()

    async def finish(self) -> None:
        """Take no more runs, and return when the last one has ended."""
        self._stopping = True
        async with self._asking:
            pass
        while self.runs:
            await anyio.sleep(_LOOK_SECONDS)

    @property
    def runs(self) -> int:
        """How many flow runs are being started or have not ended."""
        return int(self.limiter.borrowed_tokens) if self.is_setup else 0


async def serve(pool: str, name: str) -> None:
    """Serve the pool, under a name that people see, until told to stop and all runs have ended."""
    worker = StoppableWorker(pool, name)
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with anyio.create_task_group() as tasks:

            async def end() -> None:
                await worker.finish()
                tasks.cancel_scope.cancel()

            tasks.start_soon(worker.start)
            await signals.__anext__()
            _say(f"Told to stop: {worker.runs} flow runs have begun and will be finished.")
            tasks.start_soon(end)
            async for _ in signals:
                _say("Told to stop again: the flow runs are told as well.")
                _terminate(_children())


def _say(words: str) -> None:
    sys.stdout.write(f"{words}\n")
    sys.stdout.flush()


def _terminate(processes: Sequence[int]) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)


def _children() -> list[int]:
    """The processes of the flow runs: a worker has no others."""
    threads: Any = Path("/proc/self/task").glob("*/children")
    return [int(process) for listed in threads for process in listed.read_text().split()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a work pool by the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m deployments.worker",
        description="Serve a work pool; when told to stop, finish the flow runs that have begun.",
    )
    parser.add_argument("pool", help="name of the work pool, as deployments.register made it")
    pool = parser.parse_args(arguments).pool
    make_sparing(os.environ)
    anyio.run(serve, pool, f"{socket.gethostname()} {os.getpid()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
