"""What is read cheaply is read as http.client would have read it, and what is odd is left to that."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa.azure import range_answers
from vsa.azure.range_answers import RangeConnection

PLAIN = b"HTTP/1.1 206 Partial Content\r\n"
HEADERS = ("Content-Length", "content-range", "Retry-After", "x-ms-error-code")


class Answered(http.client.HTTPConnection):
    """A connection whose other side has said all that it will ever say."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("a-host", timeout=5)
        self._answer = answer
        self.asked = b""

    def connect(self) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(5)
        theirs.sendall(self._answer)
        theirs.shutdown(socket.SHUT_WR)
        self.sock = ours
        self.theirs = theirs

    def close(self) -> None:
        super().close()
        if hasattr(self, "theirs"):
            self.asked = self.asked or self.theirs.recv(65536)
            self.theirs.close()


@dataclass(frozen=True)
class Read:
    """What a client makes of an answer."""

    status: int
    headers: tuple[str | None, ...]
    body: bytes


def body_of(answer: Any) -> bytes:
    found, buffer = bytearray(), memoryview(bytearray(7))
    while count := answer.readinto(buffer):
        found += buffer[:count]
    return bytes(found)


def read_by(ask: Any) -> Read | type[BaseException]:
    try:
        with ask() as answer:
            headers = tuple(answer.getheader(name) for name in HEADERS)
            return Read(answer.status, headers, body_of(answer))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return type(error)


def by_library(answer: bytes) -> Read | type[BaseException]:
    connection = Answered(answer)
    connection.request("GET", "/disk?sig=a%2Bb")
    try:
        return read_by(connection.getresponse)
    finally:
        connection.close()


def by_us(answer: bytes) -> tuple[Read | type[BaseException], bool]:
    connection = RangeConnection(Answered(answer))
    try:
        return read_by(lambda: connection.get("/disk?sig=a%2Bb", {})), connection.is_used_up
    finally:
        connection.close()


ODD = {
    "chunked": PLAIN + b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
    "chunked, and a length": PLAIN
    + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
    "the connection ends": PLAIN + b"Content-Length: 4\r\nConnection: close\r\n\r\nfour",
    "no length": PLAIN + b"Content-Range: bytes 0-3/4\r\n\r\nfour",
    "two lengths": PLAIN + b"Content-Length: 4\r\nContent-Length: 3\r\n\r\nfour",
    "two ranges": PLAIN + b"Content-Length: 4\r\nContent-Range: a\r\nContent-Range: b\r\n\r\nfour",
    "a length that is none": PLAIN + b"Content-Length: +4\r\n\r\nfour",
    "a negative length": PLAIN + b"Content-Length: -4\r\n\r\nfour",
    "a folded line": PLAIN + b"Content-Length: 4\r\nContent-Range: a\r\n b\r\n\r\nfour",
    "a space before the colon": PLAIN + b"Content-Length : 4\r\n\r\nfour",
    "a line without a colon": PLAIN + b"Content-Length: 4\r\nnothing\r\n\r\nfour",
    "an older version": b"HTTP/1.0 206 Partial Content\r\nContent-Length: 4\r\n\r\nfour",
    "an informational answer first": b"HTTP/1.1 100 Continue\r\n\r\n"
    + PLAIN
    + b"Content-Length: 4\r\n\r\nfour",
    "another status": b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfour",
    "a refusal": b"HTTP/1.1 503 No\r\nContent-Length: 4\r\nRetry-After: 7\r\nx-ms-error-code: X\r\n\r\nbusy",
    "lines that end in LF alone": PLAIN + b"Content-Length: 4\n\nfour",
    "too many lines": PLAIN + b"a: b\r\n" * 101 + b"Content-Length: 4\r\n\r\nfour",
    "a line too long": PLAIN + b"a: " + b"b" * 65536 + b"\r\nContent-Length: 4\r\n\r\nfour",
    "cut in its head": PLAIN + b"Content-Length: 4\r\nContent-Ra",
    "nothing": b"",
    "no HTTP": b"\x16\x03\x01 nothing of the sort\r\n\r\n",
    "a length of three digits' script": PLAIN + "Content-Length: ٤\r\n\r\nfour".encode(),
}
USUAL = {
    "as Azure has it": PLAIN + b"Content-Length: 4\r\nContent-Range: bytes 0-3/9\r\nServer: X\r\n\r\nfour",
    "names in any case": PLAIN + b"CONTENT-LENGTH: 4\r\ncOntent-range:bytes 0-3/9 \r\n\r\nfour",
    "said to go on": PLAIN + b"Content-Length: 4\r\nConnection: Keep-Alive\r\n\r\nfour",
    "a field twice that decides nothing": (
        PLAIN + b"Content-Length: 4\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\nfour"
    ),
    "empty": PLAIN + b"Content-Length: 0\r\n\r\n",
    "cut in its body": PLAIN + b"Content-Length: 9\r\n\r\nfour",
    "more behind it": PLAIN + b"Content-Length: 4\r\n\r\nfourHTTP/1.1 206 and so on",
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_read_by_the_library_as_ever(name: str) -> None:
    found, used_up = by_us(ODD[name])
    assert found == by_library(ODD[name])
    assert used_up


@pytest.mark.parametrize("name", USUAL)
def test_what_is_usual_is_read_as_the_library_would(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = by_library(USUAL[name])
    monkeypatch.delattr(http.client, "HTTPResponse")
    assert by_us(USUAL[name]) == (expected, False)


LINES = st.sampled_from(
    [
        *(
            b"Content-Length: 4",
            b"content-length:4",
            b"Content-Length: 0",
            b"Content-Length: 12",
            b"Content-Length:",
        ),
        *(b"Content-Range: bytes 0-3/4", b"Retry-After: 1", b"Connection: close", b"Connection: keep-alive"),
        *(
            b"Transfer-Encoding: chunked",
            b" folded",
            b"\tfolded",
            b"nothing",
            b": no name",
            b"a: b",
            b"a : b",
        ),
    ]
)
STATUSES = st.sampled_from(
    [PLAIN, PLAIN, PLAIN, b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 206\r\n", b"HTTP/1.0 206 a\r\n"]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])


@settings(max_examples=1000, deadline=None)
@given(
    STATUSES,
    st.lists(st.tuples(LINES, ENDS), max_size=5),
    ENDS,
    st.sampled_from([b"four", b"", b"4\r\nfour\r\n0\r\n\r\n"]),
)
def test_nothing_is_read_otherwise_than_by_the_library(
    status: bytes, lines: list[tuple[bytes, bytes]], end: bytes, body: bytes
) -> None:
    answer = status + b"".join(line + ended for line, ended in lines) + end + body
    found, _ = by_us(answer)
    assert found == by_library(answer)


def test_many_answers_come_over_one_connection() -> None:
    answers = b"".join(
        PLAIN + b"Content-Length: %d\r\n\r\n" % size + b"x" * size for size in (0, 1, 70_000, 3)
    )
    connection = RangeConnection(Answered(answers))
    for size in (0, 1, 70_000, 3):
        buffer = memoryview(bytearray(size + 5))
        with connection.get("/disk", {}) as answer:
            assert answer.readinto(buffer) == size
            assert (answer.read(1), bytes(buffer)) == (b"", b"x" * size + bytes(5))
    connection.close()


def test_a_request_says_what_it_is_told_and_whose_host_it_is() -> None:
    connection = Answered(PLAIN + b"Content-Length: 0\r\n\r\n")
    ranges = RangeConnection(connection)
    ranges.get("/disk?sig=a%2Bb", {"x-ms-range": "bytes=0-511"})
    ranges.close()
    assert connection.asked == (
        b"GET /disk?sig=a%2Bb HTTP/1.1\r\nHost: a-host\r\n"
        b"Accept-Encoding: identity\r\nx-ms-range: bytes=0-511\r\n\r\n"
    )


@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/ä", "/a\x7f", "/a\0"])
def test_no_target_makes_lines_of_its_own(target: str) -> None:
    connection = RangeConnection(Answered(b""))
    with pytest.raises(http.client.InvalidURL) as raised:
        connection.get(target, {})
    assert target not in str(raised.value)
    connection.close()


@pytest.mark.parametrize(
    ("address", "named"),
    [("h", "h"), ("h:80", "h"), ("h:8080", "h:8080"), ("[::1]:80", "[::1]"), ("[::1]:8080", "[::1]:8080")],
)
def test_a_host_is_named_as_the_library_names_it(address: str, named: str) -> None:
    assert RangeConnection(http.client.HTTPConnection(address))._host == named


def test_the_bounds_are_those_of_the_library() -> None:
    assert range_answers._LONGEST_LINE == http.client._MAXLINE  # type: ignore[attr-defined]
    assert range_answers._MOST_LINES == http.client._MAXHEADERS  # type: ignore[attr-defined]
