"""Where the extents of disks lie on one media: its indexes, and the moves that apply to them under a view."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vsa.errors import MediaDamaged
from vsa.media.descriptor import MediaDescriptor
from vsa.media.disk_index import DiskIndex
from vsa.media.index import IndexFile, open_index
from vsa.media.moves import MovesTable, Relocations, open_moves
from vsa.media.partial import PartialDisk, Unreadable
from vsa.media.store import Store
from vsa.media.view import View
from vsa.model import IndexRef, ObjectRef


class Whereabouts:
    """Reads the indexes and moves of one media; safe for many threads.

    `Media` says what each method gives that is named there too, and which errors are raised.
    """

    def __init__(self, store: Store, about: MediaDescriptor, *, overhead: int) -> None:
        """`overhead` is what a frame may have beyond its extent (`PackCodec.overhead`)."""
        self._store = store
        self.media_id = about.id
        self._extent_size = about.extent_size
        self._overhead = overhead
        self._moved: tuple[tuple[int, int], Relocations] | None = None

    def disk(
        self,
        indexes: Sequence[IndexRef],
        disk_size: int,
        view: View,
        *,
        opened: Callable[[IndexRef], IndexFile] | None = None,
    ) -> DiskIndex:
        sound = view.sound_indexes()
        files = [(opened or self.open_index)(sound.get(ref.name, ref)) for ref in indexes]
        return DiskIndex(files, self.moves(view), disk_size=disk_size, extent_size=self._extent_size)

    def partial_disk(
        self,
        indexes: Sequence[IndexRef],
        disk_size: int,
        view: View,
        *,
        opened: dict[str, IndexFile | Unreadable] | None = None,
    ) -> PartialDisk:
        sound = view.sound_indexes()
        cache = {} if opened is None else opened
        layers = [self._layer(sound.get(ref.name, ref), cache) for ref in indexes]
        return PartialDisk(layers, self.moves(view), disk_size=disk_size, extent_size=self._extent_size)

    def open_index(
        self, ref: IndexRef, *, by_parts: bool = False, kind: type[IndexFile] | None = None
    ) -> IndexFile:
        return open_index(
            self._store,
            ref,
            media_id=self.media_id,
            extent_size=self._extent_size,
            overhead=self._overhead,
            by_parts=by_parts,
            kind=kind or IndexFile,
        )

    def index(self, ref: IndexRef, view: View) -> IndexFile:
        """An index, or the copy that stands in for it."""
        return self.open_index(view.sound_indexes().get(ref.name, ref))

    def moves(self, view: View) -> Relocations:
        """The tables of a view, loaded once as long as nothing new has moved."""
        known = (len(view.relocations), len(view.doomed))
        moved = self._moved
        # Another thread may remember those of another view meanwhile: what is given is of this one.
        if moved is None or moved[0] != known:
            tables = Relocations(self._store, view.relocations, media_id=self.media_id, doomed=view.doomed)
            self._moved = moved = (known, tables)
        return moved[1]

    def table(self, ref: ObjectRef) -> MovesTable:
        """One table of moves, proven. MediaDamaged if it is not what its reference says."""
        return open_moves(self._store, ref, media_id=self.media_id)

    def _layer(self, ref: IndexRef, opened: dict[str, IndexFile | Unreadable]) -> IndexFile | Unreadable:
        if ref.name not in opened:
            try:
                opened[ref.name] = self.open_index(ref, by_parts=True)
            except MediaDamaged as error:
                opened[ref.name] = Unreadable(ref.name, str(error))
        return opened[ref.name]
