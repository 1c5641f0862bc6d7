"""Which processes there are below a process, as Linux says it in /proc, and signals to exactly those.

A process may leave its parent's group and session, as Prefect's flow runs do; it cannot leave its parent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36
_ENDED = ("Z", "X")


class Seen(NamedTuple):
    """A process at the moment of looking; `began`, in ticks since boot, tells it from a later namesake."""

    id: int
    began: int


class _Row(NamedTuple):
    seen: Seen
    parent: int


def family(roots: Iterable[int]) -> set[Seen]:
    """The processes with these ids, everything they have started and so on; those that have ended are out."""
    rows = list(_rows())
    ids = set(roots)
    found = {row.seen for row in rows if row.seen.id in ids}
    while True:
        ids = {seen.id for seen in found}
        more = {row.seen for row in rows if row.parent in ids} - found
        if not more:
            return found
        found |= more


def living(processes: Iterable[Seen]) -> set[Seen]:
    """Those that still run."""
    return {seen for seen in processes if (row := _row(seen.id)) and row.seen == seen}


def send(processes: Iterable[Seen], number: int) -> None:
    """A signal to each that still runs."""
    for seen in living(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(seen.id, number)


def adopt_orphans() -> None:
    """Become the parent of whatever loses its own below this process, so that `family` finds it. Linux only.

    prctl(2), PR_SET_CHILD_SUBREAPER. OSError where the kernel refuses.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "this process cannot adopt what its children leave behind")


def _rows() -> Iterable[_Row]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (row := _row(int(entry.name))):
            yield row


def _row(process: int) -> _Row | None:
    """What /proc/PID/stat says; None for a process that is gone or waits to be reaped. See proc(5)."""
    try:
        text = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field, the program's name in parentheses, may itself hold spaces and parentheses.
    state, parent, *rest = text[text.rindex(")") + 2 :].split()
    if state in _ENDED:
        return None
    return _Row(Seen(process, began=int(rest[17])), int(parent))
