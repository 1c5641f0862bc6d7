"""Names and values as Azure writes them."""

from __future__ import annotations

from enum import Enum

import pytest
from azure.mgmt.compute import models

from tests.azure.loopback import anonymous
from vsa.azure.accounts import account_of, container_url
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


@pytest.mark.parametrize(
    ("url", "account"),
    [
        ("https://web01disks.blob.core.windows.net/vhds/web-01.vhd", "web01disks"),
        ("http://127.0.0.1:10000/web01disks/vhds/web-01.vhd", "web01disks"),
    ],
)
def test_the_account_and_its_other_containers_from_a_blob_url(url: str, account: str) -> None:
    assert account_of(anonymous(), url) == account
    assert container_url(url, "vsa-staging") == url.replace("vhds/web-01.vhd", "vsa-staging")
