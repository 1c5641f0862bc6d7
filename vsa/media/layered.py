"""Mappings that never change, of which a slightly different one is made cheaply: a large base, and what has
changed over it since.

A view of a long log holds a hundred thousand points, and every entry makes another view. Copying them for
each would make appending cost what the log is long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Set
from enum import Enum
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_SMALL = 1024


class _Gone(Enum):
    GONE = "gone"


class Layered(Mapping[K, V]):
    """A mapping that never changes. Iterates over its base first, then over what is new, as it came."""

    __slots__ = ("_base", "_changes", "_size")

    def __init__(self, base: Mapping[K, V]) -> None:
        """`base` must never change any more; it may make its values when they are asked for."""
        self._base = base
        self._changes: Mapping[K, V | _Gone] = {}
        self._size: int | None = None

    def __getitem__(self, key: K) -> V:
        return _look_up(self._base, self._changes, key)

    def __contains__(self, key: object) -> bool:
        return _holds(self._base, self._changes, key)

    def __iter__(self) -> Iterator[K]:
        return _keys(self._base, self._changes)

    def __len__(self) -> int:
        # Counted when asked: a base that is read on demand should not be read for its length.
        if self._size is None:
            self._size = _count(self._base, self._changes)
        return self._size

    def __repr__(self) -> str:
        return repr(dict(self))

    def draft(self) -> Draft[K, V]:
        return Draft(self)

    @classmethod
    def _of(cls, base: Mapping[K, V], changes: Mapping[K, V | _Gone]) -> Layered[K, V]:
        made = cls(base)
        made._changes = changes
        return made


class Draft(MutableMapping[K, V]):
    """A mapping in the making, over one that stays as it is. Nothing is copied before the first change."""

    def __init__(self, origin: Layered[K, V]) -> None:
        self._origin = origin
        self._base = origin._base
        self._changes: dict[K, V | _Gone] | None = None

    def __getitem__(self, key: K) -> V:
        return _look_up(self._base, self._present, key)

    def __contains__(self, key: object) -> bool:
        return _holds(self._base, self._present, key)

    def __iter__(self) -> Iterator[K]:
        return _keys(self._base, self._present)

    def __len__(self) -> int:
        return _count(self._base, self._present)

    def __setitem__(self, key: K, value: V) -> None:
        self._own()[key] = value

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        changes = self._own()
        # Dropped first, so that a key that comes back later is met in the order in which it came.
        changes.pop(key, None)
        if key in self._base:
            changes[key] = _Gone.GONE

    def frozen(self) -> Layered[K, V]:
        """What the draft has become; the draft must not be used afterwards."""
        if self._changes is None:
            return self._origin
        if len(self._changes) > _SMALL and len(self._changes) > len(self._base) // 4:
            return Layered(dict(self))
        return Layered._of(self._base, self._changes)

    @property
    def _present(self) -> Mapping[K, V | _Gone]:
        return self._origin._changes if self._changes is None else self._changes

    def _own(self) -> dict[K, V | _Gone]:
        if self._changes is None:
            self._changes = dict(self._origin._changes)
        return self._changes


class Members(Set[K], Generic[K]):
    """A set over the keys of a mapping."""

    __slots__ = ("of",)

    def __init__(self, of: Layered[K, None]) -> None:
        self.of = of

    def __contains__(self, key: object) -> bool:
        return key in self.of

    def __iter__(self) -> Iterator[K]:
        return iter(self.of)

    def __len__(self) -> int:
        return len(self.of)

    def __repr__(self) -> str:
        return repr(set(self))

    @classmethod
    def _from_iterable(cls, it: Iterable[K]) -> frozenset[K]:  # type: ignore[override]
        """Of what the set's operators make."""
        return frozenset(it)


class OnDemand(Mapping[K, V]):
    """Values that are made each time they are asked for, from where they lie; keys when first needed."""

    def __init__(self, places: Callable[[], Mapping[K, int]], make: Callable[[int], V]) -> None:
        self._read_places = places
        self._make = make
        self._known: Mapping[K, int] | None = None

    def __getitem__(self, key: K) -> V:
        return self._make(self._places[key])

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[K]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def _places(self) -> Mapping[K, int]:
        if self._known is None:
            self._known = self._read_places()
        return self._known


def layered(given: Mapping[K, V]) -> Layered[K, V]:
    return given if isinstance(given, Layered) else Layered(given)


def members(given: Set[K]) -> Members[K]:
    return given if isinstance(given, Members) else Members(Layered(dict.fromkeys(given)))


def put(members: Draft[K, None], found: Iterable[K]) -> None:
    members.update(dict.fromkeys(found))


def drop(members: Draft[K, None], found: Iterable[K]) -> None:
    for item in found:
        members.pop(item, None)


def _look_up(base: Mapping[K, V], changes: Mapping[K, V | _Gone], key: K) -> V:
    if key not in changes:
        return base[key]
    value = changes[key]
    if isinstance(value, _Gone):
        raise KeyError(key)
    return value


def _holds(base: Mapping[K, V], changes: Mapping[K, V | _Gone], key: object) -> bool:
    if key in changes:
        return changes[key] is not _Gone.GONE  # type: ignore[index]
    return key in base


def _keys(base: Mapping[K, V], changes: Mapping[K, V | _Gone]) -> Iterator[K]:
    if not changes:
        yield from base
        return
    yield from (key for key in base if changes.get(key) is not _Gone.GONE)
    yield from (key for key, value in changes.items() if value is not _Gone.GONE and key not in base)


def _count(base: Mapping[K, V], changes: Mapping[K, V | _Gone]) -> int:
    gone = sum(value is _Gone.GONE for value in changes.values())
    return len(base) - gone + sum(key not in base for key in changes)
