"""Objects by number, so that a set of them is one integer with a bit for each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import numpy.typing as npt

from vsa.errors import MediaDamaged
from vsa.media.store import Store
from vsa.model import ObjectRef


class Objects:
    """Every object that was met, numbered once; some 400 bytes each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes: list[int | None] = []
        self._digests: list[bytes] = []
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.names)

    def number(self, name: str, size: int | None = None, sha256: str = "") -> int:
        """The object's number; size and digest are remembered once somebody knows them."""
        number = self._numbers.setdefault(name, len(self.names))
        if number == len(self.names):
            self.names.append(name)
            self.sizes.append(size)
            self._digests.append(bytes.fromhex(sha256))
        elif size is not None and self.sizes[number] is None:
            self.sizes[number], self._digests[number] = size, bytes.fromhex(sha256)
        return number

    def number_of(self, ref: ObjectRef) -> int:
        return self.number(ref.name, ref.size, ref.sha256)

    def find(self, name: str) -> int | None:
        return self._numbers.get(name)

    def ref(self, number: int) -> tuple[str, int, str]:
        """Name, size and sha256 of an object of which all three are known."""
        size = self.sizes[number]
        assert size is not None
        return self.names[number], size, self._digests[number].hex()

    def named(self, members: int) -> Iterator[str]:
        return (self.names[number] for number in numbers_of(members))

    def size_of(self, members: int, store: Store) -> int:
        """Bytes of all members; the store is asked where no reference says it. What is gone has none, nor has
        what is sealed and does not say it any more."""
        return sum(self._size(number, store) for number in numbers_of(members))

    def _size(self, number: int, store: Store) -> int:
        known = self.sizes[number]
        try:
            return store.size(self.names[number]) if known is None else known
        except MediaDamaged:
            return 0


Few = int | npt.NDArray[np.int32]
"""A set that is kept for long: its members one by one, or as a set, whichever takes less memory."""


def few_of(numbers: Iterable[int]) -> Few:
    """The set with these members. A set of a few among very many objects would be mostly zeros; kept for each
    of as many points, those would be the square of their number."""
    members = np.unique(np.fromiter(numbers, np.int32))
    if len(members) and members.nbytes < int(members[-1]) // 8:
        return members
    return set_of(members)


def union(sets: Iterable[Few]) -> int:
    """The set of what is in any of them."""
    dense, few = 0, []
    for item in sets:
        if isinstance(item, int):
            dense |= item
        else:
            few.append(item)
    return dense | set_of(np.concatenate(few)) if few else dense


def is_disjoint(members: Few, numbers: Collection[int]) -> bool:
    """Whether none of the numbers is a member."""
    if isinstance(members, int):
        return not any(members >> number & 1 for number in numbers)
    return not np.isin(members, list(numbers)).any()


def set_of(numbers: Iterable[int]) -> int:
    """The set with these members."""
    members = numbers if isinstance(numbers, np.ndarray) else np.fromiter(numbers, np.int64)
    if not len(members):
        return 0
    mask = np.zeros(int(members.max()) + 1, np.bool_)
    mask[members] = True
    return int.from_bytes(np.packbits(mask, bitorder="little").tobytes(), "little")


def numbers_of(members: int) -> list[int]:
    """The members of a set, ascending."""
    data = members.to_bytes((members.bit_length() + 7) // 8, "little")
    found: list[int] = np.flatnonzero(
        np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    ).tolist()
    return found
