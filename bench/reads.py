"""The engine's readers against curl: `python -m bench.reads TASK.json`, started by bench/us.py.

Both read the same ranges of the same snapshot over as many connections, and drop them. The engine's side is
the reader and the pump in this process, once it has read a little; curl's are whole processes, one a
connection. Prints what both took as one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from bench.engine import Marks, Task, alter, connect, open_media, prepare
from bench.meter import cpu_seconds
from demo.ext4 import find_tool
from vsa.azure.grants import Grants
from vsa.memory import LONGEST_READ
from vsa.ranges import ByteRange, total
from vsa.stop import Stop
from vsa.transfer.pump import Pump
from vsa.transfer.reads import READ, ReadPlan, reads_of
from vsa.transfer.source import SnapshotSource, open_source

CONNECTIONS = 4


def main(path: str) -> None:
    task = Task.read(path)
    alter(task)
    connection, media = connect(task), open_media(task)
    prepared = prepare(
        connection, media, task.vm, method="crc", scratch=Path(task.scratch), ready=lambda: None
    )
    source = open_source(
        connection,
        Grants(connection, guard=lambda: None, stop=Stop()),
        prepared.snapshot,
        staging=None,
        extent_size=media.extent_size,
        stop=Stop(),
    )
    ranges = _ranges(source.plan_allocated().reads, task.most)
    sides: dict[str, Callable[[], dict[str, float]]] = {"ours": lambda: _ours(source, ranges, task.servers)}
    if find_tool("curl"):
        sides["curl"] = lambda: _curl(source, ranges, task, connection.ca_file)
    order = sides if task.ours_first else dict(reversed(sides.items()))
    result: dict[str, object] = {side: take() for side, take in order.items()}
    print(json.dumps({**result, "snapshot": prepared.snapshot.id, "bytes": total(ranges)}))


def _ranges(plan: ReadPlan, most: int) -> list[ByteRange]:
    """What a full backup reads, in its order, up to so many bytes."""
    found: list[ByteRange] = []
    left = most
    for segment in range(plan.segments):
        marks = plan.marks(segment)
        wanted = np.flatnonzero(marks == READ).tolist() if marks is not None else []
        for at in reads_of(plan, segment, wanted):
            if left <= 0:
                return found
            found.append(at)
            left -= at.length
    return found


def _ours(source: SnapshotSource, ranges: Sequence[ByteRange], servers: list[int]) -> dict[str, float]:
    marks = Marks(servers)
    with Pump(source.reader, longest=LONGEST_READ, stop=Stop(), readers=CONNECTIONS) as pump:
        pump.run(islice(ranges, CONNECTIONS), _drop)
        marks.mark("began")
        pump.run(ranges, _drop)
        marks.mark("ended")
    return marks.between("began", "ended")


def _drop(_at: ByteRange, _data: memoryview) -> None:
    """Nothing is done with it."""


def _curl(source: SnapshotSource, ranges: Sequence[ByteRange], task: Task, ca_file: str) -> dict[str, float]:
    program = find_tool("curl")
    assert program is not None
    url = source.contents.url.reveal()
    folder = Path(task.scratch)
    orders = [folder / f"curl-{number}" for number in range(CONNECTIONS)]
    for number, order in enumerate(orders):
        order.write_text("next\n".join(_request(url, at, ca_file) for at in ranges[number::CONNECTIONS]))
    before = cpu_seconds(task.servers)
    began, cpu = time.perf_counter(), 0.0
    running = [
        subprocess.Popen([program, "--disable", "--config", order], stdin=subprocess.DEVNULL)
        for order in orders
    ]
    for process in running:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        cpu += usage.ru_utime + usage.ru_stime
    wall = time.perf_counter() - began
    if failed := [process.returncode for process in running if process.returncode]:
        raise RuntimeError(f"curl ended with {failed}")
    return {"wall": wall, "cpu": cpu, "servers": cpu_seconds(task.servers) - before}


def _request(url: str, at: ByteRange, ca_file: str) -> str:
    lines = (
        f'url = "{url}"',
        f'range = "{at.offset}-{at.end - 1}"',
        'output = "/dev/null"',
        f'cacert = "{ca_file}"',
        "silent",
        "fail",
    )
    return "".join(f"{line}\n" for line in lines)


if __name__ == "__main__":
    main(sys.argv[1])
