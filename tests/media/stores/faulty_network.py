"""A network that fails on request, between a store and a real server on this machine."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from urllib.parse import urlsplit


class Fault(Enum):
    """What becomes of one request."""

    NONE = auto()
    CUT_REQUEST = auto()
    """The server gets half of it, then the connection breaks."""
    LOSE_ANSWER = auto()
    """The server does what was asked; nobody hears of it."""
    CUT_ANSWER = auto()
    """The client gets half of the answer."""
    BAD_GATEWAY = auto()
    """The server does what was asked; somebody in between says 502 instead."""
    SLOW_DOWN = auto()
    """The service is busy and does nothing: 503 with a wish, as S3 (SlowDown) and Azure Storage (ServerBusy)
    answer who asks too often (their lists of error codes)."""
    TOO_MANY_REQUESTS = auto()
    """The same in the words of other services of the kind: 429."""
    STALL = auto()
    """Nothing comes, and the connection stays."""
    STRIP_CONDITION = auto()
    """The server never sees If-None-Match, as if it did not know it."""


WISH = 1
"""Seconds that a throttled client is told to wait."""

_THROTTLED = {
    Fault.SLOW_DOWN: (b"503 Slow Down", b"SlowDown"),
    Fault.TOO_MANY_REQUESTS: (b"429 Too Many Requests", b"TooManyRequests"),
}

Script = Callable[[str, str], Fault]
"""(method, target) of a request -> its fault."""


class FaultyNetwork:
    """A proxy for plain HTTP/1.1; one request a connection, so that each meets its own fault."""

    def __init__(self, origin: str) -> None:
        url = urlsplit(origin)
        self._server = (url.hostname or "", url.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._over = threading.Event()
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.script: Script = lambda _method, _target: Fault.NONE
        self.requests: list[tuple[str, str]] = []

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def stop(self) -> None:
        self._over.set()
        # accept() in another thread ends by a shutdown, not by a close.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            request = _receive(client)
            if request is None:
                return
            head, body = request
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
            self.requests.append((method, target))
            fault = self.script(method, target)
            if fault in _THROTTLED:
                client.sendall(_refusal(*_THROTTLED[fault], with_body=method != "HEAD"))
                client.shutdown(socket.SHUT_WR)
                return
            self._carry(client, head, body, fault)

    def _carry(self, client: socket.socket, head: bytes, body: bytes, fault: Fault) -> None:
        if fault is Fault.STALL:
            self._over.wait(30)
            return
        with socket.create_connection(self._server) as server:
            if fault is Fault.CUT_REQUEST:
                server.sendall(head + body[: len(body) // 2])
                _reset(server)
                _reset(client)
                return
            server.sendall(_for_one_request(head, strip=fault is Fault.STRIP_CONDITION) + body)
            answer = b"".join(iter(lambda: server.recv(1 << 20), b""))
        if fault is Fault.LOSE_ANSWER:
            _reset(client)
            return
        if fault is Fault.BAD_GATEWAY:
            answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        if fault is Fault.CUT_ANSWER:
            head_end = answer.index(b"\r\n\r\n") + 4
            answer = answer[: head_end + (len(answer) - head_end) // 2]
        client.sendall(answer)
        client.shutdown(socket.SHUT_WR)


def _receive(client: socket.socket) -> tuple[bytes, bytes] | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 16)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
    length = next((int(value) for name, value in lines if name.lower() == b"content-length"), 0)
    pieces = [body]
    missing = length - len(body)
    while missing > 0:
        piece = client.recv(1 << 20)
        if not piece:
            return None
        pieces.append(piece)
        missing -= len(piece)
    return head + b"\r\n\r\n", b"".join(pieces)


def _refusal(status: bytes, code: bytes, *, with_body: bool) -> bytes:
    body = b"<Error><Code>%s</Code><Message>Please reduce your request rate.</Message></Error>" % code
    head = b"HTTP/1.1 %s\r\nRetry-After: %d\r\nContent-Type: application/xml\r\n" % (status, WISH)
    length = b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    return head + length + (body if with_body else b"")


def _for_one_request(head: bytes, *, strip: bool) -> bytes:
    lines = head.rstrip(b"\r\n").split(b"\r\n")
    unwanted = (b"connection:", b"if-none-match:") if strip else (b"connection:",)
    kept = [line for line in lines if not line.lower().startswith(unwanted)]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


def _reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


@contextmanager
def faulty_network(origin: str) -> Iterator[FaultyNetwork]:
    network = FaultyNetwork(origin)
    thread = threading.Thread(target=network.run, daemon=True)
    thread.start()
    try:
        yield network
    finally:
        network.stop()
        thread.join()
