"""Access grants: the time-limited right to read one snapshot, renewed when it ends, always revoked.

Managed snapshots: beginGetAccess / endGetAccess
(https://learn.microsoft.com/rest/api/compute/snapshots/grant-access). Unmanaged VHDs: a SAS signed with
the account's key; it cannot be revoked one by one, so it is short and renewed.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, Self, TypeVar

from azure.mgmt.compute import models

from vsa.azure.accounts import StorageAccounts
from vsa.azure.blob_address import BlobAddress
from vsa.azure.budget import cleaning
from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.operations import finished
from vsa.azure.resource_id import ResourceId
from vsa.errors import AccessDenied, AccessExpired, AzureNotFound, AzureRefused, RunStopped, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.model import DiskKind, SnapshotName, SnapshotRef
from vsa.redact import public_url
from vsa.secret import Secret
from vsa.stop import Stop, again
from vsa.threads import Threads

FULL = (
    "nothing of ours is left over there. If five snapshots of the disk are being read already, which is all "
    "that Azure allows, end access to one that nobody needs"
)
"""Said when Azure grants no access though what we left has been swept."""

T = TypeVar("T")
_log = logging.getLogger(__name__)

GRANT_SECONDS = 4 * 3600
REVOKE_SECONDS = 15.0
"""For a stream that was told to stop to give back its access: it is not waited for much longer."""
# Grants refused one after the other before we say that renewing is not the cure.
MOST_FRESH_REFUSALS = 3
# Renewals of one access before we say that something else is wrong.
MOST_RENEWALS = 16


class Access(Protocol):
    """Somewhere to read a disk's bytes from."""

    @property
    def url(self) -> Secret:
        """The SAS URL to use now."""

    def worked(self, url: Secret) -> None:
        """The URL has just been taken by Azure."""

    def renew(self, stale: Secret) -> None:
        """Replace the URL, unless another thread has replaced `stale` already."""


def renewing(call: Callable[..., T], *accesses: Access) -> T:
    """Call with the URLs of these accesses; when one of them has ended, again with all of them renewed.

    Raises AccessExpired when renewing does not help.
    """
    while True:
        urls = [access.url for access in accesses]
        try:
            answer = call(*urls)
        except AccessExpired:
            # Azure does not say which of two URLs it would not take.
            for access, url in zip(accesses, urls, strict=True):
                access.renew(url)
        else:
            for access, url in zip(accesses, urls, strict=True):
                access.worked(url)
            return answer


class GrantedAccess:
    """A URL that many threads read through and any of them may have renewed."""

    def __init__(self, grant: Callable[[], Secret], name: str) -> None:
        self._grant = grant
        self._name = name
        self._lock = threading.Lock()
        self._renewals = 0
        self._refused_fresh = 0
        self._url = grant()

    @property
    def url(self) -> Secret:
        return self._url

    def worked(self, url: Secret) -> None:
        self._refused_fresh = 0

    def renew(self, stale: Secret) -> None:
        with self._lock:
            if stale is not self._url:
                return
            self._renewals += 1
            self._refused_fresh += 1
            if self._refused_fresh > MOST_FRESH_REFUSALS:
                raise AccessDenied(
                    f"{self._name}: Azure granted access and refused it {self._refused_fresh} times without "
                    "one answer between; look at the disk's data access authentication mode, at the network "
                    "rules between this proxy and the disk, and at the clocks",
                    code="AuthenticationFailed",
                )
            if self._renewals > MOST_RENEWALS:
                raise AccessExpired(
                    f"{self._name}: access ended {self._renewals} times during one job; "
                    "look for somebody revoking grants, or a clock that is wrong"
                )
            _log.warning("%s: access ended while reading; asking for it again", self._name)
            self._url = self._grant()


class Grants:
    """Asks for access to snapshots and gives it back.

    `guard` runs before every request for access, repeated ones too, and once more when it was granted: it
    raises when the run has been fenced or has committed, and what was granted is given back. `make_room` runs
    once when a request is refused: of a family only five snapshots may be read at a time, and access that a
    dead run left open may be what stands in the way. What it raises is raised.

    A context that ends when all access is given back that is no longer needed.
    """

    def __init__(
        self,
        connection: AzureConnection,
        *,
        guard: Callable[[], None],
        stop: Stop,
        make_room: Callable[[], None] = lambda: None,
        seconds: int = GRANT_SECONDS,
    ) -> None:
        self._connection = connection
        self._accounts = StorageAccounts(connection)
        self._guard = guard
        self._stop = stop
        self._make_room = make_room
        self._seconds = seconds
        self._ending = Threads(1, thread_name_prefix="giving-back")
        self._ended: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._await_end()
        finally:
            self._ending.shutdown()

    def snapshot(self, ref: SnapshotRef) -> GrantedAccess:
        """Access to one snapshot. It stays until the run is released, which is after the commit."""
        return GrantedAccess(lambda: self._ask(ref), title(ref))

    @contextmanager
    def base(self, ref: SnapshotRef) -> Iterator[GrantedAccess]:
        """Access to a base while its change list is asked for: of a family only five may be open.

        It is given back beside what comes next, for Azure takes seconds to say that it is; no longer than
        this object's context lasts, and before a base is asked for again.
        """
        self._await_end()
        try:
            yield GrantedAccess(lambda: self._ask(ref), title(ref))
        finally:
            self._ended = self._ending.submit(self._give_back, ref)

    def blob(self, blob_url: str) -> GrantedAccess:
        """Access to a whole page blob of ours, such as a staging blob."""
        return GrantedAccess(lambda: self._sign(blob_url, ""), public_url(blob_url))

    def _ask(self, ref: SnapshotRef) -> Secret:
        if ref.kind is not DiskKind.MANAGED:
            return self._sign(ref.id, str(ref.moment))
        try:
            return self._grant(ref)
        except (AzureNotFound, AccessDenied):
            raise
        except AzureRefused as error:
            # Azure's code for a sixth grant is not documented: whatever it refuses may be one.
            _log.warning("%s: %s; ending access that is left over, then asking again", title(ref), error)
        self._make_room()
        try:
            return self._grant(ref)
        except (AzureNotFound, AccessDenied):
            raise
        except AzureRefused as error:
            raise AzureRefused(f"{error}; {FULL}", code=error.code) from error

    def _grant(self, ref: SnapshotRef) -> Secret:
        parts = ResourceId.parse(ref.id)
        body = models.GrantAccessData(access="Read", duration_in_seconds=self._seconds)

        def grant() -> Secret:
            # Before a repetition, too: minutes may have passed, or an hour where Azure wished for it.
            self._require_going_on()
            with azure_errors(f"ask for access to snapshot {parts.name}"):
                granted = finished(
                    self._connection.compute.snapshots.begin_grant_access(parts.group, parts.name, body),
                    stop=self._stop,
                    action=f"ask for access to snapshot {parts.name}",
                )
            return _https(str(granted.access_sas), parts.name)

        url = again(grant, stop=self._stop)
        reached(FaultPoint.ACCESS_GRANTED)
        try:
            self._guard()
        except VsaError:
            # The run may have been ended by another while this was on its way, after that one had revoked.
            self._give_back(ref)
            raise
        return url

    def _await_end(self) -> None:
        """Wait until what is being given back is; a stop cuts that short only after `REVOKE_SECONDS`."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.result()

    def _give_back(self, ref: SnapshotRef) -> None:
        """Revoke, also for a while after a stop. What fails is logged and hides nothing: whoever clears the
        run away revokes again."""
        try:
            try:
                revoke(self._connection, ref, self._stop)
            except RunStopped:
                enough = Stop("it took too long")
                enough.set_in(REVOKE_SECONDS)
                revoke(self._connection, ref, enough)
        except VsaError as error:
            _log.warning("%s: %s", title(ref), error)

    def _require_going_on(self) -> None:
        """Read the log before access is asked for: RunStopped if it knows an end of the run."""
        self._guard()
        reached(FaultPoint.ACCESS_GUARDED)

    def _sign(self, blob_url: str, moment: str) -> Secret:
        self._require_going_on()
        address = BlobAddress.parse(blob_url)
        return again(lambda: self._accounts.read_url(address, moment, seconds=self._seconds), stop=self._stop)


def revoke(connection: AzureConnection, ref: SnapshotName, stop: Stop) -> None:
    """End every access to a snapshot, again while that may help.

    `stop` is not that of the work, which keeps nothing from being cleaned up.
    """
    with cleaning():
        again(lambda: end_access(connection, ref, stop), stop=stop)


def end_access(connection: AzureConnection, ref: SnapshotName, stop: Stop) -> None:
    """The same, once. Gone snapshots and unmanaged VHDs have nothing to revoke."""
    if ref.kind is not DiskKind.MANAGED:
        return
    parts = ResourceId.parse(ref.id)
    action = f"revoke access to snapshot {parts.name}"
    try:
        with azure_errors(action):
            poller = connection.compute.snapshots.begin_revoke_access(parts.group, parts.name)
            finished(poller, stop=stop, action=action)
    except AzureNotFound:
        _log.info("snapshot %s is gone, and its access with it", parts.name)


def _https(url: str, name: str) -> Secret:
    """The URL as a secret; a SAS and a disk's bytes never go over a connection that anybody can read."""
    if not url.startswith("https://"):
        raise AzureRefused(f"access to {name} was granted at {public_url(url)}, expected an https address")
    return Secret(url)


def title(ref: SnapshotName) -> str:
    """What people know a snapshot by."""
    name = ref.id.rsplit("/", 1)[-1]
    return f"snapshot {ref.moment} of {name}" if ref.moment else f"snapshot {name}"
