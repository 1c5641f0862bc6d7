"""Accounts, containers and blobs as documents; the bytes are in the page store."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from azsim.blob_errors import BlobError
from azsim.blob_model import Account, Blob, BlobSettings
from azsim.blob_time import Ticker, etag, to_ticks
from azsim.clock import Clock
from azsim.documents import Document, Documents
from azsim.pages import PageStore

_ACCOUNTS, _CONTAINERS, _BLOBS = "blob-account", "blob-container", "blob"
_DAY_TICKS = 24 * 3600 * 10**7


@dataclass
class BlobState:
    """Everything durable of the blob service. Its caller holds the service's lock."""

    pages: PageStore
    documents: Documents
    clock: Clock
    ticker: Ticker
    random_bytes: Callable[[int], bytes]
    settings: BlobSettings

    def now(self) -> int:
        """Virtual time in ticks, not unique."""
        return to_ticks(self.clock.now())

    def add_account(self, name: str, kind: str, sku: str) -> None:
        if self.documents.get(_ACCOUNTS, name):
            raise ValueError(f"storage account {name} exists already")
        self.put_account(Account(name=name, kind=kind, sku=sku, keys=[self._new_key(), self._new_key()]))

    def put_account(self, account: Account) -> None:
        self.documents.put(_ACCOUNTS, account.name, dataclasses.asdict(account))

    def account(self, name: str) -> Account:
        body = self.documents.get(_ACCOUNTS, name)
        if body is None:
            raise BlobError("ResourceNotFound", Account=name)
        return Account(**body)

    def replace_key(self, name: str, index: int) -> None:
        account = self.account(name)
        account.keys[index] = self._new_key()
        self.put_account(account)

    def remove_account(self, name: str) -> None:
        for container, _ in list(self.containers(name)):
            self.remove_container(name, container)
        self.documents.delete(_ACCOUNTS, name)

    def add_container(self, account: str, container: str) -> Document:
        """The new container's document: its ETag and its time in ticks."""
        if self.documents.get(_CONTAINERS, f"{account}/{container}"):
            raise BlobError("ContainerAlreadyExists")
        ticks = self.ticker.next()
        body: Document = {"etag": etag(ticks), "modified_at": ticks}
        self.documents.put(_CONTAINERS, f"{account}/{container}", body)
        return body

    def container(self, account: str, container: str) -> Document:
        body = self.documents.get(_CONTAINERS, f"{account}/{container}")
        if body is None:
            raise BlobError("ContainerNotFound")
        return body

    def containers(self, account: str) -> Iterator[tuple[str, Document]]:
        for key, body in self.documents.items(_CONTAINERS, f"{account}/"):
            yield key.partition("/")[2], body

    def remove_container(self, account: str, container: str) -> None:
        self.container(account, container)
        for blob in list(self.blobs(account, container)):
            self.erase(blob)
        self.documents.delete(_CONTAINERS, f"{account}/{container}")

    def blobs(self, account: str, container: str, prefix: str = "") -> Iterator[Blob]:
        """Blobs and snapshots, soft-deleted ones too, in listing order; those past retention are erased."""
        for _, body in self.documents.items(_BLOBS, f"{account}/{container}/{prefix}"):
            blob = Blob.from_document(body)
            if self._is_past_retention(blob):
                self.erase(blob)
            else:
                yield blob

    def find(self, account: str, container: str, name: str, snapshot: str | None = None) -> Blob | None:
        """The blob or snapshot unless it is absent or soft-deleted; 404 when its container is absent."""
        self.container(account, container)
        body = self.documents.get(_BLOBS, f"{account}/{container}/{name}\n{snapshot or '~'}")
        if body is None or body["deleted_at"] is not None:
            return None
        return Blob.from_document(body)

    def family(self, account: str, container: str, name: str) -> list[Blob]:
        """A blob and its snapshots, soft-deleted ones too: snapshots oldest first, then the blob."""
        return [blob for blob in self.blobs(account, container, f"{name}\n") if blob.name == name]

    def snapshots(self, blob: Blob) -> list[Blob]:
        """The live snapshots of a blob, oldest first."""
        family = self.family(blob.account, blob.container, blob.name)
        return [one for one in family if one.snapshot and one.deleted_at is None]

    def put(self, blob: Blob) -> None:
        self.documents.put(_BLOBS, blob.key, blob.to_document())

    def add(self, blob: Blob) -> None:
        """Store a blob in the place of what had its name; a soft-deleted one is erased for good."""
        body = self.documents.get(_BLOBS, blob.key)
        if body is not None and body["ref"] != blob.ref:
            self.erase(Blob.from_document(body))
        self.put(blob)

    def touch(self, blob: Blob) -> Blob:
        """Store a changed blob under a new ETag and time of change."""
        ticks = self.ticker.next()
        touched = dataclasses.replace(blob, etag=etag(ticks), modified_at=ticks)
        self.put(touched)
        return touched

    def erase(self, blob: Blob) -> None:
        """Forget a blob for good, with its bytes and those of a copy still pending into it."""
        self.documents.delete(_BLOBS, blob.key)
        self.pages.delete(blob.ref)
        if blob.copy and blob.copy.held:
            self.pages.delete(blob.copy.held)

    def retention_days_left(self, blob: Blob) -> int:
        """Whole days until a soft-deleted blob is erased."""
        days = self.account(blob.account).retention_days or 0
        return max(0, days - 1 - (self.now() - (blob.deleted_at or 0)) // _DAY_TICKS)

    def _is_past_retention(self, blob: Blob) -> bool:
        if blob.deleted_at is None:
            return False
        days = self.account(blob.account).retention_days
        return days is not None and self.now() - blob.deleted_at >= days * _DAY_TICKS

    def _new_key(self) -> str:
        return base64.b64encode(self.random_bytes(64)).decode()
