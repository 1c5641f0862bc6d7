"""What the blob service remembers: accounts, containers, blobs and their snapshots."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

PAGE_BLOB = "PageBlob"
BLOCK_BLOB = "BlockBlob"
UNTYPED = {"content-type": "application/octet-stream"}
"""The content headers of a blob that was stored without any."""


@dataclass(frozen=True, slots=True)
class BlobSettings:
    """Limits that a test or a demonstration may lower."""

    snapshots_per_premium_blob: int = 100
    premium_snapshot_interval_seconds: float = 600.0
    premium_snapshot_bytes_per_second: float = 2 * 1024 * 1024
    """Direct reads of a premium account's snapshot, in real time; a staging copy reads at full speed."""
    copy_pending_polls: int = 2
    """How many Get Blob Properties of a page blob's copy answer `pending` before it succeeds."""
    ranges_per_answer: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A storage account; keys are base64, as listKeys shows them."""

    name: str
    kind: str
    sku: str
    keys: list[str]
    retention_days: int | None = None
    """Soft delete of blobs; None when it is off."""
    is_closed: bool = False
    """Its network rules let nobody in."""

    @property
    def is_premium(self) -> bool:
        return self.sku.startswith("Premium")

    def supports(self, blob_type: str) -> bool:
        """A premium account holds page blobs, or block blobs when its kind says so; never both."""
        if not self.is_premium:
            return True
        return (blob_type == BLOCK_BLOB) == (self.kind == "BlockBlobStorage")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """The last Copy Blob into a blob; `held` is the content of a pending one."""

    id: str
    source: str
    status: str
    progress: str
    completed_at: int | None = None
    polls_left: int = 0
    held: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that was acquired; `expires_at` in ticks, None for an infinite one."""

    id: str
    seconds: int
    expires_at: int | None
    broken: bool = False

    def state(self, now: int) -> str:
        if self.broken:
            return "broken"
        return "leased" if self.expires_at is None or now < self.expires_at else "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob, or a snapshot of one. Times are ticks; `ref` names its bytes in the page store."""

    account: str
    container: str
    name: str
    snapshot: str | None = None
    type: str
    ref: str
    length: int
    created_at: int
    modified_at: int
    etag: str
    metadata: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=UNTYPED.copy)
    """Content-Type, Content-MD5 and their like, by header name in lower case."""
    sequence_number: int = 0
    tier: str | None = None
    tier_changed_at: int | None = None
    copy: Copy | None = None
    lease: Lease | None = None
    deleted_at: int | None = None
    snapshotted_at: int | None = None
    """When the last snapshot of it was taken, also if that snapshot is gone."""

    @property
    def key(self) -> str:
        """Orders a listing as Azure does: by name, snapshots oldest first, then the blob itself."""
        return f"{self.account}/{self.container}/{self.name}\n{self.snapshot or '~'}"

    @property
    def is_pending(self) -> bool:
        return self.copy is not None and self.copy.status == "pending"

    def lease_state(self, now: int) -> str:
        return self.lease.state(now) if self.lease else "available"

    def to_document(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_document(cls, body: dict[str, Any]) -> Blob:
        copy, lease = body["copy"], body["lease"]
        nested = {"copy": copy and Copy(**copy), "lease": lease and Lease(**lease)}
        return cls(**{**body, **nested})
