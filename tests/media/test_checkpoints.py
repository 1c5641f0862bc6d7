"""A checkpoint says what the log says, faster; and whatever is wrong with one, the log's word counts."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
from collections.abc import Mapping

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.faults.small_media import prune
from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import a_disk, a_point, a_snapshot, an_intent, flip_bit, new_media, objects
from tests.media.test_log import seen, slot_path
from tests.media.test_view import DISK, INDEX, SAID, job, numbered, point, view_of
from tests.soak import only_in_soak
from vsa.errors import MediaDamaged, TryAgainLater
from vsa.media import checkpoint, layout, packed, recall
from vsa.media.checkpoint import CheckpointDescription, Kind, LatestTime, assemble, decode, encode
from vsa.media.entries import (
    Damaged,
    DamageEntry,
    DoomEntry,
    DoubtEntry,
    ForgetEntry,
    Harm,
    PinEntry,
    RelocateEntry,
    RotateEntry,
    UnforgetEntry,
)
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import ObjectRef, Point

MEDIA = "0" * 32
HASH = "1" * 64
PACK = layout.pack("r1", bytes(16))


def kept_and_read(view: View) -> View:
    """The view after it has been through a checkpoint."""
    view = dataclasses.replace(view, head_hash=HASH)
    return decode(encode(view, MEDIA), "checkpoint", slot=view.head - 1, media_id=MEDIA)


def everything() -> View:
    """A log that has an entry of every type, and something in every table of its view."""
    return view_of(
        seen("web"),
        ("r1", a_point(DISK, [INDEX], bases=[a_snapshot(DISK, "a")])),
        ("r2", a_point(a_disk("data"), [INDEX])),
        ("r3", a_point(DISK, [INDEX])),
        ForgetEntry(points=(2, 3), reason="retention"),
        UnforgetEntry(points=(3,)),
        PinEntry(points=(1, 3)),
        DoomEntry(runs=("r9",), objects=(PACK,), points=(2,), reason="prune"),
        ForgetEntry(points=(3,), reason="retention"),
        DoubtEntry(points=(1,), disk_key="d", reason="audit"),
        DamageEntry(
            objects=(Damaged(name=PACK, offsets=(64, 128)), Damaged(name=INDEX.name)),
            harm=(Harm(points=(1,), disk_key="d", ranges=((0, 4096),)),),
            reason="verify",
        ),
        (
            "r4",
            RelocateEntry(
                table=ObjectRef(name=layout.moves("r4", bytes(8)), size=9, sha256=HASH),
                packs=(PACK,),
                healed=(Damaged(name=PACK, offsets=(64,)),),
                reason="heal",
            ),
        ),
        RotateEntry(key=3),
        job("z"),
    )


def same(one: View, other: View) -> bool:
    """Field by field, so that one that is added to View and forgotten here shows."""
    fields = [field.name for field in dataclasses.fields(View) if field.name != "head_hash"]
    return all(getattr(one, name) == getattr(other, name) for name in fields)


def test_a_checkpoint_holds_everything_that_a_view_says():
    view = everything()
    empty = View(0, "")
    unsaid = [f.name for f in dataclasses.fields(View) if getattr(view, f.name) == getattr(empty, f.name)]
    assert unsaid == []
    found = kept_and_read(view)
    assert same(found, view)
    assert [made.slot for made in found.points.values()] == [1, 3]
    assert same(kept_and_read(found), view)


@settings(deadline=None, max_examples=40)
@given(st.lists(SAID, min_size=1, max_size=8), st.integers(1, 8))
def test_a_log_read_on_from_a_checkpoint_is_the_log_read_from_its_start(said, cut):
    cut = min(cut, len(said))
    after = kept_and_read(view_of(*said[:cut])).extended(numbered(said[cut:], cut))
    assert same(after, view_of(*said))


def test_an_older_checkpoint_tells_the_newest_time_of_points_and_jobs():
    """One without `latest`: who judges by times reads the log, so that of other entries is not missed."""
    view = dataclasses.replace(view_of(point("r0"), job("a"), point("r1"), seen("web")), head_hash=HASH)
    assert view.latest.slot == 3
    old = decode(encode(dataclasses.replace(view, latest=None), MEDIA), "x", slot=3, media_id=MEDIA)
    assert old.latest == (2, view.points[2].time)
    nothing = dataclasses.replace(view_of(seen("web")), head_hash=HASH, latest=None)
    assert decode(encode(nothing, MEDIA), "x", slot=0, media_id=MEDIA).latest is None


def test_a_latest_time_of_an_entry_that_comes_later_is_refused():
    late = LatestTime(slot=6, time=dt.datetime(2031, 5, 6, tzinfo=dt.UTC))
    with pytest.raises(MediaDamaged, match="an entry that comes later"):
        read(forged(about=ABOUT.model_copy(update={"latest": late})))


def test_times_come_back_to_the_microsecond():
    time = dt.datetime(2031, 5, 6, 7, 8, 9, 123_457, dt.timezone(dt.timedelta(hours=5)))
    entry = next(numbered([("r1", a_point(DISK, [INDEX]))]))[0].model_copy(update={"time": time})
    view = View(0, "").extended([(entry, HASH)])
    assert kept_and_read(view).points[0].time.isoformat() == view.points[0].time.isoformat()
    assert view.points[0].time == time


HOURS = st.integers(-14, 14).map(lambda hours: dt.timezone(dt.timedelta(hours=hours)))
EDGES = (
    dt.datetime.min.replace(tzinfo=dt.UTC),
    dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, dt.UTC),
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime.max.replace(tzinfo=dt.UTC),
)


@settings(deadline=None)
@given(st.sampled_from(EDGES) | st.datetimes(timezones=HOURS))
def test_whatever_time_an_entry_claims_its_checkpoint_is_believed(time):
    """Of a point, of a job, and of what was forgotten: also before 1970, and on the last day there is."""
    said = [("r1", a_point(DISK, [INDEX])), job("a"), ForgetEntry(points=(0,), reason="retention")]
    entries = [(entry.model_copy(update={"time": time}), digest) for entry, digest in numbered(said)]
    view = View(0, "").extended(entries)
    found = kept_and_read(view)
    assert same(found, view)
    told = [found.points[0].time, found.jobs[1].time, found.forgotten[0], found.latest.time]
    assert told == [view.latest.time] * 4


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "media"


@pytest.fixture
def media(folder):
    """Media with seven entries, and checkpoints of slots 2 and 5."""
    media = new_media(folder)
    for number in range(7):
        media.append(seen(f"vm-{number}"))
        if number in (2, 5):
            assert media.checkpoint_if_due(every=3)
    assert {name for name in objects(folder) if name.startswith("checkpoints/")} == {
        layout.checkpoint(2),
        layout.checkpoint(5),
    }
    return media


def log_slots_read(folder) -> list[int]:
    """The log's slots that opening and viewing reads, in order; the view must be what the log says."""
    store = FaultyStore(FolderStore(folder), lambda *_: None)
    view = Media(store, write=False).view()
    assert same(view, Media.open(str(folder), from_log=True).view())
    return [layout.slot_number(name) for method, name in store.calls if method == "read" and "log/" in name]


def test_opening_reads_the_log_from_the_newest_checkpoint_on(media, folder):
    assert log_slots_read(folder) == [5, 6, 7]


def test_the_log_itself_is_read_when_that_is_asked_for(media, folder):
    store = FaultyStore(FolderStore(folder), lambda *_: None)
    Media(store, write=False, from_log=True).view()
    assert not any("checkpoints/" in name for _, name in store.calls)
    assert ("read", layout.slot(0)) in store.calls


def test_a_checkpoint_is_written_when_one_is_due_and_only_then(media, folder):
    assert not media.checkpoint_if_due(every=3)
    before = objects(folder)
    assert media.checkpoint_if_due(every=1)
    assert objects(folder) - before == {layout.checkpoint(6)}
    assert not new_media(folder.parent / "empty").checkpoint_if_due(every=1)


def test_of_two_writers_of_one_checkpoint_both_are_content(folder):
    media = new_media(folder)
    media.append(seen("a"))

    def lost_race(_number: int, method: str, name: str):
        if method == "create" and layout.checkpoint_slot(name) is not None:
            assert media.checkpoint_if_due(every=1)

    late = Media(FaultyStore(FolderStore(folder), lost_race), write=True)
    assert late.checkpoint_if_due(every=1)


@pytest.mark.parametrize("method", ["create", "names"])
def test_a_checkpoint_that_cannot_be_written_is_no_error(folder, method, caplog):
    new_media(folder).append(seen("a"))

    def fail(_number: int, called: str, name: str):
        bad = called == method and name.startswith(layout.CHECKPOINTS)
        return (Moment.BEFORE, TryAgainLater("away")) if bad else None

    with caplog.at_level(logging.WARNING):
        done = Media(FaultyStore(FolderStore(folder), fail), write=True).checkpoint_if_due(every=1)
    assert done == (method == "names")
    assert "away" in caplog.text


class TestWhateverIsWrongWithACheckpoint:
    """The next older one serves, then the log; it is logged, and never an error."""

    def test_a_changed_bit(self, media, folder, caplog):
        path = folder / layout.checkpoint(5)
        bits = path.stat().st_size * 8
        for bit in range(0, bits, bits // 40):
            flip_bit(path, bit)
            assert log_slots_read(folder)[:2] == [2, 3], bit
            flip_bit(path, bit)
        assert "a checkpoint is passed over" in caplog.text

    @pytest.mark.parametrize("kept", [0, 3, 8, 11, 100, -1])
    def test_a_cut(self, media, folder, kept):
        path = folder / layout.checkpoint(5)
        path.write_bytes(path.read_bytes()[:kept])
        assert log_slots_read(folder)[:2] == [2, 3]

    def test_bytes_in_front_and_after(self, media, folder):
        path = folder / layout.checkpoint(5)
        whole = path.read_bytes()
        for data in (b"x" + whole, whole + b"x", whole[:4] + b"x" + whole[4:]):
            path.write_bytes(data)
            assert log_slots_read(folder)[:2] == [2, 3]

    def test_both_are_bad(self, media, folder):
        for slot in (2, 5):
            flip_bit(folder / layout.checkpoint(slot), 999)
        assert log_slots_read(folder)[:2] == [0, 1]

    def test_it_is_of_a_slot_that_the_log_does_not_have(self, media, folder):
        for slot in (5, 6):
            slot_path(folder, slot).unlink()
        assert log_slots_read(folder) == [5, 2, 3, 4, 5]

    def test_the_log_has_another_entry_in_its_slot(self, media, folder, tmp_path):
        for slot in (5, 6):
            slot_path(folder, slot).unlink()
        Media.open(str(folder), write=True, from_log=True).append(seen("other"))
        assert log_slots_read(folder) == [5, 2, 3, 4, 5, 6]

    def test_it_is_of_another_media(self, media, folder):
        view = media.view()
        (folder / layout.checkpoint(6)).write_bytes(encode(view, MEDIA))
        assert log_slots_read(folder)[:1] == [5]

    def test_it_has_the_name_of_another_slot(self, media, folder):
        (folder / layout.checkpoint(6)).write_bytes((folder / layout.checkpoint(5)).read_bytes())
        assert log_slots_read(folder)[:1] == [5]

    def test_it_is_larger_than_any_is(self, media, folder):
        with (folder / layout.checkpoint(6)).open("wb") as file:
            file.truncate(checkpoint.MAX_SIZE + 1)
        assert log_slots_read(folder)[:1] == [5]

    def test_names_that_are_no_checkpoints_mean_nothing(self, folder):
        new_media(folder).append(seen("a"))
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints/7.parquet").write_bytes(b"x")
        assert log_slots_read(folder) == [0, 1]


POINT = packed.Packer().pack(a_point(DISK, [INDEX]).point.model_dump_json())
ABOUT = CheckpointDescription(blake3=HASH, media=MEDIA, slot=5, entry=HASH)


def forged(*rows: tuple[int, ...], heap: bytes = POINT, about: CheckpointDescription = ABOUT) -> bytes:
    """A checkpoint whose own digest holds, whatever it says."""
    return assemble(about, heap, np.array(list(rows), checkpoint.ROW))


def read(data: bytes) -> View:
    return decode(data, "checkpoint", slot=5, media_id=MEDIA)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        pytest.param([(15, 1, 0, 4, 0, 0)], "kinds", id="a kind that nobody knows"),
        pytest.param([(2, 1, 0, 4, 0, 0), (1, 1, 0, 4, 0, 0)], "kinds", id="kinds in disorder"),
        pytest.param([(1, 6, 0, 4, 0, 0)], "slot or time", id="a slot that comes later"),
        pytest.param([(1, -2, 0, 4, 0, 0)], "slot or time", id="a slot below none"),
        pytest.param([(1, 1, checkpoint._EARLIEST - 1, 4, 0, 0)], "slot or time", id="a time before year 1"),
        pytest.param([(1, 1, checkpoint._LATEST + 1, 4, 0, 0)], "slot or time", id="a time after year 9999"),
        pytest.param([(1, 1, 2**62, 4, 0, 0)], "slot or time", id="a time that no calendar has"),
        pytest.param([(1, 1, 0, 3, 0, 0)], "outside", id="bytes in the magic"),
        pytest.param([(1, 1, 0, 2**31, 0, 0)], "outside", id="bytes behind the end"),
        pytest.param([(1, 1, 0, 4, 65535, 0)], "outside", id="a key that reaches out"),
        pytest.param([(1, 1, 0, 4, 0, 2**32 - 1)], "outside", id="data that reaches out"),
        pytest.param([(1, 2, 0, 4, 0, 0), (1, 1, 0, 4, 0, 0)], "ascend", id="slots in disorder"),
        pytest.param([(1, 2, 0, 4, 0, 0), (1, 2, 0, 4, 0, 0)], "ascend", id="a slot twice"),
        pytest.param([(1, -1, 0, 4, 0, 0)], "ascend", id="a point of no slot"),
        pytest.param([(9, 1, 0, 4, 0, 10)], "unreadable", id="a relocation that is none"),
    ],
)
def test_a_checkpoint_that_lies_about_its_rows_is_refused(rows, complaint):
    with pytest.raises(MediaDamaged, match=complaint):
        read(forged(*rows))


def test_a_checkpoint_of_a_newer_form_is_passed_over():
    data = forged().replace(b'"format":1', b'"format":2')
    with pytest.raises(MediaDamaged, match="own digest"):
        read(data)
    at = checkpoint._digest_at(data, "x")
    with pytest.raises(MediaDamaged, match="does not describe itself"):
        read(data[:at] + checkpoint._digest(data, at).encode() + data[at + 64 :])


def test_a_noun_that_unpacks_to_more_than_an_entry_can_hold_is_never_unpacked():
    bomb = zstandard.ZstdCompressor().compress(bytes(layout.MAX_DOCUMENT_SIZE + 1))
    names = b"r1 client disk"
    row = (Kind.POINT, 1, 0, 4, len(names), len(bomb))
    view = read(forged(row, heap=names + bomb))
    with pytest.raises(MediaDamaged, match="at most 16777216 are possible"):
        _ = view.points[1].point


@pytest.mark.parametrize(
    "data", [b"", b"no frame", packed.Packer().pack(b"{}"), packed.Packer().pack(b"\xff")]
)
def test_what_is_no_noun_is_said(data):
    with pytest.raises(MediaDamaged, match="unreadable"):
        packed.unpack(data, Point.model_validate_json)


def a_long_view(points: int) -> View:
    """So many points of fifty VMs, as a log would say them."""
    bodies = [a_point(a_disk(f"disk-{number}"), [INDEX], vm=f"vm-{number}") for number in range(50)]
    return view_of(*((f"r{number}", bodies[number % 50]) for number in range(points)))


def test_opening_unpacks_nothing_that_is_not_asked_for(monkeypatch):
    view = kept_and_read(a_long_view(500))
    unpacked: list[bytes] = []

    def counted(data, read):
        unpacked.append(data)
        return packed.unpack(data, read)

    for module in ("facts", "checkpoint"):
        monkeypatch.setattr(f"vsa.media.{module}.unpack", counted)
    view = kept_and_read(view)
    unpacked.clear()
    assert (len(view.points), view.points[499].run, view.committed["r7"]) == (500, "r499", 7)
    assert unpacked == []
    assert view.points[499].point.vm.name == "vm-49"
    assert len(unpacked) == 1
    said = ("r500", a_point(a_disk("disk-1"), [INDEX], vm="vm-1"))
    after = view.extended(numbered([said], 500))
    assert isinstance(after.points, Mapping)
    assert after.points_of_disk(a_disk("disk-1").key)[-2:] == (451, 500)
    # The disk's own history, which the new point was added to, and no other.
    assert len(unpacked) <= 3


@only_in_soak
def test_media_of_a_hundred_thousand_points_opens_in_two_seconds(tmp_path):
    from bench.media_scale import make_long_log, opened

    assert make_long_log(tmp_path / "media", 100_000).checkpoint_if_due()
    found = opened(str(tmp_path / "media"), from_log=False)
    assert found["points"] == 100_000
    assert found["seconds"] < 2


def test_media_of_many_points_is_opened_by_reading_two_slots(tmp_path):
    from bench.media_scale import make_long_log

    folder = tmp_path / "media"
    assert make_long_log(folder, 1_500, vms=20).checkpoint_if_due()
    assert log_slots_read(folder) == [1519, 1520]


def test_media_goes_on_from_a_checkpoint_as_from_the_log(folder):
    """Everything that a commit asks of a view, asked of one that was recalled."""
    media = new_media(folder)
    media.append(DoomEntry(runs=("dead",), reason="x"))
    media.begin_run(an_intent("r1"))
    assert media.checkpoint_if_due(every=1)
    again = Media.open(str(folder), write=True)
    with pytest.raises(Exception, match="dead was fenced"):
        again.append(seen("x"), run="dead")
    assert again.append(seen("x")) == 1


def test_a_hole_behind_a_checkpoint_is_found(media, folder):
    for number in range(7, 10):
        media.append(seen(f"vm-{number}"))
    slot_path(folder, 8).unlink()
    for from_log in (False, True):
        with pytest.raises(MediaDamaged, match=r"000000000008 is missing, though .*000000000009"):
            Media.open(str(folder), from_log=from_log).view()


def test_a_listing_gives_only_names_behind_the_one_given(media, folder):
    store = FolderStore(folder)
    every = sorted(store.names(""))
    for after in ["", "log", "log/", layout.slot(3), layout.checkpoint(2), "media.json", "zzz", every[0]]:
        assert sorted(store.names("", after=after)) == [name for name in every if name > after]


def test_a_checkpoint_beyond_the_log_keeps_none_from_being_written(media, folder):
    path = folder / layout.checkpoint(10**12 - 1)
    path.write_bytes(b"of no log")
    media.append(seen("vm-7"))
    assert media.checkpoint_if_due(every=1)
    assert recall.newest(media.store, media.id).head == media.view().head
    assert not media.checkpoint_if_due(every=1)


@pytest.mark.parametrize("names", [b"", b"run", b"run client"])
def test_a_point_that_lacks_names_makes_its_checkpoint_no_use(media, folder, caplog, names):
    witness = media.view().witness
    about = CheckpointDescription(blake3="0" * 64, media=media.id, slot=witness.slot, entry=witness.sha256)
    row = np.array([(Kind.POINT, 0, 0, 4, len(names), 0)], checkpoint.ROW)
    crafted = assemble(about, names, row)
    with pytest.raises(MediaDamaged, match="a point is of no run"):
        decode(crafted, "crafted", slot=witness.slot, media_id=media.id)
    (folder / layout.checkpoint(witness.slot)).write_bytes(crafted)
    with caplog.at_level(logging.WARNING):
        assert same(Media.open(str(folder)).view(), media.view())
    assert "a point is of no run" in caplog.text


def test_a_checkpoint_is_a_table_that_any_reader_of_parquet_reads(media, folder):
    import pyarrow.parquet as pq

    table = pq.read_table(folder / layout.checkpoint(5))
    assert table.column_names == list(checkpoint.ROW.names)
    assert table.num_rows == 6


class TestABadCheckpoint:
    """It is passed over for as long as it is there; it must not stay the newest, nor keep a good one out."""

    def test_another_one_takes_its_place(self, media, folder):
        assert not media.checkpoint_if_due(every=3)
        flip_bit(folder / layout.checkpoint(5), 999)
        for from_log in (False, True):
            with_bad = Media.open(str(folder), write=True, from_log=from_log)
            assert not with_bad.checkpoint_if_due(every=5), "the older one is good, and not that old"
        assert Media.open(str(folder), write=True).checkpoint_if_due(every=3)
        assert log_slots_read(folder) == [6, 7]

    def test_one_that_was_believed_is_not_read_once_more(self, media, folder):
        store = FaultyStore(FolderStore(folder), lambda *_: None)
        opened = Media(store, write=True)
        opened.view()
        del store.calls[:]
        assert not opened.checkpoint_if_due(every=3)
        assert not [name for method, name in store.calls if method == "read" and "checkpoints/" in name]

    def test_pruning_keeps_two_good_ones_whatever_lies_between(self, media, folder):
        names = [layout.checkpoint(slot) for slot in (2, 5, 6)]
        assert media.checkpoint_if_due(every=1)
        flip_bit(folder / layout.checkpoint(5), 999)
        prune(media)
        assert [name for name in names if (folder / name).exists()] == [names[0], names[2]]


def test_what_is_wrong_with_a_checkpoint_is_nothing_once_it_is_gone(media, folder):
    store = FolderStore(folder)
    assert recall.misfit(store, 5, media.id) == ""
    flip_bit(folder / layout.checkpoint(5), 999)
    assert layout.checkpoint(5) in recall.misfit(store, 5, media.id)
    (folder / layout.checkpoint(5)).unlink()
    assert recall.misfit(store, 5, media.id) is None
    slot_path(folder, 2).unlink()
    assert layout.slot(2) in recall.misfit(store, 2, media.id)
