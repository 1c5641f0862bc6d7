"""Wherever frames are moved to, in whatever order, a row finds the one that the log's last word leads to."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.making import new_media
from tests.soak import examples, more_in_ci
from vsa.errors import MediaDamaged
from vsa.media import layout
from vsa.media.disk_index import DiskIndex
from vsa.media.entries import RelocateEntry
from vsa.media.index import ROW, ZEROS, IndexDescription, PackRef, open_index, write_index
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.moves import (
    MOVE,
    MovesDescription,
    MovesTable,
    PackNumbers,
    Relocations,
    follow,
    open_moves,
    store_moves,
)
from vsa.media.view import Relocation
from vsa.ranges import KIB

Place = tuple[int, int]
"""Number of a pack, and the offset of a frame in it."""
Moved = Mapping[Place, Place]

PACKS = 6
EXTENTS = 8
SIZE = 2 * SEGMENT * 4 * KIB

PLACE = st.tuples(st.integers(0, PACKS - 1), st.sampled_from([64, 1000, 2000]))
ROWS = st.dictionaries(
    st.sampled_from([0, 1, 2, 3, SEGMENT, SEGMENT + 1, SEGMENT + 2]), PLACE, min_size=1, max_size=EXTENTS
)
# Chains, circles and frames that several lead to are all among these: repacking, folding and healing are.
TABLES = st.lists(st.dictionaries(PLACE, PLACE, min_size=1, max_size=6), max_size=6)


def pack_name(number: int) -> str:
    return layout.pack("r0", bytes([number] * 16))


def pack_ref(number: int) -> PackRef:
    return PackRef(name=pack_name(number), size=10_000, sha256="0" * 64)


def length_at(place: Place) -> int:
    """Each frame has a length of its own, so that a wrong one shows."""
    return 100 + place[0] * 10 + place[1] % 7


class Moving:
    """An index whose rows lie at given places, and tables that move them."""

    def __init__(self, folder: Path) -> None:
        self.media = new_media(folder / "media")
        self.folder = folder

    def index(self, rows: Mapping[int, Place], tables: Sequence[Moved]) -> DiskIndex:
        self.tables = [self._store(moved) for moved in tables]
        relocations = Relocations(
            self.media.store,
            [Relocation(slot, entry) for slot, entry in enumerate(self.tables)],
            media_id=self.media.id,
        )
        file = open_index(
            self.media.store,
            self._index(rows),
            media_id=self.media.id,
            extent_size=self.media.extent_size,
            overhead=0,
        )
        return DiskIndex([file], relocations, disk_size=SIZE, extent_size=self.media.extent_size)

    def _index(self, rows: Mapping[int, Place]):
        used = sorted({pack for pack, _ in rows.values()})
        about = IndexDescription(
            media=self.media.id,
            run="r0",
            disk_key="d",
            disk_size=SIZE,
            extent_size=self.media.extent_size,
            kind=IndexKind.BASE,
            packs=tuple(map(pack_ref, used)),
        )
        groups = []
        for segment in sorted({extent // SEGMENT for extent in rows}):
            here = sorted(extent for extent in rows if extent // SEGMENT == segment)
            made = np.zeros(len(here), ROW)
            made["extent"] = here
            made["pack"] = [used.index(rows[extent][0]) for extent in here]
            made["offset"] = [rows[extent][1] for extent in here]
            made["length"] = [length_at(rows[extent]) for extent in here]
            groups.append((segment, made))
        name = layout.index("r0", "d", os.urandom(8))
        ref = write_index(self.folder / "index", name, about, iter(groups))
        self.media.store.create(name, [(self.folder / "index").read_bytes()])
        return ref

    def _store(self, moved: Moved) -> RelocateEntry:
        sources = sorted({pack for pack, _ in moved})
        targets = sorted({pack for pack, _ in moved.values()})
        rows = np.zeros(len(moved), MOVE)
        for row, (old, new) in zip(rows, moved.items(), strict=True):
            row["from_pack"], row["from_offset"] = sources.index(old[0]), old[1]
            row["pack"], row["offset"], row["length"] = targets.index(new[0]), new[1], length_at(new)
        about = MovesDescription(
            media=self.media.id,
            run="r0",
            sources=tuple(map(pack_name, sources)),
            packs=tuple(map(pack_ref, targets)),
        )
        table = store_moves(self.media.store, layout.moves("r0", os.urandom(8)), about, rows)
        return RelocateEntry(table=table, packs=about.sources, reason="moved")


def resolved(place: Place, tables: Sequence[Moved]) -> Place:
    """Where a frame lies in the end."""
    for moved in tables:
        place = moved.get(place, place)
    return place


def asked(rows: Mapping[int, Place], tables: Sequence[Moved]) -> set[int]:
    """The tables that a reader opens: those that are about a pack which it may have been led to by then."""
    opened, packs = set(), {pack for pack, _ in rows.values()}
    for number, moved in enumerate(tables):
        if packs & {pack for pack, _ in moved}:
            opened.add(number)
            packs |= {pack for pack, _ in moved.values()}
    return opened


def places_of(index: DiskIndex) -> dict[int, tuple[Place, int]]:
    numbers = {pack_name(number): number for number in range(PACKS)}
    found = {}
    for table in index.tables():
        for at in np.flatnonzero(table.pack != ZEROS).tolist():
            place = numbers[index.packs[table.pack[at]]], int(table.offset[at])
            found[table.first_extent + at] = place, int(table.length[at])
    return found


@more_in_ci
@examples(40, 200, 1000)
@given(ROWS, TABLES)
def test_any_chain_of_moves_resolves_as_a_dict_does_and_needs_just_that(tmp_path_factory, rows, tables):
    moving = Moving(tmp_path_factory.mktemp("moves"))
    index = moving.index(rows, tables)
    expected = {extent: resolved(place, tables) for extent, place in rows.items()}
    assert places_of(index) == {extent: (at, length_at(at)) for extent, at in expected.items()}

    packs = {pack_name(pack) for pack, _ in expected.values()}
    opened = {moving.tables[number].table.name for number in asked(rows, tables)}
    assert index.needs() == packs | opened | {index.files[0].ref.name}


def test_a_table_is_opened_only_if_something_can_lead_to_it(tmp_path):
    """Also through a pack that only another table leads to."""
    moving = Moving(tmp_path)
    tables = [{(0, 64): (1, 64)}, {(4, 64): (5, 64)}, {(1, 64): (2, 64)}]
    index = moving.index({0: (0, 64)}, tables)
    for entry in (moving.tables[0], moving.tables[2]):
        assert entry.table.name in index.moves
    assert moving.tables[1].table.name not in index.moves
    assert places_of(index) == {0: ((2, 64), length_at((2, 64)))}


@pytest.mark.parametrize("kept", [0, 10**6], ids=["one", "all"])
def test_tables_that_take_too_much_memory_are_read_again(tmp_path, kept):
    moving = Moving(tmp_path)
    tables = [{(number, 64): (number + 1, 64)} for number in range(4)]
    moving.index({0: (0, 64)}, tables)
    entries = [Relocation(slot, entry) for slot, entry in enumerate(moving.tables)]
    relocations = Relocations(moving.media.store, entries, media_id=moving.media.id, kept=kept)
    for _ in range(2):
        found = relocations.concerning(frozenset({pack_name(0)}))
        assert [name for name, _ in found] == [entry.table.name for entry in moving.tables]
        sizes = [table.size for _, table in found]
        assert relocations.size == (sum(sizes) if kept else sizes[-1])


def test_a_segment_follows_a_table_with_thousands_of_sources_at_once():
    """What repacking makes of small packs; a look at the whole segment for each source took seconds."""
    count = 20_000
    names = [layout.pack("r0", number.to_bytes(16)) for number in range(count)]
    rows = np.zeros(count, MOVE)
    rows["from_pack"], rows["from_offset"], rows["length"] = np.arange(count), 64, 10
    rows["offset"] = 1_000 + np.arange(count)
    about = MovesDescription(media="0" * 32, run="r0", sources=tuple(names), packs=(pack_ref(1),))
    numbers = PackNumbers()
    numbers.ordinals([PackRef(name=name, size=10_000, sha256="0" * 64) for name in names])
    began = time.monotonic()
    for _ in range(10):
        pack = np.arange(-1, SEGMENT - 1, dtype=np.int32) % (count + 1) - 1
        offset, length = np.full(SEGMENT, 64, np.uint32), np.zeros(SEGMENT, np.uint32)
        stored = pack != ZEROS
        was = pack.copy()
        assert follow(MovesTable(about, rows), numbers, pack, offset, length)
        assert set(pack[stored].tolist()) == {numbers.find(pack_name(1))}
        assert np.array_equal(offset[stored], 1_000 + was[stored])
        assert np.all(pack[~stored] == ZEROS) and np.all(offset[~stored] == 64)
    assert time.monotonic() - began < 5


class TestATableThatLies:
    def refuse(self, tmp_path, match, *, moved=None, **changes):
        moving = Moving(tmp_path)
        rows = np.zeros(2, MOVE)
        rows["from_offset"], rows["offset"], rows["length"] = [64, 200], 64, 10
        for name, value in (moved or {}).items():
            rows[name] = value
        about = MovesDescription(
            **{
                "media": moving.media.id,
                "run": "r0",
                "sources": (pack_name(0),),
                "packs": (pack_ref(1),),
                **changes,
            }
        )
        ref = store_moves(moving.media.store, layout.moves("r0", bytes(8)), about, rows)
        with pytest.raises(MediaDamaged, match=match):
            open_moves(moving.media.store, ref, media_id=moving.media.id)

    @pytest.mark.parametrize(
        ("moved", "match"),
        [
            ({"from_pack": 1}, "from_pack is outside"),
            ({"from_pack": -1}, "from_pack is outside"),
            ({"pack": 1}, "pack is outside"),
            ({"pack": -1}, "pack is outside"),
            ({"from_offset": 64}, "do not ascend"),
            ({"offset": 63}, "outside its pack"),
            ({"length": 0}, "outside its pack"),
            ({"offset": 9_990}, "outside its pack"),
            ({"length": 2**32 - 1}, "outside its pack"),
        ],
    )
    def test_about_a_place(self, tmp_path, moved, match):
        self.refuse(tmp_path, match, moved=moved)

    def test_about_its_media(self, tmp_path):
        self.refuse(tmp_path, "is of media", media="f" * 32)

    def test_about_a_pack(self, tmp_path):
        self.refuse(tmp_path, "something else as a pack", sources=("media.json",))
