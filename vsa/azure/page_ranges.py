"""Azure's page ranges, turned into byte ranges once and for all.

Azure counts the last byte in; a ByteRange does not. Answers hold at most 10,000 ranges and a marker: the
SDK's own `get_page_range_diff_for_managed_disk` and `get_page_ranges` drop the marker and with it changed
data. Its paged list does not, but takes 40 µs of CPU a range, seven times what is taken here; so the SDK's
pipeline carries the requests, and the answers are read here (decision 1).

Source: https://learn.microsoft.com/rest/api/storageservices/get-page-ranges
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import urlencode
from xml.parsers import expat

from azure.core.rest import HttpRequest
from azure.storage.blob import BlobClient

from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors, from_blob_answer
from vsa.azure.wire import SERVICE_VERSION
from vsa.errors import AzureRefused, TryAgainLater
from vsa.ranges import ByteRange
from vsa.secret import Secret
from vsa.stop import wait_here

RANGES_PER_ANSWER = 10_000


class ChangedRange(NamedTuple):
    """Bytes that were written or, when `cleared`, made zeros since the base."""

    range: ByteRange
    cleared: bool


def allocated_ranges(connection: AzureConnection, url: Secret, disk_size: int) -> Iterator[ByteRange]:
    """What is allocated of a snapshot or blob, in order, without the VHD footer."""
    asking = _Asking(connection, url, "list page ranges")
    for changed in asking.ranges(disk_size):
        if not changed.cleared:
            yield changed.range


def managed_changes(
    connection: AzureConnection, url: Secret, base_url: Secret, disk_size: int
) -> Iterator[ChangedRange]:
    """What changed between two snapshots of one family, both under a live grant."""
    asking = _Asking(connection, url, "compare two snapshots")
    return asking.ranges(disk_size, headers={"x-ms-previous-snapshot-url": base_url.reveal()})


def blob_changes(
    connection: AzureConnection, url: Secret, base_moment: str, disk_size: int
) -> Iterator[ChangedRange]:
    """What changed between two snapshots of one unmanaged VHD."""
    asking = _Asking(connection, url, "compare two blob snapshots")
    return asking.ranges(disk_size, query={"prevsnapshot": base_moment})


def content_length(connection: AzureConnection, url: Secret) -> int:
    """Bytes behind a URL, the VHD footer included."""
    client: BlobClient = connection.blob(url.reveal())
    with azure_errors("read the size of a snapshot"):
        size = client.get_blob_properties().size
    return int(size or 0)


class _Asking(NamedTuple):
    """A list of ranges; `action` says in errors what it is for."""

    connection: AzureConnection
    url: Secret
    action: str

    def ranges(
        self, disk_size: int, *, query: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[ChangedRange]:
        """The ranges of all pages, checked for order: an answer we cannot follow is an error."""
        position = 0
        for page in self._pages(query or {}, headers or {}):
            for offset, last, cleared in page:
                end = last + 1
                if offset < position or end <= offset:
                    raise AzureRefused(
                        f"{self.action}: range {offset}-{end} follows one that ended at {position}; "
                        "expected ascending ranges",
                        code="RangesOutOfOrder",
                    )
                position = end
                if offset < disk_size:
                    yield ChangedRange(ByteRange(offset, min(end, disk_size)), cleared)

    def _pages(self, query: dict[str, str], headers: dict[str, str]) -> Iterator[list[tuple[int, int, bool]]]:
        """First and last byte of each range, and whether it was cleared."""
        marker = ""
        while True:
            document = self._answer(query | ({"marker": marker} if marker else {}), headers)
            try:
                page, following = _read(document)
            except (expat.ExpatError, ValueError, LookupError) as error:
                raise TryAgainLater(f"{self.action}: no whole answer from Azure: {error}") from error
            if following and following == marker:
                raise TryAgainLater(f"{self.action}: a page of the list says that it follows itself")
            yield page
            if not following:
                return
            marker = following
            # A long list hears a stop between its pages.
            wait_here(0)

    def _answer(self, query: dict[str, str], headers: dict[str, str]) -> bytes:
        asked = {"comp": "pagelist", "maxresults": str(RANGES_PER_ANSWER)} | query
        url = self.url.reveal()
        # Appended, and not merged by the SDK: a SAS is signed as it is written.
        request = HttpRequest(
            "GET",
            f"{url}{'&' if '?' in url else '?'}{urlencode(asked)}",
            headers={"x-ms-version": SERVICE_VERSION, "Accept": "application/xml"} | headers,
        )
        with azure_errors(self.action):
            answer = self.connection.blob_requests.send_request(request)
            if answer.status_code != 200:
                raise from_blob_answer(
                    self.action,
                    answer.status_code,
                    answer.reason,
                    header=answer.headers.get,
                    body=answer.content,
                    expected="200 and a list",
                )
            return bytes(answer.content)


def _read(document: bytes) -> tuple[list[tuple[int, int, bool]], str]:
    """The ranges of a page in their order, and the next page's marker, empty if it is the last.

    ExpatError, ValueError or LookupError if it is no list of pages.
    """
    page = _Page()
    # A tree of ten thousand ranges would be garbage for Python's collector, which goes through all of Prefect
    # and the SDKs for it: 50 ms.
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = page.refuse
    parser.StartElementHandler = page.begin
    parser.CharacterDataHandler = page.add
    parser.EndElementHandler = page.end
    parser.Parse(document, True)
    return page.ranges, page.marker


_PARTS = {
    "": {"PageList"},
    "PageList": {"PageRange", "ClearRange", "NextMarker"},
    "PageRange": {"Start", "End"},
    "ClearRange": {"Start", "End"},
}
"""What may be in what, by the service's published schema. Of anything else nobody knows what it says of the
disk: it is no list to go by."""
_NUMBER = re.compile("[0-9]+")


class _Page:
    """A PageList as it is being read."""

    def __init__(self) -> None:
        self.marker = ""
        self._written: list[tuple[int, int, bool]] = []
        self._cleared: list[tuple[int, int, bool]] = []
        self._within = [""]
        self._text = ""
        self._found: dict[str, str] = {}

    @property
    def ranges(self) -> list[tuple[int, int, bool]]:
        """Written and cleared ranges come each in their order; whether in one the service does not say."""
        return list(heapq.merge(self._written, self._cleared))

    def refuse(self, *_: object) -> None:
        raise ValueError("a list of ranges declares no document type")

    def begin(self, tag: str, _: dict[str, str]) -> None:
        if tag not in _PARTS.get(self._within[-1], ()):
            raise ValueError(f"expected a PageList, found {tag} in {self._within[-1] or 'its place'}")
        if tag in self._found:
            raise ValueError(f"expected one {tag}, found two")
        self._within.append(tag)
        self._text = ""

    def add(self, text: str) -> None:
        if self._within[-1] in _PARTS and text.strip():
            raise ValueError(f"found text in {self._within[-1]}")
        self._text += text

    def end(self, tag: str) -> None:
        self._within.pop()
        if tag in ("Start", "End"):
            self._found[tag] = self._text
        elif tag == "NextMarker":
            self.marker = self._text
        elif tag != "PageList":
            (self._cleared if tag == "ClearRange" else self._written).append(
                (self._number("Start"), self._number("End"), tag == "ClearRange")
            )

    def _number(self, tag: str) -> int:
        text = self._found.pop(tag).strip()
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"expected {tag} to be a number, found {text!r}")
        return int(text)
