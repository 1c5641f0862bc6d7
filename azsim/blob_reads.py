"""Get Blob, Get Blob Properties and Get Page Ranges: the same for stored blobs and managed disks."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator

from azsim import blob_xml
from azsim.blob_call import Answer, Call, Span, check_conditions, md5
from azsim.blob_content import Content, Readable
from azsim.blob_errors import BlobError, bad_header, bad_query
from azsim.blob_model import BLOCK_BLOB, PAGE_BLOB, Account, Blob, BlobSettings
from azsim.blob_time import http_date
from azsim.pages import Range

LARGEST_HASHED_RANGE = 4 * 1024 * 1024
_PIECE = 4 * 1024 * 1024
_SLOW_PIECE = 256 * 1024
_FIRST_VERSION_WITH_MARKERS = "2020-10-02"


def get_properties(call: Call, readable: Readable, now: int) -> Answer:
    blob, account = readable.blob, readable.account
    check_conditions(call, blob, reading=True)
    headers = _blob_headers(blob, account, now) | _tier_headers(blob, account)
    if "content-md5" in blob.headers:
        headers["content-md5"] = blob.headers["content-md5"]
    return Answer(200, headers | {"content-length": str(blob.length)})


def get_blob(call: Call, readable: Readable, now: int, settings: BlobSettings) -> Answer:
    """The whole blob or one range; a snapshot in a premium account is read slowly."""
    blob, account, content = readable.blob, readable.account, readable.content
    check_conditions(call, blob, reading=True)
    asked = call.span()
    if asked and asked.start >= blob.length:
        raise BlobError("InvalidRange")
    span = Span(asked.start, min(asked.end, blob.length)) if asked else Span(0, blob.length)
    headers = _blob_headers(blob, account, now) | {"content-length": str(span.length)}
    if asked:
        headers["content-range"] = f"bytes {span.start}-{span.end - 1}/{blob.length}"
    if "content-md5" in blob.headers:
        headers["x-ms-blob-content-md5" if asked else "content-md5"] = blob.headers["content-md5"]
    status = 206 if asked else 200
    if _wants_hash(call, asked and span):
        body = content.read(span.start, span.length)
        return Answer(status, headers | {"content-md5": md5(body)}, body)
    if account and account.is_premium and blob.snapshot:
        pieces = _pieces(content, span, _SLOW_PIECE)
        rate = settings.premium_snapshot_bytes_per_second
        return Answer(status, headers, pieces=pieces, bytes_per_second=rate, throttle_key=blob.ref)
    if span.length <= _PIECE:
        return Answer(status, headers, content.read(span.start, span.length))
    return Answer(status, headers, pieces=_pieces(content, span, _PIECE))


def page_ranges(call: Call, blob: Blob, ranges: Iterator[Range], limit: int) -> Answer:
    """One answer of Get Page Ranges: at most `limit` ranges, then a marker for the rest.

    Service versions that know no marker answer with all ranges at once.
    """
    check_conditions(call, blob, reading=True)
    headers = _change_headers(blob) | {
        "content-type": "application/xml",
        "x-ms-blob-content-length": str(blob.length),
    }
    if call.version < _FIRST_VERSION_WITH_MARKERS:
        return Answer(200, headers, blob_xml.page_list(ranges, None))
    count = min(call.query_number("maxresults", limit), limit)
    listed = list(itertools.islice(ranges, count))
    following = next(ranges, None)
    marker = base64.urlsafe_b64encode(str(following.start).encode()).decode() if following else None
    return Answer(200, headers, blob_xml.page_list(listed, marker))


def pages_asked(call: Call, blob: Blob) -> Span:
    """The part of the blob whose page ranges are asked for, from the marker on."""
    if blob.type != PAGE_BLOB:
        raise BlobError("InvalidBlobType")
    span = call.span() or Span(0, blob.length)
    if blob.length and span.start >= blob.length:
        raise BlobError("InvalidRange")
    start = max(span.start, _position(call.query.get("marker", "")))
    return Span(start, min(span.end, blob.length))


def _position(marker: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(marker)) if marker else 0
    except ValueError:
        raise bad_query("marker", marker) from None


def _wants_hash(call: Call, span: Span | None) -> bool:
    """Whether the range's MD5 is asked for, which is allowed up to 4 MiB."""
    asked = call.headers.get("x-ms-range-get-content-md5", "").lower() == "true"
    if asked and (span is None or span.length > LARGEST_HASHED_RANGE):
        raise bad_header("x-ms-range-get-content-md5", "true")
    return asked


def _pieces(content: Content, span: Span, size: int) -> Iterator[bytes]:
    for start in range(span.start, span.end, size):
        yield content.read(start, min(size, span.end - start))


def _change_headers(blob: Blob) -> dict[str, str]:
    return {"etag": f'"{blob.etag}"', "last-modified": http_date(blob.modified_at)}


def _blob_headers(blob: Blob, account: Account | None, now: int) -> dict[str, str]:
    """What Get Blob and Get Blob Properties both say."""
    headers = _change_headers(blob) | {
        "accept-ranges": "bytes",
        "x-ms-blob-type": blob.type,
        "x-ms-creation-time": http_date(blob.created_at),
        "x-ms-server-encrypted": "true",
    }
    headers |= {name: value for name, value in blob.headers.items() if name != "content-md5"}
    headers |= {f"x-ms-meta-{name}": value for name, value in blob.metadata.items()}
    if blob.type == PAGE_BLOB:
        headers["x-ms-blob-sequence-number"] = str(blob.sequence_number)
    if account and not account.is_premium:
        headers["x-ms-tag-count"] = "0"
    return headers | (_snapshot_headers(blob) or _lease_headers(blob, now)) | _copy_headers(blob)


def _snapshot_headers(blob: Blob) -> dict[str, str]:
    return {"x-ms-snapshot": blob.snapshot} if blob.snapshot else {}


def _lease_headers(blob: Blob, now: int) -> dict[str, str]:
    state = blob.lease_state(now)
    headers = {"x-ms-lease-state": state, "x-ms-lease-status": "unlocked"}
    if state == "leased" and blob.lease:
        kind = "infinite" if blob.lease.expires_at is None else "fixed"
        headers |= {"x-ms-lease-status": "locked", "x-ms-lease-duration": kind}
    return headers


def _copy_headers(blob: Blob) -> dict[str, str]:
    if blob.copy is None:
        return {}
    headers = {
        "x-ms-copy-id": blob.copy.id,
        "x-ms-copy-source": blob.copy.source,
        "x-ms-copy-status": blob.copy.status,
        "x-ms-copy-progress": blob.copy.progress,
    }
    if blob.copy.completed_at is not None:
        headers["x-ms-copy-completion-time"] = http_date(blob.copy.completed_at)
    return headers


def _tier_headers(blob: Blob, account: Account | None) -> dict[str, str]:
    if blob.snapshot or account is None:
        return {}
    if blob.tier is None:
        inferred = {"x-ms-access-tier": "Hot", "x-ms-access-tier-inferred": "true"}
        return {} if account.is_premium else inferred
    headers = {"x-ms-access-tier": blob.tier}
    if blob.tier_changed_at is not None and blob.type == BLOCK_BLOB:
        headers["x-ms-access-tier-change-time"] = http_date(blob.tier_changed_at)
    return headers
