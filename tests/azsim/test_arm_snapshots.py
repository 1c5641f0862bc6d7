from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.compute import models as m

from tests.azsim_sdk import Azure

MIB = 1 << 20
MakesDisk = Callable[..., m.Disk]
Takes = Callable[..., m.Snapshot]
Grants = Callable[..., str]


def refusal(call: Callable[[], Any]) -> tuple[int | None, str]:
    """Status and code of the answer that refuses a call."""
    with pytest.raises(HttpResponseError) as caught:
        call()
    assert caught.value.error is not None
    return caught.value.status_code, str(caught.value.error.code)


def changes(azure: Azure, older: str, newer: str) -> list[tuple[int, int, bool]]:
    """Page ranges that changed between two granted snapshots: first byte, last byte, cleared."""
    with azure.blob(newer) as blob:
        found = blob.list_page_ranges(
            previous_snapshot={"snapshot": None}, prev_snapshot_url=older, results_per_page=10_000
        )
        return [(each.start, each.end, each.cleared) for each in found]


def test_incremental_snapshots_of_one_disk_are_a_family(has_disk: MakesDisk, take: Takes) -> None:
    disk = has_disk(size=6 * MIB)
    first, second = take(disk, "first", run="1"), take(disk, "second", run="2")
    other = take(has_disk(), "other")
    assert first.incremental_snapshot_family_id == second.incremental_snapshot_family_id
    assert first.incremental_snapshot_family_id != other.incremental_snapshot_family_id
    assert first.creation_data.source_unique_id == disk.unique_id
    assert (first.disk_size_bytes, first.disk_size_gb, first.completion_percent) == (6 * MIB, 1, 100.0)
    assert first.tags == {"run": "1"}
    assert first.provisioning_state == "Succeeded"


def test_a_full_snapshot_has_no_family(has_disk: MakesDisk, take: Takes) -> None:
    assert take(has_disk(), "full", incremental=False).incremental_snapshot_family_id is None


def test_a_snapshot_keeps_what_the_guest_changes_later(
    azure: Azure, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    disk = has_disk()
    url = grant(take(disk, "before"))
    azure.control.clear(str(disk.name), 0, 4096)
    with azure.blob(url) as blob:
        assert blob.download_blob(offset=0, length=4096).readall() == b"a" * 4096
        assert blob.get_blob_properties().size == 4 * MIB + 512


def test_the_difference_is_what_was_done_in_between(
    azure: Azure, has_disk: MakesDisk, take: Takes, grant: Grants, image: Any
) -> None:
    disk = has_disk()
    older = grant(take(disk, "older"))
    with image.open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"new" * 1000)
        file.seek(MIB)
        file.write(bytes(8192))
    written = azure.control.write_image(str(disk.name), image, discard=True)
    assert (written["written"], written["cleared"]) == (4096, 8192)
    newer = grant(take(disk, "newer"))
    assert changes(azure, older, newer) == [
        (MIB, MIB + 8191, True),
        (2 * MIB, 2 * MIB + 4095, False),
    ]


def test_writing_the_same_bytes_is_a_change(
    azure: Azure, has_disk: MakesDisk, take: Takes, grant: Grants, image: Any
) -> None:
    disk = has_disk()
    older = grant(take(disk, "older"))
    same = image.with_name("same")
    same.write_bytes(b"a" * 1024)
    azure.control.write_at(str(disk.name), 512, same)
    assert changes(azure, older, grant(take(disk, "newer"))) == [(512, 1535, False)]


def test_growth_across_the_boundary_ends_the_comparison(
    azure: Azure, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    disk = has_disk()
    before = take(disk, "before")
    azure.control.grow_disk(str(disk.name), 7 * MIB)
    below = take(disk, "below")
    assert changes(azure, grant(before), grant(below)) == []
    azure.control.grow_disk(str(disk.name), 9 * MIB)
    above = take(disk, "above")
    assert above.incremental_snapshot_family_id == below.incremental_snapshot_family_id
    with pytest.raises(HttpResponseError) as caught:
        changes(azure, grant(below), grant(above))
    assert (caught.value.status_code, str(caught.value.error_code)) == (
        409,
        "PreviousSnapshotOperationNotSupported",
    )


def test_both_ends_of_a_comparison_must_be_open(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    disk = has_disk()
    older, newer = grant(take(disk, "older")), grant(take(disk, "newer"))
    azure.compute.snapshots.begin_revoke_access(group, "older").result()
    with pytest.raises(HttpResponseError) as caught:
        changes(azure, older, newer)
    assert caught.value.status_code == 403


def test_a_revoked_url_is_dead_and_revoking_twice_is_fine(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    snapshot = take(has_disk(), "revoked")
    urls = [grant(snapshot), grant(snapshot)]
    assert azure.compute.snapshots.get(group, "revoked").disk_state == "ActiveSAS"
    for _ in range(2):
        azure.compute.snapshots.begin_revoke_access(group, "revoked").result()
    for url in urls:
        with azure.blob(url) as blob, pytest.raises(HttpResponseError) as caught:
            blob.get_blob_properties()
        assert caught.value.status_code == 403
    assert azure.compute.snapshots.get(group, "revoked").disk_state == "Unattached"
    with azure.blob(grant(snapshot)) as blob:
        assert blob.get_blob_properties().size == 4 * MIB + 512


def test_a_grant_ends_by_virtual_time(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    snapshot = take(has_disk(), "brief")
    url = grant(snapshot, seconds=300)
    azure.control.advance_clock(301)
    with azure.blob(url) as blob, pytest.raises(HttpResponseError) as caught:
        blob.get_blob_properties()
    assert caught.value.status_code == 403
    assert azure.compute.snapshots.get(group, "brief").disk_state == "Unattached"
    azure.compute.snapshots.begin_delete(group, "brief").result()


def test_an_open_grant_blocks_deletion(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    grant(take(has_disk(), "held"))
    delete = azure.compute.snapshots.begin_delete
    assert refusal(lambda: delete(group, "held")) == (409, "OperationNotAllowed")
    azure.compute.snapshots.begin_revoke_access(group, "held").result()
    delete(group, "held").result()
    delete(group, "held").result()
    assert refusal(lambda: azure.compute.snapshots.get(group, "held")) == (404, "ResourceNotFound")


def test_five_snapshots_of_a_family_may_be_open(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    disk = has_disk()
    snapshots = [take(disk, f"open-{number}") for number in range(6)]
    for number, snapshot in enumerate(snapshots[:5]):
        grant(snapshot, seconds=600 if number == 0 else 6000)
    assert refusal(lambda: grant(snapshots[5])) == (409, "OperationNotAllowed")
    grant(take(has_disk(), "of-another-family"))
    azure.control.advance_clock(601)
    grant(snapshots[5])


def test_seven_snapshots_of_a_disk_in_five_minutes(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes
) -> None:
    disk = has_disk()
    for number in range(7):
        take(disk, f"quick-{number}")
    azure.compute.snapshots.begin_delete(group, "quick-0").result()
    assert refusal(lambda: take(disk, "quick-7")) == (409, "OperationNotAllowed")
    take(disk, "full-is-not-counted", incremental=False)
    azure.control.advance_clock(301)
    take(disk, "quick-7")


def test_five_hundred_snapshots_of_a_disk_whoever_took_them_and_when(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes
) -> None:
    disk = has_disk()
    theirs = azure.control.take_snapshots(str(disk.id), 499, resource_group=f"{group}-theirs")
    assert len(set(theirs)) == 499
    take(disk, "the-last")
    assert refusal(lambda: take(disk, "one-too-many")) == (409, "SnapshotsLimitReached")
    azure.control.delete_snapshots(resource_group=f"{group}-theirs")
    assert take(disk, "there-is-room-again").creation_data.source_unique_id == disk.unique_id
    assert not {row["id"] for row in azure.control.inventory()["snapshots"]} & set(theirs)


@pytest.mark.parametrize("seconds", [0, 5_184_001, None])
def test_a_grant_lasts_from_a_second_to_sixty_days(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, seconds: int | None
) -> None:
    take(has_disk(), "timed")
    body = {"access": "Read", "durationInSeconds": seconds}
    begin = azure.compute.snapshots.begin_grant_access
    assert refusal(lambda: begin(group, "timed", body)) == (400, "InvalidParameter")


def test_a_snapshot_that_denies_export_is_not_granted(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    snapshot = take(has_disk(), "closed")
    change = {"properties": {"networkAccessPolicy": "DenyAll"}, "tags": {"kept": "yes"}}
    updated = azure.compute.snapshots.begin_update(group, "closed", change).result()
    assert updated.tags == {"kept": "yes"}
    assert refusal(lambda: grant(snapshot)) == (409, "OperationNotAllowed")


def test_a_premium_v2_snapshot_is_granted_when_its_copy_is_complete(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    snapshot = take(has_disk(sku="PremiumV2_LRS"), "slow")
    assert snapshot.completion_percent is not None
    assert snapshot.completion_percent < 100
    assert refusal(lambda: grant(snapshot)) == (409, "OperationNotAllowed")
    azure.control.advance_clock(30)
    halfway = azure.compute.snapshots.get(group, "slow").completion_percent
    assert halfway is not None
    assert 50 <= halfway < 100
    azure.control.advance_clock(31)
    assert azure.compute.snapshots.get(group, "slow").completion_percent == 100.0
    grant(snapshot)


def test_asking_again_for_a_snapshot_gives_the_one_that_exists(
    azure: Azure, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    disk = has_disk()
    first = take(disk, "again")
    azure.control.clear(str(disk.name), 0, 4096)
    assert take(disk, "again").unique_id == first.unique_id
    with azure.blob(grant(first)) as blob:
        assert blob.download_blob(offset=0, length=512).readall() == b"a" * 512
    assert refusal(lambda: take(has_disk(), "again")) == (409, "PropertyChangeNotAllowed")


def test_snapshots_outlive_their_disk_and_stay_comparable(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes, grant: Grants
) -> None:
    disk = has_disk()
    older = take(disk, "older")
    azure.control.clear(str(disk.name), 0, 512)
    newer = take(disk, "newer")
    azure.compute.disks.begin_delete(group, disk.name).result()
    assert changes(azure, grant(older), grant(newer)) == [(0, 511, True)]


def test_snapshots_are_listed_by_group_and_by_subscription(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes
) -> None:
    disk = has_disk()
    names = {take(disk, f"listed-{group}-{number}").name for number in range(3)}
    assert {each.name for each in azure.compute.snapshots.list_by_resource_group(group)} == names
    assert names <= {each.name for each in azure.compute.snapshots.list()}
