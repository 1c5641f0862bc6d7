"""Where one stream reads from: a granted snapshot, or the staging blob that stands in for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeVar

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
from vsa.errors import AzureRefused
from vsa.model import DiskKind, SnapshotRef
from vsa.ranges import ByteRange
from vsa.stop import Stop, again

T = TypeVar("T")


@dataclass(frozen=True)
class SnapshotSource:
    """One granted snapshot: its lists come from the snapshot, its bytes from `contents`."""

    connection: AzureConnection
    grants: Grants
    snapshot: SnapshotRef
    lists: GrantedAccess
    contents: Access
    stop: Stop

    def reader(self) -> RangeReader:
        """A reader for one thread."""
        return RangeReader(self.contents, tls=self.connection.tls_context, stop=self.stop)

    def allocated(self) -> list[ByteRange]:
        """Everything that Azure says is allocated."""
        return self._asking(
            lambda url: list(allocated_ranges(self.connection, url, self.snapshot.size)), self.lists
        )

    def changes(self, base: SnapshotRef) -> list[ChangedRange]:
        """What changed since the base; all pages of the answer. The base is granted only while asking.

        Raises DiffRefused when Azure will not compare, AzureNotFound when the base is gone.
        """
        size = self.snapshot.size
        if base.kind is not DiskKind.MANAGED:
            return self._asking(
                lambda url: list(blob_changes(self.connection, url, str(base.moment), size)), self.lists
            )
        with self.grants.reading(base) as older:
            return self._asking(
                lambda url, base_url: list(managed_changes(self.connection, url, base_url, size)),
                self.lists,
                older,
            )

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


@contextmanager
def open_source(
    connection: AzureConnection, grants: Grants, snapshot: SnapshotRef, staging: str | None, stop: Stop
) -> Iterator[SnapshotSource]:
    """Grant access to the snapshot, and to its staging blob if it has one, for the length of a block."""
    with ExitStack() as stack:
        lists = stack.enter_context(grants.reading(snapshot))
        contents = stack.enter_context(grants.reading_blob(staging)) if staging else lists
        source = SnapshotSource(connection, grants, snapshot, lists, contents, stop)
        source.require_size()
        yield source
