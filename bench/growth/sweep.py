"""The plan of a sweep over so many snapshots, and as many disks in half as many recovery points.

    python -m bench.growth.sweep [SNAPSHOTS ...]    # 1000 2000 4000 8000

One VM in ten has an open run, called dead; nothing else is there to be removed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.growth.azure import VirtualTime, simulated_azure
from bench.growth.fleet import DISKS, NOW, RESOURCES_ON_A_PAGE, VMS_IN_A_GROUP, identified, prepare, remember
from bench.growth.measure import Measure, Picture, Row, cpu_of, elsewhere, run
from vsa.media.media import Media
from vsa.model import Intent, ProcessName
from vsa.transfer.sweep import Sweep

OPEN = 10
"""One of so many VMs has an open run."""


def take(size: float, folder: Path) -> Row:
    vms = max(1, int(size) // DISKS)
    media = Media.create(str(folder / "media"), now=NOW)
    elsewhere(prepare, folder / "azure", vms, VMS_IN_A_GROUP, media.id)
    with simulated_azure(folder / "azure", page_size=RESOURCES_ON_A_PAGE) as azure:
        connection = azure.connection(VirtualTime(azure.control))
        found = identified(connection, media, folder)
        remember(folder / "media", media, found)
        named = [f"{number:08x}" for number in range(0, vms, OPEN)]
        process = ProcessName(host="elsewhere", boot="b", id=1, started="1")
        for run_id, item in zip(named, found[::OPEN], strict=True):
            media.begin_run(
                Intent(
                    run=run_id,
                    job="bench",
                    vm_key=item.vm.key,
                    vm_name=item.vm.name,
                    subclient="all",
                    started_at=NOW,
                    process=process,
                    disks=item.disks,
                )
            )
        before = sum(azure.control.request_counts().values())
        wall, cpu, server = time.perf_counter(), time.process_time(), cpu_of(azure.process)
        sweep = Sweep(connection, media)
        plan = sweep.plan(sweep.open_runs(), None, named)
        row: Row = {
            "plan s": round(time.perf_counter() - wall, 2),
            "plan CPU s": round(time.process_time() - cpu, 2),
            "azsim CPU s": round(cpu_of(azure.process) - server, 2),
            "requests": sum(azure.control.request_counts().values()) - before,
            "disks": plan.disks,
            "dead runs": len(plan.dead),
        }
        assert (plan.disks, plan.leftovers, len(plan.dead)) == (DISKS * vms, (), len(named)), plan.text()
        return row


MEASURE = Measure(
    name="sweep",
    about="The plan of a sweep over so many snapshots, all of them bases; one VM in ten has a dead run.",
    size_label="snapshots",
    sizes=(1_000, 2_000, 4_000, 8_000),
    take=take,
    pictures=(
        Picture(
            "sweep", "The plan of a sweep", "CPU seconds", {"plan": "plan CPU s", "azsim": "azsim CPU s"}
        ),
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(MEASURE, arguments)


if __name__ == "__main__":
    sys.exit(main())
