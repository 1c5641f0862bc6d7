"""A backup job as people start it by hand: `python -m flows.backup_subclient NAME`."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from tests.flows.prefect_server import ROOT, PrefectServer, environment
from tests.flows.site import Site

PROGRAM = (sys.executable, "-m", "flows.backup_subclient")


class Job:
    """One job in its own process.

    Without a server it has a Prefect home of its own that knows the site's blocks, and Prefect starts a
    temporary server beside it, which takes its time. Its streams run in its process unless it is told
    otherwise. `program` is run instead of the flow's own, `settings` are environment variables.
    """

    def __init__(
        self,
        site: Site,
        server: PrefectServer,
        *arguments: str,
        with_server: bool,
        in_process: bool = True,
        program: Sequence[str] = (),
        **settings: str,
    ) -> None:
        self.site = site
        folder = site.folder / "process"
        self.home = folder / "home" if with_server else server.copy_to(folder / "home")
        given = settings | (server.access if with_server else {})
        self.scratch = folder / "scratch"
        self.scratch.mkdir(parents=True)
        self._printed = folder / "stdout"
        in_this_process = ["--in-process"] if with_server and in_process else []
        self._logged = folder / "stderr"
        with self._printed.open("wb") as printed, self._logged.open("wb") as logged:
            # A group of its own, so that its temporary server ends with it.
            self._process = subprocess.Popen(
                [*(program or PROGRAM), site.name, *arguments, *in_this_process],
                env=environment(self.home, TMPDIR=str(self.scratch), **given),
                cwd=ROOT,
                stdout=printed,
                stderr=logged,
                start_new_session=True,
            )

    def wait(self, seconds: float = 120) -> int:
        return self._process.wait(seconds)

    def lives(self) -> bool:
        assert self._process.poll() is None, self.logged[-3000:]
        return True

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    @property
    def logged(self) -> str:
        return self._logged.read_text()

    def end(self) -> None:
        """Nothing of the group stays, whatever the test did."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
