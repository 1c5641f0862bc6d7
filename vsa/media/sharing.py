"""Same data once: what a process's streams store together, and what the media held before them.

Economy, never safety: whatever goes wrong here means that an extent is stored again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from vsa.errors import TryAgainLater
from vsa.media.digests import open_digests
from vsa.media.extent_sample import SAMPLE_ROWS, ExtentSample, salt
from vsa.media.frames import Fingerprint
from vsa.media.index import Offer
from vsa.media.pack import Frame
from vsa.media.recent_extents import RECENT_EXTENTS, RecentExtents
from vsa.media.shared_packs import PendingPack, Place
from vsa.media.store import Store
from vsa.media.stored_extents import LOADED_ROWS, StoredExtents
from vsa.media.view import View
from vsa.media.whereabouts import Whereabouts


class Sharing:
    """What the streams of one process know of stored extents; safe for many threads."""

    def __init__(
        self, offer: Offer, *, recent: RecentExtents, stored: StoredExtents, view: Callable[[], View]
    ) -> None:
        self._offer = offer
        self._recent = recent
        self._stored = stored
        self._view = view
        self._lock = threading.Lock()

    def of(self, client: str) -> SharedExtents:
        """For one stream of a client, under the log as it is now."""
        view = self._view()
        with self._lock:
            self._recent.refresh(view)
            self._stored.refresh(view)
        return SharedExtents(
            self._offer, client, recent=self._recent, stored=self._stored, seen=view, view=self._view
        )


_SAMPLED, _LOADED, _RECENT = 16, 76, 340
"""Bytes that a row of each takes: of a recent extent there may be two generations."""


def open_sharing(
    store: Store,
    whereabouts: Whereabouts,
    offer: Offer,
    *,
    view: Callable[[], View],
    memory: int | None = None,
) -> Sharing | None:
    """What the streams of one process share of one media; None if nothing is to be shared.

    `memory` bytes may be taken by what is remembered: a fifth by the sample, two fifths each by loaded
    segments and by what is new. None, and above their own bounds: as many as are of use.
    """
    if offer is Offer.OFF:
        return None
    fifth = memory // 5 if memory is not None else RECENT_EXTENTS * _RECENT
    sample = ExtentSample(
        lambda ref: open_digests(store, ref, media_id=whereabouts.media_id),
        rows=min(SAMPLE_ROWS, fifth // _SAMPLED),
    )
    stored = StoredExtents(
        sample,
        opened=whereabouts.index,
        relocations=whereabouts.moves,
        size_of=store.size,
        loaded_rows=min(LOADED_ROWS, 2 * fifth // _LOADED),
    )
    recent = RecentExtents(min(RECENT_EXTENTS, 2 * fifth // _RECENT))
    return Sharing(offer, recent=recent, stored=stored, view=view)


class SharedExtents:
    """What one stream may refer to and offers to others."""

    def __init__(
        self,
        offer: Offer,
        client: str,
        *,
        recent: RecentExtents,
        stored: StoredExtents,
        seen: View,
        view: Callable[[], View],
    ) -> None:
        self.offer = offer
        self.client = client
        self._recent = recent
        self._stored = stored
        self._seen = seen
        self._view = view
        # What one client stores is not even looked at for another.
        self._prefix = client.encode() if offer is Offer.CLIENT else b""
        self._salt = salt(offer, client)

    def find(self, proof: Fingerprint) -> Place | None:
        """Where this extent lies. None: the caller stores it, and must say `placed` or `withdraw`."""
        key = self._prefix + proof.digest
        found = self._recent.find(key, proof.crc, self)
        if found is not None:
            return found
        try:
            found = self._stored.find(proof, self.offer, self._salt, self.client)
        except BaseException:
            self._recent.withdraw(key)
            raise
        if found is not None:
            self._recent.withdraw(key)
        return found

    def placed(self, pack: PendingPack, frame: Frame) -> None:
        self._recent.placed(self._prefix + frame.fingerprint.digest, pack, frame)

    def withdraw(self, proof: Fingerprint) -> None:
        self._recent.withdraw(self._prefix + proof.digest)

    def require_sound(self, packs: Iterable[str]) -> None:
        """TryAgainLater if, since this stream began, one of the packs was found damaged or was doomed."""
        view = self._view()
        for name in packs:
            if name in view.doomed or view.damaged.get(name) != self._seen.damaged.get(name):
                raise TryAgainLater(
                    f"{name} holds extents of this disk, and was found damaged or is being deleted since its "
                    "backup began: they are to be stored again"
                )
