"""A simulated Azure in its own process, for tests of anything that talks to Azure."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from azsim.control import Control

_START_SECONDS = 300.0
_STOP_SECONDS = 60.0


class AzsimProcess:
    """`python -m azsim serve` on a state folder; options are its flags: page_size=5 is --page-size 5."""

    def __init__(self, state_dir: Path, **options: Any) -> None:
        self.state_dir = state_dir
        self.options = options
        self.endpoint: dict[str, str] = {}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> AzsimProcess:
        """Return once the server answers; RuntimeError with its complaint if it ends instead."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in self.options.items()]
        command = [sys.executable, "-m", "azsim", "serve", "--state", str(self.state_dir), *flags]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _START_SECONDS)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            self._process.kill()
            _, complaint = self._process.communicate()
            raise RuntimeError(f"azsim did not start on {self.state_dir}: {complaint.strip() or 'too slow'}")
        self.endpoint = json.loads(line)
        return self

    def stop(self, signal_number: int = signal.SIGTERM) -> int:
        """End the server and return its exit status; an ended one stays ended."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(signal_number)
        process.communicate(timeout=_STOP_SECONDS)
        return process.returncode

    def kill(self) -> None:
        """End the server as a power cut would."""
        self.stop(signal.SIGKILL)

    @property
    def control(self) -> Control:
        return Control(self.state_dir)

    @property
    def client_secret(self) -> str:
        return Path(self.endpoint["client_secret_file"]).read_text()

    def __enter__(self) -> AzsimProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
