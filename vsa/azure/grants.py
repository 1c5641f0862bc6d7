"""Access grants: the time-limited right to read one snapshot, renewed when it ends, always revoked.

Managed snapshots: beginGetAccess / endGetAccess
(https://learn.microsoft.com/rest/api/compute/snapshots/grant-access). Unmanaged VHDs: a SAS signed with
the account's key; it cannot be revoked one by one, so it is short and renewed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from azure.mgmt.compute import models

from vsa.azure.accounts import StorageAccounts, account_of
from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.resource_id import ResourceId
from vsa.errors import AccessExpired, AzureNotFound
from vsa.model import DiskKind, SnapshotRef
from vsa.secret import Secret
from vsa.stop import Stop, again

T = TypeVar("T")
_log = logging.getLogger(__name__)

GRANT_SECONDS = 4 * 3600
# Renewals of one access before we say that something else is wrong.
MOST_RENEWALS = 16


class Access(Protocol):
    """Somewhere to read a disk's bytes from."""

    @property
    def url(self) -> Secret:
        """The SAS URL to use now."""

    def renew(self, stale: Secret) -> None:
        """Replace the URL, unless another thread has replaced `stale` already."""


def renewing(call: Callable[..., T], *accesses: Access) -> T:
    """Call with the URLs of these accesses; when one of them has ended, again with all of them renewed.

    Raises AccessExpired when renewing does not help.
    """
    while True:
        urls = [access.url for access in accesses]
        try:
            return call(*urls)
        except AccessExpired:
            # Azure does not say which of two URLs it would not take.
            for access, url in zip(accesses, urls, strict=True):
                access.renew(url)


class GrantedAccess:
    """A URL that many threads read through and any of them may have renewed."""

    def __init__(self, grant: Callable[[], Secret], name: str) -> None:
        self._grant = grant
        self._name = name
        self._lock = threading.Lock()
        self._renewals = 0
        self._url = grant()

    @property
    def url(self) -> Secret:
        return self._url

    def renew(self, stale: Secret) -> None:
        with self._lock:
            if stale is not self._url:
                return
            self._renewals += 1
            if self._renewals > MOST_RENEWALS:
                raise AccessExpired(
                    f"{self._name}: access ended {self._renewals} times during one job; "
                    "look for somebody revoking grants, or a clock that is wrong"
                )
            _log.warning("%s: access ended while reading; asking for it again", self._name)
            self._url = self._grant()


class Grants:
    """Asks for access to snapshots and gives it back.

    `guard` runs before every request for access: it raises when the run has been fenced.
    """

    def __init__(
        self,
        connection: AzureConnection,
        *,
        guard: Callable[[], None],
        stop: Stop,
        seconds: int = GRANT_SECONDS,
    ) -> None:
        self._connection = connection
        self._accounts = StorageAccounts(connection)
        self._guard = guard
        self._stop = stop
        self._seconds = seconds

    @contextmanager
    def reading(self, ref: SnapshotRef) -> Iterator[GrantedAccess]:
        """Access to one snapshot for the length of a block; revoked at its end, whatever happened."""
        try:
            yield GrantedAccess(lambda: self._ask(ref), _title(ref))
        finally:
            revoke(self._connection, ref)

    @contextmanager
    def reading_blob(self, blob_url: str) -> Iterator[GrantedAccess]:
        """Access to a whole page blob of ours, such as a staging blob."""
        yield GrantedAccess(lambda: self._sign(blob_url, ""), blob_url)

    def _ask(self, ref: SnapshotRef) -> Secret:
        self._guard()
        if ref.kind is not DiskKind.MANAGED:
            return self._sign(ref.id, str(ref.moment))
        parts = ResourceId.parse(ref.id)
        body = models.GrantAccessData(access="Read", duration_in_seconds=self._seconds)

        def grant() -> Secret:
            with azure_errors(f"ask for access to snapshot {parts.name}"):
                granted = self._connection.compute.snapshots.begin_grant_access(
                    parts.group, parts.name, body
                ).result()
            return Secret(str(granted.access_sas))

        return again(grant, stop=self._stop)

    def _sign(self, blob_url: str, moment: str) -> Secret:
        self._guard()

        def sign() -> Secret:
            account = self._accounts.by_name(account_of(self._connection, blob_url))
            key = self._accounts.key(account.name, account.resource_group)
            return self._accounts.read_url(blob_url, moment, key=key, seconds=self._seconds)

        return again(sign, stop=self._stop)


def revoke(connection: AzureConnection, ref: SnapshotRef) -> None:
    """End every access to a snapshot. Gone snapshots and unmanaged VHDs have nothing to revoke.

    A stop does not keep this from happening: it is part of cleaning up.
    """
    if ref.kind is not DiskKind.MANAGED:
        return
    parts = ResourceId.parse(ref.id)

    def end() -> None:
        with azure_errors(f"revoke access to snapshot {parts.name}"):
            connection.compute.snapshots.begin_revoke_access(parts.group, parts.name).result()

    try:
        again(end, stop=Stop())
    except AzureNotFound:
        _log.info("snapshot %s is gone, and its access with it", parts.name)


def _title(ref: SnapshotRef) -> str:
    name = ref.id.rsplit("/", 1)[-1]
    return f"snapshot {ref.moment} of {name}" if ref.moment else f"snapshot {name}"
