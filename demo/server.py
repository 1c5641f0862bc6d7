"""`python -m demo.server [FOLDER] [--port N] [--fresh]`: a complete local installation, until Ctrl-C.

A simulated Azure with a few VMs, a Prefect server, two proxies, backup media, deployments and schedules.
The same folder can be started again and goes on where it was; --fresh makes it anew. The Prefect server keeps
an SQLite in the folder, or what PREFECT_SERVER_DATABASE_CONNECTION_URL names.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from threading import Event
from typing import TextIO

from azsim.control import Control, ControlError
from demo.installation import (
    DATABASE,
    POOLS,
    CannotUse,
    Installation,
    choose_port,
    empty,
    left_behind,
    sole_use,
)
from demo.process_tree import Seen, adopt_orphans, family
from demo.served import ProcessFailed, ServedProcess, Stopped, end, stop_together

_START_SECONDS = 180.0
# A job waits for its streams to end, then removes what it has in Azure; its hook does both once more.
_RUNS_SECONDS = 90.0
_SERVERS_SECONDS = 20.0
_WATCH_SECONDS = 0.5


class LocalServer:
    """Starts the parts of an installation, waits, and stops them in the opposite order."""

    def __init__(self, here: Installation, *, out: TextIO, stop: Event, hurry: Event) -> None:
        self._here = here
        self._out = out
        self._stop = stop
        self._hurry = hurry
        self._servers: list[ServedProcess] = []
        # As in POOLS: that of the control pool, which runs jobs, is the first.
        self._workers: list[ServedProcess] = []

    def run(self) -> int:
        """0 when it was told to stop, 1 when a part failed."""
        code = 0
        try:
            self._start()
            self._say(_what_next(self._here))
            self._watch()
        except Stopped:
            self._say("\n")
        except (ProcessFailed, ControlError, OSError) as error:
            self._say(f"\n\n{error}\n")
            code = 1
        finally:
            self._end()
        return code

    def _start(self) -> None:
        here = self._here
        # The slowest to start begins first.
        prefect = self._serve(here.server(), self._servers)
        self._start_azure()
        if not (here.media / "media.json").exists():
            self._do("backup media", "vsa", "init", "--media", str(here.media))
        with self._telling("Prefect server"):
            prefect.await_ready(here.api.answers, seconds=_START_SECONDS, stop=self._stop)
        self._do("blocks", "demo.local_blocks", str(here.azure), str(here.media))
        self._do("block types and work pools", "deployments.register")
        began = dt.datetime.now(dt.UTC)
        workers = {pool: self._serve(here.worker(pool), self._workers) for pool in POOLS}
        self._do("deployments", "prefect", "--no-prompt", "deploy", "--all")
        with self._telling("schedules"):
            here.api.change_schedules({"active": True})
        for pool, worker in workers.items():
            with self._telling(f"worker of {pool}"):
                worker.await_ready(
                    lambda pool=pool: here.api.worker_is_online(pool, since=began),  # type: ignore[misc]
                    seconds=_START_SECONDS,
                    stop=self._stop,
                )

    def _start_azure(self) -> None:
        here = self._here
        if not here.fleet_file.exists():
            self._do("disks of the VMs", "demo.estate", str(here.fleet_file.parent))
        with self._telling("simulated Azure"):
            azure = self._serve(here.simulated_azure(), self._servers)
            azure.await_ready(here.azure_ready.exists, seconds=_START_SECONDS, stop=self._stop)
            control = Control(here.azure)
            if not control.inventory()["vms"]:
                control.create_fleet_file(here.fleet_file)

    def _serve(self, process: ServedProcess, among: list[ServedProcess]) -> ServedProcess:
        among.append(process.start())
        self._here.remember(_children())
        return process

    def _do(self, name: str, module: str, *arguments: str) -> None:
        with self._telling(name):
            step = self._serve(self._here.command(name, module, *arguments), self._servers)
            step.await_end(seconds=_START_SECONDS, stop=self._stop)
        self._servers.remove(step)

    def _watch(self) -> None:
        """Return when told to stop; ProcessFailed when a part ends by itself."""
        while not self._stop.wait(_WATCH_SECONDS):
            for process in (*self._servers, *self._workers):
                if process.code is not None:
                    raise process.failure(f"ended by itself with {process.code}")

    def _end(self) -> None:
        """Runs first, while there is still an Azure to clean up and a server to tell."""
        self._say("Stopping; Ctrl-C again kills what still runs.\n")
        with self._telling("runs of flows"):
            killed = self._end_runs()
        with self._telling("workers"):
            killed |= stop_together(self._workers, seconds=_SERVERS_SECONDS, hurry=self._hurry)
        with self._telling("servers"):
            killed |= stop_together(self._servers, seconds=_SERVERS_SECONDS, hurry=self._hurry)
            killed |= end(_children(), seconds=_SERVERS_SECONDS, hurry=self._hurry)
        if killed:
            self._say(f"{len(killed)} processes did not end by themselves and were killed.\n")
        self._say(f"Stopped. Start again with the same folder to go on: {self._here.folder}\n")

    @contextlib.contextmanager
    def _telling(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        self._say(f"  {what + ' ':.<32} ")
        yield
        self._say(f"{time.monotonic() - began:3.0f} s\n")

    def _end_runs(self) -> set[Seen]:
        """Tell jobs to end; they end their streams on the proxies themselves. Returns who was killed.

        Workers end afterwards: they carry that out, and they would interrupt a run that cleans up.
        """
        jobs = _below(self._workers[:1])
        return end(jobs, seconds=_RUNS_SECONDS, hurry=self._hurry, besides=lambda: _below(self._workers))

    def _say(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _children() -> set[Seen]:
    """Everything below this process, orphans included."""
    return {seen for seen in family([os.getpid()]) if seen.id != os.getpid()}


def _below(served: Iterable[ServedProcess]) -> set[Seen]:
    """What these have started, without themselves."""
    ids = {process.id for process in served if process.id is not None}
    return {seen for seen in family(ids) if seen.id not in ids}


def _what_next(here: Installation) -> str:
    return f"""
The dashboard is at {here.dashboard}. To work with it, in another terminal:

  . .venv/bin/activate
  export PREFECT_API_URL={here.api.url}

Run a backup, here or in the dashboard under Deployments > ad-hoc > Run > Custom run:
  prefect deployment run 'backup-subclient/ad-hoc' --param subclient=production --watch

Watch it: Runs > the job shows its stages, its child runs on both proxies, logs and artifacts.
  {here.dashboard}/runs

Change a disk as its guest would, and back up again: only what changed is read.
  python -m azsim write-disk --state {here.azure} shop-01-data --from README.md --offset 1048576

See a retry: let Azure fail when it is asked for a disk, more often than the engine is patient, and back up.
  python -m azsim fault add --state {here.azure} \\
    status status=503 retry_after=0 --path '/disks/shop-01-data$' --times 7

Look and restore; no server is needed for it:
  vsa points --media {here.media}
  vsa restore POINT --media {here.media} --to restored

Ctrl-C stops everything.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.server", description=__doc__)
    parser.add_argument("folder", nargs="?", default=".server", type=Path, help="default: .server")
    parser.add_argument(
        "--port", type=int, default=0, help="of the dashboard; default: the last one, or 4200"
    )
    parser.add_argument("--fresh", action="store_true", help="remove what the folder holds and begin anew")
    options = parser.parse_args(arguments)
    stop, hurry = _stopped_by_signals()
    folder = options.folder.resolve()
    try:
        with sole_use(folder):
            end(left_behind(folder), seconds=_RUNS_SECONDS, hurry=hurry)
            if options.fresh:
                empty(folder)
            sys.stdout.write(f"A local installation in {folder}\n\n")
            here = Installation(folder, choose_port(folder, options.port), os.environ.get(DATABASE, ""))
            return LocalServer(here, out=sys.stdout, stop=stop, hurry=hurry).run()
    except CannotUse as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _stopped_by_signals() -> tuple[Event, Event]:
    """The events that the first SIGINT or SIGTERM sets, and each further one."""
    adopt_orphans()
    stop, hurry = Event(), Event()

    def told(number: int, frame: object) -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, told)
    return stop, hurry


if __name__ == "__main__":
    sys.exit(main())
