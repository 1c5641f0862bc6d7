"""Which operation a request is, what right it needs, and who does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from azsim import blob_containers, blob_leases, blob_reads, blob_snapshots, blob_writes
from azsim.blob_auth import Need
from azsim.blob_call import Answer, Call, Span
from azsim.blob_content import Readable, StoredContent
from azsim.blob_copies import Copies
from azsim.blob_disks import DiskAccess, DiskAccesses, is_disk_account
from azsim.blob_errors import BlobError, bad_header, bad_query
from azsim.blob_model import Blob
from azsim.blob_state import BlobState
from azsim.blob_time import is_snapshot_id
from azsim.pages import GenerationMismatch, NotSameImage, OlderIsNewer, Range

_Run = Callable[[Call], Answer]
_FIRST_VERSION_WITH_MANAGED_DIFF = "2019-07-07"
_PREVIOUS_URL = "x-ms-previous-snapshot-url"


@dataclass(frozen=True, slots=True)
class Operation:
    need: Need
    run: _Run


class Operations:
    """All operations on accounts, containers and blobs, and the few on a managed disk's SAS URL."""

    def __init__(self, state: BlobState, disks: DiskAccesses) -> None:
        self._state = state
        self._disks = disks
        self._copies = Copies(state, disks)
        self._table = self._all()

    def find(self, call: Call) -> Operation:
        """The operation that method, level and `comp` name; 400 or 405 when there is none."""
        level = "blob" if call.name else "container" if call.container else "service"
        comp = call.query.get("comp", "")
        if level == "blob" and call.method == "PUT" and "x-ms-copy-source" in call.headers:
            comp = {"": "copy-source", "page": "page-source"}.get(comp, comp)
        operation = self._table.get((level, call.method, comp))
        if operation is not None:
            return operation
        if any((level, call.method) == key[:2] for key in self._table):
            raise bad_query("comp", comp)
        raise BlobError("UnsupportedHttpVerb")

    def on_disk(self, call: Call) -> Answer:
        """An operation on a managed disk; the right to it is in the URL alone."""
        access = self._disks.find(call.raw_path, call.raw_query)
        readable = Readable(access.as_blob(), access.content(self._state.pages), None)
        comp = call.query.get("comp", "")
        if (call.method, comp) == ("GET", "pagelist"):
            return self._disk_page_ranges(call, access, readable)
        if (call.method, comp) == ("HEAD", ""):
            return blob_reads.get_properties(call, readable, self._state.now())
        if (call.method, comp) == ("GET", ""):
            return blob_reads.get_blob(call, readable, self._state.now(), self._state.settings)
        if (call.method, comp) == ("PUT", "page") and access.write:
            digest = blob_writes.write_pages(self._state.pages, access.ref, access.length, call)
            headers = blob_writes.changed(readable.blob) | {"x-ms-blob-sequence-number": "0"}
            return Answer(201, headers | ({"content-md5": digest} if digest else {}))
        raise BlobError("AuthorizationPermissionMismatch")

    def _all(self) -> dict[tuple[str, str, str], Operation]:
        state, copies = self._state, self._copies

        def on(letters: str, resource: str, act: Callable[[BlobState, Call], Answer]) -> Operation:
            return Operation(Need(letters, resource), lambda call: act(state, call))

        return {
            ("service", "GET", "list"): on("l", "s", blob_containers.list_containers),
            ("service", "GET", "properties"): on("r", "s", blob_containers.get_service_properties),
            ("service", "PUT", "properties"): on("w", "s", blob_containers.set_service_properties),
            ("container", "PUT", ""): on("cw", "c", blob_containers.create_container),
            ("container", "GET", ""): on("r", "c", blob_containers.container_properties),
            ("container", "HEAD", ""): on("r", "c", blob_containers.container_properties),
            ("container", "DELETE", ""): on("d", "c", blob_containers.delete_container),
            ("container", "GET", "list"): on("l", "c", blob_containers.list_blobs),
            ("blob", "GET", ""): Operation(Need("r", "o"), self._get_blob),
            ("blob", "HEAD", ""): Operation(Need("r", "o"), self._get_properties),
            ("blob", "GET", "metadata"): Operation(Need("r", "o"), self._get_properties),
            ("blob", "HEAD", "metadata"): Operation(Need("r", "o"), self._get_properties),
            ("blob", "GET", "pagelist"): Operation(Need("r", "o"), self._page_ranges),
            ("blob", "PUT", ""): on("cw", "o", blob_writes.put_blob),
            ("blob", "PUT", "copy-source"): Operation(Need("cw", "o"), copies.copy_blob),
            ("blob", "PUT", "copy"): Operation(Need("w", "o"), copies.abort_copy),
            ("blob", "PUT", "page"): on("w", "o", blob_writes.put_page),
            ("blob", "PUT", "page-source"): Operation(Need("w", "o"), copies.put_page_from_url),
            ("blob", "PUT", "block"): on("cw", "o", blob_writes.put_block),
            ("blob", "PUT", "blocklist"): on("cw", "o", blob_writes.put_block_list),
            ("blob", "PUT", "metadata"): on("w", "o", blob_writes.set_metadata),
            ("blob", "PUT", "properties"): on("w", "o", blob_writes.set_properties),
            ("blob", "PUT", "tier"): on("w", "o", blob_writes.set_tier),
            ("blob", "PUT", "lease"): on("w", "o", blob_leases.lease_blob),
            ("blob", "PUT", "snapshot"): on("cw", "o", blob_snapshots.snapshot_blob),
            ("blob", "PUT", "undelete"): on("w", "o", blob_snapshots.undelete_blob),
            ("blob", "DELETE", ""): on("d", "o", blob_snapshots.delete_blob),
        }

    def _readable(self, call: Call) -> Readable:
        state, snapshot = self._state, call.query.get("snapshot")
        if snapshot is not None and not is_snapshot_id(snapshot):
            raise bad_query("snapshot", snapshot)
        blob = state.find(call.account, call.container, call.name, snapshot)
        if blob is None:
            raise BlobError("BlobNotFound")
        return Readable(blob, StoredContent(state.pages, blob.ref), state.account(call.account))

    def _get_blob(self, call: Call) -> Answer:
        return blob_reads.get_blob(call, self._readable(call), self._state.now(), self._state.settings)

    def _get_properties(self, call: Call) -> Answer:
        readable = self._readable(call)
        polled = self._copies.poll(readable.blob)
        readable = Readable(polled, readable.content, readable.account)
        return blob_reads.get_properties(call, readable, self._state.now())

    def _page_ranges(self, call: Call) -> Answer:
        readable = self._readable(call)
        if _PREVIOUS_URL in call.headers:
            raise BlobError("UnsupportedHeaderForNonManagedDisksAccount", HeaderName=_PREVIOUS_URL)
        span = blob_reads.pages_asked(call, readable.blob)
        ranges = readable.content.ranges(*span)
        if (previous := call.query.get("prevsnapshot")) is not None:
            ranges = self._diff_since(readable.blob, previous, span)
        limit = self._state.settings.ranges_per_answer
        return blob_reads.page_ranges(call, readable.blob, ranges, limit)

    def _diff_since(self, blob: Blob, previous: str, span: Span) -> Iterator[Range]:
        if not is_snapshot_id(previous):
            raise bad_query("prevsnapshot", previous)
        older = self._state.find(blob.account, blob.container, blob.name, previous)
        if older is None:
            raise BlobError("PreviousSnapshotNotFound")
        try:
            return self._state.pages.diff(older.ref, blob.ref, *span)
        except OlderIsNewer as error:
            raise BlobError("PreviousSnapshotCannotBeNewer") from error
        except (GenerationMismatch, NotSameImage) as error:
            raise BlobError("BlobOverwritten") from error

    def _disk_page_ranges(self, call: Call, access: DiskAccess, readable: Readable) -> Answer:
        if (given := call.query.get("prevsnapshot")) is not None:
            raise bad_query("prevsnapshot", given)
        span = blob_reads.pages_asked(call, readable.blob)
        ranges = readable.content.ranges(*span)
        if (url := call.headers.get(_PREVIOUS_URL)) is not None:
            if call.version < _FIRST_VERSION_WITH_MANAGED_DIFF:
                raise BlobError("UnsupportedHeader", HeaderName=_PREVIOUS_URL)
            ranges = self._disk_diff(access, url, span)
        return blob_reads.page_ranges(call, readable.blob, ranges, self._state.settings.ranges_per_answer)

    def _disk_diff(self, newer: DiskAccess, previous_url: str, span: Span) -> Iterator[Range]:
        """Compare two snapshots by their live SAS URLs; which codes Azure chooses here is not documented."""
        if not is_disk_account(urlsplit(previous_url).path.lstrip("/")):
            raise bad_header(_PREVIOUS_URL, previous_url)
        older = self._disks.find_url(previous_url)
        end = min(span.end, newer.disk_size)
        try:
            ranges = self._state.pages.diff(older.ref, newer.ref, min(span.start, end), end)
        except OlderIsNewer as error:
            raise BlobError("PreviousSnapshotCannotBeNewer") from error
        except (GenerationMismatch, NotSameImage) as error:
            raise BlobError("BlobGenerationMismatch") from error
        if older.group != newer.group:
            raise BlobError("PreviousSnapshotOperationNotSupported")
        return ranges
