"""One request to the blob service as its operations see it, and the answer they give."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import operator
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote

from azsim.blob_errors import BlobError, bad_header, bad_query
from azsim.blob_model import Blob
from azsim.blob_time import from_ticks, parse_http_date

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_CONTENT_HEADERS = {
    "x-ms-blob-content-type": "content-type",
    "x-ms-blob-content-encoding": "content-encoding",
    "x-ms-blob-content-language": "content-language",
    "x-ms-blob-content-md5": "content-md5",
    "x-ms-blob-cache-control": "cache-control",
    "x-ms-blob-content-disposition": "content-disposition",
}
_SEQUENCE_CONDITIONS = {"le": operator.le, "lt": operator.lt, "eq": operator.eq}
_CLAMPED = 1 << 62


class Span(NamedTuple):
    """Bytes [start, end) that a request asks for; `end` may lie beyond the blob."""

    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True)
class Answer:
    """Status, headers and body; a long body comes as `pieces`, read while it is sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: Iterator[bytes] | None = None
    bytes_per_second: float | None = None
    throttle_key: str = ""


@dataclass(frozen=True)
class Call:
    """A request, its path split; `container` and `name` are empty above their level.

    `letters` are the permissions of a SAS, None when the whole account is open to the caller.
    """

    method: str
    origin: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str]
    body: bytes
    account: str
    container: str = ""
    name: str = ""
    letters: str | None = None

    @functools.cached_property
    def query(self) -> dict[str, str]:
        return parse_query(self.raw_query)

    @property
    def version(self) -> str:
        """The service version asked for; a bare SAS URL brings its own."""
        return self.headers.get("x-ms-version") or self.query.get("sv") or "2021-12-02"

    def allowing(self, letters: str | None) -> Call:
        return dataclasses.replace(self, letters=letters)

    def may_overwrite(self) -> bool:
        return self.letters is None or "w" in self.letters

    def number(self, header: str, default: int | None = None) -> int:
        """A header that is a whole number, not negative."""
        text = self.headers.get(header)
        if text is None and default is not None:
            return default
        if text is None or not text.isascii() or not text.isdigit():
            raise bad_header(header, text)
        return int(text)

    def query_number(self, name: str, default: int) -> int:
        """A query parameter that is a positive whole number."""
        text = self.query.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.lstrip("-").isdigit():
            raise bad_query(name, text)
        if int(text) <= 0:
            raise BlobError(
                "OutOfRangeQueryParameterValue", QueryParameterName=name, QueryParameterValue=text
            )
        return int(text)

    def span(self) -> Span | None:
        """The range asked for: x-ms-range wins over Range; a malformed one is ignored, as HTTP says."""
        text = self.headers.get("x-ms-range") or self.headers.get("range")
        found = _RANGE.fullmatch(text.strip()) if text else None
        if found is None:
            return None
        end = int(found[2]) + 1 if found[2] else _CLAMPED
        return Span(int(found[1]), end) if end > int(found[1]) else None

    def metadata(self) -> dict[str, str]:
        prefix = "x-ms-meta-"
        return {k[len(prefix) :]: v for k, v in self.headers.items() if k.startswith(prefix)}

    def content_headers(self) -> dict[str, str]:
        """The blob's own content headers that this request sets."""
        return {own: self.headers[name] for name, own in _CONTENT_HEADERS.items() if name in self.headers}


def parse_query(raw: str) -> dict[str, str]:
    """Names in lower case, values decoded; `+` stays a plus, as signatures carry it."""
    pairs = (part.partition("=") for part in raw.split("&") if part)
    return {unquote(name).lower(): unquote(value) for name, _, value in pairs}


def md5(data: bytes) -> str:
    """The base64 digest that Content-MD5 carries."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def check_md5(call: Call) -> None:
    """Refuse a body that does not have the digest its sender computed."""
    expected = call.headers.get("content-md5")
    if expected is not None and expected != md5(call.body):
        raise BlobError("Md5Mismatch", UserSpecifiedMd5=expected, ServerCalculatedMd5=md5(call.body))


def check_conditions(call: Call, blob: Blob | None, *, prefix: str = "", reading: bool = False) -> None:
    """Raise 412 ConditionNotMet, or 304 for a read of what the caller has already.

    `prefix` is "x-ms-source-" for the conditions on a copy's source. Blob is None when absent.
    """
    not_modified = 304 if reading else 412
    if not _etag_matches(call.headers.get(f"{prefix}if-match"), blob, default=True):
        raise BlobError("ConditionNotMet")
    if _etag_matches(call.headers.get(f"{prefix}if-none-match"), blob, default=False):
        if blob and call.headers[f"{prefix}if-none-match"].strip() == "*" and not reading:
            raise BlobError("BlobAlreadyExists")
        raise BlobError("ConditionNotMet", not_modified)
    if blob is None:
        return
    modified_at = from_ticks(blob.modified_at).replace(microsecond=0)
    since, until = (call.headers.get(f"{prefix}if-{way}-since") for way in ("modified", "unmodified"))
    if since and modified_at <= parse_http_date(since):
        raise BlobError("ConditionNotMet", not_modified)
    if until and modified_at > parse_http_date(until):
        raise BlobError("ConditionNotMet")


def _etag_matches(wanted: str | None, blob: Blob | None, *, default: bool) -> bool:
    if wanted is None:
        return default
    if blob is None:
        return False
    etags = [part.strip().strip('"') for part in wanted.split(",")]
    return "*" in etags or blob.etag in etags


def check_sequence_number(call: Call, blob: Blob) -> None:
    """The three conditions of Put Page on the blob's sequence number."""
    for name, holds in _SEQUENCE_CONDITIONS.items():
        header = f"x-ms-if-sequence-number-{name}"
        if header in call.headers and not holds(blob.sequence_number, call.number(header)):
            raise BlobError("SequenceNumberConditionNotMet")


def check_lease(call: Call, blob: Blob, now: int) -> None:
    """A change of a leased blob must name the lease; naming one that is gone is refused too."""
    given, leased = call.headers.get("x-ms-lease-id"), blob.lease_state(now) == "leased"
    if leased and given is None:
        raise BlobError("LeaseIdMissing")
    if given is None:
        return
    if not leased or blob.lease is None:
        raise BlobError("LeaseNotPresentWithBlobOperation")
    if given.lower() != blob.lease.id:
        raise BlobError("LeaseIdMismatchWithBlobOperation")
