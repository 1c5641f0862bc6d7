"""A PostgreSQL of a test's own, by the programs of a Debian package or whatever is on the PATH."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.flows.prefect_server import wait_for

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

    Its files lie outside of pytest's folders, which only our own user may enter.
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
            wait_for("PostgreSQL", lambda: _listens(port), seconds=60)
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


def _listens(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0
