"""What reading ranges costs, by reader: `python -m bench.readers [--rounds 5] [--mib 512] [--folder FOLDER]`.

Four connections read ranges of 4 MiB of an image from `bench.snapshot_server`, plain and over TLS, into
buffers that are used again. Each reading is a process of its own, readers take turns round by round, and what
counts is the reader's CPU time, not the server's. pycurl is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import importlib.util
import json
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.data_path import make_images, serving
from vsa.azure.budget import Budget
from vsa.azure.grants import GrantedAccess
from vsa.azure.reader import RangeReader
from vsa.ranges import MIB, ByteRange
from vsa.secret import Secret
from vsa.stop import Stop

SIZE = 4 * MIB
CONNECTIONS = 4
PATH = "/disks/v1?sv=2021-12-02&sig=a%2Bb"

Read = Callable[[int, memoryview], None]
"""Fills a buffer of SIZE bytes from an offset."""


def ours(origin: str, tls: ssl.SSLContext, ca: str) -> Read:
    """The engine's reader, with all that it checks."""
    budget = Budget("a host")
    access = GrantedAccess(lambda: Secret(origin + PATH), "a snapshot")
    reader = RangeReader(access, tls=tls, stop=Stop(), budget_of=lambda _: budget)
    return lambda offset, buffer: reader.read_into(ByteRange(offset, offset + SIZE), buffer)


def http_client(origin: str, tls: ssl.SSLContext, ca: str) -> Read:
    host = urlsplit(origin).netloc
    secure = origin.startswith("https")
    connection = (
        http.client.HTTPSConnection(host, context=tls) if secure else http.client.HTTPConnection(host)
    )

    def read(offset: int, buffer: memoryview) -> None:
        connection.request("GET", PATH, headers={"x-ms-range": _range(offset)})
        answer, filled = connection.getresponse(), 0
        while filled < SIZE:
            filled += answer.readinto(buffer[filled:])
        answer.read()

    return read


def pycurl(origin: str, tls: ssl.SSLContext, ca: str) -> Read:
    # By name: the type checker has no stubs of what need not be there.
    library = importlib.import_module("pycurl")
    handle: Any = library.Curl()
    for option, value in ((library.URL, origin + PATH), (library.NOSIGNAL, 1), (library.CAINFO, ca)):
        handle.setopt(option, value)
    handle.setopt(library.BUFFERSIZE, 512 * 1024)
    target, filled = memoryview(b""), 0

    def take(data: bytes) -> None:
        nonlocal filled
        target[filled : filled + len(data)] = data
        filled += len(data)

    def read(offset: int, buffer: memoryview) -> None:
        nonlocal target, filled
        target, filled = buffer, 0
        handle.setopt(library.HTTPHEADER, [f"x-ms-range: {_range(offset)}"])
        handle.perform()
        assert filled == SIZE

    handle.setopt(library.WRITEFUNCTION, take)
    return read


def obstore(origin: str, tls: ssl.SSLContext, ca: str) -> Read:
    import obstore as library  # noqa: PLC0415
    from obstore.store import HTTPStore  # noqa: PLC0415

    secure = origin.startswith("https")
    # It takes no CA file; what is not checked costs one handshake less.
    options: Any = {"allow_invalid_certificates": True} if secure else {"allow_http": True}
    store = HTTPStore.from_url(origin + PATH, client_options=options)

    def read(offset: int, buffer: memoryview) -> None:
        buffer[:] = memoryview(library.get_range(store, "", start=offset, length=SIZE))

    return read


READERS = {"ours": ours, "http.client": http_client, "pycurl": pycurl, "obstore": obstore}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=512, help="size of the image, of which all is read")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "readers")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, origin, ca, mib = options.one
        print(json.dumps(_in_threads(name, origin, ca, int(mib))))
        return
    make_images(options.folder / "images", options.mib)
    names = [name for name in READERS if name != "pycurl" or importlib.util.find_spec("pycurl")]
    names += ["curl"] if shutil.which("curl") else []
    found: dict[tuple[str, bool], list[float]] = defaultdict(list)
    ca = str(options.folder / "tls" / "ca.pem")
    with serving(options.folder, [False, True]) as origins:
        for _ in range(options.rounds):
            for secure, origin in origins.items():
                for name in names:
                    seconds = (
                        _curl(origin, ca, options.mib)
                        if name == "curl"
                        else _in_process(name, origin, ca, options.mib)
                    )
                    found[name, secure].append(seconds * 1024 / options.mib)
    print(f"CPU seconds a GiB, {options.rounds} rounds: median (least to most)")
    print("| reader | plain | TLS |\n|---|---|---|")
    for name in names:
        cells = (_told(found[name, secure]) for secure in (False, True))
        print(f"| {name} | {' | '.join(cells)} |")


def _told(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"


def _in_process(name: str, origin: str, ca: str, mib: int) -> float:
    command = [sys.executable, "-m", "bench.readers", "--one", name, origin, ca, str(mib)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return float(json.loads(done.stdout))


def _in_threads(name: str, origin: str, ca: str, mib: int) -> float:
    """CPU seconds of reading the whole image once, connections included."""
    tls = ssl.create_default_context(cafile=ca)
    offsets = iter(range(0, mib * MIB - SIZE + 1, SIZE))
    lock = threading.Lock()

    def work() -> None:
        read, buffer = READERS[name](origin, tls, ca), memoryview(bytearray(SIZE))
        while True:
            with lock:
                offset = next(offsets, None)
            if offset is None:
                return
            read(offset, buffer)

    threads = [threading.Thread(target=work) for _ in range(CONNECTIONS)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _spent(before, resource.getrusage(resource.RUSAGE_SELF))


def _curl(origin: str, ca: str, mib: int) -> float:
    """Four processes, each of which reads its ranges over one connection."""
    offsets = range(0, mib * MIB - SIZE + 1, SIZE)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = []
    for number in range(CONNECTIONS):
        arguments: list[str] = []
        for offset in offsets[number::CONNECTIONS]:
            arguments += ["--next"] if arguments else []
            arguments += ["--silent", "--cacert", ca, "--header", f"x-ms-range: {_range(offset)}"]
            arguments += ["--output", "/dev/null", origin + PATH]
        started.append(subprocess.Popen(["curl", *arguments]))
    for process in started:
        process.wait()
    return _spent(before, resource.getrusage(resource.RUSAGE_CHILDREN))


def _spent(before: resource.struct_rusage, after: resource.struct_rusage) -> float:
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _range(offset: int) -> str:
    return f"bytes={offset}-{offset + SIZE - 1}"


if __name__ == "__main__":
    main()
