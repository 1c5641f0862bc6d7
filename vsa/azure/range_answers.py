"""GETs over one connection whose answers are read cheaply if they are plain: 206, of a stated length.

http.client has every answer's head parsed as that of an e-mail: a quarter of the CPU time of a small read, of
which an incremental backup makes thousands (docs/performance.md). What is plain is read here; any other
answer, refusals and all that is odd, http.client reads from its first byte, as it would have.

Source: RFC 9112, sections 4 to 6
"""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

_LONGEST_LINE = 65536
"""Bytes, as in http.client, which is also who complains."""
_MOST_LINES = 100
_PLAIN = b"HTTP/1.1 206 "
_UNPRINTABLE = re.compile(r"[^ -~]")
_NAME = re.compile(rb"[!#-'*+.^_`|~0-9a-z-]+")
_DECISIVE = frozenset({b"content-length", b"content-range", b"connection", b"transfer-encoding"})
"""What decides how a body is read: an answer that says one of these twice is not plain."""


class Answer(Protocol):
    """What http.client.HTTPResponse has of it too."""

    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    def getheader(self, name: str) -> str | None: ...
    def readinto(self, buffer: memoryview) -> int: ...
    def read(self, amount: int) -> bytes: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RangeConnection:
    """Not thread-safe. After an error, or an answer that is left half read, it is to be closed."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self._received: io.BufferedReader | None = None
        self.is_used_up = False
        """Whether the last answer was the last that can be read of it."""

    def get(self, target: str, headers: Mapping[str, str]) -> Answer:
        """Ask for a target (path and query). OSError or http.client.HTTPException if no answer comes."""
        request = _request(target, {"Host": self._host, "Accept-Encoding": "identity", **headers})
        if self._received is None:
            self._connection.connect()
            self._received = self._connection.sock.makefile("rb")
        self._connection.sock.sendall(request)
        head, fields = _head(self._received)
        if fields is not None:
            return _PlainAnswer(fields, self._received)
        self.is_used_up = True
        read_anew: Any = _ReadAnew(head, self._received)
        answer = http.client.HTTPResponse(read_anew, method="GET")
        answer.begin()
        return answer

    @property
    def _host(self) -> str:
        host, port = self._connection.host, self._connection.port
        host = f"[{host}]" if ":" in host else host
        return host if port == self._connection.default_port else f"{host}:{port}"

    def close(self) -> None:
        if self._received is not None:
            self._received.close()
        self._connection.close()


def _request(target: str, headers: Mapping[str, str]) -> bytes:
    """InvalidURL if something would end a line: what follows would be a header, or a request, of its own."""
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    if " " in target or _UNPRINTABLE.search("".join(lines)):
        raise http.client.InvalidURL("the URL, or a header, has characters that no request may have")
    return "\r\n".join([*lines, "", ""]).encode("ascii")


def _head(received: io.BufferedReader) -> tuple[bytes, dict[bytes, bytes] | None]:
    """An answer's head as it came, and its fields by names in lower case if it is plain."""
    lines = [received.readline(_LONGEST_LINE + 1)]
    plain, fields = lines[0].startswith(_PLAIN), dict[bytes, bytes]()
    while plain and len(lines) <= _MOST_LINES:
        line = received.readline(_LONGEST_LINE + 1)
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines), fields if _has_length_alone(fields) else None
        name, colon, value = line.partition(b":")
        name = name.lower()
        again = name in _DECISIVE and name in fields
        plain = bool(colon) and _NAME.fullmatch(name) is not None and line.endswith(b"\n") and not again
        value = value.lstrip(b" \t").rstrip(b"\r\n")
        fields[name] = fields[name] + b", " + value if name in fields else value
    return b"".join(lines), None


def _has_length_alone(fields: Mapping[bytes, bytes]) -> bool:
    """Whether the body is as long as it says, and the connection goes on behind it."""
    return (
        fields.get(b"content-length", b"").isdigit()
        and b"transfer-encoding" not in fields
        and fields.get(b"connection", b"keep-alive").lower() == b"keep-alive"
    )


class _PlainAnswer:
    """206 and so many bytes."""

    status = http.client.PARTIAL_CONTENT
    reason = "Partial Content"

    def __init__(self, fields: Mapping[bytes, bytes], received: io.BufferedReader) -> None:
        self._fields = fields
        self._received = received
        self._left = int(fields[b"content-length"])

    def getheader(self, name: str) -> str | None:
        value = self._fields.get(name.lower().encode("ascii"))
        return None if value is None else value.decode("iso-8859-1")

    def readinto(self, buffer: memoryview) -> int:
        count = self._received.readinto(buffer[: self._left])
        self._left -= count
        return count

    def read(self, amount: int) -> bytes:
        data = self._received.read(min(amount, self._left))
        self._left -= len(data)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """The connection goes on."""


class _ReadAnew(io.RawIOBase):
    """A connection on which an answer's head has yet to come: what http.client takes for a socket."""

    def __init__(self, head: bytes, rest: io.BufferedReader) -> None:
        self._head = io.BytesIO(head)
        self._rest = rest

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._head.readinto(buffer) or self._rest.readinto1(buffer)
