"""What a relocation leads to, and when it may be committed (docs/media-format.md, "Commit")."""

from __future__ import annotations

import numpy as np

from vsa.errors import MediaConflict, MediaDamaged, ObjectsDoomed
from vsa.media.closure import require_undoomed
from vsa.media.entries import RelocateEntry
from vsa.media.moves import MovesTable
from vsa.media.store import Store
from vsa.media.view import View


class Destination:
    """The objects that a `relocate` entry leads to."""

    def __init__(
        self, store: Store, relocate: RelocateEntry, table: MovesTable | None, planned_on: View
    ) -> None:
        """MediaDamaged if one is not there in its full size, or entry and table name other sources."""
        self._table = table
        self._planned_on = len(planned_on.relocations)
        sizes = {item.ref.name: item.ref.size for item in relocate.indexes}
        if table is not None and relocate.table is not None:
            sizes[relocate.table.name] = relocate.table.size
            sizes.update((item.name, item.size) for item in table.description.packs)
            if set(table.description.sources) != set(relocate.packs):
                raise MediaDamaged(f"{relocate.table.name} moves frames of other packs than its entry says")
        for name, size in sizes.items():
            if (found := store.size(name)) != size:
                raise MediaDamaged(f"{store.location}: {name} has {found} bytes, expected {size}")
        self._names = sizes.keys()

    def require(self, view: View) -> None:
        """MediaConflict if something has moved since the plan was made: two folds may lead to each other, or
        to a place that has been left. ObjectsDoomed if it leads to what is doomed or damaged."""
        require_undoomed({name for name in self._names if name in view.doomed})
        if len(view.relocations) != self._planned_on:
            raise MediaConflict("other frames have moved since this relocation was planned: plan it again")
        if bad := self._damaged(view):
            raise ObjectsDoomed(f"{bad} was found damaged: nothing may be led there")

    def _damaged(self, view: View) -> str:
        """A pack with a damaged frame that the table leads to; empty if there is none."""
        packs = self._table.description.packs if self._table else ()
        for ordinal, item in enumerate(packs):
            if self._table is None or item.name not in view.damaged:
                continue
            offsets = self._table.rows["offset"][self._table.rows["pack"] == ordinal]
            if any(view.is_damaged(item.name, offset) for offset in np.unique(offsets).tolist()):
                return item.name
        return ""
