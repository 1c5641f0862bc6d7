"""Serves images as Azure serves snapshots of page blobs, as fast as Python can: by `sendfile` or from a map.

    python -m bench.snapshot_server FOLDER [--tls CERTIFICATE KEY]

FOLDER holds `NAME.img`, and for versions of one `NAME.json` with the byte ranges that were changed. Known are
Get Blob with a range, Get Blob Properties, and Get Page Ranges with and without a previous snapshot, as the
SDK asks for them. Nothing is checked: no signature, no version. Prints its port once it listens; ends with
its standard input.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

_HEAD = (
    "Last-Modified: Mon, 02 Mar 2026 00:00:00 GMT\r\n"
    'ETag: "1"\r\n'
    "x-ms-blob-type: PageBlob\r\n"
    "x-ms-version: 2021-12-02\r\n"
)
_RANGES_PER_ANSWER = 10_000


@dataclass(frozen=True)
class Served:
    """One image: its file, its map, its bytes that are allocated, and those that differ from its base."""

    file: int
    size: int
    data: memoryview
    allocated: list[tuple[int, int]]
    changed: list[tuple[int, int]]

    @classmethod
    def opened(cls, path: Path) -> Served:
        file = os.open(path, os.O_RDONLY)
        size = os.fstat(file).st_size
        beside = path.with_suffix(".json")
        changed = json.loads(beside.read_text()) if beside.exists() else []
        data = memoryview(mmap.mmap(file, size, access=mmap.ACCESS_READ))
        return cls(file, size, data, list(allocated_ranges(file)), changed)


def allocated_ranges(file: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of a sparse file that are no holes."""
    position = 0
    while True:
        try:
            start = os.lseek(file, position, os.SEEK_DATA)
        except OSError:
            return
        position = os.lseek(file, start, os.SEEK_HOLE)
        yield start, position


def answer(connection: socket.socket, images: dict[str, Served]) -> None:
    """Answer requests until the other side goes away."""
    requests = connection.makefile("rb")
    while line := requests.readline():
        method, target, _ = line.decode().split(" ", 2)
        headers = {}
        while (header := requests.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode().partition(":")
            headers[name.strip().lower()] = value.strip()
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        image = images[parts.path.rsplit("/", 1)[-1]]
        if method == "HEAD":
            connection.sendall(f"HTTP/1.1 200 OK\r\n{_HEAD}Content-Length: {image.size}\r\n\r\n".encode())
        elif query.get("comp") == ["pagelist"]:
            _send_list(connection, image, query)
        else:
            found = re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("x-ms-range") or headers["range"])
            assert found, headers
            _send_range(connection, image, int(found[1]), int(found[2]) + 1)


def _send_range(connection: socket.socket, image: Served, offset: int, end: int) -> None:
    head = (
        f"HTTP/1.1 206 Partial Content\r\n{_HEAD}Content-Length: {end - offset}\r\n"
        f"Content-Range: bytes {offset}-{end - 1}/{image.size}\r\n\r\n"
    )
    if isinstance(connection, ssl.SSLSocket):
        connection.sendall(head.encode())
        connection.sendall(image.data[offset:end])
        return
    connection.send(head.encode(), socket.MSG_MORE)
    while offset < end:
        offset += os.sendfile(connection.fileno(), image.file, offset, end - offset)


def _send_list(connection: socket.socket, image: Served, query: dict[str, list[str]]) -> None:
    ranges = image.changed if "prevsnapshot" in query else image.allocated
    start = int(query.get("marker", ["0"])[0])
    end = start + _RANGES_PER_ANSWER
    listed = "".join(
        f"<PageRange><Start>{offset}</Start><End>{stop - 1}</End></PageRange>"
        for offset, stop in ranges[start:end]
    )
    marker = f"<NextMarker>{end}</NextMarker>" if end < len(ranges) else "<NextMarker/>"
    body = f'<?xml version="1.0" encoding="utf-8"?><PageList>{listed}{marker}</PageList>'.encode()
    head = f"HTTP/1.1 200 OK\r\n{_HEAD}Content-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


def _serve(connection: socket.socket, tls: ssl.SSLContext | None, images: dict[str, Served]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        with tls.wrap_socket(connection, server_side=True) if tls else connection as wrapped:
            answer(wrapped, images)
    except (OSError, ssl.SSLError):
        pass  # The client has gone.


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tls", nargs=2, metavar=("CERTIFICATE", "KEY"))
    options = parser.parse_args()
    images = {path.stem: Served.opened(path) for path in options.folder.glob("*.img")}
    tls = None
    if options.tls:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*options.tls)
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, tls, images), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
