"""Azure's page ranges, turned into byte ranges once and for all.

Azure counts the last byte in; a ByteRange does not. Answers hold at most 10,000 ranges and a marker: the
SDK's own `get_page_range_diff_for_managed_disk` and `get_page_ranges` drop the marker and with it changed
data, so only the paged listing is used, for both kinds of diff.

Source: https://learn.microsoft.com/rest/api/storageservices/get-page-ranges
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from azure.storage.blob import BlobClient

from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.errors import AzureRefused
from vsa.ranges import ByteRange
from vsa.secret import Secret

RANGES_PER_ANSWER = 10_000


class ChangedRange(NamedTuple):
    """Bytes that were written or, when `cleared`, made zeros since the base."""

    range: ByteRange
    cleared: bool


def allocated_ranges(connection: AzureConnection, url: Secret, disk_size: int) -> Iterator[ByteRange]:
    """What is allocated of a snapshot or blob, in order, without the VHD footer."""
    listed = connection.blob(url.reveal()).list_page_ranges(results_per_page=RANGES_PER_ANSWER)
    for changed in _ranges(listed, disk_size, "list page ranges"):
        if not changed.cleared:
            yield changed.range


def managed_changes(
    connection: AzureConnection, url: Secret, base_url: Secret, disk_size: int
) -> Iterator[ChangedRange]:
    """What changed between two snapshots of one family, both under a live grant.

    The paged listing carries the base's URL in x-ms-previous-snapshot-url; an empty `previous_snapshot`
    selects the diff operation. This way through the SDK is undocumented and held by a test of its own.
    """
    previous: Any = {"snapshot": None}
    listed = connection.blob(url.reveal()).list_page_ranges(
        previous_snapshot=previous,
        prev_snapshot_url=base_url.reveal(),
        results_per_page=RANGES_PER_ANSWER,
    )
    return _ranges(listed, disk_size, "compare two snapshots")


def blob_changes(
    connection: AzureConnection, url: Secret, base_moment: str, disk_size: int
) -> Iterator[ChangedRange]:
    """What changed between two snapshots of one unmanaged VHD."""
    listed = connection.blob(url.reveal()).list_page_ranges(
        previous_snapshot=base_moment, results_per_page=RANGES_PER_ANSWER
    )
    return _ranges(listed, disk_size, "compare two blob snapshots")


def content_length(connection: AzureConnection, url: Secret) -> int:
    """Bytes behind a URL, the VHD footer included."""
    client: BlobClient = connection.blob(url.reveal())
    with azure_errors("read the size of a snapshot"):
        size = client.get_blob_properties().size
    return int(size or 0)


def _ranges(listed: Any, disk_size: int, action: str) -> Iterator[ChangedRange]:
    """Inclusive ranges as they come, checked for order: an answer we cannot follow is an error."""
    position = 0
    with azure_errors(action):
        for page_range in listed:
            offset, end = page_range.start, page_range.end + 1
            if offset < position or end <= offset:
                raise AzureRefused(
                    f"{action}: range {offset}-{end} follows one that ended at {position}; "
                    "expected ascending ranges",
                    code="RangesOutOfOrder",
                )
            position = end
            if offset < disk_size:
                yield ChangedRange(ByteRange(offset, min(end, disk_size)), bool(page_range.cleared))
