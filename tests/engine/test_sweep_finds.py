"""A sweep finds what nobody knows any more, by marks or by name and intent, and nothing that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.canaries import Canaries
from tests.engine.test_leftovers import begun
from tests.engine.test_ownership import all_snapshots
from tests.engine.test_sweep import CRASHED, RUNNING, planned, swept, things
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.azure.vhds import marked_vhds
from vsa.media import layout
from vsa.media.entries import DoomEntry
from vsa.model import Method, Reason
from vsa.stop import Stop
from vsa.transfer.pending import Thing
from vsa.transfer.runs import Run

SUBSCRIPTION_LIST = r"/subscriptions/[^/]+/providers/Microsoft.Compute/snapshots$"


def left_by_a_run(world: World, kind: str = MANAGED) -> tuple[Run, Canaries | None]:
    """A run that has its snapshots and goes no further, canaries beside it."""
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    run = begun(world.job())
    return run, Canaries(world, run.disks[0], run.id) if kind == MANAGED else None


def forget_intent(world: World, run: Run) -> None:
    """As a prune does once a run is over, or a rebuild, which knows of none."""
    (Path(world.media.location) / layout.intent(run.id)).unlink()


def strip_marks(world: World, name: str) -> None:
    """As a policy or a person may."""
    world.connection.compute.snapshots.begin_update(world.group, name, {"tags": {}}).result()


def name_of(run: Run) -> str:
    return f"vsa-{run.id}-{run.disks[0].key}"


def test_what_is_left_of_a_disk_that_is_gone_and_that_the_media_knows_no_more_goes(world: World) -> None:
    run, canaries = left_by_a_run(world)
    world.delete_vm(world.vms.pop())
    world.media.append(DoomEntry(runs=(run.id,), reason="swept"))
    forget_intent(world, run)
    (found,) = planned(world)[1].leftovers
    assert (found.thing, found.name, found.size) == (Thing.SNAPSHOT, name_of(run), MIB)
    assert things(swept(world)) == [Thing.SNAPSHOT]
    assert canaries
    canaries.require_alone()


def test_a_run_that_only_azure_knows_is_said_and_goes_when_an_operator_names_it(world: World) -> None:
    run, canaries = left_by_a_run(world)
    assert canaries
    world.delete_vm(world.vms.pop())
    forget_intent(world, run)
    before = all_snapshots(world)
    report = swept(world)
    assert (report.plan.leftovers, all_snapshots(world)) == ((), before)
    assert any(f"knows nothing of its run {run.id}" in line for line in report.attention)
    report = swept(world, named=[run.id])
    assert [item.name for item in report.removed] == [name_of(run)]
    assert world.media.view().fenced == {run.id}
    canaries.require_alone()


def test_a_name_and_marks_of_ours_on_another_disk_are_said_and_stay(world: World) -> None:
    run, canaries = left_by_a_run(world)
    assert canaries
    assert things(swept(world, {"job-1": CRASHED})) == [Thing.SNAPSHOT]
    canaries.add_on_another_disk()
    for _ in range(2):
        report = swept(world)
        assert report.removed == ()
        assert any(name_of(run) in line and "somebody gave it both" in line for line in report.attention)
        world.back_up(by=Method.CRC)
    canaries.require_alone()


def test_a_snapshot_without_marks_that_an_intent_names_is_removed_by_sweep_and_by_job(world: World) -> None:
    run, canaries = left_by_a_run(world)
    assert canaries
    strip_marks(world, name_of(run))
    assert swept(world, {"job-1": RUNNING}).plan.leftovers == ()
    assert things(swept(world, {"job-1": CRASHED})) == [Thing.SNAPSHOT]
    world.control.advance_clock(601)
    again = begun(world.job())
    strip_marks(world, name_of(again))
    world.media.append(DoomEntry(runs=(again.id,), reason="its process has ended"))
    assert world.reasons(world.back_up()) == {"os": Reason.FULL_FIRST}
    canaries.require_alone(*world.bases)


def test_what_another_media_claims_stays_though_an_intent_of_ours_names_it(world: World) -> None:
    run, canaries = left_by_a_run(world)
    assert canaries
    api = world.connection.compute.snapshots
    api.begin_update(world.group, name_of(run), {"tags": {"vsa-media": "another-media"}}).result()
    before = all_snapshots(world)
    assert swept(world, {"job-1": CRASHED}).removed == ()
    assert all_snapshots(world) == before


def test_a_base_without_marks_stays_as_long_as_the_log_names_it(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    world.back_up()
    (base,) = (ref for _, ref in world.media.view().bases().values())
    (made,) = world.media.view().points.values()
    canaries = Canaries(world, made.point.disks[0].disk, str(made.run))
    strip_marks(world, base.id.rpartition("/")[2])
    assert swept(world).plan.leftovers == ()
    for run in world.media.runs():
        (Path(world.media.location) / layout.intent(run)).unlink()
    assert swept(world).plan.leftovers == ()
    assert world.reasons(world.back_up()) == {"os": Reason.CBT}
    canaries.require_alone(*world.bases)


def test_a_name_of_ours_that_nothing_else_speaks_for_is_said_and_stays(world: World) -> None:
    run, canaries = left_by_a_run(world)
    assert canaries
    assert things(swept(world, {"job-1": CRASHED})) == [Thing.SNAPSHOT]
    world.control.replace_disk(world.label("os"))
    canaries.add_by_name_alone()
    report = swept(world)
    assert report.removed == ()
    assert any(name_of(run) in line and "lacks its marks" in line for line in report.attention)
    world.back_up(by=Method.CRC)
    canaries.require_alone()


def test_a_staging_blob_without_marks_goes_if_an_intent_names_it_and_else_stays(world: World) -> None:
    run, _ = left_by_a_run(world, PREMIUM_VHD)
    (name,) = world.staging_blobs
    world.staging_blob("os", name).set_blob_metadata({})
    intent = Path(world.media.location) / layout.intent(run.id)
    kept = intent.rename(intent.with_suffix(".aside"))
    assert Thing.STAGING_BLOB not in things(swept(world, {"job-1": CRASHED}))
    assert world.staging_blobs == [name]
    kept.rename(intent)
    assert Thing.STAGING_BLOB in things(swept(world, {"job-1": CRASHED}))
    assert world.staging_blobs == []


@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_vhds_that_nobody_knows_are_found_where_others_are_known(world: World, kind: str) -> None:
    run, _ = left_by_a_run(world, kind)
    marks = {"vsa_media": "another-media", "vsa_run": run.id, "vsa_disk": run.disks[0].key}
    world.control.advance_clock(601)
    theirs = world.vhd("os").create_snapshot(metadata=marks)["snapshot"]
    gone = world.vms.pop()
    world.control.delete_vm(gone)
    world.media.append(DoomEntry(runs=(run.id,), reason="swept"))
    forget_intent(world, run)
    assert planned(world)[1].leftovers == (), "no VHD of that account is known"
    world.add_vm({"other": random_bytes(MIB, "other")}, kind=kind)
    report = swept(world)
    staged = [Thing.STAGING_BLOB] if kind == PREMIUM_VHD else []
    assert things(report) == [Thing.SNAPSHOT, *staged]
    assert all_snapshots(world) == {theirs}
    assert world.staging_blobs == []


def test_how_far_accounts_are_looked_through_is_said(world: World) -> None:
    run, _ = left_by_a_run(world, STANDARD_VHD)
    found = marked_vhds(world.connection, world.media.id, run.disks, Stop(), most=1)
    account = world.account(STANDARD_VHD)
    assert f"storage account {account} beyond its first 1 blobs and snapshots" in found.beyond
    assert list(marked_vhds(world.connection, world.media.id, run.disks, Stop()).disks) == [run.disks[0].key]
    world.media.append(DoomEntry(runs=(run.id,), reason="the test has ended"))


def test_where_the_subscription_may_not_be_listed_known_disks_are_looked_at_and_it_is_said(
    world: World,
) -> None:
    _, canaries = left_by_a_run(world)
    assert canaries
    with world.fault(
        "status", method="GET", path=SUBSCRIPTION_LIST, status=403, code="AuthorizationFailed", times=None
    ):
        report = swept(world, {"job-1": CRASHED})
    assert things(report) == [Thing.SNAPSHOT]
    assert any("only in resource groups of disks that the media knows" in line for line in report.attention)
    canaries.require_alone()
