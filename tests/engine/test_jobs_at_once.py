"""Several jobs on one VM at once: each has its point, whichever deletes the base of the others first."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from azsim.control import Control
from tests.engine.guarded import Guarded
from tests.engine.story import run_job
from tests.engine.world import MANAGED, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.soak import only_in_ci
from vsa.azure import snapshots
from vsa.media.entries import JobEntry, Result
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.model import Reason


def at_once(world: World, count: int) -> list[JobEntry]:
    """So many jobs, each with the media opened for itself; their points hold what the disks hold now."""
    held = world.held()
    jobs = [
        world.job(media=Media(FolderStore(world.folder / "media"), write=True), between=601 * (not number))
        for number in range(count)
    ]
    with ThreadPoolExecutor(count) as pool:
        reports = list(pool.map(run_job, jobs))
    for report in reports:
        for outcome in report.vms:
            if outcome.point is not None:
                world.points[outcome.point] = held[outcome.name]
    return reports


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        (MANAGED, 3),
        pytest.param(STANDARD_VHD, 3, marks=only_in_ci),
        pytest.param(PREMIUM_VHD, 2, marks=only_in_ci),
    ],
)
def test_all_of_them_commit_and_the_next_job_is_normal(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str, count: int
) -> None:
    monkeypatch.setattr(snapshots, "RATE_WAIT_SECONDS", 0.01)
    guarded = Guarded(world, kind)
    # A premium VHD takes one snapshot in ten minutes: whoever asks again has waited for so long.
    put = {"plane": "blob", "method": "PUT", "query": "comp=snapshot", "skip": 2, "times": None}
    if kind == PREMIUM_VHD:
        world.control.add_fault("advance_clock", **put, seconds=601)
    reports = at_once(world, count)
    world.control.clear_faults()
    for report in reports:
        assert report.result is not Result.FAILED, report
        # Access that one asks for may keep the old base from another; the last one, or the next, deletes it.
        assert all("cleanup pending" in alarm for alarm in report.alarms), report
        assert set(world.reasons(report).values()) <= {
            Reason.CBT,
            Reason.CRC_BASE_GONE,
            Reason.CRC_DIFF_REFUSED,
        }
    assert len({report.vms[0].point for report in reports}) == count
    guarded.require_good()


@only_in_ci
@pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD])
def test_two_medias_back_up_a_vm_at_once_and_each_keeps_its_own_base(
    world: World, control: Control, tmp_path: Path, kind: str
) -> None:
    guarded = Guarded(world, kind)
    other = World(control, tmp_path / "other")
    other.share(world)
    other.back_up()
    world.write("os", 0, random_bytes(512, "both"))
    held = world.held()
    jobs = [world.job(), other.job(between=0)]
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(run_job, jobs))
    for each, report in zip((world, other), reports, strict=True):
        assert report.result is Result.COMPLETED, report
        assert set(each.reasons(report).values()) == {Reason.CBT}
        each.points[report.vms[0].point or -1] = held[guarded.vm]
        each.require_sound()
    assert len(world.bases | other.bases) == 4
