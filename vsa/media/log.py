"""The ordered commit log: dense slots, each written once (docs/media-format.md, "Log").

Its argument needs one thing of the store: of all who create a slot, exactly one succeeds. An entry at
slot n was therefore made by somebody who had read slots 0 to n-1, and the log is one total order.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import TypeVar

from vsa.errors import MediaConflict, MediaDamaged, MediaPutBack, ObjectMissing, TryAgainLater
from vsa.fault_points import FaultPoint, reached
from vsa.media import documents, layout
from vsa.media.descriptor import software
from vsa.media.entries import Entry, EntryBody, PointEntry
from vsa.media.store import Store
from vsa.media.view import View
from vsa.media.witness import Witness
from vsa.model import Noun

R = TypeVar("R", int, None)

Admission = Callable[[View], int | None]
"""Whether an entry may follow a view: raises if not; a slot if that slot says the same already."""

_ATTEMPTS = 5


class Log:
    """The log of one media, read as far as its head; safe for many threads."""

    def __init__(
        self,
        store: Store,
        *,
        origin: str,
        clock: Callable[[], datetime],
        random: Callable[[int], bytes],
        recall: Callable[[], View | None] | None = None,
        believed_until: datetime | None = None,
    ) -> None:
        """`origin` is the sha256 of media.json's bytes, which slot 0 continues.

        `recall` gives a view that stands for the slots before its head, if there is one: it is asked once.
        `believed_until` is as in `View.extended`.
        """
        self._store = store
        self._clock = clock
        self._random = random
        self._view = View(head=0, head_hash=origin)
        self._recall = recall
        self._believed_until = believed_until
        self._lock = threading.RLock()
        self._looked_for_holes = False

    def view(self) -> View:
        """Everything the log says now; reads only slots not read before.

        MediaDamaged if an entry is changed, missing, or does not continue its predecessor.
        """
        with self._lock:
            if self._recall is not None:
                self._view, self._recall = self._recall() or self._view, None
            following = self._following(self._view.head, self._view.head_hash)
            self._view = self._view.extended(following, believed_until=self._believed_until)
            if not self._looked_for_holes:
                self._look_for_holes()
            return self._view

    def extended(self, view: View, head: int) -> View:
        """The view with the entries that follow it up to `head`, as they are stored now."""
        return view.extended(islice(self._following(view.head, view.head_hash), head - view.head))

    def digest_of(self, slot: int) -> str | None:
        """The sha256 of the entry in a slot, as it is stored now; None if there is none."""
        data = self._read_slot(slot)
        return None if data is None else documents.sha256(data)

    def require(self, witness: Witness) -> None:
        """MediaPutBack, naming both, unless the log has the very entry that the witness names."""
        found = self.view().witness
        if (digest := self.digest_of(witness.slot)) != witness.sha256:
            here = f"has {digest} there" if digest else "has no such slot"
            raise MediaPutBack(
                f"{self._store.location}: the log was seen with entry {witness}, but {here}; it ends with "
                f"{found or 'nothing'}: the media was put back to an older state, or is another one"
            )

    def append(self, body: EntryBody, *, run: str | None, admit: Admission) -> int:
        """Commit one entry and return its slot; `admit` is asked again for every slot that is tried.

        An error means that nothing is known to be committed: only the log itself can tell.
        """

        def decide(view: View) -> EntryBody | int:
            existing = admit(view)
            return body if existing is None else existing

        return self._append(decide, run=run)

    def append_planned(self, plan: Callable[[View], EntryBody | None], *, run: str | None) -> int | None:
        """Commit what `plan` makes of the log, into the very slot after it; None if it makes nothing."""
        return self._append(plan, run=run)

    def _append(self, decide: Callable[[View], EntryBody | R], *, run: str | None) -> int | R:
        """Place what is decided anew for every slot that is tried; anything but a body is the answer."""
        nonce = self._random(16).hex()
        with self._lock:
            while True:
                view = self.view()
                body = decide(view)
                if not isinstance(body, Noun):
                    return body
                entry = Entry(
                    seq=view.head,
                    prev=view.head_hash,
                    nonce=nonce,
                    time=self._clock(),
                    run=run,
                    software=software(),
                    body=body,
                )
                reached(FaultPoint.ENTRY_DECIDED)
                if self._place(layout.slot(view.head), documents.encode(entry)):
                    reached(FaultPoint.ENTRY_PLACED)
                    return view.head

    def _place(self, name: str, data: bytes) -> bool:
        """Whether the slot holds our entry, whatever the store answered; False if it holds another's."""
        for _ in range(_ATTEMPTS):
            try:
                self._store.create(name, [data])
                return True
            except (MediaConflict, TryAgainLater, OSError) as error:
                answer = error
            # Refused or unclear: our own request may have won unheard, so only the slot itself can tell.
            # Trying the same bytes again is safe; of two of our own only one can stand.
            with suppress(ObjectMissing, TryAgainLater, OSError):
                return self._store.read(name, limit=layout.MAX_DOCUMENT_SIZE) == data
        raise TryAgainLater(
            f"{self._store.location}: it stayed unclear whether {name} was stored: "
            "read the log before trying again"
        ) from answer

    def _following(self, slot: int, previous: str) -> Iterator[tuple[Entry, str]]:
        """The entries from `slot` to the head, each with its hash; `previous` is the hash before them."""
        while (data := self._read_slot(slot)) is not None:
            entry = self._decode(slot, data, previous)
            previous = documents.sha256(data)
            yield entry, previous
            slot += 1

    def _read_slot(self, slot: int) -> bytes | None:
        try:
            return self._store.read(layout.slot(slot), limit=layout.MAX_DOCUMENT_SIZE)
        except ObjectMissing:
            return None

    def _decode(self, slot: int, data: bytes, previous: str) -> Entry:
        name = f"{self._store.location}: {layout.slot(slot)}"
        entry = documents.decode(data, Entry, name)
        if entry.seq != slot:
            raise MediaDamaged(f"{name} says it is slot {entry.seq}: entries were moved")
        if entry.prev != previous:
            raise MediaDamaged(
                f"{name} continues an entry with sha256 {entry.prev}, but the one before it has {previous}: "
                "the log was altered or belongs to another media"
            )
        if isinstance(entry.body, PointEntry) and entry.run is None:
            raise MediaDamaged(f"{name} is a point of no run")
        return entry

    def _look_for_holes(self) -> None:
        """A slot beyond the head means a lost entry; writing into the hole would hide the loss."""
        head = self._view.head
        names = self._store.names(layout.LOG, after=layout.slot(head))
        beyond = [name for name in names if (layout.slot_number(name) or 0) > head]
        if beyond and self._read_slot(head) is None:
            raise MediaDamaged(
                f"{self._store.location}: {layout.slot(head)} is missing, though {min(beyond)} is there: "
                "an entry was lost"
            )
        self._looked_for_holes = True
