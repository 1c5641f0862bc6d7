"""XML bodies of the blob service, written as the service writes them: BOM, one line, fixed order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape, quoteattr

from azsim.blob_errors import BlobError
from azsim.blob_model import PAGE_BLOB, Account, Blob
from azsim.blob_time import http_date
from azsim.pages import Range

_PROLOGUE = '\ufeff<?xml version="1.0" encoding="utf-8"?>'
_CONTENT_ELEMENTS = {
    "Content-Type": "content-type",
    "Content-Encoding": "content-encoding",
    "Content-Language": "content-language",
    "Content-MD5": "content-md5",
    "Cache-Control": "cache-control",
    "Content-Disposition": "content-disposition",
}


def document(body: str) -> bytes:
    return (_PROLOGUE + body).encode()


def element(name: str, text: object) -> str:
    """One element; empty text makes an empty element, as the service spells it."""
    return f"<{name}>{escape(str(text))}</{name}>" if str(text) else f"<{name} />"


def error(refusal: BlobError, request_id: str, time: str) -> bytes:
    message = f"{refusal.message}\nRequestId:{request_id}\nTime:{time}"
    details = "".join(element(name, text) for name, text in refusal.details.items())
    return document(f"<Error>{element('Code', refusal.code)}{element('Message', message)}{details}</Error>")


def page_list(ranges: Iterable[Range], next_marker: str | None) -> bytes:
    """PageRange and ClearRange in offset order, both ends counted in."""
    listed = []
    for found in ranges:
        name = "ClearRange" if found.cleared else "PageRange"
        listed.append(f"<{name}><Start>{found.start}</Start><End>{found.end - 1}</End></{name}>")
    marker = element("NextMarker", next_marker) if next_marker else ""
    return document(f"<PageList>{''.join(listed)}{marker}</PageList>")


def enumeration(attributes: Mapping[str, str], asked: Mapping[str, str], inner: str, marker: str) -> bytes:
    """A listing: what was asked is repeated before the items, the marker of the next answer follows."""
    named = "".join(f" {name}={quoteattr(value)}" for name, value in attributes.items())
    repeated = "".join(element(name, value) for name, value in asked.items())
    return document(
        f"<EnumerationResults{named}>{repeated}{inner}{element('NextMarker', marker)}</EnumerationResults>"
    )


def blob_item(blob: Blob, account: Account, now: int, *, days_left: int, with_metadata: bool) -> str:
    """One blob or snapshot of a listing."""
    parts = [element("Name", blob.name)]
    if blob.snapshot:
        parts.append(element("Snapshot", blob.snapshot))
    if blob.deleted_at is not None:
        parts.append(element("Deleted", "true"))
    parts.append(f"<Properties>{''.join(_properties(blob, account, now, days_left))}</Properties>")
    if with_metadata:
        listed = "".join(element(name, value) for name, value in blob.metadata.items())
        parts.append(f"<Metadata>{listed}</Metadata>" if listed else "<Metadata />")
    return f"<Blob>{''.join(parts)}</Blob>"


def _properties(blob: Blob, account: Account, now: int, days_left: int) -> Iterable[str]:
    yield element("Creation-Time", http_date(blob.created_at))
    yield element("Last-Modified", http_date(blob.modified_at))
    yield element("Etag", blob.etag)
    yield element("Content-Length", blob.length)
    for name, header in _CONTENT_ELEMENTS.items():
        if name != "Content-MD5" or blob.type != PAGE_BLOB or header in blob.headers:
            yield element(name, blob.headers.get(header, ""))
    if blob.type == PAGE_BLOB:
        yield element("x-ms-blob-sequence-number", blob.sequence_number)
    yield element("BlobType", blob.type)
    if not blob.snapshot:
        yield from _tier(blob, account)
        yield from _lease(blob, now)
    yield from _copy(blob)
    yield element("ServerEncrypted", "true")
    if blob.deleted_at is not None:
        yield element("DeletedTime", http_date(blob.deleted_at))
        yield element("RemainingRetentionDays", days_left)
    yield element("TagCount", 0)


def _tier(blob: Blob, account: Account) -> Iterable[str]:
    if blob.tier:
        yield element("AccessTier", blob.tier)
    elif not account.is_premium:
        yield element("AccessTier", "Hot")
        yield element("AccessTierInferred", "true")


def _lease(blob: Blob, now: int) -> Iterable[str]:
    if blob.deleted_at is not None:
        yield element("LeaseStatus", "")
        return
    state = blob.lease_state(now)
    yield element("LeaseStatus", "locked" if state == "leased" else "unlocked")
    yield element("LeaseState", state)


def _copy(blob: Blob) -> Iterable[str]:
    if blob.copy is None:
        return
    yield element("CopyId", blob.copy.id)
    yield element("CopySource", blob.copy.source)
    yield element("CopyStatus", blob.copy.status)
    yield element("CopyProgress", blob.copy.progress)
    if blob.copy.completed_at is not None:
        yield element("CopyCompletionTime", http_date(blob.copy.completed_at))
