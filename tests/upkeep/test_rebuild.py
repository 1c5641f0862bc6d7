"""Media made anew from packs alone holds every point that was committed, byte for byte."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from crc32c import crc32c

from tests.faults import small_media
from tests.media.making import (
    EXTENT,
    KEYS,
    NOW,
    a_disk,
    a_key,
    a_point,
    an_intent,
    back_up,
    flip_bit,
    named_key,
    new_media,
    noise,
    read_point,
    text,
    write_disk,
)
from tests.media.moving import packs_of, repack
from tests.upkeep.keeping import DAY, Keeping
from vsa.errors import (
    BadRequest,
    KeyNeeded,
    MediaConflict,
    MediaDamaged,
    NewerVersion,
    NoMedia,
    ObjectsDoomed,
    WrongKey,
)
from vsa.media import documents, layout, records
from vsa.media.entries import DoomEntry, ForgetEntry, PointEntry
from vsa.media.folder import FolderStore
from vsa.media.index import Offer, write_index
from vsa.media.location import are_nested
from vsa.media.media import Media
from vsa.media.moves import MOVE
from vsa.media.pack import FOOTER_SIZE, HEADER_SIZE, ROW_SIZE, Frame, PackFooter, read_frames
from vsa.media.records import RecordHead, RecordWriter, read_record
from vsa.media.wrapping import Passphrase, WrappingKey
from vsa.model import IndexRef, Point
from vsa.upkeep import lost_frames
from vsa.upkeep.rebuild import Rebuilt, rebuild
from vsa.upkeep.rotation import add_key

FIRST = {0: noise(0), 5: text(5), 9: noise(9)}
CHANGES = {0: None, 5: noise("new"), 7: text(7)}
SECOND = {5: noise("new"), 7: text(7), 9: noise(9)}
OTHER = {1: text("other"), 2: noise(0)}


@pytest.fixture
def key(request) -> Passphrase | None:
    """What seals the media; nothing, but for tests that ask for both."""
    found: Passphrase | None = getattr(request, "param", None)
    return found


sealed_or_not = pytest.mark.parametrize("key", KEYS, indirect=True, ids=named_key)
sealed = pytest.mark.parametrize("key", KEYS[1:], indirect=True, ids=named_key)


@pytest.fixture
def folder(tmp_path, key) -> Path:
    """Media with two points of one disk and one of another."""
    media = new_media(tmp_path / "media", key=key)
    slot = back_up(media, FIRST, run="r1", scratch=tmp_path)
    base = media.view().points[slot].point.disks[0].indexes
    back_up(media, CHANGES, run="r2", scratch=tmp_path, base=base)
    back_up(media, OTHER, run="r3", scratch=tmp_path, disk=a_disk("data"))
    return tmp_path / "media"


def rebuilt(
    folder: Path,
    tmp_path: Path,
    name: str = "rebuilt",
    *,
    key: WrappingKey | None = None,
    with_holes: bool = False,
) -> Rebuilt:
    return rebuild(
        FolderStore(folder),
        FolderStore.make(tmp_path / name),
        scratch=tmp_path,
        now=NOW,
        random=os.urandom,
        wrapping=key,
        with_holes=with_holes,
    )


def lose_all_but_packs(folder: Path) -> None:
    """And key documents, of which sealed media has a copy elsewhere."""
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".pack" and path.parent.name != "keys":
            path.unlink()


def contents(media: Media) -> dict[str, dict[int, bytes]]:
    """What each run's point holds."""
    return {made.run: read_point(media, slot) for slot, made in media.view().points.items()}


EXPECTED = {"r1": FIRST, "r2": SECOND, "r3": OTHER}


@sealed_or_not
def test_packs_alone_are_enough(folder, tmp_path, key):
    original = Media.open(str(folder), wrapping=key)
    lose_all_but_packs(folder)
    result = rebuilt(folder, tmp_path, key=key)
    media = Media.open(str(tmp_path / "rebuilt"), wrapping=key)
    assert (media.id, media.extent_size) == (original.id, EXTENT)
    assert contents(media) == EXPECTED
    assert result.lost == ()
    assert [client.vm.name for client in media.view().clients.values()] == ["web"]


@sealed_or_not
def test_rebuilt_media_is_media_and_can_be_rebuilt_again(folder, tmp_path, key):
    media = rebuilt(folder, tmp_path, key=key).media
    latest = media.view().latest_point_of_disk(a_disk().key)
    slot = back_up(media, {0: text("later")}, run="r9", scratch=tmp_path, base=latest[1].indexes)
    assert read_point(media, slot) == SECOND | {0: text("later")}
    lose_all_but_packs(tmp_path / "rebuilt")
    again = rebuilt(tmp_path / "rebuilt", tmp_path, "again", key=key).media
    assert contents(again) == EXPECTED | {"r9": SECOND | {0: text("later")}}


def test_a_place_that_holds_something_is_never_rebuilt_into(folder, tmp_path):
    with pytest.raises(MediaConflict, match="not empty"):
        rebuild(FolderStore(folder), FolderStore(folder), scratch=tmp_path, now=NOW, random=os.urandom)
    assert contents(Media.open(str(folder))) == EXPECTED


def test_nothing_can_be_made_of_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoMedia, match="nothing can be rebuilt"):
        rebuilt(tmp_path / "empty", tmp_path)


def test_packs_of_two_media_are_not_mixed(folder, tmp_path):
    other = new_media(tmp_path / "other")
    back_up(other, FIRST, run="r7", scratch=tmp_path)
    (tmp_path / "other/runs/r7").rename(folder / "runs/r7")
    with pytest.raises(MediaDamaged, match="several media"):
        rebuilt(folder, tmp_path)


def test_a_few_packs_of_other_media_are_named_and_left_alone(folder, tmp_path):
    for number in range(4, 14):
        back_up(Media.open(str(folder), write=True), {1: noise(number)}, run=f"r{number}", scratch=tmp_path)
    other = new_media(tmp_path / "other")
    back_up(other, FIRST, run="x", scratch=tmp_path)
    (tmp_path / "other/runs/x").rename(folder / "runs/x")
    result = rebuilt(folder, tmp_path)
    assert "x" not in contents(result.media) and len(result.points) == 13
    assert sum(f"an unsealed pack of media {other.id}" in line for line in result.lost) == 2


@pytest.mark.parametrize("bit", [0, 8 * 8 + 3, 8 * 10, 8 * 10 + 1, 8 * 12, 8 * 16, 8 * 40, 8 * 63])
def test_a_bit_in_the_header_of_one_pack_costs_no_other_one(folder, tmp_path, bit):
    """Of the magic, version, flags, extent size, media id, pack id and commitment."""
    (record,) = packs_of(folder, "r3", records=True)
    (extents,) = packs_of(folder, "r1")
    flip_bit(record, bit)
    flip_bit(extents, bit)
    result = rebuilt(folder, tmp_path)
    assert contents(result.media) == {"r1": FIRST, "r2": SECOND}
    # Once for each pack that does not prove itself, and once for the digest that an index states.
    assert len(result.lost) == 3


def test_a_point_whose_record_is_spoilt_is_named_and_the_others_are_saved(folder, tmp_path):
    for path in packs_of(folder, "r3", records=True):
        flip_bit(path, 8 * 100)
    result = rebuilt(folder, tmp_path)
    assert contents(result.media) == {"r1": FIRST, "r2": SECOND}
    assert any("runs/r3/packs" in line for line in result.lost)


@pytest.mark.parametrize("refused", ["0" * 32, "f" * 32])
def test_of_a_run_that_was_recorded_twice_the_point_is_taken_whose_indexes_are_there(
    folder, tmp_path, refused
):
    """The other copy builds on an index that is pruned; which of them is met first is chance."""
    media = Media.open(str(folder), write=True)
    found = media.view()
    point = found.points[found.committed["r2"]].point
    (disk,) = point.disks
    gone = disk.indexes[0].model_copy(update={"name": layout.index("gone", disk.disk.key, bytes(8))})
    built_on_it = disk.model_copy(update={"indexes": (gone, *disk.indexes[1:])})
    vain = point.model_copy(update={"disks": (built_on_it,), "records": ()})
    ids = iter([bytes.fromhex(refused), os.urandom(16)])
    RecordWriter(media.store, media.codec, random=lambda _: next(ids)).store("r2", vain)
    result = rebuilt(folder, tmp_path)
    assert (contents(result.media), result.lost) == (EXPECTED, ())


def test_a_commit_that_is_refused_leaves_no_record(tmp_path):
    media = new_media(tmp_path / "media")
    slot = back_up(media, FIRST, run="r1", scratch=tmp_path)
    base = media.view().points[slot].point.disks[0].indexes
    media.append(ForgetEntry(points=(slot,), reason="test"))
    media.append(DoomEntry(points=(slot,), objects=(base[0].name,), reason="test"))
    with pytest.raises(ObjectsDoomed):
        back_up(media, CHANGES, run="r2", scratch=tmp_path, base=base)
    assert packs_of(tmp_path / "media", "r2", records=True) == []


class Planting:
    """Somebody who may write to the media's place, and has read it."""

    def __init__(self, folder: Path, tmp_path: Path) -> None:
        self.folder = folder
        self.media = Media.open(str(folder))
        self.scratch = tmp_path
        self._own = FolderStore.make(tmp_path / "planted")

    def point(self, run: str) -> Point:
        view = self.media.view()
        return view.points[view.committed[run]].point.model_copy(update={"records": ()})

    def record(
        self,
        run: str,
        index: IndexRef,
        data: bytes,
        point: Point,
        *,
        set_id: str = "0" * 32,
        below: str = "z",
    ) -> None:
        """A pack that says to be the record of a run, among the objects of another one."""
        self._own.create(index.name, [data])
        ids = iter([bytes.fromhex(set_id), os.urandom(16)])
        writer = RecordWriter(self._own, self.media.codec, random=lambda _: next(ids))
        head = RecordHead(run=run, set=set_id, piece=0, pieces=1, indexes=(), point=point)
        (pack,) = writer.store_copies(below, head, [index])
        self.media.store.create(pack.name, [self._own.read(pack.name)])

    def index(self, run: str, *, rows: slice) -> tuple[IndexRef, bytes]:
        """What a run's own index is made into, by its name."""
        ref = self.point(run).disks[0].indexes[-1]
        file = self.media.open_index(ref)
        path = self.scratch / "made"
        made = write_index(path, ref.name, file.description, ((n, file.rows(n)[rows]) for n in file.segments))
        return made, path.read_bytes()


def named_by(point: Point, *indexes: IndexRef) -> Point:
    disks = (point.disks[0].model_copy(update={"indexes": indexes}),)
    return point.model_copy(update={"disks": disks})


class TestPlanted:
    """No point is lost by a record that somebody planted, and none stops a rebuild."""

    @pytest.fixture
    def planting(self, folder, tmp_path) -> Planting:
        return Planting(folder, tmp_path)

    def require_all(self, folder: Path, tmp_path: Path) -> Rebuilt:
        """All points come back, also from media so made; what came of it at first."""
        result = rebuilt(folder, tmp_path, "once")
        self.require_whole(result)
        lose_all_but_packs(tmp_path / "once")
        self.require_whole(rebuilt(tmp_path / "once", tmp_path, "twice"))
        return result

    def require_true_ones(self, made: Rebuilt) -> None:
        """Where what was planted cannot be read."""
        view = made.media.view()
        slots = {run: view.committed[run] for run in EXPECTED}
        assert {run: read_point(made.media, slot) for run, slot in slots.items()} == EXPECTED
        assert not any(map(view.harm_of, slots.values()))

    def require_whole(self, made: Rebuilt) -> None:
        held = list(contents(made.media).values())
        assert all(holds in held for holds in EXPECTED.values()), made.lost
        assert not any(map(made.media.view().harm_of, made.points))

    @pytest.mark.parametrize(
        "name", ["log/000000000000", "media.json", "checkpoints/000000000001.parquet", "a/b"]
    )
    def test_only_what_an_index_may_be_called_is_taken_for_one(self, folder, tmp_path, planting, name):
        point = planting.point("r1")
        ref = (
            point.disks[0]
            .indexes[0]
            .model_copy(update={"name": name, "size": 7, "sha256": hashlib.sha256(b"planted").hexdigest()})
        )
        planting.record("r1", ref, b"planted", point)
        result = self.require_all(folder, tmp_path)
        assert [f"passed over: it records {name} as an index" in line for line in result.lost] == [True]
        assert len(result.points) == 3

    @pytest.mark.parametrize("set_id", ["0" * 32, "f" * 32])
    def test_other_bytes_by_the_name_of_an_index_take_it_from_no_point(
        self, folder, tmp_path, planting, set_id
    ):
        """Whichever of the two is met first."""
        point = planting.point("r1")
        ref = (
            point.disks[0]
            .indexes[0]
            .model_copy(update={"size": 7, "sha256": hashlib.sha256(b"planted").hexdigest()})
        )
        planting.record("r1", ref, b"planted", named_by(point, ref), set_id=set_id)
        assert len(self.require_all(folder, tmp_path).points) == 3

    @pytest.mark.parametrize("set_id", ["0" * 32, "f" * 32])
    def test_another_point_of_a_run_does_not_take_its_place(self, folder, tmp_path, planting, set_id):
        ref = planting.point("r3").disks[0].indexes[0]
        point = named_by(planting.point("r1"), ref).model_copy(update={"job": "planted"})
        planting.record("r1", ref, planting.media.store.read(ref.name), point, set_id=set_id)
        result = self.require_all(folder, tmp_path)
        assert len(result.points) == 4 and result.lost == ()

    @pytest.mark.parametrize("below", ["a", "z"])
    @pytest.mark.parametrize("also_the_point", [False, True])
    def test_nor_does_what_says_to_be_the_same_piece_of_the_same_record(
        self, folder, tmp_path, planting, also_the_point, below
    ):
        (path,) = packs_of(folder, "r1", records=True)
        name = str(path.relative_to(folder))
        record = read_record(path.read_bytes(), name, planting.media.codec)
        (ref,) = record.head.indexes
        planted = bytes(ref.size)
        point = record.head.point
        if also_the_point:
            point = named_by(point, *planting.point("r3").disks[0].indexes)
        planting.record("r1", ref, planted, point, set_id=record.head.set, below=below)
        self.require_all(folder, tmp_path)

    def test_an_index_whose_rows_mean_nothing_stops_no_rebuild(self, folder, tmp_path, planting):
        ref, data = planting.index("r1", rows=slice(None, None, -1))
        planting.record("z", ref, data, named_by(planting.point("r1"), ref))
        result = self.require_all(folder, tmp_path)
        assert len(result.points) == 3 and "the point of run z" in result.lost[0]

    def lying(self, planting, run, *, days, digest=None, **of_pack):
        """The record of a point whose index states something else of the very frames that r1's has."""
        point = planting.point("r1")
        (disk,) = point.disks
        file, path = planting.media.open_index(disk.indexes[0]), planting.scratch / f"made-{run}"
        stated = tuple(ref.model_copy(update=of_pack) for ref in file.description.packs)
        about = file.description.model_copy(update={"packs": stated})
        rows = {number: file.rows(number).copy() for number in file.segments}
        for some in rows.values():
            if digest is not None:
                some["digest"] = digest
        made = write_index(path, layout.index(run, disk.disk.key, bytes(8)), about, rows.items())
        taken_at = disk.snapshot.taken_at + days * DAY
        disk = disk.model_copy(
            update={
                "indexes": (made,),
                "snapshot": disk.snapshot.model_copy(update={"taken_at": taken_at}),
            }
        )
        lie = point.model_copy(update={"disks": (disk,)})
        planting.record(run, made, path.read_bytes(), lie, set_id=os.urandom(16).hex(), below=run)

    @pytest.mark.parametrize("days", [-300, 300])
    @pytest.mark.parametrize("digest", [bytes(31) + b"1", b"\xff" * 32], ids=["low", "high"])
    def test_what_an_index_states_of_frames_that_are_elsewhere_hides_them_from_no_other(
        self, folder, tmp_path, planting, days, digest
    ):
        (gone,) = packs_of(folder, "r1")
        repack(Media.open(str(folder), write=True), gone, run="repack")
        self.lying(planting, "z", days=days, digest=digest)
        gone.unlink()
        result = rebuilt(folder, tmp_path)
        self.require_true_ones(result)
        assert result.moved == len(FIRST)

    def test_where_both_are_elsewhere_a_place_leads_to_one(self, folder, tmp_path, planting):
        """Which may be the wrong one: then what lay there is lost, and nothing else."""
        (gone,) = packs_of(folder, "r1")
        repack(Media.open(str(folder), write=True), gone, run="repack")
        digest = planting.media.codec.fingerprint(FIRST[5]).digest
        self.lying(planting, "z", days=300, digest=digest)
        gone.unlink()
        made = rebuilt(folder, tmp_path)
        assert made.moved == len(FIRST)
        assert read_point(made.media, made.media.view().committed["r3"]) == OTHER

    @pytest.mark.parametrize("stated", [{"sha256": "0" * 64}, {"size": 10**6}, {"size": 100}])
    @pytest.mark.parametrize("days", [-300, 300])
    def test_what_an_index_states_of_a_pack_spoils_it_for_no_other(
        self, folder, tmp_path, planting, days, stated
    ):
        self.lying(planting, "y", days=-301, digest=b"\x07" * 32)
        self.lying(planting, "z", days=days, **stated)
        self.require_true_ones(rebuilt(folder, tmp_path))

    def test_an_index_of_a_newer_version_stops_no_rebuild(self, folder, tmp_path, planting):
        ref, data = planting.index("r1", rows=slice(None))
        newer = data.replace(b'"format":1', b'"format":9')
        name = layout.index("z", planting.point("r1").disks[0].disk.key, bytes(8))
        made = ref.model_copy(
            update={
                "name": name,
                "sha256": hashlib.sha256(newer).hexdigest(),
                "footer_sha256": hashlib.sha256(newer[-ref.footer :]).hexdigest(),
            }
        )
        planting.record("z", made, newer, named_by(planting.point("r1"), made))
        assert any("newer" in said for said in self.require_all(folder, tmp_path).lost)

    def test_a_point_that_no_entry_can_hold_stops_no_rebuild(self, folder, tmp_path, planting, monkeypatch):
        ref, data = planting.index("r1", rows=slice(None))
        point = planting.point("r1").model_copy(update={"subclient": "x" * 9_000})
        monkeypatch.setattr(documents, "MAX_DOCUMENT_SIZE", 9_000)
        planting.record("z", ref, data, point)
        made = rebuilt(folder, tmp_path)
        self.require_whole(made)
        assert any("too large" in said for said in made.lost)

    def test_pieces_of_a_record_are_put_together_in_every_way(self, folder, tmp_path, monkeypatch):
        """One that is planted may come before the true one in one place and after it in another."""
        monkeypatch.setattr(records, "PIECE", 256)
        monkeypatch.setattr(records, "FRAMES", 4)
        media = Media.open(str(folder), write=True)
        held = {at: noise(at) for at in range(100, 140)}
        back_up(media, held, run="m", scratch=tmp_path, disk=a_disk("big"))
        true = {}
        for path in packs_of(folder, "m", records=True):
            record = read_record(path.read_bytes(), str(path.relative_to(folder)), media.codec)
            true[record.head.piece] = record
        assert len(true) > 1
        for piece, below in ((0, "a"), (1, "z")):
            size = len(true[piece].data)
            parts = [memoryview(bytes(min(256, size - at))) for at in range(0, size, 256)]
            RecordWriter(media.store, media.codec, random=os.urandom)._store_pack(
                below, true[piece].head, parts
            )
        assert held in contents(rebuilt(folder, tmp_path).media).values()

    def test_nor_does_a_disk_without_any(self, folder, tmp_path, planting):
        ref = planting.point("r1").disks[0].indexes[0]
        planting.record("z", ref, planting.media.store.read(ref.name), named_by(planting.point("r1")))
        assert len(self.require_all(folder, tmp_path).points) == 3


def harm(result: Rebuilt) -> dict[str, list]:
    """The lost ranges of each run's point, in extents."""
    view = result.media.view()
    return {
        view.points[slot].run: [
            (start // EXTENT, end // EXTENT) for item in view.harm_of(slot) for start, end in item.ranges
        ]
        for slot in result.points
    }


@sealed_or_not
def test_of_a_spoilt_pack_only_the_spoilt_frames_are_lost(folder, tmp_path, key):
    (path,) = packs_of(folder, "r1")
    name = str(path.relative_to(folder))
    frame = read_frames(path.read_bytes(), name, Media.open(str(folder), wrapping=key).codec)[2]
    flip_bit(path, 8 * frame.offset)
    result = rebuilt(folder, tmp_path, key=key)
    # Extent 9 is the third; the delta did not replace it.
    assert harm(result) == {"r1": [(9, 10)], "r2": [(9, 10)], "r3": []}
    assert contents_but(result, "r3") == OTHER
    assert len(result.lost) == 3


def contents_but(result: Rebuilt, run: str) -> dict[int, bytes]:
    view = result.media.view()
    return read_point(result.media, view.committed[run])


def test_a_missing_pack_is_made_good_by_the_same_bytes_elsewhere(folder, tmp_path):
    """Extent 0 of the first disk is extent 2 of the other one."""
    (path,) = packs_of(folder, "r1")
    path.unlink()
    result = rebuilt(folder, tmp_path, with_holes=True)
    assert harm(result) == {"r1": [(5, 6), (9, 10)], "r2": [(9, 10)], "r3": []}
    assert result.moved == 1


@sealed_or_not
def test_frames_that_were_repacked_are_found_by_their_fingerprint(folder, tmp_path, key):
    (path,) = packs_of(folder, "r1")
    repack(Media.open(str(folder), write=True, wrapping=key), path, run="repack")
    path.unlink()
    assert contents(Media.open(str(folder), wrapping=key)) == EXPECTED
    lose_all_but_packs(folder)
    result = rebuilt(folder, tmp_path, key=key)
    assert contents(result.media) == EXPECTED
    assert (result.moved, result.lost) == (3, ())


def repacked(folder: Path, run: str) -> tuple[Path, list[Frame]]:
    """Move all frames of r1 into a pack of `run`."""
    media = Media.open(str(folder), write=True)
    (path,) = packs_of(folder, "r1")
    new = repack(media, path, run=run)
    return folder / new[0][0].name, [frame for _, frame in new]


def test_of_a_repacked_pack_only_the_spoilt_frame_is_lost(folder, tmp_path):
    path, frames = repacked(folder, "repack")
    packs_of(folder, "r1")[0].unlink()
    flip_bit(path, 8 * (frames[1].offset + 10))
    lose_all_but_packs(folder)
    result = rebuilt(folder, tmp_path)
    assert harm(result) == {"r1": [(5, 6)], "r2": [], "r3": []}
    assert contents_but(result, "r2") == SECOND


def test_a_frame_that_has_decayed_is_taken_from_the_next_pack_that_has_it(folder, tmp_path):
    first, frames = repacked(folder, "repack")
    repacked(folder, "second")
    packs_of(folder, "r1")[0].unlink()
    flip_bit(first, 8 * (frames[1].offset + 10))
    lose_all_but_packs(folder)
    assert contents(rebuilt(folder, tmp_path).media) == EXPECTED


def test_a_pack_that_only_a_newer_version_can_read_keeps_nobody_from_the_next(folder, tmp_path):
    """It proves what it is, and its table has frames of a kind that we do not know."""
    newer, frames = repacked(folder, "repack")
    repacked(folder, "second")
    packs_of(folder, "r1")[0].unlink()
    data = bytearray(newer.read_bytes())
    footer = PackFooter.decode(data[-FOOTER_SIZE:], len(data), "a pack", sealed=False)
    data[footer.table_offset + ROW_SIZE - 1] |= 0x80
    table = data[footer.table_offset : -FOOTER_SIZE]
    data[-12:-8] = crc32c(table, crc32c(data[:HEADER_SIZE])).to_bytes(4, "little")
    newer.write_bytes(data)
    with pytest.raises(NewerVersion):
        read_frames(data, "a pack", Media.open(str(folder)).codec)
    lose_all_but_packs(folder)
    result = rebuilt(folder, tmp_path)
    assert contents(result.media) == EXPECTED
    assert result.moved == len(frames)


def given_up(tmp_path: Path) -> tuple[Keeping, int]:
    """Media whose first point was given up; the second one needs its index and a part of its data."""
    keeping = Keeping(tmp_path)
    keeping.back_up({at: ("a", at) for at in range(60)})
    stays = keeping.back_up({at: ("b", at) for at in range(14)})
    keeping.forget(0)
    keeping.prune(threshold=0.9)
    return keeping, stays


def test_a_point_that_a_prune_gave_up_stays_away_but_what_others_need_of_it(tmp_path):
    keeping, stays = given_up(tmp_path)
    result = rebuilt(keeping.folder, tmp_path)
    assert contents(result.media) == {"run-2": keeping.held[stays]}
    assert result.lost == () and [line[:22] for line in result.left_out] == ["the point of run run-1"]
    lose_all_but_packs(tmp_path / "rebuilt")
    assert contents(rebuilt(tmp_path / "rebuilt", tmp_path, "again").media) == {"run-2": keeping.held[stays]}


def test_a_point_that_a_prune_gave_up_can_be_had_with_its_holes(tmp_path):
    keeping, stays = given_up(tmp_path)
    result = rebuilt(keeping.folder, tmp_path, with_holes=True)
    assert {run for run, lost in harm(result).items() if lost} == {"run-1"}
    assert contents_but(result, "run-2") == keeping.held[stays]


def test_what_nobody_needs_of_rebuilt_media_can_be_pruned(tmp_path):
    """Also what a repacking and the rebuild itself have stored, of which the new log knows no run."""
    keeping, _ = given_up(tmp_path)
    result = rebuilt(keeping.folder, tmp_path)
    assert result.moved
    keeping.folder = tmp_path / "rebuilt"
    keeping.media = keeping.opened()
    assert keeping.plan().unknown == ()
    keeping.forget(*result.points)
    keeping.now += 99 * DAY
    keeping.prune(days=30)
    assert keeping.objects() == set()


def test_a_point_that_is_harmed_by_a_spoilt_pack_too_is_kept(folder, tmp_path):
    """Its other pack is gone."""
    packs_of(folder, "r2")[0].unlink()
    (path,) = packs_of(folder, "r1")
    flip_bit(path, 8 * (read_frames(path.read_bytes(), "", Media.open(str(folder)).codec)[2].offset + 9))
    result = rebuilt(folder, tmp_path)
    assert (harm(result)["r2"], result.left_out) == ([(5, 6), (7, 8), (9, 10)], ())


def test_a_pack_that_is_cut_harms_its_points_and_gives_none_of_them_up(folder, tmp_path):
    (path,) = packs_of(folder, "r3")  # Its other extent is one of r1, too.
    path.write_bytes(path.read_bytes()[:-1])
    result = rebuilt(folder, tmp_path)
    assert (harm(result), result.left_out) == ({"r1": [], "r2": [], "r3": [(1, 2)]}, ())


def test_while_a_pack_cannot_be_read_nothing_is_held_for_given_up(folder, tmp_path):
    """It may be the one that the missing frames were moved to."""
    path, _ = repacked(folder, "repack")
    packs_of(folder, "r1")[0].unlink()
    flip_bit(path, 8 * 40)
    result = rebuilt(folder, tmp_path)
    assert (set(harm(result)), result.left_out) == ({"r1", "r2", "r3"}, ())


def test_what_is_found_again_may_take_many_tables(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lost_frames, "TABLE_ROWS", 2)
    media = Media.open(str(folder), write=True)
    for run in ("r1", "r2"):
        (path,) = packs_of(folder, run)
        repack(media, path, run=f"repack-{run}")
        path.unlink()
    lose_all_but_packs(folder)
    result = rebuilt(folder, tmp_path)
    assert contents(result.media) == EXPECTED
    assert (len(result.media.view().relocations), result.moved) == (3, 5)


def test_a_moves_table_is_of_so_many_packs_that_its_entry_can_name_them():
    rows = np.zeros(7, MOVE)
    rows["from_pack"] = [0, 0, 1, 2, 2, 2, 3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lost_frames, "TABLE_SOURCES", 2)
        part, rest = lost_frames._table(rows)
    assert (part["from_pack"].tolist(), rest["from_pack"].tolist()) == ([0, 0, 1], [2, 2, 2, 3])


def test_what_is_lost_may_take_many_damage_entries(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(lost_frames, "PORTION", 2)
    (path,) = packs_of(folder, "r3")
    path.unlink()
    (path,) = packs_of(folder, "r1")
    path.unlink()
    result = rebuilt(folder, tmp_path, with_holes=True)
    assert harm(result) == {"r1": [(0, 1), (5, 6), (9, 10)], "r2": [(9, 10)], "r3": [(1, 3)]}
    assert [len(damage.entry.objects[0].offsets) for damage in result.media.view().damages] == [2, 1, 1, 2]


@sealed
def test_sealed_packs_are_of_no_use_without_a_key_document_and_its_key(folder, tmp_path, key):
    with pytest.raises(KeyNeeded, match="this media is sealed"):
        rebuilt(folder, tmp_path, "a")
    with pytest.raises(WrongKey):
        rebuilt(folder, tmp_path, "b", key=a_key("other words entirely"))
    (folder / "keys/0").unlink()
    with pytest.raises(KeyNeeded, match=r"no key document beside them.*media\.json is not needed"):
        rebuilt(folder, tmp_path, "c", key=key)


def test_a_key_is_refused_where_nothing_is_sealed(folder, tmp_path):
    with pytest.raises(BadRequest, match="nothing there is sealed"):
        rebuilt(folder, tmp_path, key=a_key())


@sealed
def test_unsealed_packs_among_sealed_ones_are_not_believed(folder, tmp_path, key):
    other = new_media(tmp_path / "other")
    back_up(other, FIRST, run="r7", scratch=tmp_path)
    (tmp_path / "other/runs/r7").rename(folder / "runs/r7")
    result = rebuilt(folder, tmp_path, key=key)
    assert contents(result.media) == EXPECTED
    assert sum("an unsealed pack of media" in line for line in result.lost) == 2


@sealed
def test_rebuilt_media_is_opened_by_the_key_that_rebuilt_it_alone(folder, tmp_path, key):
    second = a_key("the words in the safe")
    media = Media.open(str(folder), write=True, wrapping=key)
    add_key(media, key, second, now=NOW, random=os.urandom)
    assert contents(rebuilt(folder, tmp_path, key=second).media) == EXPECTED
    with pytest.raises(WrongKey):
        Media.open(str(tmp_path / "rebuilt"), wrapping=key)


def test_the_command_makes_media_and_says_what_is_lost(folder, tmp_path, capsys):
    from vsa.cli.program import run

    (path,) = packs_of(folder, "r1")
    path.unlink()
    target = tmp_path / "by-command"
    code = run(
        ["rebuild", "--media", str(folder), "--to", str(target), "--with-holes"], sys.stdout, sys.stderr
    )
    said = capsys.readouterr()
    assert code == 3
    assert "Rebuilt      3 recovery points" in said.out
    assert "point 1, disk os: 8192 bytes in 2 ranges" in said.err
    assert set(contents_of_sound(target)) == {"r3"}


@pytest.mark.parametrize("target", ["media", "media/again", "media/../media/a/b", "link/again", "."])
def test_the_command_makes_nothing_inside_or_around_the_old_media(folder, tmp_path, capsys, target):
    from vsa.cli.program import run

    (tmp_path / "link").symlink_to(folder)
    before = sorted(folder.rglob("*"))
    code = run(["rebuild", "--media", str(folder), "--to", str(tmp_path / target)], sys.stdout, sys.stderr)
    assert code == 2 and "a place of its own" in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("one", "other", "nested"),
    [
        ("s3://bucket", "s3://bucket/prefix", True),
        ("s3://bucket/a", "s3://bucket/ab", False),
        ("azure://account/container/a/b", "azure://account/container/a", True),
        ("azure://account/container", "azure://account/another", False),
        ("/azure:/account", "azure://account/container", False),
    ],
)
def test_places_are_nested_by_whole_parts(one, other, nested):
    assert are_nested(one, other) is nested


def test_the_command_says_which_points_it_left_out(folder, tmp_path, capsys):
    from vsa.cli.program import run

    packs_of(folder, "r2")[0].unlink()
    code = run(["rebuild", "--media", str(folder), "--to", str(tmp_path / "b")], sys.stdout, sys.stderr)
    said = capsys.readouterr()
    assert code == 3
    assert "left out  1 recovery points" in said.out
    assert "left out: the point of run r2, VM web" in said.err and "--with-holes" in said.err


def contents_of_sound(folder: Path) -> dict[str, dict[int, bytes]]:
    media = Media.open(str(folder))
    view = media.view()
    return {made.run: read_point(media, slot) for slot, made in view.points.items() if not view.harm_of(slot)}


def test_an_intent_that_is_another_runs_is_not_believed(folder, tmp_path):
    (folder / "runs/r1/intent.json").write_bytes((folder / "runs/r2/intent.json").read_bytes())
    made = rebuilt(folder, tmp_path)
    assert len(made.points) == 3
    assert [made.media.intent(run).run for run in ("r1", "r2", "r3")] == ["r1", "r2", "r3"]


@pytest.mark.parametrize("with_holes", [False, True])
@pytest.mark.parametrize("refused", ["0" * 32, "f" * 32])
def test_what_a_run_recorded_before_it_was_refused_takes_nothing_from_what_it_committed(
    tmp_path, refused, with_holes
):
    """It shared a pack that was pruned in the moment of its commit, and read again what had changed since."""
    folder, data = tmp_path / "media", {at: noise(at) for at in range(20)}
    media = new_media(folder)
    slot = back_up(media, data, run="r1", scratch=tmp_path, sharing=media.sharing(Offer.MEDIA))
    back_up(media, {1: noise("x")}, run="r3", scratch=tmp_path, disk=a_disk("d3"))
    media.begin_run(an_intent("r2", started_at=small_media.LATER))
    disk, how = a_disk("data"), {"run": "r2", "scratch": tmp_path, "client": "other"}
    first = write_disk(media, data, disk=disk, sharing=media.sharing(Offer.MEDIA), **how)
    entry = a_point(disk, first.indexes, packs=first.packs, vm="other")
    ids = iter([bytes.fromhex(refused), os.urandom(16)])
    records = RecordWriter(media.store, media.codec, random=lambda _: next(ids)).store("r2", entry.point)
    media.append(ForgetEntry(points=(slot,), reason="old"))
    assert small_media.prune(media, threshold=0.0).points == (slot,)
    with pytest.raises(ObjectsDoomed):
        media.append(PointEntry(point=entry.point.model_copy(update={"records": records})), run="r2")
    data[3] = noise("what the disk holds by then")
    second = write_disk(media, data, disk=disk, **how)
    media.append(a_point(disk, second.indexes, packs=second.packs, vm="other"), run="r2")
    made = rebuilt(folder, tmp_path, with_holes=with_holes)
    view = made.media.view()
    assert made.left_out == () and not view.harm_of(view.committed["r2"])
    assert read_point(made.media, view.committed["r2"]) == data
    assert {made.run for made in view.points.values()} >= {"r2", "r3"}
    assert with_holes or len(made.points) == 2
