"""What a verify says of objects that no restore needs: records, keys, checkpoints, intents, messages."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.cli.test_cli import vsa
from tests.faults.small_media import prune
from tests.media.faulty_store import FaultyStore
from tests.media.making import a_key, an_intent, flip_bit, noise
from tests.media.test_view import job as a_job
from tests.upkeep.estate import DB, NOW, OS, TODAY, Estate, a_full_estate
from vsa.media import layout, recall
from vsa.media.checkpoint import encode
from vsa.media.descriptor import read_descriptor
from vsa.media.entries import DoomEntry, ForgetEntry, MovedIndex, RelocateEntry, RotateEntry
from vsa.media.folder import FolderStore
from vsa.media.key_ring import unlock
from vsa.media.media import Media
from vsa.media.records import RecordWriter
from vsa.media.view import WHOLE
from vsa.media.wrapping import KeyFile
from vsa.upkeep.checkpoints import judge, listed, superseded
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Cost, Depth, VerifyReport
from vsa.upkeep.rotation import add_key
from vsa.upkeep.verify import verify

KEY = KeyFile(noise("a key", 32))


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return a_full_estate(tmp_path)


@pytest.fixture
def sealed(tmp_path: Path) -> Estate:
    """With a second document for somebody else's passphrase."""
    estate = a_full_estate(tmp_path, KEY)
    add_key(estate.backups.media, KEY, a_key(), now=NOW, random=random.Random(1).randbytes)
    return estate


def costs(report: VerifyReport) -> list[tuple[str, Cost]]:
    return [(finding.name, finding.cost) for finding in report.findings]


def while_verifying(estate: Estate, then: Callable[[], None], at: str) -> VerifyReport:
    """A verify before whose first read of an object with `at` in its name something is done."""
    store, done = FaultyStore(FolderStore(estate.location), lambda *_: None), []
    unlocked = None
    if estate.key is not None:
        unlocked = unlock(store, *read_descriptor(store), estate.key, random=random.Random(1).randbytes)

    def script(_number: int, method: str, name: str) -> None:
        if method == "read" and at in name and not done:
            done.append(name)
            then()

    store._script = script
    media, scratch = Media(store, write=False, unlocked=unlocked), estate.folder / "scratch"
    report = verify(media, Depth.BYTES, scratch=scratch, date=TODAY, threads=1, rng=random.Random(1))
    assert done
    return report


class TestRecords:
    def test_a_lost_one_is_found_recorded_once_and_said_ever_after(self, estate: Estate) -> None:
        name = estate.records[0]
        flip_bit(estate.path(name), 4321)
        assert estate.verify(Depth.OBJECTS).is_sound
        report = estate.verify(Depth.BYTES)
        assert costs(report) == [(name, Cost.REBUILD)]
        assert "points 0, 2, " in report.findings[0].reason
        assert report.all_restores and not report.harmed
        media = Media.open(str(estate.location), write=True)
        assert len(record_damage(media, report)) == 1
        assert media.view().damaged[name] == WHOLE
        again = estate.verify(Depth.BYTES)
        assert costs(again) == [(name, Cost.REBUILD)] and record_damage(media, again) == ()

    @pytest.mark.parametrize("kept", [None, 0, 100])
    def test_one_that_is_gone_or_cut_is_found_without_reading_it(
        self, estate: Estate, kept: int | None
    ) -> None:
        name = estate.records[0]
        before = estate.path(name).read_bytes()
        with estate.changed(name, None if kept is None else before[:kept]):
            for depth in (Depth.OBJECTS, Depth.BYTES):
                assert costs(estate.verify(depth)) == [(name, Cost.REBUILD)]
            assert estate.verify(Depth.LOG).is_sound

    def test_that_of_a_point_that_was_given_up_is_looked_at_while_others_rest_on_it(
        self, estate: Estate
    ) -> None:
        first, media = min(estate.images), Media.open(str(estate.location), write=True)
        (name,) = [ref.name for ref in media.view().points[first].point.records]
        media.append(ForgetEntry(points=(first,), reason="old"))
        prune(media, threshold=0)
        assert first not in media.view().points and estate.path(name).exists()
        assert estate.verify(Depth.BYTES).is_sound
        flip_bit(estate.path(name), 4321)
        assert costs(estate.verify(Depth.BYTES)) == [(name, Cost.REBUILD)]

    def test_that_of_a_copy_of_an_index_is_looked_at_though_no_entry_names_it(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        name = record_of_a_copy(media, slot=min(estate.images))
        assert estate.verify(Depth.BYTES).is_sound
        for bit in (65, 82, *range(7, estate.path(name).stat().st_size * 8, 4001)):
            flip_bit(estate.path(name), bit)
            assert costs(estate.verify(Depth.BYTES)) == [(name, Cost.REBUILD)]
            flip_bit(estate.path(name), bit)

    def test_one_that_is_pruned_meanwhile_is_no_loss(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        (name,) = [ref.name for ref in media.view().points[max(estate.images)].point.records]

        def pruned() -> None:
            media.append(ForgetEntry(points=(max(estate.images),), reason="old"))
            media.append(DoomEntry(objects=(name,), points=(max(estate.images),), reason="prune"))
            estate.path(name).unlink()

        report = while_verifying(estate, pruned, at="/index/")
        assert report.is_sound and not report.remarks, report.text()

    def test_one_whose_index_has_a_copy_stays_with_the_points_that_name_the_index(
        self, estate: Estate
    ) -> None:
        first, media = min(estate.images), Media.open(str(estate.location), write=True)
        (name,) = [ref.name for ref in media.view().points[first].point.records]
        kept = record_of_a_copy(media, first)
        media.append(ForgetEntry(points=(first,), reason="old"))
        report = while_verifying(estate, lambda: prune(media, threshold=0), at="/alive/")
        assert estate.path(kept).exists() and estate.path(name).exists()
        assert report.is_sound and not report.remarks, report.text()


class TestKeys:
    @pytest.mark.parametrize("depth", list(Depth))
    def test_one_that_cannot_be_read_is_found_though_another_opens(
        self, sealed: Estate, depth: Depth
    ) -> None:
        flip_bit(sealed.path("keys/1"), 999)
        report = sealed.verify(depth)
        assert costs(report) == [("keys/1", Cost.KEY)] and report.all_restores
        assert record_damage(Media.open(str(sealed.location), write=True, wrapping=KEY), report) == ()

    def test_one_that_is_missing_before_others_is_found(self, sealed: Estate) -> None:
        add_key(
            sealed.backups.media, KEY, a_key("a third passphrase"), now=NOW, random=random.Random(2).randbytes
        )
        sealed.path("keys/1").unlink()
        assert costs(sealed.verify(Depth.LOG)) == [("keys/1", Cost.KEY)]

    def test_a_retired_one_is_missed_by_nobody(self, sealed: Estate) -> None:
        media = sealed.backups.media
        other = a_key("the new passphrase")
        add_key(media, KEY, other, now=NOW, random=random.Random(2).randbytes)
        media.append(RotateEntry(key=2))
        sealed.key = other
        flip_bit(sealed.path("keys/1"), 999)
        report = sealed.verify(Depth.LOG)
        assert report.is_sound and "keys/1" in report.remarks[0]
        sealed.path("keys/1").unlink()
        assert sealed.verify(Depth.LOG).remarks == ()

    def test_one_that_is_retired_and_deleted_meanwhile_is_no_loss(self, sealed: Estate) -> None:
        media = sealed.backups.media

        def rotated() -> None:
            add_key(media, KEY, a_key("the new passphrase"), now=NOW, random=random.Random(2).randbytes)
            media.append(RotateEntry(key=2))
            sealed.path("keys/1").unlink()

        report = while_verifying(sealed, rotated, at="keys/1")
        assert report.is_sound and not report.remarks, report.text()


class TestCheckpoints:
    @pytest.mark.parametrize("depth", list(Depth))
    def test_a_bad_one_is_named_and_nothing_is_lost(self, estate: Estate, depth: Depth) -> None:
        name = estate.named("checkpoints/*")[-1]
        flip_bit(estate.path(name), 999)
        report = estate.verify(depth)
        assert report.is_sound and [name in remark for remark in report.remarks] == [True]

    def test_one_that_says_something_else_than_the_log_is_named(self, estate: Estate) -> None:
        """Its own digest holds, and it ends with the very entry that the log has."""
        media = estate.media
        slots = [layout.checkpoint_slot(name) or 0 for name in estate.named("checkpoints/*")]
        views = {slot: media.read_on(slot, slot + 1) for slot in slots}
        for slot, view in views.items():
            first = {0: dataclasses.replace(view.points[0], client="another VM")}
            lies: list[dict[str, Any]] = [
                {"doomed": {estate.records[0]}},
                {"points": {}},
                {"points": {**view.points, **first}},
                {"forgotten": {0: NOW}},
            ]
            for lie in lies:
                told = encode(dataclasses.replace(view, **lie), media.id)
                name = layout.checkpoint(slot)
                with estate.changed(name, told):
                    report = estate.verify(Depth.LOG)
                    assert costs(report) == [(name, Cost.OPENING)] and report.all_restores
                    assert f"says of {next(iter(lie))} something else" in report.findings[0].reason
                    media = Media.open(str(estate.location), write=True)
                    assert record_damage(media, report) == ()

    def test_a_prune_replaces_one_that_says_something_else_than_the_log(self, estate: Estate) -> None:
        """And keeps the good ones before it: an older good one suffices."""
        media, slots = Media.open(str(estate.location), write=True), listed(estate.media)
        media.append(DoomEntry(runs=("run-x",), reason="dead"))
        assert media.checkpoint_if_due(every=1)
        (slot,) = set(listed(media)) - set(slots)
        lie = dataclasses.replace(media.read_on(slot, slot + 1), points={})
        estate.path(layout.checkpoint(slot)).write_bytes(encode(lie, media.id))
        assert not Media.open(str(estate.location)).view().points
        prune(media, threshold=0)
        assert sorted(listed(estate.media)) == sorted(slots)[-recall.KEPT :]
        assert estate.media.view().points.keys() == estate.images.keys()
        assert estate.verify(Depth.LOG).is_sound

    def test_a_prune_looks_at_none_that_is_older_than_what_it_keeps(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        for number in range(3):
            media.append(DoomEntry(runs=(f"run-x{number}",), reason="dead"))
            assert media.checkpoint_if_due(every=1)
        store = FaultyStore(media.store, lambda *_: None)
        view = Media(store, write=False, from_log=True).view()
        going = superseded(Media(store, write=False, from_log=True), view)
        slots = sorted(listed(media))
        assert going == [layout.checkpoint(slot) for slot in slots[: -recall.KEPT]]
        read = {name for method, name in store.calls if method == "read" and "checkpoints/" in name}
        assert read == {layout.checkpoint(slot) for slot in slots[-recall.KEPT :]}

    def test_one_that_is_gone_is_not_kept_in_the_place_of_another(self, estate: Estate) -> None:
        """A prune beside has deleted it since it was listed."""
        media = Media.open(str(estate.location), write=True)
        for number in range(3):
            media.append(DoomEntry(runs=(f"run-x{number}",), reason="dead"))
            assert media.checkpoint_if_due(every=1)
        *_, second, first, newest = sorted(listed(media))
        estate.path(layout.checkpoint(newest)).unlink()
        assert judge(media, [second, first, newest], media.view()) == ({}, (first, second))

    def test_one_that_goes_while_it_is_judged_is_not_spoken_of(self, estate: Estate) -> None:
        """Once it was believed, and before it is read on from."""
        slots, reads = listed(estate.media), []
        name = layout.checkpoint(max(slots))

        def goes(_number: int, method: str, called: str) -> None:
            if (method, called) == ("read", name):
                reads.append(called)
                if len(reads) == 2:
                    estate.path(name).unlink()

        media = Media(FaultyStore(estate.media.store, goes), write=False, from_log=True)
        view = media.view()
        assert judge(media, slots, view).complaints == {}
        assert len(reads) == 2

    def test_one_of_which_a_part_cannot_be_read_once_it_is_believed_is_named(self, estate: Estate) -> None:
        media, slot = estate.media, max(listed(estate.media))
        view = media.read_on(slot, slot + 1)
        first = min(view.points)
        spoilt = {first: dataclasses.replace(view.points[first], _packed=b"no noun")}
        told = encode(dataclasses.replace(view, points={**view.points, **spoilt}), media.id)
        with estate.changed(layout.checkpoint(slot), told):
            report = estate.verify(Depth.LOG)
        assert costs(report) == [(layout.checkpoint(slot), Cost.OPENING)]
        assert "unreadable" in report.findings[0].reason

    def test_a_prune_leaves_those_that_are_ahead_of_the_log_that_it_read(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        view = media.view()
        media.append(DoomEntry(runs=("run-x",), reason="dead"))
        assert media.checkpoint_if_due(every=1)
        name = layout.checkpoint(view.head)
        assert estate.path(name).exists() and name not in superseded(media, view)

    def test_one_of_an_older_version_that_had_other_times_is_good(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        media.append(ForgetEntry(points=(0,), reason="old"))
        assert media.checkpoint_if_due(every=1)
        slot = media.view().head - 1
        view = media.read_on(slot, slot + 1)
        told = encode(dataclasses.replace(view, latest=None, forgotten={0: NOW}), media.id)
        with estate.changed(layout.checkpoint(slot), told):
            report = estate.verify(Depth.LOG)
        assert report.is_sound and not report.remarks, report.text()

    def test_one_that_packs_the_same_in_another_way_is_good(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        media.append(a_job())
        assert media.checkpoint_if_due(every=1)
        slot = media.view().head - 1
        view = media.read_on(slot, slot + 1)
        pack = zstandard.ZstdCompressor(level=19, write_checksum=True).compress
        points = {
            at: dataclasses.replace(made, _packed=pack(made.point.model_dump_json().encode()))
            for at, made in view.points.items()
        }
        jobs = {
            at: dataclasses.replace(made, _packed=pack(made.job.model_dump_json().encode()))
            for at, made in view.jobs.items()
        }
        assert points != view.points and jobs != view.jobs
        told = encode(dataclasses.replace(view, points=points, jobs=jobs), media.id)
        with estate.changed(layout.checkpoint(slot), told):
            report = estate.verify(Depth.LOG)
        assert report.is_sound and not report.remarks, report.text()

    def test_one_of_a_slot_that_the_log_does_not_have_is_named(self, estate: Estate) -> None:
        name = layout.checkpoint(estate.media.view().head)
        estate.path(name).write_bytes(b"of no log")
        (remark,) = estate.verify(Depth.LOG).remarks
        assert name in remark and "the log does not have its slot" in remark

    def test_those_that_come_and_go_meanwhile_are_no_news(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)

        def replaced() -> None:
            media.append(DoomEntry(runs=("run-x",), reason="dead"))
            assert media.checkpoint_if_due(every=1)
            for name in estate.named("checkpoints/*")[:2]:
                estate.path(name).unlink()

        report = while_verifying(estate, replaced, at="checkpoints/")
        assert report.is_sound and not report.remarks, report.text()

    def test_only_the_two_newest_are_read_on_from(self, estate: Estate) -> None:
        media = Media.open(str(estate.location), write=True)
        for number in range(3):
            media.append(DoomEntry(runs=(f"run-x{number}",), reason="dead"))
            assert media.checkpoint_if_due(every=1)
        store = FaultyStore(media.store, lambda *_: None)
        slots = [layout.checkpoint_slot(name) or 0 for name in estate.named("checkpoints/*")]
        view = Media(store, write=False, from_log=True).view()
        del store.calls[:]
        judged = judge(Media(store, write=False, from_log=True), slots, view)
        assert judged == ({}, tuple(sorted(slots, reverse=True)[: recall.KEPT]))
        read = [name for method, name in store.calls if method == "read" and name.startswith("log/")]
        assert len(read) == len(slots) + recall.KEPT + 1


class TestIntents:
    def test_one_of_a_committed_run_is_a_remark(self, estate: Estate) -> None:
        for data in (None, b"{}"):
            with estate.changed("runs/run-1/intent.json", data):
                report = estate.verify(Depth.LOG)
            assert report.is_sound and "runs/run-1/intent.json" in report.remarks[0]

    def test_one_of_an_open_run_keeps_what_it_left_from_being_cleaned_up(self, estate: Estate) -> None:
        run = open_run(estate)
        flip_bit(estate.path(layout.intent(run)), 999)
        report = estate.verify(Depth.OBJECTS)
        assert costs(report) == [(layout.intent(run), Cost.CLEANUP)] and report.all_restores
        Media.open(str(estate.location), write=True).append(DoomEntry(runs=(run,), reason="dead"))
        assert estate.verify(Depth.OBJECTS).is_sound
        assert layout.intent(run) in estate.verify(Depth.BYTES).remarks[0]

    def test_those_that_a_prune_has_doomed_are_not_asked_for(self, estate: Estate) -> None:
        """Of most points that lie on media for long: a request for each would be in vain."""
        media = Media.open(str(estate.location), write=True)
        run = media.view().points[min(estate.images)].run
        media.append(DoomEntry(objects=(layout.intent(run),), reason="over and old"))
        estate.path(layout.intent(run)).unlink()
        store = FaultyStore(FolderStore(estate.location), lambda *_: None)
        scratch = estate.folder / "scratch"
        report = verify(Media(store, write=False), Depth.LOG, scratch=scratch, date=TODAY)
        assert report.is_sound and not report.remarks
        assert layout.intent(run) not in {name for _, name in store.calls}

    def test_a_run_that_begins_or_ends_meanwhile_is_no_news(self, estate: Estate) -> None:
        media, run = Media.open(str(estate.location), write=True), open_run(estate)

        def over() -> None:
            estate.backups.run(DB)
            media.append(DoomEntry(runs=(run,), objects=(layout.intent(run),), reason="prune"))
            estate.path(layout.intent(run)).unlink()
            for name in estate.named(f"runs/{run}/*/*"):
                estate.path(name).unlink()

        report = while_verifying(estate, over, at="/alive/")
        assert report.is_sound and not report.remarks, report.text()


@pytest.mark.parametrize("kind", ["alive", "streams"])
def test_messages_are_looked_at_while_their_run_is_open_and_byte_for_byte_after(
    estate: Estate, kind: str
) -> None:
    of_open, of_over = (estate.named(f"runs/{run}/{kind}/*")[0] for run in (open_run(estate), "run-1"))
    for name, depths in ((of_open, [Depth.OBJECTS, Depth.BYTES]), (of_over, [Depth.BYTES])):
        data = bytearray(estate.path(name).read_bytes())
        data[99] ^= 4
        with estate.changed(name, bytes(data)):
            for depth in (Depth.LOG, Depth.OBJECTS, Depth.BYTES):
                report = estate.verify(depth)
                assert report.is_sound
                assert [name in remark for remark in report.remarks] == [True] * (depth in depths)


def test_a_sign_of_another_run_is_named(estate: Estate) -> None:
    name, other = layout.sign("run-1", 0), layout.sign("run-1", 1)
    with estate.changed(name, estate.path(other).read_bytes()):
        assert name in estate.verify(Depth.BYTES).remarks[0]


def last_written(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def record_of_a_copy(media: Media, slot: int) -> str:
    """Let a copy stand in for the index of a point, and record it; the name of the record."""
    point = media.view().points[slot].point
    (backup,) = point.disks
    ref = backup.indexes[0]
    copy = ref.model_copy(update={"name": layout.index("mender", backup.disk.key, bytes(8))})
    media.begin_run(an_intent("mender"))
    media.store.create(copy.name, [media.store.read(ref.name)])
    copied = point.model_copy(update={"disks": (backup.model_copy(update={"indexes": (copy,)}),)})
    draw = random.Random(5).randbytes
    (record,) = RecordWriter(media.store, media.codec, random=draw).store("mender", copied)
    moved = (MovedIndex(name=ref.name, ref=copy),)
    media.append(RelocateEntry(indexes=moved, reason="made anew"), run="mender")
    return record.name


def open_run(estate: Estate) -> str:
    view = estate.media.view()
    (run,) = [run for run in estate.media.runs() if run not in view.committed]
    return run


def test_the_command_ends_with_3_where_every_point_still_restores(estate: Estate) -> None:
    name = estate.records[0]
    flip_bit(estate.path(name), 4321)
    ran = vsa("verify", "--media", estate.location)
    assert ran.code == 3 and f"DAMAGED: {name}" in ran.out and "Recorded in log slot" in ran.out
    assert "a rebuild would have to do without it" in ran.out
    again = vsa("verify", "--media", estate.location, "--json")
    assert again.code == 3 and not again.document["sound"] and again.document["recorded"] == []
    flip_bit(estate.path(estate.packs_of(OS)[0]), 9999)
    assert vsa("verify", "--media", estate.location).code == 20


def test_the_command_writes_nothing_for_what_does_not_belong_in_the_log(sealed: Estate) -> None:
    flip_bit(sealed.path("keys/1"), 999)
    key = sealed.folder / "key"
    key.write_bytes(noise("a key", 32))
    key.chmod(0o600)
    before, changed = sealed.named("log/*"), last_written(sealed.location)
    ran = vsa("verify", "--media", sealed.location, "--key-file", key)
    assert ran.code == 3 and "DAMAGED: keys/1" in ran.out and "shut out" in ran.out
    assert sealed.named("log/*") == before
    assert last_written(sealed.location) == changed, "nor is it tried whether it can be written"
