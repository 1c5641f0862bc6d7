"""A real HTTP server on this machine that answers, one request after another, as a test wrote down."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from vsa.azure.connection import AzureConnection
from vsa.secret import Secret
from vsa.stop import Stop

SIGNATURE = "c2lnbmF0dXJlLXRoYXQtbXVzdC1ub3QtYmUtc2Vlbg%3D%3D"
"""Of every URL in these tests; whoever finds it in an error has found a leak."""

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass(frozen=True)
class Request:
    """What the server was asked; `port` is the client's, one for each connection."""

    target: str
    headers: dict[str, str]
    port: int


@dataclass
class Loopback:
    """The server: requests take `answers` in turn, and `otherwise` when they are used up."""

    otherwise: Answer
    origin: str = ""
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def url(self, blob: str = "disk") -> Secret:
        return Secret(f"{self.origin}/account/container/{blob}?sv=2021-12-02&sig={SIGNATURE}")

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        with self._lock:
            self.requests.append(Request(handler.path, headers, handler.client_address[1]))
            answer = self.answers.pop(0) if self.answers else self.otherwise
        answer(handler)

    @property
    def connections(self) -> int:
        return len({request.port for request in self.requests})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    loopback: Loopback

    def do_GET(self) -> None:
        self.loopback.answer(self)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Silent: what was asked is in `Loopback.requests`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """Silent: a client that goes away in the middle is what many of these tests are about."""


@contextmanager
def serving(otherwise: Answer, *, tls: ssl.SSLContext | None = None) -> Iterator[Loopback]:
    """Serve on a free port for the length of a block, by `tls` if it is given."""
    loopback = Loopback(otherwise)
    handler = type("Handler", (_Handler,), {"loopback": loopback})
    with _Server(("127.0.0.1", 0), handler) as server:
        if tls:
            # Each connection's own thread shakes hands: one that stalls keeps no other waiting.
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        loopback.origin = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield loopback
        finally:
            server.shutdown()
            thread.join()


class Unhurried(Stop):
    """Waits no time, and keeps how long it was asked to."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.check()


def anonymous() -> AzureConnection:
    """A connection for requests that carry their right in their URL."""
    return AzureConnection(subscription_id="11111111-2222-3333-4444-555555555555")


def send(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes) -> None:
    """A whole answer; its Content-Length is the body's unless the headers say otherwise."""
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **headers}.items():
        handler.send_header(name, value)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def refusing(status: int, code: str = "", *, in_body: bool = False, **headers: str) -> Answer:
    """An error as the blob service writes it: its code is in a header, and in the body too."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if code and not in_body:
        named["x-ms-error-code"] = code
    body = f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code><Message>No.</Message></Error>'

    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, status, {"Content-Type": "application/xml", **named}, body.encode())

    return answer


def xml(body: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        send(handler, 200, {"Content-Type": "application/xml"}, body.encode())

    return answer


def cut(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection instead of answering."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()


def asked_range(handler: BaseHTTPRequestHandler) -> tuple[int, int]:
    """The half-open range that a request for bytes names."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers["x-ms-range"])
    assert found is not None
    return int(found[1]), int(found[2]) + 1
