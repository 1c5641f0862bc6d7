"""Where one stream reads from: a granted snapshot, or the staging blob that stands in for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from vsa.azure.connection import AzureConnection
from vsa.azure.disks import VHD_FOOTER
from vsa.azure.grants import Access, GrantedAccess, Grants
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
        return again(
            lambda: list(allocated_ranges(self.connection, self.lists.url, self.snapshot.size)),
            stop=self.stop,
        )

    def changes(self, base: SnapshotRef) -> list[ChangedRange]:
        """What changed since the base; all pages of the answer. The base is granted only while asking.

        Raises DiffRefused when Azure will not compare, AzureNotFound when the base is gone.
        """
        if base.kind is not DiskKind.MANAGED:
            return again(
                lambda: list(
                    blob_changes(self.connection, self.lists.url, str(base.moment), self.snapshot.size)
                ),
                stop=self.stop,
            )
        with self.grants.reading(base) as older:
            return again(
                lambda: list(managed_changes(self.connection, self.lists.url, older.url, self.snapshot.size)),
                stop=self.stop,
            )

    def require_size(self) -> None:
        """Refuse a snapshot whose bytes are not as many as its description says, with or without a footer."""
        found = again(lambda: content_length(self.connection, self.contents.url), stop=self.stop)
        expected = self.snapshot.size
        if found not in (expected, expected + VHD_FOOTER):
            raise AzureRefused(
                f"snapshot {self.snapshot.id} holds {found} bytes, expected {expected} "
                f"or with its VHD footer {expected + VHD_FOOTER}",
                code="SizeMismatch",
            )


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
