"""The bytes behind a blob: those of a stored blob, or a managed disk's with its VHD footer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from azsim.blob_model import Account, Blob
from azsim.pages import PageStore, Range


class Content(Protocol):
    """Readable bytes and their allocated pages; offsets are bytes, ends are exclusive."""

    def read(self, offset: int, length: int) -> bytes: ...

    def ranges(self, start: int, end: int) -> Iterator[Range]: ...


@dataclass(frozen=True, slots=True)
class StoredContent:
    """A blob's or snapshot's own pages."""

    pages: PageStore
    ref: str

    def read(self, offset: int, length: int) -> bytes:
        return self.pages.read(self.ref, offset, length)

    def ranges(self, start: int, end: int) -> Iterator[Range]:
        return self.pages.ranges(self.ref, start, end)


@dataclass(frozen=True, slots=True)
class FootedContent:
    """A disk's bytes, then the footer of a fixed VHD."""

    pages: PageStore
    ref: str
    disk_size: int
    footer: bytes

    def read(self, offset: int, length: int) -> bytes:
        end = offset + length
        disk = b""
        if offset < self.disk_size:
            disk = self.pages.read(self.ref, offset, min(end, self.disk_size) - offset)
        return disk + self.footer[max(offset - self.disk_size, 0) : max(end - self.disk_size, 0)]

    def ranges(self, start: int, end: int) -> Iterator[Range]:
        yield from self.pages.ranges(self.ref, start, min(end, self.disk_size))
        if end > self.disk_size:
            yield Range(self.disk_size, self.disk_size + len(self.footer))


@dataclass(frozen=True, slots=True)
class Readable:
    """A blob with its bytes, as a read needs it; `account` is None for a managed disk."""

    blob: Blob
    content: Content
    account: Account | None
