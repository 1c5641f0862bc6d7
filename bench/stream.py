"""One stream of the engine in a process of its own: `python -m bench.stream TASK.json`, for bench/us.py.

Prints what it took as one line of JSON. The spans, all in wall seconds, CPU seconds of this process and CPU
seconds of the servers:

snapshot    the snapshot, from the intent on
grant       access to it, until it can be read
lists       what is allocated, which is asked for reports' sake, and with CBT access to the base
changes     CBT alone: from the first request for the difference until the reads are planned
giving back CBT alone, beside the transfer: access to the base is ended
transfer    from the first list that decides what is read to the confirmed log entry, audit included
whole       from the stream's start to the confirmed log entry
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.engine import Marks, Task, alter, connect, open_media, prepare, warm_up, watch, watch_revocation
from bench.meter import peak_memory
from vsa.fault_points import FaultPoint
from vsa.model import Method

_POINTS = {
    FaultPoint.SOURCE_OPENED: "opened",
    FaultPoint.BASE_GRANTED: "base granted",
    FaultPoint.READS_PLANNED: "planned",
    FaultPoint.DISK_STORED: "stored",
}


def main(path: str) -> None:
    task = Task.read(path)
    alter(task)
    connection = connect(task)
    if task.warm_vm:
        warm_up(connection, task)
    marks = Marks(task.servers)
    prepared = prepare(
        connection,
        open_media(task),
        task.vm,
        method=task.method,
        scratch=Path(task.scratch) / "stream",
        ready=lambda: marks.mark("ready"),
    )
    watch(_POINTS, marks)
    watch_revocation(marks)
    marks.mark("started")
    backup, slot = prepared.carry()
    marks.mark("committed")
    by_changes = backup.method is Method.CBT
    spans = {
        "snapshot": marks.between("ready", "started"),
        "grant": marks.between("started", "opened"),
        "lists": marks.between("opened", "base granted" if by_changes else "planned"),
        "transfer": marks.between("base granted" if by_changes else "opened", "committed"),
        "whole": marks.between("started", "committed"),
    }
    if by_changes:
        spans["changes"] = marks.between("base granted", "planned")
        spans["giving back"] = marks.between("revoking", "revoked")
    result = {
        "spans": spans,
        "method": backup.method,
        "reason": backup.reason,
        "figures": backup.figures.model_dump(),
        "snapshot": prepared.snapshot.id,
        "point": slot,
        "memory": peak_memory(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
