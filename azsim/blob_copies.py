"""Copy Blob and Abort Copy Blob, and Put Page From URL, which finds its source in the same way.

A copy of a page blob stays pending for a stated number of Get Blob Properties. Until it succeeds its
destination holds zeros, so that a caller who does not wait reads wrong bytes.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from azsim.blob_auth import Need, authorize_sas
from azsim.blob_call import Answer, Call, Span, check_conditions, check_sequence_number, md5
from azsim.blob_content import Readable, StoredContent
from azsim.blob_disks import DiskAccesses, is_disk_account
from azsim.blob_errors import BlobError, bad_header
from azsim.blob_model import PAGE_BLOB, Blob, Copy
from azsim.blob_state import BlobState
from azsim.blob_writes import LARGEST_PUT_PAGE, changed, replaceable, store_blob, writable
from azsim.pages import PAGE

T = TypeVar("T")
_SOURCE_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass(frozen=True)
class Copies:
    """Copy operations; `disks` because a managed disk's SAS URL may be the source."""

    state: BlobState
    disks: DiskAccesses

    def copy_blob(self, call: Call) -> Answer:
        before = replaceable(self.state, call)
        source = self._source(call)
        account = self.state.account(call.account)
        if not account.supports(source.blob.type):
            raise BlobError("BlobTypeNotSupported")
        # REST "Using blob service operations with premium storage": only there snapshots forbid it.
        if before and account.is_premium and self.state.snapshots(before):
            raise BlobError("SnapshotsPresent")
        polls = self.state.settings.copy_pending_polls if source.blob.type == PAGE_BLOB else 0
        pending = self._start(call, before, source, polls)
        copied = pending if polls else self._finish(pending)
        assert copied.copy
        headers = {"x-ms-copy-id": copied.copy.id, "x-ms-copy-status": copied.copy.status}
        return Answer(202, changed(copied) | headers)

    def abort_copy(self, call: Call) -> Answer:
        """Stop a pending copy; its destination is left with no bytes."""
        blob = self.state.find(call.account, call.container, call.name)
        if blob is None:
            raise BlobError("BlobNotFound")
        if call.headers.get("x-ms-copy-action", "").lower() != "abort":
            raise bad_header("x-ms-copy-action", call.headers.get("x-ms-copy-action"))
        if blob.copy is None or blob.copy.held is None:
            raise BlobError("NoPendingCopyOperation")
        if call.query.get("copyid") != blob.copy.id:
            raise BlobError("CopyIdMismatch")
        self.state.pages.reset(blob.ref, 0)
        stopped = dataclasses.replace(
            blob.copy, status="aborted", held=None, completed_at=self.state.ticker.next()
        )
        self.state.touch(dataclasses.replace(blob, length=0, copy=stopped))
        self.state.pages.delete(blob.copy.held)
        return Answer(204)

    def poll(self, blob: Blob) -> Blob:
        """Move a pending copy one step on, as the time between two polls would."""
        copy = blob.copy
        if copy is None or copy.status != "pending":
            return blob
        if copy.polls_left <= 0:
            return self._finish(blob)
        steps = self.state.settings.copy_pending_polls + 1
        done = blob.length * max(0, steps - copy.polls_left) // steps
        copy = dataclasses.replace(copy, polls_left=copy.polls_left - 1, progress=f"{done}/{blob.length}")
        moved = dataclasses.replace(blob, copy=copy)
        self.state.put(moved)
        return moved

    def put_page_from_url(self, call: Call) -> Answer:
        blob = writable(self.state, call)
        if blob.type != PAGE_BLOB:
            raise BlobError("InvalidBlobType")
        check_sequence_number(call, blob)
        source, target = self._source(call), call.span()
        found = _SOURCE_RANGE.fullmatch(call.headers.get("x-ms-source-range", ""))
        if found is None or target is None:
            raise bad_header("x-ms-source-range", call.headers.get("x-ms-source-range"))
        span = Span(int(found[1]), int(found[2]) + 1)
        if span.length != target.length or span.length > LARGEST_PUT_PAGE or span.end > source.blob.length:
            raise BlobError("InvalidRange")
        if target.start % PAGE or target.end % PAGE or target.end > blob.length:
            raise BlobError("InvalidPageRange")
        content = source.content.read(span.start, span.length)
        self.state.pages.write(blob.ref, target.start, content)
        blob = self.state.touch(blob)
        number = {"x-ms-blob-sequence-number": str(blob.sequence_number)}
        return Answer(201, changed(blob) | number | {"content-md5": md5(content)})

    def _start(self, call: Call, before: Blob | None, source: Readable, polls: int) -> Blob:
        """A destination full of zeros, with the source's content held until the copy is done."""
        held = self._hold(source)
        blob = store_blob(self.state, call, before, source.blob.type, source.blob.length)
        started = dataclasses.replace(
            blob,
            headers=source.blob.headers,
            metadata=call.metadata() or source.blob.metadata,
            tier_changed_at=blob.modified_at if blob.tier else None,
            copy=Copy(
                id=str(uuid.UUID(bytes=self.state.random_bytes(16), version=4)),
                source=_without_signature(call.headers["x-ms-copy-source"]),
                status="pending",
                progress=f"0/{blob.length}",
                polls_left=polls,
                held=held,
            ),
        )
        self.state.put(started)
        return started

    def _hold(self, source: Readable) -> str:
        """The source's bytes as an image of its own, which outlives a source that is deleted meanwhile."""
        pages = self.state.pages
        held = pages.copy(source.blob.ref)
        if (missing := source.blob.length - pages.size(held)) > 0 and source.account is None:
            data_size = pages.size(held)
            pages.resize(held, source.blob.length)
            pages.write(held, data_size, source.content.read(data_size, missing))
        return held

    def _finish(self, blob: Blob) -> Blob:
        assert blob.copy and blob.copy.held
        held = blob.copy.held
        self.state.pages.overwrite(blob.ref, held)
        done = dataclasses.replace(
            blob.copy,
            status="success",
            progress=f"{blob.length}/{blob.length}",
            completed_at=self.state.ticker.next(),
            held=None,
        )
        finished = self.state.touch(dataclasses.replace(blob, copy=done))
        self.state.pages.delete(held)
        return finished

    def _source(self, call: Call) -> Readable:
        """What x-ms-copy-source names; CannotVerifyCopySource if it is absent or may not be read."""
        url = urlsplit(call.headers.get("x-ms-copy-source", ""))
        if f"{url.scheme}://{url.netloc}" != call.origin:
            raise BlobError(
                "CannotVerifyCopySource", AuthenticationErrorDetail=f"no such host {url.netloc!r}"
            )
        account, _, rest = unquote(url.path).lstrip("/").partition("/")
        container, _, name = rest.partition("/")
        source_call = dataclasses.replace(
            call,
            method="GET",
            raw_path=url.path,
            raw_query=url.query,
            account=account,
            container=container,
            name=name,
        )
        if is_disk_account(account):
            access = _as_source(lambda: self.disks.find(url.path, url.query))
            return Readable(access.as_blob(), access.content(self.state.pages), None)
        return self._stored_source(call, source_call)

    def _stored_source(self, call: Call, source: Call) -> Readable:
        account = _as_source(lambda: self.state.account(source.account))
        if "sig" in source.query:
            now = self.state.clock.now()
            _as_source(lambda: authorize_sas(source, account, Need("r", "o"), now))
        elif source.account != call.account or call.letters is not None:
            raise BlobError("CannotVerifyCopySource", 403, AuthenticationErrorDetail="the source has no SAS")
        snapshot = source.query.get("snapshot")
        blob = _as_source(lambda: self.state.find(source.account, source.container, source.name, snapshot))
        if blob is None:
            raise BlobError("CannotVerifyCopySource")
        if blob.is_pending:
            raise BlobError("PendingCopyOperation")
        check_conditions(call, blob, prefix="x-ms-source-")
        return Readable(blob, StoredContent(self.state.pages, blob.ref), account)


def _as_source(find: Callable[[], T]) -> T:
    """Run a look-up whose refusal concerns the copy's source, not its destination."""
    try:
        return find()
    except BlobError as refusal:
        raise BlobError("CannotVerifyCopySource", refusal.status, **refusal.details) from refusal


def _without_signature(url: str) -> str:
    # Azure shows the source of a copy without its SAS; the snapshot's time stays.
    parts = urlsplit(url)
    kept = [part for part in parts.query.split("&") if part.startswith("snapshot=")]
    return parts._replace(query="&".join(kept)).geturl()
