"""A store that seals what is created in it and opens what is read from it.

Above it everything is plaintext: names, sizes, digests and ranges mean what they mean on unsealed media.
Packs pass through, since they are sealed frame by frame; media.json and key documents, since they come first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vsa.errors import MediaDamaged
from vsa.media import layout
from vsa.media.envelope import SealedObject, most_sealed
from vsa.media.sealing import Sealer
from vsa.media.store import Buffer, Store
from vsa.ranges import ByteRange


class SealedStore:
    """Another store, sealed. The errors of `Sealer.open` join what its methods raise."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    @property
    def location(self) -> str:
        return self._store.location

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        """As the store does. Repeated, it stores other bytes that open to the same."""
        if not _passes(name):
            parts = self._sealer.parts(name, parts[0] if len(parts) == 1 else b"".join(parts))
        self._store.create(name, parts)

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        if _passes(name):
            return self._store.read(name, at, limit=limit)
        if at is None:
            return self._read_whole(name, limit)
        opened = self._opened(name)
        if at.end > opened.size:
            raise MediaDamaged(f"{name} has {opened.size} bytes, expected {at.end} or more")
        return opened.read(at)

    def size(self, name: str) -> int:
        """Bytes of the plaintext, proven."""
        return self._store.size(name) if _passes(name) else self._opened(name).size

    def delete(self, name: str) -> None:
        self._store.delete(name)

    def prepare_for_writing(self) -> None:
        self._store.prepare_for_writing()

    def folders(self, prefix: str) -> Iterator[str]:
        return self._store.folders(prefix)

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return self._store.names(prefix, after=after)

    def _read_whole(self, name: str, limit: int | None) -> bytes:
        """In one request: a log is read entry by entry, and places far away answer each in their own time."""
        data = self._store.read(name, limit=None if limit is None else most_sealed(limit))
        plaintext = self._sealer.open(name, data)
        if limit is not None and len(plaintext) > limit:
            raise MediaDamaged(f"{name} has {len(plaintext)} bytes, expected at most {limit}")
        return plaintext

    def _opened(self, name: str) -> SealedObject:
        def read(at: ByteRange) -> bytes:
            return self._store.read(name, at)

        return self._sealer.opened(name, self._store.size(name), read)


def _passes(name: str) -> bool:
    return name == layout.MEDIA or name.startswith(layout.KEYS) or layout.is_pack(name)
