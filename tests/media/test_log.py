"""The log is one total order: whoever races, whatever the store answers, each entry stands exactly once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import NOW, a_disk, a_point, a_snapshot, a_vm, an_intent, back_up, new_media, noise
from tests.media.test_documents import proven
from tests.processes import PROCESSES
from vsa.errors import BadRequest, MediaConflict, MediaDamaged, MediaUnusable, RunStopped, TryAgainLater
from vsa.media import layout
from vsa.media.entries import ClientEntry, DoomEntry, DoubtEntry, SeenName
from vsa.media.folder import FolderStore
from vsa.media.media import Media


@pytest.fixture
def folder(tmp_path):
    new_media(tmp_path / "media")
    return tmp_path / "media"


@pytest.fixture
def media(folder):
    return Media.open(str(folder), write=True)


def seen(name: str) -> ClientEntry:
    return ClientEntry(
        vm=a_vm(name),
        names=(SeenName(name=name, resource_id="/vm", first_seen=NOW, last_seen=NOW),),
        first_seen=NOW,
        last_seen=NOW,
    )


def slot_path(folder: Path, number: int) -> Path:
    return folder / layout.slot(number)


def names_in_log(folder: Path) -> list[str]:
    return [
        json.loads(path.read_bytes())["body"]["vm"]["name"] for path in sorted((folder / "log").iterdir())
    ]


def test_entries_get_the_next_slot_and_continue_their_predecessor(media, folder):
    assert [media.append(seen(name)) for name in "abc"] == [0, 1, 2]
    again = Media.open(str(folder))
    assert names_in_log(folder) == ["a", "b", "c"]
    assert (again.view().head, again.view().head_hash) == (3, media.view().head_hash)


def test_a_view_stays_as_it_was(media):
    before = media.view()
    media.append(seen("a"))
    assert (before.head, dict(before.clients)) == (0, {})
    assert media.view().head == 1


def test_many_threads_commit_each_entry_once(folder):
    """Every thread with media of its own, as separate proxies would have."""

    def commit(writer: int) -> None:
        media = Media.open(str(folder), write=True)
        for number in range(10):
            media.append(seen(f"{writer}-{number}"))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(commit, range(6)))
    assert sorted(names_in_log(folder)) == sorted(
        f"{writer}-{number}" for writer in range(6) for number in range(10)
    )
    assert Media.open(str(folder)).view().head == 60


def _commit_in_process(folder: Path, writer: int, start) -> None:
    media = Media.open(str(folder), write=True)
    start.wait()
    for number in range(10):
        media.append(seen(f"{writer}-{number}"))


def test_many_processes_commit_each_entry_once(folder):
    start = PROCESSES.Barrier(4)
    processes = [
        PROCESSES.Process(target=_commit_in_process, args=(folder, writer, start)) for writer in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(set(names_in_log(folder))) == 40
    assert Media.open(str(folder)).view().head == 40


class TestWhateverTheStoreAnswers:
    """The slot decides whether an entry is committed, never the answer to its create."""

    def media_answering(self, folder, answers):
        """Media whose first creates of log slots fail as scripted; None lets one through."""
        left = iter(answers)

        def script(_number: int, method: str, name: str):
            return next(left, None) if method == "create" and name.startswith(layout.LOG) else None

        return Media(FaultyStore(FolderStore(folder), script), write=True)

    @pytest.mark.parametrize(
        "answers",
        [
            pytest.param([(Moment.AFTER, MediaConflict("refused"))], id="own success reported as refusal"),
            pytest.param([(Moment.AFTER, TryAgainLater("timeout"))], id="own success without an answer"),
            pytest.param([(Moment.AFTER, OSError("reset"))], id="own success and a lost connection"),
            pytest.param([(Moment.BEFORE, TryAgainLater("timeout"))], id="never arrived"),
            pytest.param([(Moment.BEFORE, MediaConflict("stale"))], id="refused although the slot is free"),
            pytest.param([(Moment.BEFORE, OSError("reset"))] * 4, id="never arrived, four times"),
            pytest.param(
                [(Moment.BEFORE, OSError("a")), (Moment.AFTER, OSError("b"))], id="arrived when repeated"
            ),
        ],
    )
    def test_the_entry_is_committed_once(self, folder, answers):
        assert self.media_answering(folder, answers).append(seen("a")) == 0
        assert names_in_log(folder) == ["a"]

    def test_a_service_that_stays_away_is_reported(self, folder):
        media = self.media_answering(folder, [(Moment.BEFORE, OSError("reset"))] * 5)
        with pytest.raises(TryAgainLater, match="stayed unclear"):
            media.append(seen("a"))
        assert media.append(seen("b")) == 0

    def test_a_slot_taken_meanwhile_is_left_to_its_owner(self, folder):
        other = Media.open(str(folder), write=True)

        def script(_number: int, method: str, name: str):
            if method == "create" and name == layout.slot(0) and other.view().head == 0:
                other.append(seen("other"))

        assert Media(FaultyStore(FolderStore(folder), script), write=True).append(seen("mine")) == 1
        assert names_in_log(folder) == ["other", "mine"]

    def test_a_full_store_fails_the_entry(self, folder):
        media = self.media_answering(folder, [(Moment.BEFORE, MediaUnusable("full"))])
        with pytest.raises(MediaUnusable, match="full"):
            media.append(seen("a"))
        assert media.view().head == 0

    def test_a_request_that_lands_late_is_an_ordinary_entry_or_refused(self, folder, tmp_path):
        """The writer gave up on its point; its request lands after the run was fenced, or before."""
        media = Media.open(str(folder), write=True)
        back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
        late = slot_path(folder, 0).read_bytes()
        store = FolderStore(folder)
        with pytest.raises(MediaConflict):
            store.create(layout.slot(0), [late])
        # At any other slot it is no entry at all: it does not continue what is there.
        media.append(seen("b"))
        store.create(layout.slot(2), [late])
        with pytest.raises(MediaDamaged, match="says it is slot 0"):
            Media.open(str(folder)).view()


class TestDamageIsNoticed:
    @pytest.fixture
    def three(self, media):
        for name in "abc":
            media.append(seen(name))

    def refused(self, folder, match, error=MediaDamaged):
        with pytest.raises(error, match=match):
            Media.open(str(folder)).view()

    @pytest.mark.parametrize("number", [0, 1])
    def test_a_missing_entry(self, three, folder, number):
        slot_path(folder, number).unlink()
        self.refused(folder, f"{number} is missing, though")

    def test_nothing_is_written_into_a_hole(self, three, folder):
        slot_path(folder, 1).unlink()
        with pytest.raises(MediaDamaged):
            Media.open(str(folder), write=True).append(seen("d"))
        assert not slot_path(folder, 1).exists()

    def test_swapped_entries(self, three, folder):
        first, second = slot_path(folder, 0).read_bytes(), slot_path(folder, 1).read_bytes()
        slot_path(folder, 0).write_bytes(second)
        slot_path(folder, 1).write_bytes(first)
        self.refused(folder, "moved")

    def test_an_exchanged_entry_that_is_sound_in_itself(self, three, folder):
        fields = json.loads(slot_path(folder, 1).read_bytes())
        del fields["sha256"]
        slot_path(folder, 1).write_bytes(proven(fields | {"nonce": "f" * 32}))
        self.refused(folder, "altered")

    def test_a_rolled_back_log_shows_in_its_witness(self, three, media, folder):
        witness = media.view().head, media.view().head_hash
        slot_path(folder, 2).unlink()
        older = Media.open(str(folder)).view()
        assert (older.head, older.head_hash) != witness

    def test_every_entry_is_bounded(self, three, folder):
        with slot_path(folder, 1).open("ab") as file:
            file.truncate(layout.MAX_DOCUMENT_SIZE + 1)
        self.refused(folder, "at most")

    @pytest.mark.parametrize("body", [{"type": "merge"}, {"type": "clone", "points": [0]}])
    def test_an_entry_of_a_later_version_asks_for_an_upgrade(self, three, folder, body):
        fields = json.loads(slot_path(folder, 2).read_bytes())
        del fields["sha256"]
        slot_path(folder, 2).write_bytes(proven(fields | {"body": body}))
        self.refused(folder, "upgrade", MediaUnusable)
        with pytest.raises(MediaUnusable, match="upgrade"):
            Media.open(str(folder), write=True).append(seen("d"))


class TestRulesOfAdmission:
    def test_a_fenced_run_commits_nothing_more(self, media, tmp_path):
        media.append(DoomEntry(runs=("r1",), reason="its process ended"))
        with pytest.raises(RunStopped, match="r1 was fenced"):
            back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
        assert media.view().points == {}

    def test_a_fence_that_lands_during_the_commit_wins(self, folder, tmp_path):
        other = Media.open(str(folder), write=True)

        def fence_first(_number: int, method: str, name: str):
            if method == "create" and name == layout.slot(0) and other.view().head == 0:
                other.append(DoomEntry(runs=("r1",), reason="held for dead"))

        media = Media(FaultyStore(FolderStore(folder), fence_first), write=True)
        with pytest.raises(RunStopped):
            back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
        assert media.view().points == {}

    def test_a_committed_run_cannot_be_fenced(self, media, tmp_path):
        back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
        with pytest.raises(MediaConflict, match="has committed slot 0"):
            media.append(DoomEntry(runs=("r1",), reason="x"))

    def test_only_objects_of_fenced_runs_can_be_doomed(self, media, tmp_path):
        back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
        for objects in (("media.json",), (layout.pack("r9", bytes(16)),)):
            with pytest.raises(MediaConflict, match="cannot be doomed"):
                media.append(DoomEntry(objects=objects, reason="x"))
        media.append(DoomEntry(runs=("r9",), objects=(layout.pack("r9", bytes(16)),), reason="x"))
        assert media.view().doomed == {layout.pack("r9", bytes(16))}

    def test_a_point_cannot_refer_to_what_is_doomed(self, media, tmp_path):
        from tests.media.making import write_disk

        for run in ("r1", "r2"):
            media.begin_run(an_intent(run))
        written = write_disk(media, {0: noise(0)}, run="r1", disk=a_disk(), scratch=tmp_path)
        media.append(DoomEntry(runs=("r1",), objects=written.packs, reason="r1 is dead"))
        with pytest.raises(MediaConflict, match=written.packs[0]):
            media.append(a_point(a_disk(), [written.index]), run="r2")

    def test_only_points_can_be_doubtful(self, media):
        with pytest.raises(BadRequest, match="slot 3"):
            media.append(DoubtEntry(points=(3,), disk_key="d", reason="x"))


def test_points_of_a_long_log_are_found_again(media, folder, tmp_path):
    """Through a fresh reader, so that everything went through bytes."""
    disk = a_disk()
    first = back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path, disk=disk)
    point = a_point(disk, media.view().points[first].point.disks[0].indexes, bases=[a_snapshot(disk, "b")])
    media.begin_run(an_intent("r2"))
    media.append(seen("x"))
    second = media.append(point, run="r2")
    view = Media.open(str(folder)).view()
    found = view.points[second].point
    assert found.model_copy(update={"records": ()}) == point.point
    assert view.latest_point_of_disk(disk.key) == (second, point.point.disks[0])
    assert view.base_of(disk.key) == (second, a_snapshot(disk, "b"))
    assert view.clients[a_vm("x").key] == seen("x")
