"""Names and values as Azure writes them."""

from __future__ import annotations

from enum import Enum

import pytest
from azure.mgmt.compute import models

from tests.azure.loopback import anonymous
from vsa.azure.blob_address import BlobAddress
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import BadRequest

DISK = "/subscriptions/S-1/resourceGroups/RG-Web/providers/Microsoft.Compute/disks/web-01_OsDisk"


def test_the_parts_of_a_resource_id_keep_their_case() -> None:
    assert ResourceId.parse(DISK) == ResourceId("S-1", "RG-Web", "web-01_OsDisk")


def test_keywords_of_a_resource_id_are_read_in_any_case() -> None:
    assert ResourceId.parse(DISK.replace("resourceGroups", "RESOURCEGROUPS")).group == "RG-Web"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "web-01",
        "/subscriptions/S-1",
        "/subscriptions/S-1/resourceGroups/RG-Web",
        "https://account.blob.core.windows.net/vhds/web-01.vhd",
        "/subscriptions/S-1/providers/Microsoft.Compute/disks/web-01",
    ],
)
def test_what_is_no_id_of_a_resource_in_a_group_is_refused_by_name(wrong: str) -> None:
    with pytest.raises(BadRequest, match="is not the id of an Azure resource") as caught:
        ResourceId.parse(wrong)
    assert repr(wrong) in str(caught.value)


class Plain(Enum):
    A = "a-on-the-wire"


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, ""),
        ("", ""),
        ("Premium_LRS", "Premium_LRS"),
        (Plain.A, "a-on-the-wire"),
        (models.DiskStorageAccountTypes.PREMIUM_LRS, "Premium_LRS"),
        (7, "7"),
    ],
)
def test_the_wire_text_of_a_value(value: object, wire: str) -> None:
    assert text(value) == wire


ACCOUNT = "https://web01disks.blob.core.windows.net"
LOCAL = "https://127.0.0.1:10000/web01disks"


@pytest.mark.parametrize(
    ("url", "account_url", "container", "name"),
    [
        (f"{ACCOUNT}/vhds/web-01.vhd", ACCOUNT, "vhds", "web-01.vhd"),
        (f"{LOCAL}/vhds/web-01.vhd", LOCAL, "vhds", "web-01.vhd"),
        (f"{ACCOUNT}/vhds/web-01.vhd?sv=1&sig=abc", ACCOUNT, "vhds", "web-01.vhd"),
        (f"{ACCOUNT.replace('https', 'http')}/vhds/web-01.vhd", ACCOUNT, "vhds", "web-01.vhd"),
        (f"{ACCOUNT}/vhds/old/2019/web-01.vhd", ACCOUNT, "vhds", "old/2019/web-01.vhd"),
        (f"{ACCOUNT}/vhds/my disk.vhd", ACCOUNT, "vhds", "my disk.vhd"),
        (f"{ACCOUNT}/vhds/my%20disk.vhd", ACCOUNT, "vhds", "my disk.vhd"),
        (f"{ACCOUNT}/vhds/100%25.vhd", ACCOUNT, "vhds", "100%.vhd"),
        (f"{ACCOUNT}/vhds/dïsk.vhd", ACCOUNT, "vhds", "dïsk.vhd"),
    ],
)
def test_a_blob_url_in_parts(url: str, account_url: str, container: str, name: str) -> None:
    address = BlobAddress.parse(url)
    assert address == BlobAddress(account_url, "web01disks", container, name)
    assert BlobAddress.parse(address.url) == address
    assert address.url.isascii()
    assert " " not in address.url
    assert anonymous().blob(address.url).blob_name == name


def test_a_blob_beside_another_is_in_the_same_account() -> None:
    address = BlobAddress.parse(f"{LOCAL}/vhds/a/b.vhd").beside("vsa-staging", "vsa-1.vhd")
    assert address.url == f"{LOCAL}/vsa-staging/vsa-1.vhd"


@pytest.mark.parametrize("wrong", ["", "web-01.vhd", "https://", "ftp://a.blob.core.windows.net/c/b"])
def test_what_is_no_url_of_a_blob_is_refused(wrong: str) -> None:
    with pytest.raises(BadRequest, match="is not the URL of a blob"):
        BlobAddress.parse(wrong)
