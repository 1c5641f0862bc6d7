from __future__ import annotations

from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import ContainerClient

from tests.azsim_sdk import Azure


@pytest.fixture
def account(azure: Azure, group: str) -> str:
    name = group.replace("-", "").lower()
    spec = {"name": name, "resource_group": group, "location": "northeurope", "sku": "Premium_LRS"}
    azure.control.create_fleet({"storage_accounts": [spec]})
    return name


def container(azure: Azure, account: str, key: str) -> ContainerClient:
    return ContainerClient(
        f"{azure.base_url}/{account}", "vhds", credential=key, connection_verify=azure.ca, retry_total=0
    )


def test_an_account_tells_its_sku_and_where_its_blobs_are(azure: Azure, group: str, account: str) -> None:
    shown = azure.storage.storage_accounts.get_properties(group, account)
    assert (shown.sku.name, shown.sku.tier, shown.kind) == ("Premium_LRS", "Premium", "StorageV2")
    assert shown.location == "northeurope"
    assert shown.primary_endpoints.blob == f"{azure.base_url}/{account}/"


def test_accounts_are_listed(azure: Azure, group: str, account: str) -> None:
    assert account in {each.name for each in azure.storage.storage_accounts.list()}
    assert [each.name for each in azure.storage.storage_accounts.list_by_resource_group(group)] == [account]


def test_an_account_that_is_absent_is_404(azure: Azure, group: str, account: str) -> None:
    with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
        azure.storage.storage_accounts.get_properties(group, "nothing")


def test_keys_open_the_blobs_until_they_are_regenerated(
    azure: Azure, group: str, account: str, image: Path
) -> None:
    disk = {"name": "os", "image": str(image), "managed": False, "account": account}
    azure.control.create_fleet({"vms": [{"name": account, "resource_group": group, "disks": [disk]}]})
    accounts = azure.storage.storage_accounts
    first, second = (str(key.value) for key in accounts.list_keys(group, account).keys_property)
    for key in (first, second):
        with container(azure, account, key) as vhds:
            assert [blob.name for blob in vhds.list_blobs()] == ["os.vhd"]
    renewed = accounts.regenerate_key(group, account, {"keyName": "key1"}).keys_property
    assert renewed[0].value != first
    assert renewed[1].value == second
    with container(azure, account, first) as vhds, pytest.raises(HttpResponseError) as caught:
        list(vhds.list_blobs())
    assert caught.value.status_code == 403


def test_keys_are_listed_with_and_without_expansion(azure: Azure, group: str, account: str) -> None:
    accounts = azure.storage.storage_accounts
    plain = accounts.list_keys(group, account, expand=None).keys_property
    assert [key.key_name for key in plain] == ["key1", "key2"]
    assert [key.value for key in plain] == [
        key.value for key in accounts.list_keys(group, account).keys_property
    ]


def test_a_bearer_token_opens_the_blobs(azure: Azure, group: str, account: str, image: Path) -> None:
    disk = {"name": "os", "image": str(image), "managed": False, "account": account}
    azure.control.create_fleet({"vms": [{"name": account, "resource_group": group, "disks": [disk]}]})
    with ContainerClient(
        f"{azure.base_url}/{account}", "vhds", credential=azure.credential, connection_verify=azure.ca
    ) as vhds:
        assert [blob.name for blob in vhds.list_blobs()] == ["os.vhd"]


def test_a_closed_firewall_lets_nobody_in_and_leaves_the_control_plane_open(
    azure: Azure, group: str, account: str, image: Path
) -> None:
    disk = {"name": "os", "image": str(image), "managed": False, "account": account}
    azure.control.create_fleet({"vms": [{"name": account, "resource_group": group, "disks": [disk]}]})
    accounts = azure.storage.storage_accounts
    key = str(accounts.list_keys(group, account).keys_property[0].value)
    closed = accounts.update(group, account, {"properties": {"networkAcls": {"defaultAction": "Deny"}}})
    assert closed.network_rule_set.default_action == "Deny"
    assert str(accounts.list_keys(group, account).keys_property[0].value) == key
    with container(azure, account, key) as vhds:
        with pytest.raises(HttpResponseError) as caught:
            list(vhds.list_blobs())
        assert (caught.value.status_code, caught.value.error_code) == (403, "AuthorizationFailure")
        azure.control.close_account(account, closed=False)
        assert [blob.name for blob in vhds.list_blobs()] == ["os.vhd"]
    assert accounts.get_properties(group, account).network_rule_set.default_action == "Allow"


def test_another_administrator_regenerates_both_keys(azure: Azure, group: str, account: str) -> None:
    accounts = azure.storage.storage_accounts
    before = [key.value for key in accounts.list_keys(group, account).keys_property]
    azure.control.regenerate_keys(account)
    assert not {key.value for key in accounts.list_keys(group, account).keys_property} & set(before)


def test_what_others_left_in_a_premium_account_and_what_they_take_away(
    azure: Azure, group: str, account: str, image: Path
) -> None:
    """A snapshot that was left does not count for how fast they may be taken."""
    disk = {"name": "os", "image": str(image), "managed": False, "account": account}
    azure.control.create_fleet({"vms": [{"name": account, "resource_group": group, "disks": [disk]}]})
    vhd = f"{account}/vhds/os.vhd"
    left = azure.control.leave_blob_snapshot(vhd, {"whose": "theirs"})
    azure.control.leave_blob(f"{account}/staging/folder/copy.vhd", {"whose": "theirs"})

    def there() -> list[tuple[str, str | None]]:
        rows = azure.control.inventory()["blobs"]
        mine = (row for row in rows if row["account"] == account and row["metadata"] == {"whose": "theirs"})
        return [(row["name"], row["snapshot"]) for row in mine]

    assert there() == [("folder/copy.vhd", None), ("os.vhd", left)]
    key = azure.storage.storage_accounts.list_keys(group, account).keys_property[0].value
    with container(azure, account, str(key)) as vhds:
        taken = vhds.get_blob_client("os.vhd").create_snapshot(metadata={"whose": "theirs"})["snapshot"]
        azure.control.delete_blob(vhd, snapshot="newest")
        assert not vhds.get_blob_client("os.vhd", snapshot=taken).exists()
    azure.control.delete_blob(vhd, snapshot=left)
    azure.control.delete_blob(f"{account}/staging/folder/copy.vhd")
    assert there() == []
