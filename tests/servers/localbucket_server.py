"""localbucket, an S3 server on a folder: If-None-Match is kept by link(2), so that exactly one writer wins.

Run as a program it is localbucket itself with a longer queue of waiting connections: the usual five make
thirty-two writers at once wait for seconds. And it sends an answer's body without waiting until its head is
acknowledged, which clients put off for forty milliseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

from tests.servers.processes import free_port, serving


@dataclass(frozen=True)
class LocalBucket:
    endpoint: str
    folder: Path

    def make_bucket(self, name: str) -> None:
        (self.folder / name).mkdir()


@contextmanager
def localbucket(folder: Path) -> Iterator[LocalBucket]:
    """An S3 server whose buckets are the folders in `folder`, while the block runs."""
    port, data = free_port(), folder / "data"
    command = [sys.executable, "-m", "tests.servers.localbucket_server", data, "--port", str(port)]
    with serving(command, port=port, log=folder / "localbucket.log"):
        yield LocalBucket(f"http://127.0.0.1:{port}", data)


if __name__ == "__main__":
    from localbucket import S3Handler, main

    S3Handler.disable_nagle_algorithm = True
    ThreadingHTTPServer.request_queue_size = 128
    main()
