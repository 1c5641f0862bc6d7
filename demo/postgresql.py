"""A PostgreSQL of one's own for a while, by the programs of a Debian package or whatever is on the PATH."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_START_SECONDS = 60.0
_USER = "nobody"
"""As whom it runs if we are root, which PostgreSQL refuses to run as."""


def programs() -> Path | None:
    """The folder of the newest PostgreSQL's programs; None if there is none."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def _version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdecimal() else 0


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run a new, empty PostgreSQL on a free port of the loopback address; yields its URL for Prefect.

    Nothing is kept. Its files lie where its own user may enter, which a folder of ours may forbid.
    """
    with tempfile.TemporaryDirectory(prefix="vsa-postgresql-") as home:
        data, word = Path(home) / "data", secrets.token_hex(16)
        password = Path(home) / "password"
        password.write_text(word)
        if os.geteuid() == 0:
            for path in (home, password):
                shutil.chown(path, _USER)
        port = _free_port()
        initialise = [folder / "initdb", "-D", data, "-U", "prefect", "-A", "scram-sha-256", "--no-sync"]
        subprocess.run(_unprivileged([*initialise, f"--pwfile={password}"]), check=True, capture_output=True)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (Path(home) / "log").open("wb") as log:
            server = subprocess.Popen(
                _unprivileged([folder / "postgres", "-D", data, "-p", port, *settings]),
                stdout=log,
                stderr=log,
            )
        try:
            _await(server, port)
            yield f"postgresql+asyncpg://prefect:{word}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)


def _unprivileged(command: Sequence[object]) -> list[str]:
    words = [str(word) for word in command]
    if os.geteuid() != 0:
        return words
    return ["setpriv", f"--reuid={_USER}", "--regid=nogroup", "--clear-groups", *words]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not _listens(port):
        if server.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"PostgreSQL does not listen on port {port} after {_START_SECONDS:.0f} s")
        time.sleep(0.1)


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
