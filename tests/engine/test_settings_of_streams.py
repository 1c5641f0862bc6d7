"""What the subclient says of memory and speed reaches the streams that a job carries in its own process."""

from __future__ import annotations

import gc

from tests.engine.world import MIB, World, random_bytes
from vsa.memory import LEAST_PACK, SMALL_DISK_PACK


def test_little_memory_makes_small_packs(world: World) -> None:
    world.add_vm({"os": random_bytes(20 * MIB, "noise")})
    packs = {}
    for bound in (128, 4096):
        report = world.back_up(full=True, memory_mib=bound, deduplication="off")
        slot = report.vms[0].point
        assert slot is not None
        backup = world.media.view().points[slot].point.disks[0]
        packs[bound] = sorted(world.media.store.size(name) for name in backup.packs)
    assert len(packs[128]) == 3 and packs[128][-1] < LEAST_PACK + MIB
    assert len(packs[4096]) == 2 and packs[4096][-1] > SMALL_DISK_PACK
    world.require_sound()


def test_a_limit_holds_up_the_stream(world: World) -> None:
    """Eight reads of 1 MiB at 4 MiB/s: the last one waits until the others' time is over."""
    world.add_vm({"os": random_bytes(8 * MIB, "data")})
    report = world.back_up(full=True, memory_mib=128, most_mib_per_second=4)
    assert world.disks(report)["os"].figures.elapsed > 1.7
    world.require_sound()


def test_a_process_that_streams_has_settled(world: World) -> None:
    """Each full round of the garbage collector would hold all its streams up for 50 ms."""
    world.add_vm({"os": random_bytes(MIB, "data")})
    world.back_up(full=True)
    assert gc.get_freeze_count() > 10_000
