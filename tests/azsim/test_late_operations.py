"""Operations that are accepted now and take effect later, as "Asynchronous API Reference" has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.compute import models as m

from tests.azsim.test_arm_snapshots import refusal
from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect

MakesDisk = Callable[..., m.Disk]
Takes = Callable[..., m.Snapshot]

PUT: dict[str, Any] = {"plane": "arm", "method": "PUT", "path": r"/snapshots/[^/]+$"}
DELETE: dict[str, Any] = {"plane": "arm", "method": "DELETE", "path": r"/snapshots/[^/]+$"}
ACCESS = m.GrantAccessData(access="Read", duration_in_seconds=3600)


def requested(disk: m.Disk) -> m.Snapshot:
    source = m.CreationData(create_option="Copy", source_resource_id=disk.id)
    return m.Snapshot(location=disk.location, creation_data=source, incremental=True)


def listed(azure: Azure, group: str) -> list[str]:
    return [str(each.name) for each in azure.compute.snapshots.list_by_resource_group(group)]


def state(azure: Azure, group: str, name: str) -> str:
    return str(azure.compute.snapshots.get(group, name).provisioning_state)


def test_a_snapshot_that_is_not_to_be_seen_is_nowhere_until_its_operation_is_done(
    azure: Azure, group: str, has_disk: MakesDisk
) -> None:
    disk = has_disk()
    azure.control.add_fault("late", **PUT)
    poller = azure.compute.snapshots.begin_create_or_update(group, "late", requested(disk))
    azure.control.clear(str(disk.name), 0, 4096)
    poller.wait(0.2)
    assert not poller.done()
    with pytest.raises(ResourceNotFoundError):
        azure.compute.snapshots.get(group, "late")
    assert listed(azure, group) == []
    assert azure.compute.snapshots.begin_delete(group, "late").result() is None, "nothing is there to delete"
    assert azure.control.end_operations() == 1
    made = poller.result()
    assert (made.name, made.provisioning_state, made.completion_percent) == ("late", "Succeeded", 100.0)
    assert listed(azure, group) == ["late"]
    url = azure.compute.snapshots.begin_grant_access(group, "late", ACCESS).result().access_sas
    with azure.blob(str(url)) as blob:
        was = blob.download_blob(offset=0, length=4096).readall()
    assert was == b"a" * 4096, "it is of the moment in which it was asked for"


def test_asking_again_for_what_is_being_made_makes_no_second_one(
    azure: Azure, group: str, has_disk: MakesDisk
) -> None:
    disk = has_disk()
    azure.control.add_fault("late", **PUT)
    first = azure.compute.snapshots.begin_create_or_update(group, "late", requested(disk))
    second = azure.compute.snapshots.begin_create_or_update(group, "late", requested(disk))
    code = refusal(
        lambda: azure.compute.snapshots.begin_create_or_update(group, "late", requested(has_disk()))
    )
    assert code == (409, "PropertyChangeNotAllowed")
    assert azure.control.end_operations() == 1
    assert first.result().unique_id == second.result().unique_id


def test_a_snapshot_that_is_to_be_seen_is_creating_and_cannot_be_read(
    azure: Azure, group: str, has_disk: MakesDisk
) -> None:
    azure.control.add_fault("late", shown=True, **PUT)
    poller = azure.compute.snapshots.begin_create_or_update(group, "late", requested(has_disk()))
    shown = azure.compute.snapshots.get(group, "late")
    assert (shown.provisioning_state, shown.completion_percent) == ("Creating", 0.0)
    code = refusal(lambda: azure.compute.snapshots.begin_grant_access(group, "late", ACCESS))
    assert code == (409, "OperationNotAllowed")
    azure.control.end_operations()
    assert poller.result().provisioning_state == "Succeeded"
    assert azure.compute.snapshots.begin_grant_access(group, "late", ACCESS).result().access_sas


def test_a_deletion_preempts_a_creation(azure: Azure, group: str, has_disk: MakesDisk) -> None:
    azure.control.add_fault("late", shown=True, **PUT)
    poller = azure.compute.snapshots.begin_create_or_update(group, "late", requested(has_disk()))
    azure.compute.snapshots.begin_delete(group, "late").result()
    with pytest.raises(HttpResponseError) as preempted:
        poller.result()
    assert preempted.value.error is not None
    assert preempted.value.error.code == "OperationPreempted"
    azure.control.end_operations()
    assert listed(azure, group) == []


def test_what_is_being_deleted_is_there_in_that_state_until_it_is_gone(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes
) -> None:
    take(has_disk(), "going")
    azure.control.add_fault("late", **DELETE)
    first = azure.compute.snapshots.begin_delete(group, "going")
    second = azure.compute.snapshots.begin_delete(group, "going")
    second.wait(0.2)
    assert (first.done(), second.done()) == (False, False)
    assert (state(azure, group, "going"), listed(azure, group)) == ("Deleting", ["going"])
    code = refusal(lambda: azure.compute.snapshots.begin_grant_access(group, "going", ACCESS))
    assert code == (409, "OperationNotAllowed")
    azure.control.end_operations()
    assert (first.result(), second.result()) == (None, None)
    assert listed(azure, group) == []


def test_a_deletion_may_be_called_done_while_the_thing_is_still_shown(
    azure: Azure, group: str, has_disk: MakesDisk, take: Takes
) -> None:
    take(has_disk(), "lingering")
    azure.control.add_fault("late", seconds=60, told=False, **DELETE)
    azure.compute.snapshots.begin_delete(group, "lingering").result()
    assert state(azure, group, "lingering") == "Succeeded"
    azure.control.advance_clock(61)
    assert listed(azure, group) == []


def test_access_may_come_and_end_later(azure: Azure, group: str, has_disk: MakesDisk, take: Takes) -> None:
    take(has_disk(), "read")

    def is_open() -> bool:
        rows = azure.control.inventory()["snapshots"]
        return any(row["grant_open"] for row in rows if f"/{group}/" in row["id"])

    azure.control.add_fault("late", plane="arm", method="POST", path="(?i)/beginGetAccess$")
    granting = azure.compute.snapshots.begin_grant_access(group, "read", ACCESS)
    assert not is_open()
    azure.control.end_operations()
    with azure.blob(str(granting.result().access_sas)) as blob:
        assert blob.download_blob(offset=0, length=1).readall() == b"a"
    azure.control.add_fault("late", plane="arm", method="POST", path="(?i)/endGetAccess$")
    ending = azure.compute.snapshots.begin_revoke_access(group, "read")
    assert is_open()
    azure.control.end_operations()
    ending.result()
    assert not is_open()


def test_what_was_accepted_takes_effect_though_its_client_and_the_server_ended(
    tmp_path: Path, image: Path
) -> None:
    with AzsimProcess(tmp_path / "state") as process:
        azure = connect(process)
        disk = {"name": "disk", "resource_group": "group", "image": str(image)}
        azure.control.create_fleet({"disks": [disk]})
        azure.control.add_fault("late", seconds=600, **PUT)
        body = requested(azure.compute.disks.get("group", "disk"))
        azure.compute.snapshots.begin_create_or_update("group", "late", body, polling=False)
        azure.close()
    with AzsimProcess(tmp_path / "state") as process:
        assert process.control.inventory()["snapshots"] == []
        process.control.advance_clock(601)
        (row,) = process.control.inventory()["snapshots"]
        assert (row["name"], row["state"]) == ("late", "Succeeded")
