"""Objects that the log pins by size and digest: nothing of them is used before it is proven."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from vsa.errors import MediaDamaged
from vsa.media.store import Store
from vsa.model import IndexRef, ObjectRef
from vsa.ranges import MIB, ByteRange

FETCHED_WHOLE = 4 * MIB
"""Indexes up to this size are fetched in one request; of larger ones only the parts that are asked for."""
_PIECE = 8 * MIB


def fetch(store: Store, ref: ObjectRef, *, limit: int = FETCHED_WHOLE) -> bytes:
    """The object's bytes; MediaDamaged unless they have exactly the size and digest of `ref`, and are no more
    than `limit`."""
    if ref.size > limit:
        raise MediaDamaged(f"{ref.name} has {ref.size} bytes, at most {limit} were expected")
    _require_size(store, ref)
    data = store.read(ref.name, limit=ref.size)
    if hashlib.sha256(data).hexdigest() != ref.sha256:
        raise MediaDamaged(f"{store.location}: {ref.name} does not have the digest that the log states")
    return data


def require_stored(store: Store, ref: ObjectRef) -> None:
    """Read an object back and compare it with `ref`; MediaDamaged if the store did not keep it."""
    digest = hashlib.sha256()
    for at in pieces(ref.size):
        digest.update(store.read(ref.name, at))
    if store.size(ref.name) != ref.size or digest.hexdigest() != ref.sha256:
        raise MediaDamaged(f"{store.location}: {ref.name} reads back differently from what was stored")


def pieces(size: int) -> Iterator[ByteRange]:
    """The ranges in which a large object is read."""
    return (ByteRange(offset, min(offset + _PIECE, size)) for offset in range(0, size, _PIECE))


class PinnedParts:
    """Random access to an index. Its footer is pinned by the reference, its parts by the footer.

    The constructor fetches and proves the footer, or all of a small index unless `by_parts`: then one bad
    part does not keep the others from being read. MediaDamaged if it is not what the reference says.
    """

    def __init__(self, store: Store, ref: IndexRef, *, by_parts: bool = False) -> None:
        self._store = store
        self._ref = ref
        self._whole: bytes | None = None
        if ref.size <= FETCHED_WHOLE and not by_parts:
            self._whole = fetch(store, ref)
        else:
            _require_size(store, ref)
        self.footer = self._read_footer()

    def part(self, at: ByteRange, sha256: str) -> bytes:
        """The bytes `at` of the index; MediaDamaged unless they have this digest."""
        data = self._read(at)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise MediaDamaged(
                f"{self._store.location}: bytes {at.offset} to {at.end} of {self._ref.name} "
                "do not have the digest that its footer states"
            )
        return data

    def _read_footer(self) -> bytes:
        ref = self._ref
        footer = self._read(ByteRange(max(0, ref.size - ref.footer), ref.size))
        if hashlib.sha256(footer).hexdigest() != ref.footer_sha256:
            raise MediaDamaged(
                f"{self._store.location}: {ref.name}: its footer does not have the digest that the log states"
            )
        return footer

    def _read(self, at: ByteRange) -> bytes:
        if self._whole is None:
            return self._store.read(self._ref.name, at)
        return self._whole[at.offset : at.end]


def _require_size(store: Store, ref: ObjectRef) -> None:
    if (size := store.size(ref.name)) != ref.size:
        raise MediaDamaged(f"{store.location}: {ref.name} has {size} bytes, the log says {ref.size}")
