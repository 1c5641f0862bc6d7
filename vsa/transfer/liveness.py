"""Whether the process that began a run still lives. Liveness only: no committed data depends on it.

A process is judged dead only where that can be known: on the machine and in the namespace of process ids
that it ran in, by its start; or because that machine has started again since. Neither a reused process id nor
a cloned host name nor a second container can pass for it. Where it cannot be judged it counts as alive.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

from vsa.model import ProcessName

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Only root may read what Linux says (drivers/firmware/dmi-id.c, mode 0400); the systemd units leave a copy to
# the user that they run as. A copy in /run ends with the boot, so a cloned disk brings none.
MACHINE_IDS = (Path("/sys/class/dmi/id/product_uuid"), Path("/run/azure-vsa/machine"))
_NAMESPACE = Path("/proc/self/ns/pid")


def this_process() -> ProcessName:
    return ProcessName(
        machine=machine_id(),
        host=socket.gethostname(),
        boot=_text(_BOOT_ID),
        namespace=str(_NAMESPACE.readlink()) if _NAMESPACE.is_symlink() else "",
        id=os.getpid(),
        started=_started(os.getpid()),
    )


def machine_id(places: Iterable[Path] = MACHINE_IDS) -> str:
    """The hardware's own id, by the first place that says it to this user; empty if none does."""
    return next(filter(None, map(_text, places)), "")


def has_ended(process: ProcessName, here: ProcessName | None = None) -> bool:
    """Whether the process is known to have ended; False when that cannot be known from `here`."""
    here = here or this_process()
    if not process.boot or not process.started:
        return False
    if process.boot != here.boot:
        # A clone has another product id, and boards that share a bogus one have other host names; where no id
        # can be read, another boot may be another machine.
        return bool(process.machine) and (process.machine, process.host) == (here.machine, here.host)
    same_place = (process.host, process.namespace) == (here.host, here.namespace)
    return same_place and not _lives(process)


def _lives(process: ProcessName) -> bool:
    started = _started(process.id)
    if started:
        return started == process.started
    try:
        os.kill(process.id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # It is there, and its entry in /proc is hidden from us.
        return True
    return not _is_zombie(process.id)


def _started(process: int) -> str:
    """A process's start in clock ticks since boot; empty if it cannot be read (proc(5), field 22)."""
    fields = _status(process)
    return "" if not fields or fields[0] == "Z" else fields[19]


def _is_zombie(process: int) -> bool:
    return _status(process)[:1] == ["Z"]


def _status(process: int) -> list[str]:
    """The fields of /proc/<id>/stat after the name, which may itself hold spaces and brackets."""
    return _text(Path(f"/proc/{process}/stat")).rpartition(")")[2].split()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
