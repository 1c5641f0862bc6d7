"""Planning an incremental over an index of so many million extents.

    python -m bench.growth.index [MILLIONS ...]     # 2 8 32; 32 take 1.2 GB of disk

The index is one of incompressible data, every extent stored; there is no data behind it. One extent in a
thousand has changed, each by a range of 4 KiB. Measured are: opening the index, the marks of what is read,
the audit's choice, and going through the rows of all segments, one at a time, as the comparison does.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.deduplication import NOW, rows_of
from bench.growth.measure import Measure, Picture, Row, elsewhere, run
from vsa.media import layout
from vsa.media.index import IndexDescription, PackRef, write_index
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.model import DEFAULT_EXTENT_SIZE, IndexRef
from vsa.ranges import KIB, ByteRange
from vsa.transfer.audit import AuditPolicy, choose_audit
from vsa.transfer.reads import READ, ReadPlan

MILLION = 2**20
CHANGED = 1000
"""One of so many extents has changed."""
DISK = "d"
_NAME = layout.index("r0", DISK, bytes(8))
_REF = "ref.json"


def make(folder: Path, segments: int) -> None:
    """Media with the index, and beside it a file that says how it is referred to."""
    media = Media.create(str(folder / "media"), now=NOW)
    about = IndexDescription(
        media=media.id,
        run="r0",
        disk_key=DISK,
        disk_size=segments * SEGMENT * DEFAULT_EXTENT_SIZE,
        extent_size=DEFAULT_EXTENT_SIZE,
        kind=IndexKind.BASE,
        packs=(PackRef(name=layout.pack("r0", bytes(16)), size=2**31, sha256="0" * 64),),
    )
    path = folder / "media" / _NAME
    path.parent.mkdir(parents=True)
    ref = write_index(path, _NAME, about, ((number, rows_of(number)) for number in range(segments)))
    (folder / _REF).write_text(ref.model_dump_json())


def take(size: float, folder: Path) -> Row:
    segments = max(1, round(size * MILLION / SEGMENT))
    elsewhere(make, folder, segments)
    ref = IndexRef.model_validate_json((folder / _REF).read_text())
    disk_size = segments * SEGMENT * DEFAULT_EXTENT_SIZE
    rng = random.Random(size)
    changed = sorted(rng.sample(range(segments * SEGMENT), segments * SEGMENT // CHANGED))
    row: Row = {"index MiB": round(ref.size / 2**20, 1)}

    def timed(name: str, act: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = act()
        row[f"{name} s"] = round(time.perf_counter() - wall, 3)
        row[f"{name} CPU s"] = round(time.process_time() - cpu, 3)
        return found

    media = Media.open(str(folder / "media"))
    index = timed("open", lambda: media.disk_index([ref], disk_size))
    plan = timed("marks", lambda: _plan(disk_size, changed))
    audited = timed("audit", lambda: choose_audit(plan, AuditPolicy(), turn=3, rng=rng))
    row["read"], row["audited"] = plan.marked(READ), sum(map(len, audited.values()))
    row["plan CPU s"] = round(sum(row[f"{name} CPU s"] for name in ("open", "marks", "audit")), 3)
    seen = timed("rows", lambda: sum(int(np.count_nonzero(table.pack >= 0)) for table in index.tables()))
    assert seen == segments * SEGMENT
    return row


def _plan(disk_size: int, changed: Sequence[int]) -> ReadPlan:
    plan = ReadPlan(disk_size, DEFAULT_EXTENT_SIZE)
    for extent in changed:
        plan.read(ByteRange(extent * DEFAULT_EXTENT_SIZE, extent * DEFAULT_EXTENT_SIZE + 4 * KIB))
    plan.finish()
    return plan


MEASURE = Measure(
    name="index",
    about="An incremental of one extent in a thousand over an index of so many million (2^20) extents.",
    size_label="million extents",
    sizes=(2, 8, 32),
    take=take,
    pictures=(
        Picture(
            "index",
            "Planning over a large index",
            "CPU seconds",
            {"plan": "plan CPU s", "of it audit": "audit CPU s", "all rows": "rows CPU s"},
        ),
        Picture("index-memory", "Memory of it", "MiB", {"peak": "peak MiB"}),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(MEASURE, arguments)


if __name__ == "__main__":
    sys.exit(main())
