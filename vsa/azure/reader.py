"""Ranged reads of a page blob into the caller's buffer, one GET for each, never a short one.

`BlobClient.download_blob` must not be used on page blobs: it asks for the page list behind the caller's
back, stops at the first 10,000 ranges and fills the rest with zeros. Reading a socket into a buffer, over
`TlsStream` where it is encrypted, is also cheaper than any library that was measured (docs/performance.md).

Source: https://learn.microsoft.com/rest/api/storageservices/get-blob
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from vsa.azure.budget import Budget, current_purpose
from vsa.azure.errors import from_blob_answer
from vsa.azure.grants import Access, renewing
from vsa.azure.metered import BLOBS_TOO_OFTEN, tell
from vsa.azure.range_answers import Answer, RangeConnection
from vsa.azure.tls_stream import TlsConnection
from vsa.azure.wire import SERVICE_VERSION
from vsa.errors import TryAgainLater
from vsa.ranges import ByteRange
from vsa.rate import UNLIMITED, Rate
from vsa.redact import public_url
from vsa.secret import Secret
from vsa.stop import Stop, again

TIMEOUT_SECONDS = 60.0
_LONGEST_ERROR_BODY = 16 * 1024


class RangeReader:
    """Reads byte ranges over one connection. Not thread-safe: every reading thread has its own."""

    def __init__(
        self,
        access: Access,
        *,
        tls: ssl.SSLContext,
        stop: Stop,
        budget_of: Callable[[str], Budget],
        rate: Rate = UNLIMITED,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """`budget_of`: the budget that a URL's reads are counted against. `rate`: how fast they may come, who
        else reads at it included. `timeout`: seconds of silence after which a connection counts as lost."""
        self._access = access
        self._tls = tls
        self._stop = stop
        self._budget_of = budget_of
        self._rate = rate
        self._timeout = timeout
        self._connection: RangeConnection | None = None
        self._origin = ("", "")

    def read_into(self, at: ByteRange, buffer: memoryview) -> None:
        """Fill `buffer[:at.length]` with the bytes of the range.

        Throttling, lost connections and short bodies are repeated; an ended grant is renewed and the range
        read again. Raises TryAgainLater when repeating did not help.
        """
        again(
            lambda: renewing(lambda url: self._get(url, at, buffer), self._access),
            stop=self._stop,
        )

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _get(self, url: Secret, at: ByteRange, buffer: memoryview) -> None:
        try:
            self._request(url, at, buffer)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TryAgainLater(f"{_reading(url, at)}: {type(error).__name__}: {error}") from error
        except BaseException:
            # The answer may be half read: the next request must not find its rest.
            self.close()
            raise
        self._access.worked(url)

    def _request(self, url: Secret, at: ByteRange, buffer: memoryview) -> None:
        parts = urlsplit(url.reveal())
        headers = {"x-ms-version": SERVICE_VERSION, "x-ms-range": f"bytes={at.offset}-{at.end - 1}"}
        self._rate.take(at.length, wait=self._stop.wait)
        budget = self._budget_of(url.reveal())
        turn = budget.take(current_purpose(), wait=self._stop.wait)
        connection = self._connected(parts.scheme, parts.netloc)
        with connection.get(f"{parts.path}?{parts.query}", headers) as answer:
            tell(budget, turn, answer.status, answer.getheader("Retry-After"), too_often=BLOBS_TOO_OFTEN)
            if answer.status != 206:
                raise from_blob_answer(
                    _reading(url, at),
                    answer.status,
                    answer.reason,
                    header=answer.getheader,
                    # What is no refusal may be the whole disk.
                    body=answer.read(_LONGEST_ERROR_BODY) if answer.status >= 400 else b"",
                    expected="206 and the range alone",
                )
            _require_range(answer.getheader("Content-Range"), at, _reading(url, at))
            _fill(answer, buffer[: at.length], _reading(url, at))
        if connection.is_used_up:
            self.close()

    def _connected(self, scheme: str, netloc: str) -> RangeConnection:
        """The open connection, or a new one: a renewed grant may live on another host."""
        if self._connection is None or self._origin != (scheme, netloc):
            self.close()
            self._origin = (scheme, netloc)
            self._connection = RangeConnection(
                TlsConnection(netloc, timeout=self._timeout, context=self._tls)
                if scheme == "https"
                else http.client.HTTPConnection(netloc, timeout=self._timeout)
            )
        return self._connection


def _reading(url: Secret, at: ByteRange) -> str:
    return f"read bytes {at.offset}-{at.end} of {public_url(url.reveal())}"


def _fill(answer: Answer, buffer: memoryview, action: str) -> None:
    filled = 0
    while filled < len(buffer):
        count = answer.readinto(buffer[filled:])
        if not count:
            raise TryAgainLater(f"{action}: the body ended after {filled} of {len(buffer)} bytes")
        filled += count
    if answer.read(1):
        raise TryAgainLater(f"{action}: the body is longer than the {len(buffer)} bytes asked for")


def _require_range(content_range: str | None, at: ByteRange, action: str) -> None:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range or "")
    if not found or (int(found[1]), int(found[2])) != (at.offset, at.end - 1):
        raise TryAgainLater(
            f"{action}: the answer is for {content_range!r}, expected bytes {at.offset}-{at.end - 1}"
        )
