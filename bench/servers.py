"""What serves the disks: azsim for everything, and nginx before it for the bytes, where it is installed.

A request for bytes of a disk says nothing that azsim must think about, and a server of files answers it for a
tenth of the processor time. So nginx answers ranged reads from the image file of the snapshot that is being
backed up, and passes all else on: lists of page ranges and their differences, HEAD, refusals. azsim publishes
nginx's address in the access that it grants.

nginx knows only the `Range` header, and the engine sends `x-ms-range`, which Azure prefers; a module of nginx
(Debian: libnginx-mod-http-headers-more-filter) copies one into the other.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from azsim.control import Control
from bench.meter import children
from demo.ext4 import find_tool
from demo.served import ServedProcess

INSTALL_NGINX = "apt-get install nginx-light libnginx-mod-http-headers-more-filter"
TLS, PLAIN = "tls", "plain"
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_MODULE = "ngx_http_headers_more_filter_module.so"
_MODULE_FOLDERS = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")
_SERVED = "current"

_CONFIGURATION = """\
load_module {module};
user {user};
worker_processes auto;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  output_buffers 2 512k;
  keepalive_requests 10000000;
  keepalive_timeout 600;
  default_type application/octet-stream;
  client_body_temp_path {folder}/bodies;
  proxy_temp_path {folder}/proxied;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  ssl_certificate {certificate};
  ssl_certificate_key {key};
  map "$request_method:$arg_comp" $file {{ "GET:" /{served}; default /none; }}
  map $http_x_ms_range $wanted {{ "" $http_range; default $http_x_ms_range; }}
  upstream azsim {{ server 127.0.0.1:{azsim}; keepalive 8; }}
  server {{
    listen 127.0.0.1:{plain};
    listen 127.0.0.1:{tls} ssl;
    location / {{
      root {folder}/served;
      more_set_input_headers "Range: $wanted";
      try_files $file @azsim;
    }}
    location @azsim {{
      proxy_pass https://azsim;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


def missing_for_nginx() -> str:
    """What keeps nginx from being used, in words; empty if nothing does."""
    if find_tool("nginx") is None:
        return f"nginx is not installed: {INSTALL_NGINX}"
    return "" if _module() else f"nginx lacks {_MODULE}: {INSTALL_NGINX}"


def _module() -> Path | None:
    found = (Path(folder) / _MODULE for folder in _MODULE_FOLDERS)
    return next((path for path in found if path.exists()), None)


@dataclass(frozen=True)
class Servers:
    """The servers while they run. `addresses` are where bytes are read, by transport."""

    control: Control
    addresses: dict[str, str]
    processes: tuple[int, ...]
    """All that serve, for what they take of the processor."""
    served: Path | None
    """Where nginx finds the bytes; None: azsim serves them."""

    @property
    def transports(self) -> tuple[str, ...]:
        return tuple(self.addresses)

    def serve(self, image: Path | None) -> None:
        """Answer reads with the bytes of this file from now on; None: with those that azsim has."""
        if self.served is None:
            return
        self.served.unlink(missing_ok=True)
        if image is not None:
            self.served.symlink_to(image.resolve())

    @classmethod
    @contextmanager
    def running(cls, folder: Path, *, with_nginx: bool) -> Iterator[Self]:
        """Start them on an empty folder; they end with the block."""
        folder = folder.resolve()
        folder.mkdir(parents=True)
        tls, plain = _free_port(), _free_port()
        with ExitStack() as stack:
            address = f"https://127.0.0.1:{tls}" if with_nginx else ""
            azsim = _azsim(folder, address)
            stack.callback(azsim.stop, seconds=_STOP_SECONDS)
            azsim.start().await_ready((folder / "azsim.ready").exists, seconds=_START_SECONDS)
            control = Control(folder / "azure")
            assert azsim.id is not None
            if not with_nginx:
                yield cls(control, {TLS: control.endpoint["base_url"]}, (azsim.id,), None)
                return
            nginx = _nginx(folder, control.endpoint, tls=tls, plain=plain)
            stack.callback(nginx.stop, seconds=_STOP_SECONDS)
            nginx.start().await_ready(lambda: _answers(tls) and _answers(plain), seconds=_START_SECONDS)
            assert nginx.id is not None
            addresses = {TLS: address, PLAIN: f"http://127.0.0.1:{plain}"}
            yield cls(control, addresses, (azsim.id, *children(nginx.id)), folder / "served" / _SERVED)


def _azsim(folder: Path, address: str) -> ServedProcess:
    options = ["--disk-address", address] if address else []
    command = [sys.executable, "-m", "azsim", "serve", "--state", str(folder / "azure"), *options]
    command += ["--ready-file", str(folder / "azsim.ready")]
    return ServedProcess("azsim", command, log=folder / "azsim.log")


def _nginx(folder: Path, endpoint: dict[str, str], *, tls: int, plain: int) -> ServedProcess:
    program = find_tool("nginx")
    assert program is not None
    (folder / "served").mkdir()
    state = Path(endpoint["ca_file"]).parent
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            module=_module(),
            # Started by root, its workers would otherwise be somebody who may not read the images.
            user=pwd.getpwuid(os.getuid()).pw_name,
            folder=folder,
            certificate=state / "server.pem",
            key=state / "server.key",
            served=_SERVED,
            azsim=endpoint["base_url"].rsplit(":", 1)[1],
            tls=tls,
            plain=plain,
        )
    )
    command = [program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    return ServedProcess("nginx", [*command, "-g", "daemon off;"], log=folder / "nginx.log")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def remove(folder: Path) -> None:
    """Everything below a folder, and the folder; nothing if it is not there."""
    shutil.rmtree(folder, ignore_errors=True)
