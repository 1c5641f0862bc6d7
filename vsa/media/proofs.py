"""What points and relocations refer to, found to be there before they are committed (docs/media-format.md,
"Commit")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial

from vsa.errors import ObjectMissing, ObjectsDoomed, VsaError
from vsa.media.admission import Requirement
from vsa.media.closure import Closure
from vsa.media.coding import PackCodec
from vsa.media.destination import Destination
from vsa.media.entries import RelocateEntry
from vsa.media.records import RecordWriter
from vsa.media.store import Store
from vsa.media.view import View
from vsa.media.whereabouts import Whereabouts
from vsa.model import DiskBackup, ObjectRef, Point


class Proofs:
    """For one media; `view` gives what its log says at the moment."""

    def __init__(
        self,
        store: Store,
        whereabouts: Whereabouts,
        codec: PackCodec,
        *,
        view: Callable[[], View],
        random: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._whereabouts = whereabouts
        self._codec = codec
        self._view = view
        self._random = random

    def of_point(self, point: Point) -> Requirement:
        """Everything the point refers to is there. ObjectsDoomed or MediaDamaged if something is not."""
        return self._closure(point.disks, point.records).require

    def of_relocation(self, relocate: RelocateEntry, planned_on: View) -> Requirement:
        """What it leads to is there. MediaDamaged if something is not."""
        table = None if relocate.table is None else self._whereabouts.table(relocate.table)
        return Destination(self._store, relocate, table, planned_on).require

    def recorded(self, point: Point, run: str) -> Point:
        """The point with all that it says stored once more, in packs."""
        writer = RecordWriter(self._store, self._codec, random=self._random)
        return point.model_copy(update={"records": writer.store(run, point)})

    def must_be_read_again(self, backup: DiskBackup) -> bool:
        """As in `Media`."""
        try:
            self._closure([backup]).require(self._view())
        except (ObjectMissing, ObjectsDoomed):
            return True
        return False

    def _closure(self, disks: Sequence[DiskBackup], records: Sequence[ObjectRef] = ()) -> Closure:
        view = self._view()
        # It is asked once for each slot that is tried: every index is opened once for all of them.
        opened = partial(self._whereabouts.disk, opened=cache(self._whereabouts.open_index))
        try:
            return Closure(self._store, disks, view, opened, records=records)
        except ObjectMissing as error:
            raise self._doomed_or(error, disks) from error

    def _doomed_or(self, error: ObjectMissing, disks: Sequence[DiskBackup]) -> VsaError:
        """What is missing because it was doomed is no damage: the run began before it was."""
        doomed = self._view().doomed
        gone = [ref.name for disk in disks for ref in disk.indexes if ref.name in doomed]
        return ObjectsDoomed(f"{gone[0]} was given up while the run was reading: {error}") if gone else error
