"""The blob service cuts, throttles, refuses and ends access in the middle: what is read stays right."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.engine.waits import virtual_waits
from tests.engine.world import KIB, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.media.entries import Result
from vsa.model import Reason

KINDS = [MANAGED, STANDARD_VHD, PREMIUM_VHD]
READ = {"plane": "blob", "method": "GET", "header": "x-ms-range"}
SIZE = {"plane": "blob", "method": "HEAD"}
LIST = {"plane": "blob", "method": "GET", "query": "comp=pagelist"}
FIVE_HOURS = 5 * 3600
"""More than a grant lives."""


def diff_of(kind: str) -> dict[str, str]:
    if kind == MANAGED:
        return {**LIST, "header": "x-ms-previous-snapshot-url"}
    return {**LIST, "query": "prevsnapshot="}


def one_disk(world: World, kind: str = MANAGED) -> None:
    """A disk with a full backup, and a change to more of it than one read takes."""
    world.add_vm({"os": random_bytes(6 * MIB, "os")}, kind=kind)
    world.back_up()
    world.write("os", 64 * KIB, random_bytes(5 * MIB, 1))


def require_cbt(world: World) -> None:
    report = world.back_up()
    assert report.vms[0].error == ""
    assert report.result is Result.COMPLETED
    assert world.reasons(report)["os"] is Reason.CBT
    world.require_sound()


class TestPassingFaults:
    @pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
    def test_reads_are_repeated(self, world: World, kind: str) -> None:
        one_disk(world, kind)
        busy = {"status": 503, "code": "ServerBusy", "retry_after": 0}
        with (
            world.fault("truncate", **READ, bytes=0),
            world.fault("truncate", **READ, bytes=100_000, skip=1),
            world.fault("cut", **READ, skip=2),
            world.fault("status", **READ, **busy, skip=3),
            world.fault("status", **READ, **busy | {"status": 429}, skip=4),
            world.fault("status", **READ, **busy | {"status": 500}, skip=5),
        ):
            require_cbt(world)

    @pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
    def test_lists_and_properties_are_repeated(self, world: World, kind: str) -> None:
        one_disk(world, kind)
        busy = {"status": 503, "code": "ServerBusy", "retry_after": 0}
        with (
            world.fault("status", **SIZE, **busy, times=2),
            world.fault("status", **diff_of(kind), **busy),
            world.fault("cut", **diff_of(kind)),
            world.fault("status", **LIST, **busy, times=2),
            world.fault("truncate", **LIST, bytes=40),
            virtual_waits(world.control),
        ):
            require_cbt(world)

    def test_the_wish_of_the_service_is_respected(self, world: World) -> None:
        one_disk(world)
        began = time.monotonic()
        with world.fault("status", **READ, status=503, code="ServerBusy", retry_after=2):
            require_cbt(world)
        assert time.monotonic() - began >= 2

    @pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
    def test_a_lost_answer_to_a_blob_snapshot_is_not_a_lost_snapshot(self, world: World, kind: str) -> None:
        one_disk(world, kind)
        with world.fault("cut", plane="blob", method="PUT", query="comp=snapshot", when="after"):
            require_cbt(world)

    def test_a_copy_to_the_staging_blob_is_repeated(self, world: World) -> None:
        one_disk(world, PREMIUM_VHD)
        busy = {"status": 503, "code": "ServerBusy", "retry_after": 0}
        copy = {"plane": "blob", "method": "PUT", "header": "x-ms-copy-source"}
        with world.fault("status", **copy, **busy), world.fault("cut", **copy, when="after"):
            require_cbt(world)


class TestAccessThatEnds:
    @pytest.mark.parametrize("kind", KINDS)
    def test_it_is_asked_for_again_when_its_time_has_passed(self, world: World, kind: str) -> None:
        one_disk(world, kind)
        # Before it is granted, a VHD's properties are read with the account's key.
        size = SIZE if kind == MANAGED else {**SIZE, "query": "sig="}
        with (
            world.fault("advance_clock", **size, seconds=FIVE_HOURS),
            world.fault("advance_clock", **LIST, seconds=FIVE_HOURS),
            world.fault("advance_clock", **diff_of(kind), seconds=FIVE_HOURS),
            world.fault("advance_clock", **READ, seconds=FIVE_HOURS),
        ):
            require_cbt(world)

    def test_it_is_asked_for_again_when_somebody_revoked_it(self, world: World) -> None:
        one_disk(world)
        with (
            world.fault("expire_access", **SIZE),
            world.fault("expire_access", **LIST),
            world.fault("expire_access", **diff_of(MANAGED)),
            world.fault("expire_access", **READ),
        ):
            require_cbt(world)

    def test_somebody_who_revokes_it_all_the_time_is_named(self, world: World) -> None:
        one_disk(world)
        with world.fault("expire_access", **READ, times=None):
            report = world.back_up()
        assert report.result is Result.FAILED
        assert "Azure granted access and refused it" in report.vms[0].error
        require_cbt(world)


REFUSALS = {
    "PreviousSnapshotCannotBeNewer": 400,
    "PreviousSnapshotNotFound": 409,
    "PreviousSnapshotOperationNotSupported": 409,
    "BlobGenerationMismatch": 409,
    "BlobOverwritten": 409,
    "UnsupportedHeaderForNonManagedDisksAccount": 400,
}


class TestRefusedComparisons:
    @pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
    def test_the_disk_is_compared_by_crc_and_the_code_is_named(self, world: World, kind: str) -> None:
        one_disk(world, kind)
        codes = list(REFUSALS.items()) if kind == MANAGED else list(REFUSALS.items())[:2]
        for number, (code, status) in enumerate(codes):
            world.write("os", number * MIB, random_bytes(512, code))
            with world.fault("status", **diff_of(kind), status=status, code=code):
                report = world.back_up()
            assert report.result is Result.COMPLETED
            outcome = world.disks(report)["os"]
            assert outcome.reason is Reason.CRC_DIFF_REFUSED
            assert outcome.detail.startswith(f"{code}: ")
        require_cbt(world)

    def test_a_vhd_that_was_copied_over_is_not_compared_with_what_it_was(self, world: World) -> None:
        """Such a blob keeps its name and its snapshots, but not its time of creation."""
        one_disk(world, STANDARD_VHD)
        world.add_vm({"other": random_bytes(6 * MIB, "other")}, kind=STANDARD_VHD)
        world.vhd("os").start_copy_from_url(world.url("other"))
        while world.vhd("os").get_blob_properties().copy.status == "pending":
            time.sleep(0.01)
        assert world.contents("os") == world.contents("other")
        report = world.back_up()
        assert world.reasons(report)["os"] is Reason.FULL_LINEAGE
        world.require_sound()

    @pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
    def test_any_other_refusal_costs_the_point_and_no_base(self, world: World, kind: str) -> None:
        one_disk(world, kind)
        before = world.snapshots
        with world.fault("status", **diff_of(kind), status=400, code="InvalidHeaderValue"):
            report = world.back_up()
        assert report.result is Result.FAILED
        assert "InvalidHeaderValue" in report.vms[0].error
        assert world.snapshots == before
        require_cbt(world)


class TestMoreRangesThanOneAnswerHolds:
    """10,000 ranges end an answer; what comes after them is found by the marker alone."""

    BLOCK = 4 * KIB
    BLOCKS = 10_040

    @pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
    def test_the_marker_is_followed(self, world: World, kind: str) -> None:
        size = 2 * self.BLOCK * self.BLOCKS
        world.add_vm({"os": bytes(size)}, kind=kind)
        world.control.write_image(world.label("os"), self.comb(world, 1))
        assert world.reasons(world.back_up())["os"] is Reason.FULL_FIRST
        world.control.write_image(world.label("os"), self.comb(world, 2))
        since = world.control.last_request()
        assert world.reasons(world.back_up())["os"] is Reason.CBT
        lists = [row["query"] for row in world.control.requests(since=since) if "pagelist" in row["query"]]
        # What is allocated and what has changed: each of them takes two answers.
        assert ["marker=" in query for query in lists] == [False, True, False, True]
        world.require_sound()

    def comb(self, world: World, seed: int) -> Path:
        """An image in which every second block holds data: as many ranges as there are teeth."""
        path = world.folder / f"comb-{seed}.img"
        path.write_bytes((random_bytes(self.BLOCK, seed) + bytes(self.BLOCK)) * self.BLOCKS)
        return path
