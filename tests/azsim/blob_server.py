"""A blob service on its own, served over HTTP on a free port, for tests of it through the real SDK."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient
from starlette.applications import Starlette

from azsim.blob_model import BlobSettings
from azsim.blob_service import BlobService
from azsim.clock import Clock
from azsim.documents import Documents
from azsim.pages import PageStore

ACCOUNT, PREMIUM = "standardacct", "premiumacct"


@dataclass
class BlobServer:
    """A running blob service with a standard and a premium account."""

    service: BlobService
    pages: PageStore
    clock: Clock
    origin: str

    def key(self, account: str = ACCOUNT) -> str:
        return self.service.account_keys(account)[0]

    def client(self, account: str = ACCOUNT, credential: str | None = None) -> BlobServiceClient:
        return BlobServiceClient(
            f"{self.origin}/{account}", credential=credential or self.key(account), retry_total=0
        )

    def has_container(self, name: str = "vhds", account: str = ACCOUNT) -> ContainerClient:
        return self.client(account).create_container(name)

    def has_page_blob(self, size: int, name: str = "disk.vhd", account: str = ACCOUNT) -> BlobClient:
        """An empty page blob in container `vhds`."""
        container = self.client(account).get_container_client("vhds")
        if not container.exists():
            container.create_container()
        blob = container.get_blob_client(name)
        blob.create_page_blob(size)
        return blob

    def url(self, path_and_query: str) -> str:
        return self.origin + path_and_query


@contextlib.contextmanager
def running(folder: Path, settings: BlobSettings | None = None) -> Iterator[BlobServer]:
    """Serve from a state folder; ends the server, keeps the folder."""
    documents = Documents(folder / "documents.db")
    pages = PageStore(folder / "pages", documents)
    clock = Clock(documents)
    service = BlobService(pages, documents, clock, settings=settings)
    with _listening(Starlette(routes=service.routes())) as origin:
        yield BlobServer(service, pages, clock, origin)
    pages.close()
    documents.close()


def with_accounts(server: BlobServer) -> BlobServer:
    server.service.create_account(ACCOUNT, kind="StorageV2", sku="Standard_LRS")
    server.service.create_account(PREMIUM, kind="StorageV2", sku="Premium_LRS")
    return server


@contextlib.contextmanager
def _listening(app: Starlette) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, log_level="warning", date_header=False, server_header=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
