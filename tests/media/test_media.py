"""Making and opening media: never over anything, never what is not ours, never by guessing."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path

import pytest

from tests.media.making import (
    NOW,
    a_disk,
    a_point,
    an_intent,
    back_up,
    flip_bit,
    new_media,
    noise,
    objects,
    write_disk,
)
from tests.media.test_documents import proven
from vsa.errors import BadRequest, MediaConflict, MediaDamaged, MediaUnusable, NoMedia
from vsa.media import documents, layout
from vsa.media.entries import DoubtEntry
from vsa.media.folder import FolderStore
from vsa.media.media import Media


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "media"


def test_new_media_can_be_opened_by_path_and_by_url(folder):
    made = new_media(folder)
    for location in (str(folder), folder.as_uri(), f"file://localhost{folder}"):
        media = Media.open(location)
        assert (media.id, media.extent_size, media.created) == (made.id, made.extent_size, NOW)
        assert media.location == str(folder)
        assert media.view().head == 0


def test_two_media_have_two_ids(tmp_path):
    assert new_media(tmp_path / "a").id != new_media(tmp_path / "b").id


def test_media_is_never_made_over_media(folder):
    first = new_media(folder).id
    with pytest.raises(MediaConflict, match=r"media\.json"):
        new_media(folder)
    assert Media.open(str(folder)).id == first


def test_the_loser_of_a_race_to_make_media_is_told(folder):
    """Both found the folder empty; media.json itself decides."""
    from vsa.media.descriptor import describe_new
    from vsa.media.folder import FolderStore

    stores = [FolderStore.make(folder), FolderStore.make(folder)]
    describe_new(stores[0], extent_size=4096, now=NOW, random=bytes)
    with pytest.raises(MediaConflict):
        describe_new(stores[1], extent_size=4096, now=NOW, random=bytes)


@pytest.mark.parametrize("size", [0, -4096, 1000, 2048, 6144, 8 << 20])
def test_extent_sizes_that_cannot_work_are_refused(folder, size):
    with pytest.raises(BadRequest):
        new_media(folder, extent_size=size)
    assert not folder.exists()


@pytest.mark.parametrize(
    "location", ["gs://bucket/x", "azblob://a/c", "file://server/share", "file:relative://", ""]
)
def test_places_we_cannot_use_are_refused(location):
    with pytest.raises(BadRequest):
        Media.open(location)


def test_where_there_is_no_media_the_error_says_what_is_there(folder):
    with pytest.raises(NoMedia, match="no such folder"):
        Media.open(str(folder))
    folder.mkdir()
    with pytest.raises(NoMedia, match="empty"):
        Media.open(str(folder))
    (folder / "photo.jpg").write_bytes(b"x")
    with pytest.raises(NoMedia, match=r"photo\.jpg"):
        Media.open(str(folder))


@pytest.mark.parametrize("contents", [b"", b"{}", b"not json", b'{"format":"something else"}', b"\xff" * 100])
def test_something_elses_media_json_is_not_ours(folder, contents):
    folder.mkdir()
    (folder / "media.json").write_bytes(contents)
    with pytest.raises(NoMedia, match="something else"):
        Media.open(str(folder), write=True)
    assert objects(folder) == {"media.json"}


def rewrite(folder, **changes):
    """media.json as another version would have written it, with a valid digest."""
    path = folder / "media.json"
    fields = json.loads(path.read_bytes())
    del fields["sha256"]
    path.write_bytes(proven(fields | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"required_features": ["striped"]},
        {"version": 2, "other": {"shape": []}},
        {"colour": "red"},
    ],
)
def test_media_of_a_newer_version_asks_for_an_upgrade(folder, changes):
    new_media(folder)
    rewrite(folder, **changes)
    for write in (False, True):
        with pytest.raises(MediaUnusable, match="upgrade"):
            Media.open(str(folder), write=write)


@pytest.mark.parametrize(
    "changes", [{"id": "../../etc"}, {"extent_size": 1}, {"extent_size": 10**18}, {"created": 5}]
)
def test_impossible_descriptions_are_damage(folder, changes):
    new_media(folder)
    rewrite(folder, **changes)
    with pytest.raises(MediaDamaged):
        Media.open(str(folder))


def test_a_flipped_bit_in_media_json_never_opens(folder):
    new_media(folder)
    path = folder / "media.json"
    for bit in range(0, path.stat().st_size * 8, 5):
        flip_bit(path, bit)
        with pytest.raises((MediaDamaged, NoMedia)):
            Media.open(str(folder))
        flip_bit(path, bit)
    Media.open(str(folder))


def test_a_lost_media_json_is_damage_not_an_invitation(folder, tmp_path):
    media = new_media(folder)
    back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
    (folder / "media.json").unlink()
    with pytest.raises(MediaDamaged, match="missing, though a log is there"):
        Media.open(str(folder))
    with pytest.raises(MediaConflict):
        new_media(folder)


def test_the_log_belongs_to_its_media_json(folder, tmp_path):
    media = new_media(folder)
    back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
    rewrite(folder, id="0" * 32)
    with pytest.raises(MediaDamaged, match="belongs to another media"):
        Media.open(str(folder)).view()


def test_reading_writes_nothing(folder, tmp_path):
    slot = back_up(new_media(folder), {0: noise(0)}, run="r1", scratch=tmp_path)
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    media = Media.open(str(folder))
    assert media.view().points[slot].run == "r1"
    assert list(media.runs()) == ["r1"]
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before


def test_media_whose_place_has_come_to_replace_objects_is_opened_for_reading_alone(folder, monkeypatch):
    """It was moved, or is mounted otherwise now: two writers could both win a slot of the log."""

    def replacing(store, temporary, name):
        shutil.copyfile(store.root / temporary, store.root / name)

    made = new_media(folder)
    monkeypatch.setattr(FolderStore, "_link", replacing)
    before = objects(folder)
    with pytest.raises(MediaUnusable, match="exactly one must win"):
        Media.open(str(folder), write=True)
    assert objects(folder) == before
    assert Media.open(str(folder)).id == made.id


def test_media_that_nobody_uses_any_more_lets_go_of_its_folder_at_once(folder):
    """Not when the garbage collector comes: until then nobody could unmount it."""
    new_media(folder)
    gc.disable()
    try:
        before = files_open()
        assert Media.open(str(folder), write=True).id
        assert files_open() == before
    finally:
        gc.enable()


def files_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_media_opened_for_reading_refuses_every_write(folder, tmp_path):
    new_media(folder)
    media = Media.open(str(folder))
    entry = DoubtEntry(points=(0,), disk_key="d", reason="x")
    for write in (
        lambda: media.append(entry),
        lambda: media.begin_run(an_intent("r1")),
        lambda: media.disk_writer(
            run="r1", disk_key="d", disk_size=1, kind=layout.IndexKind.BASE, scratch=tmp_path
        ),
    ):
        with pytest.raises(MediaUnusable, match="opened for reading"):
            write()
    assert objects(folder) == {"media.json"}


def test_an_intent_can_be_repeated_but_not_replaced(folder):
    media = new_media(folder)
    media.begin_run(an_intent("r1", snapshots=("a",)))
    media.begin_run(an_intent("r1", snapshots=("a",)))
    with pytest.raises(MediaConflict):
        media.begin_run(an_intent("r1", snapshots=("b",)))
    assert [media.intent(run).snapshots for run in media.runs()] == [("a",)]


@pytest.mark.parametrize("run", ["", "../x", "a/b", "A", "x" * 65])
def test_a_run_id_cannot_lead_elsewhere(folder, run):
    media = new_media(folder)
    with pytest.raises(BadRequest):
        media.disk_writer(
            run=run, disk_key="d", disk_size=1, kind=layout.IndexKind.BASE, scratch=folder.parent
        )
    with pytest.raises(BadRequest):
        layout.intent(run)


class TestAPointIsCommittedOnlyIfItIsWhole:
    @pytest.fixture
    def media(self, folder):
        return new_media(folder)

    @pytest.fixture
    def written(self, media, tmp_path):
        media.begin_run(an_intent("r1"))
        return write_disk(media, {0: noise(0), 5: noise(5)}, run="r1", disk=a_disk(), scratch=tmp_path)

    def refuse(self, media, point, error, match, run="r1"):
        with pytest.raises(error, match=match):
            media.append(point, run=run)
        assert media.view().head == 0

    def test_its_indexes_are_there(self, media, written, folder):
        (folder / written.index.name).unlink()
        self.refuse(media, a_point(a_disk(), [written.index]), MediaDamaged, "missing")

    def test_its_indexes_have_their_digest(self, media, written, folder):
        flip_bit(folder / written.index.name, 999)
        self.refuse(media, a_point(a_disk(), [written.index]), MediaDamaged, "digest")

    def test_its_indexes_have_their_size(self, media, written):
        index = written.index.model_copy(update={"size": written.index.size + 1})
        self.refuse(media, a_point(a_disk(), [index]), MediaDamaged, "the log says")

    def test_its_packs_are_there(self, media, written, folder):
        (folder / written.packs[0]).unlink()
        self.refuse(media, a_point(a_disk(), [written.index]), MediaDamaged, "missing")

    def test_its_packs_are_not_cut(self, media, written, folder):
        path = folder / written.packs[0]
        path.write_bytes(path.read_bytes()[:-1])
        self.refuse(media, a_point(a_disk(), [written.index]), MediaDamaged, "expected")

    def test_its_packs_are_those_of_its_indexes(self, media, written):
        stray = layout.pack("r1", bytes(16))
        self.refuse(
            media, a_point(a_disk(), [written.index], packs=[stray]), BadRequest, "none of its indexes"
        )

    def test_its_indexes_are_of_its_disk(self, media, written):
        self.refuse(media, a_point(a_disk("other"), [written.index]), BadRequest, "is of disk")

    def test_it_has_an_index(self, media, written):
        self.refuse(media, a_point(a_disk(), []), BadRequest, "no index")

    def test_it_begins_with_a_base(self, media, written):
        self.refuse(
            media, a_point(a_disk(), [written.index, written.index]), MediaDamaged, "a base comes first"
        )

    def test_its_names_are_names_of_indexes(self, media, written):
        index = written.index.model_copy(update={"name": "runs/../../etc/passwd"})
        self.refuse(media, a_point(a_disk(), [index]), MediaDamaged, "no name of an index")

    def test_its_run_was_begun(self, media, written):
        self.refuse(media, a_point(a_disk(), [written.index]), BadRequest, "begin the run first", run="r2")

    def test_it_has_a_run(self, media, written):
        self.refuse(media, a_point(a_disk(), [written.index]), BadRequest, "needs the run", run=None)

    def test_then_it_is_committed_once(self, media, written, folder):
        point = a_point(a_disk(), [written.index], packs=written.packs)
        assert media.append(point, run="r1") == 0
        assert media.append(point, run="r1") == 0
        assert Media.open(str(folder)).view().committed == {"r1": 0}


def test_the_start_of_a_listing_loads_neither_numpy_nor_pyarrow(folder):
    import subprocess
    import sys

    new_media(folder)
    code = (
        "import sys; from vsa.media.media import Media; Media.open(sys.argv[1]).view(); "
        "print({'numpy', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_document_of_media_json_is_the_chain_s_origin(folder):
    media = new_media(folder)
    assert media.view().head_hash == documents.sha256((folder / "media.json").read_bytes())
