"""How a disk is read, and that whatever way was taken every recovery point is the disk of its moment."""

from __future__ import annotations

import pytest

from tests.engine.world import EXTENT, KIB, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.media.entries import Result
from vsa.model import Method, Reason

KINDS = [MANAGED, STANDARD_VHD, PREMIUM_VHD]


def two_disks() -> dict[str, bytes]:
    """An OS disk with a hole in it, and a data disk that ends in the middle of an extent."""
    return {
        "os": random_bytes(2 * MIB, "os") + bytes(2 * MIB) + random_bytes(MIB, "end"),
        "data": random_bytes(MIB + 3 * KIB + 512, "data"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_after_every_other_restores_byte_for_byte(world: World, kind: str) -> None:
    world.add_vm(two_disks(), kind=kind)
    first = world.back_up()
    assert set(world.reasons(first).values()) == {Reason.FULL_FIRST}

    world.write("os", 3 * MIB, random_bytes(8 * KIB, 1))
    world.clear("os", 0, MIB)
    world.write("data", MIB, random_bytes(3 * KIB + 512, 2))
    assert set(world.reasons(world.back_up()).values()) == {Reason.CBT}

    world.write("os", 0, random_bytes(512, 3))
    world.clear("data", 1024, 100 * KIB)
    assert set(world.reasons(world.back_up(method=Method.CRC)).values()) == {Reason.CRC_REQUESTED}

    world.write("os", MIB + 512, random_bytes(70 * KIB, 4))
    last = world.back_up()
    assert set(world.reasons(last).values()) == {Reason.CBT}
    assert last.result is Result.COMPLETED
    assert len(world.points) == 4
    world.require_sound()
