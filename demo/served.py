"""Processes that serve until they are stopped: each with its log, ended by id with all it has started."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from threading import Event

from demo.process_tree import Seen, family, living, send

_LOOK_SECONDS = 0.1
_TAIL_LINES = 25


class ProcessFailed(Exception):
    """A process did not become ready or did not do its work; says what, and how its log ends."""


class Stopped(Exception):
    """Somebody asked to stop while a process was waited for."""


class ServedProcess:
    """One command in a session of its own, so that a terminal's Ctrl-C reaches only who started it.

    `name` is what people call it. What it prints is added to `log`.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ServedProcess:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def id(self) -> int | None:
        """The process id; None before it was started and once it is known to have ended."""
        return self._process.pid if self._process and self.code is None else None

    @property
    def code(self) -> int | None:
        """The exit code, or minus the signal that ended it; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def await_ready(self, ready: Callable[[], bool], *, seconds: float, stop: Event | None = None) -> None:
        """Return once it is ready; ProcessFailed if it ends before or is late, Stopped if told to stop."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.code is not None:
                raise self.failure(f"ended with {self.code} before it was ready")
            self._wait(deadline, stop, f"was not ready after {seconds:.0f} s")

    def await_end(self, *, seconds: float, stop: Event | None = None) -> None:
        """Return once it has done its work; ProcessFailed if it says that it failed or takes longer."""
        deadline = time.monotonic() + seconds
        while self.code is None:
            self._wait(deadline, stop, f"was not done after {seconds:.0f} s")
        if self.code:
            raise self.failure(f"ended with {self.code}")

    def _wait(self, deadline: float, stop: Event | None, complaint: str) -> None:
        if stop is None:
            time.sleep(_LOOK_SECONDS)
        elif stop.wait(_LOOK_SECONDS):
            raise Stopped(self.name)
        if time.monotonic() > deadline:
            raise self.failure(complaint)

    def failure(self, complaint: str) -> ProcessFailed:
        """An error that names the process, what is wrong, its log and how that ends."""
        lines = self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        said = "\n".join(f"  | {line}" for line in lines) or "  | (nothing)"
        return ProcessFailed(f"{self.name} {complaint}. {self.log} ends with:\n{said}")

    def collect(self) -> None:
        """Ask an ended process for its exit code, as a parent must."""
        if self._process:
            self._process.wait()

    def stop(self, *, seconds: float) -> None:
        """End it and all it has started; who lives after `seconds` is killed."""
        stop_together([self], seconds=seconds)


def stop_together(
    served: Collection[ServedProcess], *, seconds: float, hurry: Event | None = None
) -> set[Seen]:
    """End processes and all they have started, all at the same time; see `end`."""
    killed = end(
        family(process.id for process in served if process.id is not None), seconds=seconds, hurry=hurry
    )
    for process in served:
        process.collect()
    return killed


def end(
    processes: set[Seen],
    *,
    seconds: float,
    hurry: Event | None = None,
    besides: Callable[[], set[Seen]] = set,
) -> set[Seen]:
    """Tell processes to end and wait for them and what they start meanwhile; returns who was killed.

    Who lives after `seconds`, or when somebody sets `hurry`, is killed. What is started while they end is not
    disturbed before; what others start on their account, as Prefect's workers do with hooks, `besides` finds.
    """
    send(processes, signal.SIGTERM)
    known = set(processes)
    deadline = time.monotonic() + seconds
    while (left := living(known)) and time.monotonic() < deadline and not (hurry and hurry.is_set()):
        time.sleep(_LOOK_SECONDS)
        known |= family(seen.id for seen in left) | besides()
    send(left, signal.SIGKILL)
    while living(left):
        time.sleep(_LOOK_SECONDS)
    return left
