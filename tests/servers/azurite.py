"""Azurite, Microsoft's emulator of Azure Blob Storage: a program of its own, from npm (`make servers`)."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from tests.servers.processes import free_port, serving

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Every Azurite's account and key, the same in its documentation: a key to nothing."""

_PROGRAM = Path(__file__).parent / "node_modules/azurite/dist/src/blob/main.js"
_API_VERSION = "2025-11-05"


def missing() -> str:
    """Why Azurite cannot run here; empty if it can."""
    if shutil.which("node") is None:
        return "needs Azurite: there is no node"
    return "" if _PROGRAM.exists() else "needs Azurite: `make servers` installs it"


@dataclass(frozen=True)
class Azurite:
    origin: str

    @property
    def endpoint(self) -> str:
        return f"{self.origin}/{ACCOUNT}"

    def make_container(self, name: str) -> None:
        with BlobServiceClient(self.endpoint, credential=KEY, api_version=_API_VERSION) as service:
            service.create_container(name)

    def sas(self, container: str, rights: str) -> str:
        """A SAS of the container: r, c, w, d, l as in Azure."""
        return generate_container_sas(
            ACCOUNT,
            container,
            account_key=KEY,
            permission=ContainerSasPermissions.from_string(rights),
            expiry=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1),
        )


@contextmanager
def azurite(folder: Path) -> Iterator[Azurite]:
    """An empty Azurite that keeps its blobs in `folder` while the block runs."""
    port = free_port()
    command = [
        *("node", _PROGRAM, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", folder),
        *("--silent", "--disableTelemetry", "--skipApiVersionCheck"),
    ]
    with serving(command, port=port, log=folder / "azurite.log"):
        yield Azurite(f"http://127.0.0.1:{port}")
