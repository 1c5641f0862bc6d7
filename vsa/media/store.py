"""What backup media asks of the place it lives in (docs/media-format.md, "Stores").

Nothing here is a database: objects are written once, whole, and never change. Behaviour is added by
wrapping one store in another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from vsa.ranges import ByteRange

Buffer = bytes | bytearray | memoryview


class Store(Protocol):
    """Immutable objects by name.

    Any method may raise TryAgainLater (outcome unknown, the same call may succeed) or MediaUnusable
    (full, read-only, offline). After an error of `create` the object may or may not exist.
    """

    @property
    def location(self) -> str:
        """Where the objects are, for messages; free of secrets."""
        ...

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        """Store the concatenated parts: whole or not at all, durable on return.

        MediaConflict if the name exists; of any number of concurrent callers exactly one succeeds, and
        what it stored is never replaced.
        """
        ...

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        """The object, or the bytes `at` of it. A returned create is always seen.

        ObjectMissing if there is none. MediaDamaged if the object ends before `at` does, or if it is read
        whole and larger than `limit`.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of the object; ObjectMissing if there is none."""
        ...

    def delete(self, name: str) -> None:
        """Remove the object; one that is not there is removed already.

        Only pruning calls this, after a doom entry that names the object is confirmed: names never come
        back. DeleteRefused if a policy, a lock or a missing right keeps the object for now.
        """
        ...

    def prepare_for_writing(self) -> None:
        """Prove, with several writers at once, that an existing name is refused; MediaUnusable if it is not.

        Writes and removes things that are no objects.
        """
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """The next part, once, of the names below `prefix`, which ends in "/"; a convenience like `names`."""
        ...

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        """Names that start with `prefix` and sort after `after`, in no promised order.

        A convenience: it may miss or repeat some.
        """
        ...
