"""Memory runs out in the middle of a backup job, at any place: after each the five questions. (F64)

Where Python finds no memory it says so, and the job ends. A library that finds none may end the process
instead, and a thread that finds none as it begins may leave whoever began it waiting for ever
(github.com/python/cpython/issues/140746): both are then what a killed process is.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from azsim.control import Control
from tests.engine.job_process import in_another_process
from tests.engine.questions import First
from tests.engine.story import run_job
from tests.engine.world import MIB
from tests.faults.busy_world import BusyWorld, busy_worlds
from tests.soak import chosen, more_in_ci, seeded
from vsa.errors import VsaError
from vsa.transfer.backup_job import BackupJob

STATM = Path("/proc/self/statm")
LIMITS = range(0, 600, 2)
"""MiB that a job may have beside what its process has: of the first it gets nowhere, the last is enough."""
PATIENCE = 15
"""Seconds that a process is waited for which may stand still."""
SAYS_SO = re.compile(
    r"MemoryError|[Cc]annot allocate memory|not enough memory|can't start new thread|malloc failure|bad_alloc"
)
FAILED = 3
ABORTED = (-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, 127)
"""127: the C library, which found no memory for what a thread has of its own."""

pytestmark = pytest.mark.skipif(not STATM.exists(), reason="asks Linux how much memory a process has")


@pytest.fixture
def worlds(control: Control, tmp_path: Path) -> Iterator[Iterator[BusyWorld]]:
    with closing(busy_worlds(control, tmp_path)) as made:
        yield made


@dataclass(frozen=True)
class Within:
    """A job in a process that may have so many MiB more than it has; what it says goes to a file."""

    mib: int
    said: Path

    def __call__(self, job: BackupJob) -> None:
        os.dup2(os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
        has = int(STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (has + self.mib * MIB,) * 2)
        try:
            sys.stderr.write(run_job(job).model_dump_json())
        except VsaError:
            traceback.print_exc()
            sys.exit(FAILED)


def ended(busy: BusyWorld, mib: int) -> str:
    """How a job in so little memory ended."""
    said = busy.world.folder / f"said-{mib}"
    process = in_another_process(busy.world, Within(mib, said))
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        return "stood still"
    text = said.read_text()
    if process.exitcode in ABORTED:
        return "aborted"
    if process.exitcode == 0 and '"result":"completed"' in text:
        return "enough"
    assert process.exitcode in (0, 1, FAILED) and SAYS_SO.search(text), (mib, process.exitcode, text[-5000:])
    return "told"


@more_in_ci
def test_memory_runs_out_at_any_place(worlds: Iterator[BusyWorld]) -> None:
    order, ends = seeded("little memory: what comes first"), Counter[str]()
    for mib, busy in zip(chosen("little memory", LIMITS, by_default=2, in_ci=4), worlds, strict=False):
        held, points = busy.work(mib), busy.world.points.keys()
        end = ended(busy, mib)
        ends[end] += 1
        made = busy.world.media.view().points.keys() - points
        assert made or end != "enough", mib
        busy.questions.ask(held, first=order.choice(list(First)), is_dead=True)
    sys.stdout.write(f"{dict(ends)}\n")
    assert ends.total() > ends["enough"]
