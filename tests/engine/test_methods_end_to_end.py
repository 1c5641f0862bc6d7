"""How a disk is read, and that whatever way was taken every recovery point is the disk of its moment."""

from __future__ import annotations

import datetime as dt

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
    assert set(world.reasons(world.back_up(by=Method.CRC)).values()) == {Reason.CRC_REQUESTED}

    world.write("os", MIB + 512, random_bytes(70 * KIB, 4))
    last = world.back_up()
    assert set(world.reasons(last).values()) == {Reason.CBT}
    assert last.result is Result.COMPLETED
    assert len(world.points) == 4
    world.require_sound()


@pytest.mark.parametrize("kind", KINDS)
def test_a_cbt_job_reads_what_changed_and_its_audit_only(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(6 * MIB, "os")}, kind=kind)
    world.back_up()
    world.write("os", 2 * MIB + 512, random_bytes(512, 1))
    figures = world.disks(world.back_up())["os"].figures
    assert figures is not None
    assert figures.audited == 16 * EXTENT
    assert figures.read == 17 * EXTENT
    assert figures.changed == 512
    assert figures.new == EXTENT


@pytest.mark.parametrize("kind", KINDS)
def test_cleared_extents_are_zeros_without_being_read(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(6 * MIB, "os")}, kind=kind)
    world.back_up()
    world.clear("os", EXTENT - 512, 3 * EXTENT)
    figures = world.disks(world.back_up())["os"].figures
    assert figures is not None
    # The two extents at the edges are cleared in part and must be read; the two between them need not.
    assert figures.read - figures.audited == 2 * EXTENT
    assert figures.stored > 0
    world.require_sound()


def test_a_crc_job_keeps_the_base_and_leaves_no_snapshot_of_its_own(world: World) -> None:
    world.add_vm(two_disks())
    world.back_up()
    bases = world.snapshots
    assert len(bases) == 2
    world.back_up(by=Method.CRC)
    assert world.snapshots == bases


def test_a_job_may_ask_for_a_full(world: World) -> None:
    world.add_vm(two_disks())
    world.back_up()
    world.write("os", 0, random_bytes(512, 1))
    report = world.back_up(full=True)
    assert set(world.reasons(report).values()) == {Reason.FULL_REQUESTED}
    point = world.media.view().points[max(world.points)].point
    assert all(len(backup.indexes) == 1 and backup.parent is None for backup in point.disks)
    world.require_sound()


def test_every_second_job_is_full_where_the_subclient_says_so(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    reasons = [world.reasons(world.back_up(full_every=2))["os"] for _ in range(5)]
    assert reasons == [
        Reason.FULL_FIRST,
        Reason.CBT,
        Reason.FULL_REQUESTED,
        Reason.CBT,
        Reason.FULL_REQUESTED,
    ]
    world.require_sound()


def test_cbt_after_crc_jobs_alone_has_no_base(world: World) -> None:
    world.add_vm(two_disks())
    world.back_up(by=Method.CRC)
    assert world.snapshots == set()
    world.write("os", MIB, random_bytes(512, 1))
    assert set(world.reasons(world.back_up()).values()) == {Reason.CRC_NO_BASE}
    assert set(world.reasons(world.back_up()).values()) == {Reason.CBT}
    world.require_sound()


def test_a_base_past_its_age_is_not_compared_with(world: World) -> None:
    world.add_vm(two_disks())
    world.back_up()
    world.write("os", MIB, random_bytes(512, 1))

    def later() -> dt.datetime:
        return dt.datetime.now(dt.UTC) + dt.timedelta(days=500)

    report = world.back_up(now=later)
    assert set(world.reasons(report).values()) == {Reason.CRC_BASE_TOO_OLD}
    world.require_sound()


ZEROS, CLEARED = "zeros", "cleared"
SECTOR = 512
EDGES = [
    # (first extent of its own, offset, length, what)
    (0, 0, SECTOR, "new"),
    (1, EXTENT - SECTOR, SECTOR, "new"),
    (2, EXTENT - SECTOR, 2 * SECTOR, "new"),
    (4, 0, EXTENT, ZEROS),
    (5, SECTOR, EXTENT - SECTOR, ZEROS),
    (6, 0, EXTENT - SECTOR, ZEROS),
    (7, 0, EXTENT, CLEARED),
    (8, SECTOR, EXTENT - SECTOR, CLEARED),
    (9, 0, EXTENT - SECTOR, CLEARED),
    (10, SECTOR, 3 * EXTENT - 2 * SECTOR, CLEARED),
    (13, EXTENT - SECTOR, 2 * EXTENT + 2 * SECTOR, CLEARED),
    # Two clears that touch make one; two that do not leave a sector between them.
    (17, 0, EXTENT // 2, CLEARED),
    (17, EXTENT // 2, EXTENT // 2, CLEARED),
    (18, 0, EXTENT // 2, CLEARED),
    (18, EXTENT // 2 + SECTOR, EXTENT // 2 - SECTOR, CLEARED),
    # The last act counts.
    (19, 0, EXTENT, CLEARED),
    (19, SECTOR, SECTOR, "new"),
    (20, SECTOR, SECTOR, "new"),
    (20, 0, EXTENT, CLEARED),
    # In the disk's hole.
    (24, 0, EXTENT, CLEARED),
    (25, 0, EXTENT, ZEROS),
    (26, EXTENT - SECTOR, SECTOR, "new"),
    (27, 0, 2 * EXTENT, "new"),
    (27, 0, EXTENT, CLEARED),
]


@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
@pytest.mark.parametrize("method", [Method.CBT, Method.CRC])
def test_changes_at_every_edge_of_an_extent(world: World, kind: str, method: Method) -> None:
    hole = bytes(8 * EXTENT)
    contents = random_bytes(24 * EXTENT, "front") + hole + random_bytes(2 * EXTENT + SECTOR, "end")
    world.add_vm({"os": contents}, kind=kind)
    world.back_up()
    for number, (extent, offset, length, what) in enumerate(EDGES):
        at = extent * EXTENT + offset
        if what == CLEARED:
            world.clear("os", at, length)
        else:
            world.write("os", at, bytes(length) if what == ZEROS else random_bytes(length, number))
    world.write("os", 34 * EXTENT, random_bytes(SECTOR, "last sector"))
    expected = {Method.CBT: Reason.CBT, Method.CRC: Reason.CRC_REQUESTED}[method]
    assert world.reasons(world.back_up(by=method))["os"] is expected
    world.require_sound()
