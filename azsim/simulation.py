"""The simulated subscription put together: state folder in, one object out."""

from __future__ import annotations

import secrets
import threading
from dataclasses import dataclass
from pathlib import Path

from azsim.access import Access
from azsim.arm_operations import Operations
from azsim.blob_model import BlobSettings
from azsim.blob_service import BlobService
from azsim.clock import Clock
from azsim.disks import Disks
from azsim.documents import Documents
from azsim.faults import Faults
from azsim.files import kept_secret
from azsim.front import RequestLog
from azsim.identity import Identity, Principal, ensure_principal
from azsim.key_vault import KeyVault
from azsim.late import LateEffects
from azsim.pages import PageStore
from azsim.resources import Resources
from azsim.snapshots import Snapshots
from azsim.storage_accounts import StorageAccounts
from azsim.throttling import Throttling
from azsim.virtual_machines import VirtualMachines

TIB = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a test or a demonstration may lower; the defaults are Azure's where Azure states one."""

    page_size: int = 2
    """Resources in one page of a list: small, so that every client meets `nextLink`."""
    poll_count: int = 1
    """How many polls of a long-running operation answer InProgress."""
    diff_boundary: int = 4 * TIB
    """Bytes; no changes are known between snapshots on both sides of it."""
    background_copy_seconds: float = 60.0
    """Virtual time until a snapshot of a Premium SSD v2 or Ultra disk is complete."""
    token_seconds: int = 3600
    """Real time for which a bearer token is good."""
    throttle: float = 0.0
    """What the limits of ARM are multiplied by; 0: it throttles nobody."""
    disk_address: str = ""
    """Where disks and snapshots are read when another server stands before this one; empty: here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Everything that the control plane, the blob service and the control API share.

    `lock` is held while resources change; page data has its own.
    """

    folder: Path
    base_url: str
    settings: Settings
    principal: Principal
    identity: Identity
    documents: Documents
    clock: Clock
    pages: PageStore
    blobs: BlobService
    resources: Resources
    operations: Operations
    late: LateEffects
    access: Access
    disks: Disks
    snapshots: Snapshots
    machines: VirtualMachines
    accounts: StorageAccounts
    vault: KeyVault
    faults: Faults
    log: RequestLog
    throttling: Throttling
    lock: threading.RLock

    @property
    def subscription(self) -> str:
        return self.principal.subscription

    def close(self) -> None:
        self.pages.close()
        self.documents.close()


def open_simulation(
    folder: Path, base_url: str, settings: Settings, blob_settings: BlobSettings
) -> Simulation:
    """The simulation kept in `folder`, as it was left; a new one if the folder is empty."""
    documents = Documents(folder / "documents.sqlite")
    clock = Clock(documents)
    pages = PageStore(folder / "pages", documents)
    principal = ensure_principal(documents, folder)
    identity = Identity(
        principal,
        base_url=base_url,
        signing_key=kept_secret(folder / "token.key", lambda: secrets.token_hex(32)).encode(),
        token_seconds=settings.token_seconds,
    )
    blobs = BlobService(pages, documents, clock, settings=blob_settings, bearer_is_valid=identity.accepts)
    resources = Resources(documents)
    late = LateEffects(documents, clock)
    operations = Operations(documents, clock, late, base_url=base_url, in_progress_polls=settings.poll_count)
    access = Access(resources, blobs, clock, base_url=settings.disk_address or base_url)
    return Simulation(
        folder=folder,
        base_url=base_url,
        settings=settings,
        principal=principal,
        identity=identity,
        documents=documents,
        clock=clock,
        pages=pages,
        blobs=blobs,
        resources=resources,
        operations=operations,
        late=late,
        access=access,
        disks=Disks(
            resources,
            operations,
            pages,
            blobs,
            access=access,
            clock=clock,
            diff_boundary=settings.diff_boundary,
        ),
        snapshots=Snapshots(
            resources,
            operations,
            late,
            pages,
            access=access,
            clock=clock,
            documents=documents,
            background_seconds=settings.background_copy_seconds,
        ),
        machines=VirtualMachines(resources, operations, access, clock),
        accounts=StorageAccounts(resources, blobs, clock, base_url=base_url),
        vault=KeyVault(documents, identity, base_url=base_url),
        faults=Faults(),
        log=RequestLog(),
        throttling=Throttling(clock, settings.throttle),
        lock=threading.RLock(),
    )
