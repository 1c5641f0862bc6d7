"""Healing while others move frames: it is planned on the log that it follows, or planned again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.media.faulty_store import FaultyStore
from tests.media.making import flip_bit
from tests.upkeep.estate import DATA, OS, SIZE, Estate, fresh
from tests.upkeep.keeping import Keeping
from vsa.errors import TryAgainLater
from vsa.media import documents, heal, layout, pinned
from vsa.media.entries import Damaged, DamageEntry, RelocateEntry
from vsa.media.media import Media
from vsa.model import IndexRef, Method, Reason
from vsa.transfer.healing import Healing, unless_parent_is_damaged
from vsa.transfer.methods import Decision, Recorded
from vsa.upkeep import needs
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Depth
from vsa.upkeep.verify import verify

CONTENTS = fresh("a", *range(6))


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    made = Estate(tmp_path)
    made.back_up(OS, CONTENTS)
    made.back_up(DATA, fresh("b", 0, 1))
    return made


def call_damaged(estate: Estate, *extents: int) -> None:
    places = [estate.place_of(OS, extent) for extent in extents]
    damaged = Damaged(name=places[0][0], offsets=tuple(offset for _, offset in places))
    estate.backups.media.append(DamageEntry(objects=(damaged,), reason="decay"))


def stored_again(estate: Estate, media: Media, run: str, **how: int) -> tuple[Healing, IndexRef]:
    """A stream that has read what is damaged, and stored it in an index of its own."""
    indexes = media.view().points[0].point.disks[0].indexes
    parent = media.disk_index(indexes, SIZE)
    healing = Healing(parent, media.view().damaged, **how)
    table = parent.segment(0)
    assert table is not None
    again = healing.positions(table)
    for extent in again:
        healing.stored_again(table, extent, len(CONTENTS[extent]))
    stored = estate.backups.store(run, OS, {extent: CONTENTS[extent] for extent in again})
    return healing, stored.indexes[-1]


def test_every_damaged_frame_is_left_behind(estate: Estate) -> None:
    call_damaged(estate, 1, 4)
    media = estate.backups.media
    run = estate.backups.run(estate.media.view().points[0].point.vm)
    healing, index = stored_again(estate, media, run)
    healing.commit(index, run=run, media=media)
    (name,) = media.view().damaged
    assert media.view().healed == media.view().damaged
    assert {estate.place_of(OS, extent)[0] == name for extent in (1, 4)} == {False}
    assert {estate.place_of(OS, extent)[0] == name for extent in (0, 2, 3, 5)} == {True}
    estate.require_nothing_wrong({})


def test_more_than_one_entry_holds_takes_several(estate: Estate) -> None:
    call_damaged(estate, 1, 2, 4)
    media = estate.backups.media
    run = estate.backups.run(estate.media.view().points[0].point.vm)
    healing, index = stored_again(estate, media, run, at_most=1)
    healing.commit(index, run=run, media=media)
    view = media.view()
    assert [len(item.entry.healed[0].offsets) for item in view.relocations] == [1, 1, 1]
    assert view.healed == view.damaged
    estate.require_nothing_wrong({})


@pytest.mark.parametrize("frames_of_a_pack", [1, 1_000])
def test_what_one_entry_heals_fits_its_document(frames_of_a_pack: int) -> None:
    names = (layout.pack("r" * 64, pack.to_bytes(16)) for pack in range(600_000 // frames_of_a_pack))
    places = ((name, 2**32 - 1 - at) for name in names for at in range(frames_of_a_pack))
    found = heal.portion(enumerate(places))
    body = RelocateEntry(
        packs=tuple(sorted({name for name, _ in found.values()})),
        healed=tuple(heal._healed(found.values())),
        reason="healed",
    )
    assert 10_000 < len(found) < 500_000
    assert len(documents.encode(body)) < layout.MAX_DOCUMENT_SIZE // 2


def test_what_others_move_meanwhile_has_it_planned_again(estate: Estate) -> None:
    call_damaged(estate, 1, 4)
    run = estate.backups.run(estate.media.view().points[0].point.vm)
    tables: list[str] = []

    def another_is_first(_number: int, method: str, name: str) -> None:
        if method == "create" and "/moves/" in name:
            tables.append(name)
            if len(tables) == 1:
                estate.move(DATA, 0, fresh("b", 0)[0])

    media = Media(FaultyStore(estate.backups.media.store, another_is_first), write=True)
    healing, index = stored_again(estate, media, run)
    healing.commit(index, run=run, media=media)
    assert len(tables) == 2, "the first plan was refused"
    assert estate.media.view().healed == estate.media.view().damaged
    estate.require_nothing_wrong({})


def test_two_streams_that_heal_the_same_frames_do_it_once(estate: Estate) -> None:
    call_damaged(estate, 1, 4)
    media = estate.backups.media
    vm = media.view().points[0].point.vm
    runs = [estate.backups.run(vm), estate.backups.run(vm)]
    streams = [stored_again(estate, media, run) for run in runs]
    for run, (healing, index) in zip(runs, streams, strict=True):
        healing.commit(index, run=run, media=media)
    assert len(media.view().relocations) == 1
    estate.require_nothing_wrong({})


def test_a_run_that_never_gets_its_turn_may_be_tried_again(estate: Estate) -> None:
    call_damaged(estate, 1)
    run = estate.backups.run(estate.media.view().points[0].point.vm)

    def another_is_first(_number: int, method: str, name: str) -> None:
        if method == "create" and "/moves/" in name:
            estate.backups.media.append(RelocateEntry(reason="nothing, but first"))

    media = Media(FaultyStore(estate.backups.media.store, another_is_first), write=True)
    healing, index = stored_again(estate, media, run)
    with pytest.raises(TryAgainLater, match="again and again"):
        healing.commit(index, run=run, media=media)


@pytest.mark.parametrize("damaged", ["the index", "the copy"])
def test_a_disk_is_read_whole_if_what_its_parent_is_read_from_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    """An index too large to be proven at once: the bad part would show when half of the disk is read."""
    for module in (pinned, needs):
        monkeypatch.setattr(module, "FETCHED_WHOLE", 100)
    keeping = Keeping(tmp_path)
    slot = keeping.back_up({at: at for at in range(40)})
    made = keeping.media.view().points[slot]
    (backup,) = made.point.disks
    name = backup.indexes[0].name
    if damaged == "the copy":
        (keeping.folder / name).unlink()
        keeping.prune(threshold=0.0)
        name = keeping.media.view().sound_indexes()[name].name
    parent = Recorded(slot, backup)
    decision = Decision(Method.CBT, Reason.CBT, parent=parent)
    assert unless_parent_is_damaged(decision, keeping.media, backup.disk.size) is decision
    flip_bit(keeping.folder / name, 999)
    found = verify(keeping.media, Depth.OBJECTS, scratch=keeping.scratch, date=keeping.now.date())
    record_damage(keeping.media, found)
    decided = unless_parent_is_damaged(decision, keeping.media, backup.disk.size)
    assert (decided.reason, decided.parent) == (Reason.FULL_PARENT_DAMAGED, None)
    assert decided.detail == f"{name} is damaged"
