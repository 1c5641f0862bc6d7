"""Storage accounts that hold unmanaged disks: where they are, of what kind, and their keys."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from azure.storage.blob import BlobClient, BlobSasPermissions, generate_blob_sas

from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import AzureNotFound, TryAgainLater
from vsa.secret import Secret


@dataclass(frozen=True)
class StorageAccount:
    """One storage account of the subscription."""

    name: str
    resource_group: str
    region: str
    sku: str

    @property
    def is_premium(self) -> bool:
        return self.sku.lower().startswith("premium")


class StorageAccounts:
    """Looks accounts up by name, fetches keys when they are needed, and keeps none of them."""

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection

    def by_name(self, name: str) -> StorageAccount:
        """Raises AzureNotFound when the subscription has no such account."""
        with azure_errors("list storage accounts"):
            found: list[Any] = list(self._connection.storage.storage_accounts.list())
        for account in found:
            if account.name.lower() == name.lower():
                group = ResourceId.parse(account.id).group
                return StorageAccount(account.name, group, account.location, text(account.sku.name))
        raise AzureNotFound(
            f"storage account {name} is not in subscription {self._connection.subscription_id}",
            code="ResourceNotFound",
        )

    def key(self, account: str, resource_group: str) -> Secret:
        with azure_errors(f"list keys of storage account {account}"):
            keys: Any = self._connection.storage.storage_accounts.list_keys(resource_group, account)
        return Secret(str(keys.keys_property[0].value))

    def read_url(self, blob_url: str, moment: str, *, key: Secret, seconds: int) -> Secret:
        """A SAS URL that reads one blob or, with `moment`, one of its snapshots for `seconds`.

        The expiry is counted from the service's own clock, taken from an answer: a proxy whose clock is
        wrong would otherwise sign grants that are born dead.
        """
        blob = self._connection.blob(blob_url, key)
        expiry = self._service_time(blob) + dt.timedelta(seconds=seconds)
        sas = generate_blob_sas(
            str(blob.account_name),
            blob.container_name,
            blob.blob_name,
            snapshot=moment or None,
            account_key=key.reveal(),
            permission=BlobSasPermissions(read=True),
            expiry=expiry,
        )
        snapshot = f"snapshot={moment}&" if moment else ""
        return Secret(f"{blob_url}?{snapshot}{sas}")

    @staticmethod
    def _service_time(blob: BlobClient) -> dt.datetime:
        dates: list[str] = []

        def remember(response: Any) -> None:
            # Also called for refusals, and whoever stands before the service may answer without a date.
            dates.append(response.http_response.headers.get("Date", ""))

        action = f"read properties of blob {blob.container_name}/{blob.blob_name}"
        with azure_errors(action):
            blob.get_blob_properties(raw_response_hook=remember)
        if not dates[-1]:
            raise TryAgainLater(f"{action}: the answer has no Date, from which a SAS counts its life")
        return parsedate_to_datetime(dates[-1])


def account_of(connection: AzureConnection, blob_url: str) -> str:
    """The account name in a blob URL."""
    return str(connection.blob(blob_url).account_name)


def container_url(blob_url: str, container: str) -> str:
    """The URL of another container in the account of `blob_url`."""
    parts = urlsplit(blob_url)
    path = parts.path.rsplit("/", 2)[0]
    return f"{parts.scheme}://{parts.netloc}{path}/{container}"
