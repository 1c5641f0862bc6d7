"""Disks and change lists of every sort: tiny, empty, noise, huge and sparse, changed nowhere, everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from azsim.control import Control
from tests.azsim_process import AzsimProcess
from tests.engine.guarded import Guarded
from tests.engine.story import run_job
from tests.engine.test_audit_end_to_end import EVERYTHING, write_without_history
from tests.engine.test_faults_data_plane import diff_of
from tests.engine.world import EXTENT, KIB, MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.media.making import read_disk
from tests.soak import only_in_ci
from vsa.media.entries import Result
from vsa.model import Method, Reason

KINDS = [MANAGED, pytest.param(STANDARD_VHD, marks=only_in_ci), pytest.param(PREMIUM_VHD, marks=only_in_ci)]
SECTOR = 512
TIB = 1024 * 1024 * MIB


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_of_one_page(world: World, kind: str) -> None:
    guarded = Guarded(world, kind, size=SECTOR)
    guarded.require_good()
    world.clear("data", 0, SECTOR)
    guarded.require_good()
    world.write("data", 0, random_bytes(SECTOR, "again"))
    guarded.require_good(dict.fromkeys(["os", "data"], Reason.CRC_REQUESTED), by=Method.CRC)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_after_which_nothing_has_changed_reads_its_audit_and_stores_nothing(
    world: World, kind: str
) -> None:
    guarded = Guarded(world, kind, size=2 * MIB)
    guarded.require_good()
    figures = world.disks(guarded.require_good())["data"].figures
    assert figures is not None
    assert (figures.changed, figures.new, figures.stored) == (0, 0, 0)
    assert figures.read == figures.audited == 16 * EXTENT


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_of_zeros_written_or_never_written(world: World, kind: str) -> None:
    """A new disk, a guest that writes zeros over all of it, data, and zeros again."""
    size = MIB + 3 * SECTOR
    world.add_vm({"os": bytes(size)}, kind=kind)
    reasons, stored = [], []
    for contents in (None, bytes(size), random_bytes(size, "data"), bytes(size), None):
        if contents is not None:
            world.write("os", 0, contents)
        outcome = world.disks(world.back_up())["os"]
        assert outcome.figures is not None
        reasons.append(outcome.reason)
        stored.append(outcome.figures.stored > 0)
    assert reasons == [Reason.FULL_FIRST, *[Reason.CBT] * 4]
    assert stored == [False, False, True, False, False]
    world.back_up(by=Method.CRC)
    world.require_sound()


class TestInterleavedChanges:
    """Written and cleared blocks in turn, in more ranges than one answer holds, one of which breaks off."""

    BLOCK = 4 * KIB

    @pytest.fixture
    def few(self, tmp_path: Path) -> Iterator[Control]:
        """An Azure whose answers hold seven ranges."""
        with AzsimProcess(tmp_path / "azsim", ranges_per_answer=7) as azure:
            yield azure.control

    @pytest.mark.parametrize("kind", KINDS)
    def test_many_answers_of_which_one_breaks_off(self, few: Control, tmp_path: Path, kind: str) -> None:
        self.play(World(few, tmp_path / "world"), kind, blocks=40)

    @only_in_ci
    @pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
    def test_more_than_azures_answers_hold(self, world: World, kind: str) -> None:
        self.play(world, kind, blocks=5_020)

    def play(self, world: World, kind: str, *, blocks: int) -> None:
        block = self.BLOCK
        comb = b"".join(random_bytes(block, number) + bytes(block) for number in range(blocks))
        world.add_vm({"os": comb}, kind=kind)
        world.back_up()
        # What held data is cleared, and what held none is written.
        path = world.folder / "shifted.img"
        path.write_bytes(comb[block:] + comb[:block])
        world.control.write_image(world.label("os"), path, discard=True)
        since = world.control.last_request()
        later = {**diff_of(kind), "query": f"(?=.*{diff_of(kind)['query']})(?=.*marker=)"}
        with world.fault("truncate", **later, bytes=150):
            report = world.back_up(audit_extents=EVERYTHING)
        lists = [row["query"] for row in world.control.requests(since=since) if "pagelist" in row["query"]]
        assert any("marker=" in query for query in lists)
        assert world.reasons(report)["os"] is Reason.CBT
        figures = world.disks(report)["os"].figures
        assert figures is not None
        assert figures.changed == 2 * blocks * block
        assert world.reasons(world.back_up(by=Method.CRC))["os"] is Reason.CRC_REQUESTED
        world.require_sound()


class TestZerosThatAreNone:
    """Extents of zeros are audited like all others: those that stand, and those that a list calls cleared."""

    @pytest.mark.parametrize("when", [pytest.param("stands", marks=only_in_ci), "cleared"])
    @pytest.mark.parametrize("kind", [MANAGED, pytest.param(STANDARD_VHD, marks=only_in_ci)])
    def test_they_are_found_told_and_repaired(
        self, azure: AzsimProcess, control: Control, tmp_path: Path, kind: str, when: str
    ) -> None:
        world = World(control, tmp_path, extent_size=16 * KIB)
        marker = random_bytes(SECTOR, f"marker {world.number}")
        contents = random_bytes(16 * KIB - SECTOR, "os") + marker + random_bytes(MIB, "rest")
        world.add_vm({"os": contents}, kind=kind)
        first = world.back_up().vms[0].point
        for now in ("cleared", "stands"):
            if now == "cleared":
                world.clear("os", 16 * KIB, 32 * KIB)
            if now == when:
                write_without_history(azure, marker + bytes(32 * KIB), marker + random_bytes(32 * KIB, "lie"))
            report = world.back_up(audit_extents=EVERYTHING)
            if now == when:
                break
            assert world.reasons(report)["os"] is Reason.CBT
        assert world.reasons(report)["os"] is Reason.CRC_AUDIT_FAILED
        assert report.result is Result.COMPLETED_WITH_ERRORS
        (alarm,) = report.alarms
        assert "is doubtful" in alarm
        assert "was reported unchanged and is not" in alarm
        newest = report.vms[0].point or -1
        world.require_restores(newest, world.points[newest])
        assert newest not in world.media.view().doubtful
        assert (first in world.media.view().doubtful) == (when == "cleared")
        world.require_no_leftovers()
        assert world.reasons(world.back_up(audit_extents=EVERYTHING))["os"] is Reason.CBT
        world.delete()


def test_a_disk_of_32_tib_costs_what_is_allocated(world: World) -> None:
    """A CBT and a CRC job follow the ranges that Azure lists: the rest is neither read nor held in memory."""
    size = 32 * TIB
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    world.grow("os", size)
    written = {0: random_bytes(EXTENT, 0)}

    def write(offset: int) -> None:
        written[offset] = random_bytes(EXTENT, offset)
        world.write("os", offset, written[offset])

    def require(reason: Reason, **options: object) -> None:
        # By default the audit reads a share of the disk: the whole of this one costs hours.
        report = run_job(world.job(audit_share=0.0, audit_cycle_jobs=10**9, **options))
        outcome = world.disks(report)["os"]
        assert (report.result, outcome.reason) == (Result.COMPLETED, reason), report
        assert outcome.figures is not None
        assert outcome.figures.size == size
        assert outcome.figures.allocated == len(written) * EXTENT
        assert outcome.figures.read <= (len(written) + 32) * EXTENT
        (backup,) = world.media.view().points[report.vms[0].point or -1].point.disks
        held = read_disk(world.media, backup.indexes, size)
        assert {extent * EXTENT: data for extent, data in held.items()} == written

    write(16 * TIB + 5 * EXTENT)
    write(size - EXTENT)
    require(Reason.FULL_FIRST)
    write(24 * TIB)
    require(Reason.CBT)
    world.clear("os", 16 * TIB + 5 * EXTENT, EXTENT)
    del written[16 * TIB + 5 * EXTENT]
    write(5 * TIB)
    require(Reason.CRC_REQUESTED, by=Method.CRC)
    write(31 * TIB)
    require(Reason.CBT)
    world.require_no_leftovers()
