"""What a command takes: wall and CPU seconds, bytes that it read, its peak memory. Linux only, from /proc."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_TAIL = 2000


class CommandFailed(Exception):
    """A measured command ended with an error; says which, and how its output ends."""


@dataclass(frozen=True)
class Taken:
    """What one command took. `read` counts every byte it read through system calls, cached or not; `memory`
    is the sum of its processes' peaks; `synced` is the part of `wall` in which its files were synced."""

    wall: float
    cpu: float
    read: int
    memory: int
    synced: float
    output: str


def take(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    durable: Path | None = None,
) -> Taken:
    """Run a command to its end. `durable` is what it writes, a file or a folder, which is synced afterwards:
    some tools do that themselves, others leave it to the kernel.

    CommandFailed if it ends with an error. An interruption ends it and all that it has started.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    watch = _Watch(process)
    try:
        output = watch.to_its_end()
        ended = time.perf_counter()
        read = _bytes_read(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CommandFailed(f"{command[0]} ended with {process.returncode}: {output[-_TAIL:].strip()}")
    if durable is not None:
        sync(durable)
    wall = time.perf_counter() - began
    synced = began + wall - ended
    return Taken(wall, usage.ru_utime + usage.ru_stime, read, watch.memory, synced, output)


def sync(path: Path) -> None:
    """Make a file, or every file below a folder, durable."""
    for item in (path, *path.rglob("*")) if path.is_dir() else (path,):
        descriptor = os.open(item, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cpu_seconds(processes: Iterable[int]) -> float:
    """What these processes, not those they have started, have used since they began. 0 for one that ended."""
    return sum(_cpu(process) for process in processes)


def peak_memory(process: int | str = "self") -> int:
    """Bytes. Not by getrusage, which counts what the parent held before the program was executed."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    line = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def children(process: int) -> list[int]:
    """The processes that this one's first thread has started, and theirs."""
    try:
        ids = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [found for child in map(int, ids) for found in (child, *children(child))]


def size_of(path: Path) -> int:
    """Bytes in a file, or in all files below a folder."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    return path.stat().st_size if path.exists() else 0


@contextmanager
def looking(look: Callable[[], None], *, every: float) -> Iterator[None]:
    """Inside, `look` is called in a thread of its own: at once, and again after `every` seconds."""
    ended = threading.Event()

    def watch() -> None:
        look()
        while not ended.wait(every):
            look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


class _Watch:
    """Looks at a process and what it starts until it ends, without collecting it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._peaks: dict[int, int] = {}

    @property
    def memory(self) -> int:
        return sum(self._peaks.values())

    def to_its_end(self) -> str:
        """What it printed."""
        assert self._process.stdout is not None
        with looking(self._look, every=_LOOK_SECONDS):
            with self._process.stdout as pipe:
                output = pipe.read().decode(errors="replace")
            # Without collecting it: what it has read is only known as long as it is not collected.
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return output

    def _look(self) -> None:
        for process in (self._process.pid, *children(self._process.pid)):
            self._peaks[process] = max(self._peaks.get(process, 0), peak_memory(process))


def _bytes_read(process: int) -> int:
    """Of an ended process and those it has collected (proc(5), rchar)."""
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("rchar")))


def _cpu(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
