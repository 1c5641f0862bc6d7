"""Storage accounts that hold unmanaged disks: where they are, of what kind, and their keys."""

from __future__ import annotations

import datetime as dt
from email.utils import parsedate_to_datetime
from typing import Any

from azure.storage.blob import BlobClient, BlobSasPermissions, generate_blob_sas

from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection, StorageAccount
from vsa.azure.errors import azure_errors
from vsa.azure.resource_id import ResourceId
from vsa.azure.wire import text
from vsa.errors import AzureNotFound, TryAgainLater
from vsa.secret import Secret


class StorageAccounts:
    """Looks accounts up by name, fetches keys when they are needed, and keeps none of them."""

    def __init__(self, connection: AzureConnection) -> None:
        self._connection = connection

    def of(self, blob: BlobAddress) -> StorageAccount:
        """The account that holds a blob. Raises AzureNotFound when the subscription has no such account."""
        known = self._connection.storage_accounts
        if blob.account.lower() not in known:
            with azure_errors("list storage accounts"):
                found: list[Any] = list(self._connection.storage.storage_accounts.list())
            for row in found:
                group = ResourceId.parse(row.id).group
                account = StorageAccount(row.name, group, row.location, text(row.sku.name))
                known[row.name.lower()] = account
        if blob.account.lower() not in known:
            raise AzureNotFound(
                f"storage account {blob.account} is not in subscription {self._connection.subscription_id}",
                code="ResourceNotFound",
            )
        return known[blob.account.lower()]

    def key(self, blob: BlobAddress) -> Secret:
        """A key of the account that holds a blob."""
        account = self.of(blob)
        with azure_errors(f"list keys of storage account {account.name}"):
            keys: Any = self._connection.storage.storage_accounts.list_keys(
                account.resource_group, account.name
            )
        return Secret(str(keys.keys_property[0].value))

    def read_url(self, address: BlobAddress, moment: str, *, seconds: int) -> Secret:
        """A SAS URL that reads one blob or, with `moment`, one of its snapshots for `seconds`.

        The expiry is counted from the service's own clock, taken from an answer: a proxy whose clock is
        wrong would otherwise sign grants that are born dead.
        """
        key = self.key(address)
        expiry = self._service_time(self._connection.blob(address.url, key)) + dt.timedelta(seconds=seconds)
        sas = generate_blob_sas(
            address.account,
            address.container,
            address.name,
            snapshot=moment or None,
            account_key=key.reveal(),
            permission=BlobSasPermissions(read=True),
            expiry=expiry,
        )
        snapshot = f"snapshot={moment}&" if moment else ""
        return Secret(f"{address.url}?{snapshot}{sas}")

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
