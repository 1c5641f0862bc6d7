"""A store around another one, every call of which passes through one place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from vsa.media.store import Buffer, Store
from vsa.ranges import ByteRange

T = TypeVar("T")


class AroundStore:
    """Does what the store within does; who inherits says in `_do` what else happens to a call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def location(self) -> str:
        return self._store.location

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        self._do("create", name, lambda: self._store.create(name, parts))

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        return self._do("read", name, lambda: self._store.read(name, at, limit=limit))

    def size(self, name: str) -> int:
        return self._do("size", name, lambda: self._store.size(name))

    def delete(self, name: str) -> None:
        self._do("delete", name, lambda: self._store.delete(name))

    def prepare_for_writing(self) -> None:
        self._do("prepare_for_writing", "", self._store.prepare_for_writing)

    def folders(self, prefix: str) -> Iterator[str]:
        return iter(self._do("folders", prefix, lambda: list(self._store.folders(prefix))))

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        return iter(self._do("names", prefix, lambda: list(self._store.names(prefix, after=after))))

    def _do(self, method: str, name: str, call: Callable[[], T]) -> T:
        return call()
