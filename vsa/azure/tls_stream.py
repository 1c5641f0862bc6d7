"""TLS over a socket, for http.client, with few system calls: it takes no more CPU time than curl does.

`ssl.SSLSocket` lets OpenSSL ask the kernel twice for each record of 16 KiB, and hands out one record for each
call through three layers of Python. Here a large piece of the connection is taken from the kernel at once and
OpenSSL decrypts it record by record straight into the caller's buffer.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Literal

RECEIVED = 256 * 1024
"""Bytes asked of the kernel at a time: 16 records, which stay in a core's second-level cache."""
_DECRYPTING = threading.Lock()
"""One thread at a time decrypts what has arrived for it. OpenSSL gives Python's lock away for each record,
5 µs, and readers that took it from each other kept both cores waiting: they hand on 16 records at once."""
_HEADERS = 16 * 1024
"""Buffer of an answer's head; bodies go past it."""


class TlsConnection(http.client.HTTPConnection):
    """One connection over TLS; the certificate is checked as the context says, against the host's name."""

    default_port = http.client.HTTPS_PORT

    def __init__(self, host: str, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=timeout)
        self._context = context

    def connect(self) -> None:
        super().connect()
        plain: socket.socket = self.sock
        try:
            # Of a socket http.client wants no more than this has.
            stream: Any = TlsStream(plain, self._context, host=self.host)
        except BaseException:
            self.close()
            raise
        self.sock = stream


class TlsStream:
    """A connected socket, encrypted. Not thread-safe; errors are OSErrors, as the socket's own are."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, *, host: str) -> None:
        """Shake hands; ssl.SSLCertVerificationError if the other side is not `host`."""
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._received = memoryview(bytearray(RECEIVED))
        self._answers = 0
        self._closed = False
        self._until_done(self._tls.do_handshake)

    def sendall(self, data: bytes) -> None:
        # The other side may have begun to shake hands anew behind what was read of it.
        self._until_done(lambda: self._tls.write(data))

    def recv_into(self, buffer: memoryview) -> int:
        """Fill the buffer as far as what has arrived goes, waiting for the first byte; 0 at the end.

        An end that TLS does not confirm is an error: somebody else may have cut the connection.
        """
        while True:
            with _DECRYPTING:
                filled, more = self._decrypt(buffer)
            if filled or not more or not buffer:
                return filled
            self._receive()

    def _decrypt(self, buffer: memoryview) -> tuple[int, bool]:
        """How much of the buffer was filled with what has arrived, and whether more may come."""
        filled = 0
        while filled < len(buffer):
            try:
                # Into a buffer, so it is their number; the stubs know of bytes alone.
                count: Any = self._tls.read(len(buffer) - filled, buffer[filled:])
            except ssl.SSLWantReadError:
                return filled, True
            except ssl.SSLZeroReturnError:
                return filled, False
            if not count:
                return filled, False
            filled += count
        return filled, True

    def makefile(self, mode: Literal["rb"]) -> io.BufferedReader:
        """What http.client reads one answer from. Closing it leaves the connection open, unless it was closed
        before: an answer that ends a connection is read after that."""
        self._answers += 1
        return io.BufferedReader(_Answer(self), _HEADERS)

    def close(self) -> None:
        self._closed = True
        self._close_unless_read()

    def answer_closed(self) -> None:
        self._answers -= 1
        self._close_unless_read()

    def _close_unless_read(self) -> None:
        if self._closed and self._answers == 0:
            self._plain.close()

    def _until_done(self, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
                break
            except ssl.SSLWantReadError:
                self._receive()
        self._flush()

    def _receive(self) -> None:
        # What is to be sent first may be what the other side waits for.
        self._flush()
        count = self._plain.recv_into(self._received)
        if count:
            self._incoming.write(self._received[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._plain.sendall(self._outgoing.read())


class _Answer(io.RawIOBase):
    """The readable side of a stream, for one answer."""

    def __init__(self, stream: TlsStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.recv_into(memoryview(buffer))

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._stream.answer_closed()
