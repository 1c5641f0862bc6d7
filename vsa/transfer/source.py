"""Where one stream reads from: a granted snapshot, or the staging blob that stands in for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from vsa.azure.connection import AzureConnection
from vsa.azure.disks import VHD_FOOTER
from vsa.azure.grants import Access, GrantedAccess, Grants, renewing
from vsa.azure.page_ranges import (
    ChangedRange,
    allocated_ranges,
    blob_changes,
    content_length,
    managed_changes,
)
from vsa.azure.reader import RangeReader
from vsa.errors import AzureNotFound, AzureRefused, DiffRefused, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.model import DiskKind, Reason, SnapshotRef
from vsa.ranges import ByteRange, total
from vsa.rate import UNLIMITED, Rate
from vsa.secret import Secret
from vsa.stop import Stop, again
from vsa.transfer.reads import ReadPlan

T = TypeVar("T")


class NoChangeList(VsaError):
    """No change list leads from the base to this snapshot; `reason` says why."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def _of_base(base: SnapshotRef) -> Iterator[None]:
    """What keeps access to the base from being had keeps its change list away, and nothing else."""
    try:
        yield
    except AzureNotFound as error:
        message = f"base {base.moment or base.id} is gone: {error}"
        raise NoChangeList(Reason.CRC_BASE_GONE, message) from error
    except AzureRefused as error:
        raise NoChangeList(Reason.CRC_DIFF_REFUSED, f"{error.code}: {error}") from error


@dataclass(frozen=True)
class _BaseAccess:
    """Access to the base, which others may revoke or delete while its change list is asked for."""

    base: SnapshotRef
    access: GrantedAccess

    @property
    def url(self) -> Secret:
        return self.access.url

    def worked(self, url: Secret) -> None:
        self.access.worked(url)

    def renew(self, stale: Secret) -> None:
        with _of_base(self.base):
            self.access.renew(stale)


class Planned(NamedTuple):
    """What to read, and the number of bytes in the ranges that it was made from."""

    reads: ReadPlan
    listed: int


@dataclass(frozen=True)
class SnapshotSource:
    """One granted snapshot: its lists come from the snapshot, its bytes from `contents`.

    A list of ranges may be long, so it is turned into a plan as it comes and never held. When an answer
    breaks off, it is asked for from the start and the plan is made anew.
    """

    connection: AzureConnection
    grants: Grants
    snapshot: SnapshotRef
    extent_size: int
    lists: GrantedAccess
    contents: Access
    stop: Stop
    rate: Rate = UNLIMITED

    def reader(self) -> RangeReader:
        """A reader for one thread."""
        return RangeReader(
            self.contents,
            tls=self.connection.tls_context,
            stop=self.stop,
            budget_of=self.connection.blob_budget,
            rate=self.rate,
        )

    def allocated_bytes(self) -> int:
        """How much Azure says is allocated."""
        return self._asking(lambda url: total(self._allocated(url)), self.lists)

    def plan_allocated(self) -> Planned:
        """Read everything that Azure says is allocated."""
        return self._asking(lambda url: self._reading(self._allocated(url)), self.lists)

    def plan_whole(self) -> Planned:
        """Read every byte, whatever Azure says of it."""
        return self._reading([ByteRange(0, self.snapshot.size)])

    def plan_changes(self, base: SnapshotRef) -> Planned:
        """Read what changed since the base; all pages of the answer. Raises NoChangeList with its reason."""
        with ExitStack() as stack:
            ask = self._change_list(base, stack)
            try:
                return ask()
            except DiffRefused as error:
                raise NoChangeList(Reason.CRC_DIFF_REFUSED, f"{error.code}: {error}") from error

    def _change_list(self, base: SnapshotRef, stack: ExitStack) -> Callable[[], Planned]:
        """How to ask; the base of a managed disk is granted for as long as the stack is open."""
        size = self.snapshot.size
        if base.kind is not DiskKind.MANAGED:
            list_blob = partial(blob_changes, self.connection, base_moment=str(base.moment), disk_size=size)
            return lambda: self._asking(lambda url: self._changing(list_blob(url)), self.lists)
        with _of_base(base):
            older = _BaseAccess(base, stack.enter_context(self.grants.base(base)))
            reached(FaultPoint.BASE_GRANTED)
        return lambda: self._asking(
            lambda url, base_url: self._changing(managed_changes(self.connection, url, base_url, size)),
            self.lists,
            older,
        )

    def _allocated(self, url: Secret) -> Iterable[ByteRange]:
        return allocated_ranges(self.connection, url, self.snapshot.size)

    def _reading(self, ranges: Iterable[ByteRange]) -> Planned:
        plan, listed = ReadPlan(self.snapshot.size, self.extent_size), 0
        for item in ranges:
            plan.read(item)
            listed += item.length
        return Planned(plan, listed)

    def _changing(self, changes: Iterable[ChangedRange]) -> Planned:
        plan, listed = ReadPlan(self.snapshot.size, self.extent_size), 0
        for change in changes:
            (plan.clear if change.cleared else plan.read)(change.range)
            listed += change.range.length
        plan.finish()
        return Planned(plan, listed)

    def require_size(self) -> None:
        """Refuse a snapshot whose bytes are not as many as its description says, with or without a footer."""
        found = self._asking(lambda url: content_length(self.connection, url), self.contents)
        expected = self.snapshot.size
        if found not in (expected, expected + VHD_FOOTER):
            raise AzureRefused(
                f"snapshot {self.snapshot.id} holds {found} bytes, expected {expected} "
                f"or with its VHD footer {expected + VHD_FOOTER}",
                code="SizeMismatch",
            )

    def _asking(self, ask: Callable[..., T], *accesses: Access) -> T:
        """Ask from the start, all pages, until one answer was whole under one access."""
        return again(lambda: renewing(ask, *accesses), stop=self.stop)


def open_source(
    connection: AzureConnection,
    grants: Grants,
    snapshot: SnapshotRef,
    *,
    staging: str | None,
    extent_size: int,
    stop: Stop,
    rate: Rate = UNLIMITED,
) -> SnapshotSource:
    """Ask for access to the snapshot, and to its staging blob if it has one; its bytes are read at `rate`.

    The access outlives the stream: it ends when the run is released, after the commit.
    """
    lists = grants.snapshot(snapshot)
    contents = grants.blob(staging) if staging else lists
    source = SnapshotSource(connection, grants, snapshot, extent_size, lists, contents, stop, rate)
    source.require_size()
    return source
