"""The HTTPS server: assembly, loopback socket, readiness, clean end."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import fcntl
import json
import secrets
import signal
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import IO, Any

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from azsim.arm import Arm
from azsim.blob_model import BlobSettings
from azsim.control_routes import ControlApi
from azsim.fault_actions import ABORT, CLOSE
from azsim.files import kept_secret, write_atomically
from azsim.front import Front
from azsim.simulation import Settings, Simulation, open_simulation
from azsim.tls import TlsFiles, ensure_certificates

HOST = "127.0.0.1"
ENDPOINT_FILE = "endpoint.json"
_KEEP_ALIVE_SECONDS = 120
_SHUTDOWN_SECONDS = 2


class CannotServe(Exception):
    """The server cannot start: the message says what is in the way."""


def serve(
    folder: Path,
    settings: Settings,
    blob_settings: BlobSettings,
    *,
    port: int = 0,
    ready: Callable[[dict[str, str]], None],
) -> None:
    """Serve the simulation kept in `folder` until SIGTERM or SIGINT.

    `port` 0 means the port of the last time, since VHD addresses and SAS URLs contain it; any free one
    the first time. `ready` is called with the endpoint once requests are answered.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_server_of(folder), _loopback_socket(port or _last_port(folder)) as listener:
        base_url = f"https://{HOST}:{listener.getsockname()[1]}"
        simulation = open_simulation(folder, base_url, settings, blob_settings)
        tls = ensure_certificates(folder, dt.datetime.now(dt.UTC))
        endpoint = _endpoint(simulation, tls)

        def announce() -> None:
            write_atomically(folder / ENDPOINT_FILE, json.dumps(endpoint, indent=2).encode())
            ready(endpoint)

        with contextlib.closing(simulation):
            config = _config(simulation, tls)
            asyncio.run(_Server(config, announce).serve(sockets=[listener]))


def _config(simulation: Simulation, tls: TlsFiles) -> uvicorn.Config:
    return uvicorn.Config(
        assemble(simulation),
        http=_CuttableProtocol,
        ws="none",
        lifespan="off",
        ssl_certfile=tls.certificate,
        ssl_keyfile=str(tls.key),
        log_level="critical",
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )


def assemble(simulation: Simulation) -> Front:
    """All planes behind one front."""
    kinds = (simulation.machines, simulation.disks, simulation.snapshots, simulation.accounts)
    arm = Arm(
        simulation.resources,
        simulation.operations,
        simulation.identity,
        simulation.clock,
        kinds=[kind.kind() for kind in kinds],
        subscription=simulation.subscription,
        base_url=simulation.base_url,
        page_size=simulation.settings.page_size,
        lock=simulation.lock,
        throttling=simulation.throttling,
        settle=simulation.snapshots.settle,
    )
    key = kept_secret(simulation.folder / "control.key", lambda: secrets.token_hex(32))
    control = ControlApi(simulation, key)
    app = Starlette(
        routes=[
            *control.routes(),
            *simulation.identity.routes(),
            *arm.routes(),
            *simulation.vault.routes(),
            *simulation.blobs.routes(),
        ]
    )
    return Front(app, simulation.faults, simulation.log, control.run)


class _Server(uvicorn.Server):
    """uvicorn, which tells when it listens and ends without a signal's exit status."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._announce()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A TLS farewell waits for clients that hold a connection idle and read nothing.
        for connection in list(self.server_state.connections):
            if isinstance(connection, _CuttableProtocol):
                connection.abort_if_idle()
        await super().shutdown(sockets=sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class _CuttableProtocol(HttpToolsProtocol):
    """Lets a fault rule end the connection under a request."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        extensions: dict[str, Any] = {ABORT: self.transport.abort, CLOSE: self.transport.close}
        self.scope["extensions"] = extensions

    def abort_if_idle(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


@contextlib.contextmanager
def _sole_server_of(folder: Path) -> Generator[IO[str], None, None]:
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotServe(
                f"state folder {folder} is in use by another azsim; stop that one or use another folder"
            ) from None
        yield file


def _loopback_socket(port: int) -> socket.socket:
    # asyncio turns off Nagle's algorithm only for sockets that name the protocol; else 40 ms a request.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise CannotServe(
            f"port {port} on {HOST} is taken ({error.strerror}). Addresses kept in the state folder contain"
            " it: free that port, or give another with --port and expect old VHD addresses to fail"
        ) from error
    return listener


def _last_port(folder: Path) -> int:
    """The port that the state folder was served on last; 0 for a new folder."""
    path = folder / ENDPOINT_FILE
    if not path.exists():
        return 0
    return int(json.loads(path.read_text())["base_url"].rsplit(":", 1)[1])


def _endpoint(simulation: Simulation, tls: TlsFiles) -> dict[str, str]:
    principal = simulation.principal
    return {
        "base_url": simulation.base_url,
        "ca_file": str(tls.ca),
        "tenant": principal.tenant,
        "client_id": principal.client_id,
        "client_secret_file": str(principal.secret_file),
        "subscription": principal.subscription,
    }
