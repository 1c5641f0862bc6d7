"""Whether the process that began a run still lives. Liveness only: no committed data depends on it.

A process is named by its machine's boot and by its start within it, so neither a reused process id nor a
cloned host name can pass for it. Where that cannot be read, the process counts as alive.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from vsa.model import Intent

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessName:
    """One process, for as long as anybody may ask about it."""

    host: str
    process: int
    started: str


def this_process() -> ProcessName:
    return ProcessName(_host(), os.getpid(), _started(os.getpid()))


def has_ended(intent: Intent) -> bool:
    """Whether the run's process is known to have ended; False when that cannot be known from here."""
    if intent.host != _host() or not intent.process_started:
        return False
    return _started(intent.process) != intent.process_started


def _host() -> str:
    boot = _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""
    return f"{socket.gethostname()}/{boot}"


def _started(process: int) -> str:
    """The start time of a process in clock ticks since boot; empty if there is none (proc(5), field 22)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
