"""Access to managed disks and their snapshots by opaque SAS URLs, as beginGetAccess hands them out.

Such a URL cannot be checked by a signature: the account and container in it are random, and what it
opens, until when, and whether it was revoked is looked up.
"""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from urllib.parse import quote, urlsplit

from azsim.blob_call import parse_query
from azsim.blob_content import Content, FootedContent, StoredContent
from azsim.blob_errors import BlobError
from azsim.blob_model import PAGE_BLOB, Blob
from azsim.blob_time import etag, to_ticks
from azsim.clock import Clock
from azsim.documents import Documents
from azsim.pages import PageStore
from azsim.vhd import FOOTER_BYTES, fixed_footer

_KIND = "disk-access"
_PREFIX = "md-"
_SAS_VERSION = "2018-03-28"
# One footer for every grant of the same disk: reading a disk twice must give the same bytes.
_FOOTER_TIME = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)


def is_disk_account(account: str) -> bool:
    return account.startswith(_PREFIX)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskAccess:
    """One grant. `group` is the snapshot family: only snapshots of one family can be compared."""

    path: str
    signature: str
    ref: str
    disk_size: int
    expires_at: str
    group: str
    write: bool
    opened_at: int
    closed: bool = False

    @property
    def length(self) -> int:
        return self.disk_size + FOOTER_BYTES

    def content(self, pages: PageStore) -> Content:
        if self.write:
            return StoredContent(pages, self.ref)
        footer = fixed_footer(self.disk_size, uuid.uuid5(uuid.NAMESPACE_OID, self.ref), _FOOTER_TIME)
        return FootedContent(pages, self.ref, self.disk_size, footer)

    def as_blob(self) -> Blob:
        """The page blob that the holder of the URL sees."""
        _, account, container, name = self.path.split("/")
        return Blob(
            account=account,
            container=container,
            name=name,
            type=PAGE_BLOB,
            ref=self.ref,
            length=self.length,
            created_at=self.opened_at,
            modified_at=self.opened_at,
            etag=etag(self.opened_at),
        )


class DiskAccesses:
    """The grants of managed disks, open, expired and revoked."""

    def __init__(
        self, pages: PageStore, documents: Documents, clock: Clock, random_bytes: Callable[[int], bytes]
    ) -> None:
        self._pages = pages
        self._documents = documents
        self._clock = clock
        self._random_bytes = random_bytes

    def open(
        self, ref: str, *, disk_size: int, expires_at: dt.datetime, group: str, write: bool = False
    ) -> str:
        """Path and query of a new SAS URL; see `BlobService.open_disk_access`."""
        if write and self._pages.size(ref) != disk_size + FOOTER_BYTES:
            raise ValueError(
                f"image {ref} for an upload of {disk_size} bytes must have {disk_size + FOOTER_BYTES} bytes, "
                f"footer included; it has {self._pages.size(ref)}"
            )
        path = f"/{_PREFIX}{self._random_bytes(6).hex()}/{self._random_bytes(6).hex()}/abcd"
        access = DiskAccess(
            path=path,
            signature=base64.b64encode(self._random_bytes(32)).decode(),
            ref=ref,
            disk_size=disk_size,
            expires_at=expires_at.isoformat(),
            group=group,
            write=write,
            opened_at=to_ticks(self._clock.now()),
        )
        self._documents.put(_KIND, path, asdict(access))
        identifier = uuid.UUID(bytes=self._random_bytes(16), version=4)
        return f"{path}?sv={_SAS_VERSION}&sr=b&si={identifier}&sig={quote(access.signature, safe='')}"

    def close(self, path_and_query: str) -> None:
        """Revoke; a URL that was never handed out or is revoked already is no error."""
        path = urlsplit(path_and_query).path
        if body := self._documents.get(_KIND, path):
            self._documents.put(_KIND, path, {**body, "closed": True})

    def find(self, path: str, raw_query: str) -> DiskAccess:
        """The grant behind a URL; 403 AuthenticationFailed when it is unknown, revoked or expired."""
        body = self._documents.get(_KIND, path)
        if body is None:
            raise _unauthenticated("There is no disk or snapshot behind this URL.")
        access = DiskAccess(**body)
        signature = parse_query(raw_query).get("sig", "")
        if not hmac.compare_digest(signature.encode(), access.signature.encode()):
            raise _unauthenticated("Signature did not match.")
        if access.closed:
            raise _unauthenticated("The shared access signature was revoked.")
        if self._clock.now() >= dt.datetime.fromisoformat(access.expires_at):
            raise _unauthenticated(f"Signature not valid in the specified time frame: {access.expires_at}")
        return access

    def find_url(self, url: str) -> DiskAccess:
        """The grant behind a whole URL, on whatever host it says."""
        parts = urlsplit(url)
        return self.find(parts.path, parts.query)


def _unauthenticated(detail: str) -> BlobError:
    return BlobError("AuthenticationFailed", AuthenticationErrorDetail=detail)
