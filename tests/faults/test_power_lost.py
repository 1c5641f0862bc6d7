"""The power goes while a folder of media is worked on; what was not synced is lost, torn or there.

The real engine works on a real folder, and every operation on it is recorded (`tests/faults/power.py`). Then
the folder is built as a POSIX file system may leave it after a cut at any of them, and judged: whatever has a
name is whole; what a caller was told is there, or the log that is there dooms it; every point restores bit by
bit, a verify finds nothing, and the next backup and prune need no human. (F26 of the reliability study.)
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import pytest

from tests.azsim_process import AzsimProcess
from tests.engine.world import MIB, World, random_bytes
from tests.faults.power import Disk, Killed, Left, Named, Operation, Recorder, Synced, Told, Wrote
from tests.faults.small_media import Contents, forget_points, grow, grown_media, prune, upkeep
from tests.media.making import EXTENT, a_disk, new_media, noise
from tests.soak import chosen, more_in_ci, rounds, seeded
from vsa import direct
from vsa.errors import MediaConflict
from vsa.media import documents, layout
from vsa.media.entries import DoomEntry, Entry, PointEntry
from vsa.media.folder import TEMPORARY, FolderStore
from vsa.media.layout import CHECKPOINTS, LOG
from vsa.media.media import Media
from vsa.model import DiskBackup
from vsa.restore.disk import Format, restore_disk
from vsa.upkeep.verify import Depth, verify

MEDIA = "made/for/media"
"""Where the media is made, below a folder that is there."""

EXTENT_OF_JOBS = 64 * 1024

AGAIN = 30
"""Of so many cuts one is looked at also if another one has left the same objects."""

Disks = dict[str, bytes]
"""What the disks of one point held, by their keys."""


@dataclass
class History:
    """What was done, and what the disks of every point held, by its slot."""

    recorder: Recorder
    held: dict[int, Disks]
    begins: int = 0
    """The first operation at which the power is cut."""
    omitted: Callable[[Disk, Synced], bool] = lambda _disk, _sync: False
    """Which syncs count for nothing, as if the code had left them out."""

    @property
    def top(self) -> Path:
        return self.recorder.top

    @property
    def operations(self) -> list[Operation]:
        return self.recorder.operations

    def whole(self) -> Left:
        """The folder as it is in the end."""
        disk = Disk(self.recorder)
        for operation in self.operations:
            disk.apply(operation)
        return disk.whole()

    def cuts(self, count: int, name: str) -> Iterator[Cut]:
        """So many, each at an operation that is drawn, in their order."""
        choose, disk = seeded(name), Disk(self.recorder)
        ends = Counter(choose.choices(range(self.begins, len(self.operations) + 1), k=count))
        told, gone = set(objects_of(disk.whole())), set[str]()
        for number, operation in enumerate([*self.operations, None]):
            for _ in range(ends[number]):
                yield Cut(number, disk.after_cut(choose), frozenset(told - gone), frozenset(gone))
            match operation:
                case Told(name, went):
                    (gone if went else told).add(name)
                case Synced() if self.omitted(disk, operation):
                    pass
                case None:
                    pass
                case _:
                    disk.apply(operation)

    @cached_property
    def objects(self) -> dict[str, bytes]:
        """What was ever stored, by name."""
        disk, found = Disk(self.recorder), objects_of(Disk(self.recorder).whole())
        for operation in self.operations:
            disk.apply(operation)
            if isinstance(operation, Named):
                found = objects_of(disk.whole()) | found
        return found


@dataclass(frozen=True)
class Cut:
    """The power went before an operation; what is left, and which objects somebody was told to be there, or
    to be deleted."""

    at: int
    left: Left
    told: frozenset[str]
    gone: frozenset[str]

    @property
    def objects(self) -> dict[str, bytes]:
        return objects_of(self.left)


def objects_of(left: Left) -> dict[str, bytes]:
    """Those of the media, by name."""
    found = {
        path.removeprefix(f"{MEDIA}/"): data
        for path, (_, data) in left.files.items()
        if path.startswith(f"{MEDIA}/")
    }
    return {name: data for name, data in found.items() if not name.startswith(TEMPORARY)}


@cache
def _entry(data: bytes) -> Entry:
    return documents.decode(data, Entry, "entry")


def require_kept(history: History, cut: Cut) -> None:
    """What has a name is whole, and what was told is there, unless the log that is there lets it go."""
    there = cut.objects
    for name, data in there.items():
        assert data == history.objects[name], f"cut at {cut.at}: {name} is not what was stored"
        assert name not in cut.gone, f"cut at {cut.at}: {name} was deleted"
    slots = sorted(number for name in there if (number := layout.slot_number(name)) is not None)
    assert slots == list(range(len(slots))), f"cut at {cut.at}: the log has a hole: {slots}"
    doomed, over = set[str](), set[str]()
    for entry in (_entry(there[layout.slot(slot)]) for slot in slots):
        match entry.body:
            case DoomEntry() as body:
                doomed |= set(body.objects)
                over |= set(body.runs)
            case PointEntry():
                over.add(str(entry.run))
    for name in cut.told - there.keys():
        sign = "/alive/" in name and name.split("/")[1] in over
        assert name in doomed or sign or name.startswith(CHECKPOINTS), f"cut at {cut.at}: {name} is lost"


class Judge:
    """Looks with the engine at what is left; where the same objects are, once, and now and then again:
    unfinished files and empty folders differ."""

    def __init__(self, history: History, folder: Path) -> None:
        self._history = history
        self._folder = folder
        (folder / "pool").mkdir(parents=True)
        self._seen: set[frozenset[str]] = set()
        self._judged = 0
        self.looked = 0

    def judge(self, cut: Cut) -> None:
        require_kept(self._history, cut)
        there = frozenset(cut.objects)
        self._judged += 1
        if there in self._seen and self._judged % AGAIN:
            return
        self._seen.add(there)
        self.looked += 1
        root = self._folder / "left"
        shutil.rmtree(root, ignore_errors=True)
        cut.left.built(root, self._folder / "pool")
        self._look(root / MEDIA, there)

    def _look(self, folder: Path, there: frozenset[str]) -> None:
        if layout.MEDIA not in there:
            # Nobody was told that there is a media, and it is made once more.
            new_media(folder)
            return
        view = Media.open(str(folder)).view()
        known = view.points.keys() | view.given_up
        committed = {slot for slot in self._history.held if layout.slot(slot) in there}
        assert committed == {slot for slot in known if slot in self._history.held}
        held = self._history.held
        self._require_points(folder, held)
        scratch, date = self._scratch(), dt.datetime.now(dt.UTC).date()
        report = verify(Media.open(str(folder)), Depth.BYTES, scratch=scratch, date=date)
        assert report.is_sound, report.text()
        self._require_points(folder, held | self._go_on(folder, held))

    def _require_points(self, folder: Path, held: Mapping[int, Disks]) -> None:
        """Every point that was not given up restores."""
        media = Media.open(str(folder))
        for slot, made in media.view().points.items():
            for backup in made.point.disks:
                found = self._restored(media, backup)
                assert found == held[slot][backup.disk.key], f"disk {backup.disk.name} of point {slot}"

    def _restored(self, media: Media, backup: DiskBackup) -> bytes:
        target = self._folder / "restored.img"
        restore_disk(media, backup, target, format=Format.RAW, checksum=False)
        data = target.read_bytes()
        target.unlink()
        return data

    def _go_on(self, folder: Path, held: Mapping[int, Disks]) -> dict[int, Disks]:
        """An incremental of a disk, or a first backup; then the point before is forgotten and pruned."""
        media = Media.open(str(folder), write=True)
        wanted = [slot for slot in media.view().points if slot not in media.view().forgotten]
        parent = max(wanted, default=None)
        disk, before = a_disk(), bytes(a_disk().size)
        if parent is not None:
            disk = media.view().points[parent].point.disks[0].disk
            before = held[parent][disk.key]
        new = noise("after the cut", media.extent_size)
        slot = grow(media, "after", disk, {1: new}, scratch=self._scratch(), parent=parent)
        if parent is not None:
            forget_points(media, parent)
        prune(Media.open(str(folder), write=True), threshold=1.0)
        at = media.extent_size
        return {slot: {disk.key: before[:at] + new + before[at + len(new) :]}}

    def _scratch(self) -> Path:
        folder = self._folder / "scratch"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder


def play(history: History, folder: Path, count: int, name: str) -> None:
    judge, places = Judge(history, folder), set()
    for cut in history.cuts(count, name):
        judge.judge(cut)
        places.add(cut.at)
    sys.stdout.write(
        f"{name}: {count} cuts at {len(places)} of {len(history.operations) - history.begins + 1} places, "
        f"{judge.looked} folders looked at\n"
    )


@pytest.fixture(scope="module")
def jobs(azure: AzsimProcess, tmp_path_factory: pytest.TempPathFactory) -> History:
    """Media is made; a VM with two disks is backed up whole and twice more, its points are forgotten and
    pruned, what is left is repacked, there are checkpoints, and once more it is backed up."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "top").mkdir()
    recorder = Recorder(folder / "top")
    with recorder.recording():
        # By a person, who syncs nothing.
        (folder / "top" / MEDIA).parent.mkdir(parents=True)
        world = World(
            azure.control, folder / "world", location=str(folder / "top" / MEDIA), extent_size=EXTENT_OF_JOBS
        )
        disks = {"os": random_bytes(2 * MIB, "os"), "data": random_bytes(MIB, "data")}
        world.add_vm(disks)
        for number in range(3):
            world.back_up()
            for at in range(number, number + 6):
                world.write("os", at * 256 * 1024, random_bytes(100 * 1024, (number, at)))
            world.write("data", number * 4096, random_bytes(4096, number))
        held = {
            slot: {
                backup.disk.key: world.points[slot][world.plain(backup.disk.name)]
                for backup in made.point.disks
            }
            for slot, made in world.media.view().points.items()
        }
        upkeep(FolderStore(folder / "top" / MEDIA), list(held)[:2])
        world.back_up()
    (slot,) = world.points.keys() - held.keys()
    made = world.media.view().points[slot]
    held[slot] = {
        backup.disk.key: world.points[slot][world.plain(backup.disk.name)] for backup in made.point.disks
    }
    world.delete()
    return History(recorder, held)


def test_the_record_is_what_was_done(jobs: History) -> None:
    """All of it, replayed, is the folder as it is, byte by byte; it has what these tests are about."""
    top = jobs.top
    files = {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
    left = jobs.whole()
    assert any(isinstance(one, Wrote) and len(one.data) >= direct.LEAST for one in jobs.operations)
    assert {path: data for path, (_, data) in left.files.items()} == files
    assert {str(path.relative_to(top)) for path in top.rglob("*") if path.is_dir()} == set(left.folders)
    gone = jobs.objects.keys() - objects_of(left).keys()
    assert any(map(layout.is_pack, gone)) and any(map(layout.is_index, gone)), gone
    assert any(map(layout.is_moves, jobs.objects)) and any(n.startswith(CHECKPOINTS) for n in jobs.objects)


@more_in_ci
def test_power_is_lost_at_any_operation_of_jobs_and_upkeep(jobs: History, tmp_path: Path) -> None:
    play(jobs, tmp_path, rounds(80, 1500, 20_000), "power lost")


@more_in_ci
def test_power_is_lost_after_a_process_died(grown: Grown, tmp_path: Path) -> None:
    """Upkeep is killed at any operation, and another one goes on with what it sees: it may not be durable."""
    operations = grown.upkeep(tmp_path / "whole").begins
    for number in chosen("killed, then power lost", range(operations), by_default=3, in_ci=30):
        history = grown.upkeep(tmp_path / f"killed-{number}", lambda done, number=number: len(done) > number)
        play(history, tmp_path / f"cuts-{number}", rounds(6, 15, 20), f"killed at {number}, then power lost")


@more_in_ci
def test_power_is_lost_after_a_process_died_that_had_placed_an_entry(grown: Grown, tmp_path: Path) -> None:
    """Of all that another process may see and act upon, an entry of the log matters most: what it dooms is
    deleted, and the next entry continues it."""
    history = grown.upkeep(tmp_path / "whole")
    entries = [name for name in history.objects if name.startswith(LOG)]
    for name in sorted(entries)[grown.head :]:
        slot = name.removeprefix(LOG)
        history = grown.upkeep(tmp_path / slot, has_named(slot))
        play(history, tmp_path / f"cuts-{slot}", rounds(6, 30, 200), f"killed with {name}, then power lost")


def has_named(name: str) -> Callable[[Sequence[Operation]], bool]:
    """Whether something was given the name."""
    return lambda done: any(isinstance(one, Named) and one.name == name for one in done)


@dataclass(frozen=True)
class Grown:
    """A small media with a history, in `top`, and what its points hold."""

    top: Path
    points: dict[int, Disks]
    head: int

    def upkeep(self, top: Path, dies: Callable[[Sequence[Operation]], bool] = lambda _: False) -> History:
        """Upkeep of a copy, in a process that dies, and then in another one that does not."""
        shutil.copytree(self.top, top)
        recorder = Recorder(top, dies=dies)
        with recorder.recording():
            with suppress(Killed):
                upkeep(FolderStore(top / MEDIA))
            begins = len(recorder.operations)
            recorder.revive()
            upkeep(FolderStore(top / MEDIA))
        return History(recorder, self.points, begins)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("grown")
    held = grown_media(folder / "top" / MEDIA, folder)
    view = Media.open(str(folder / "top" / MEDIA)).view()
    disks = {slot: (made.run, made.point.disks[0].disk) for slot, made in view.points.items()}
    points = {slot: {disk.key: filled(held[run], disk.size)} for slot, (run, disk) in disks.items()}
    return Grown(folder / "top", points, view.head)


def filled(contents: Contents, size: int) -> bytes:
    """A disk with these extents."""
    disk = bytearray(size)
    for extent, data in contents.items():
        disk[extent * EXTENT : extent * EXTENT + len(data)] = data
    return bytes(disk)


def test_what_is_refused_is_there_for_good(tmp_path: Path) -> None:
    """As when a task is repeated whose process died with the intent on its way: it counts as recorded."""
    store = tmp_path / "top" / MEDIA
    store.mkdir(parents=True)
    recorder = Recorder(tmp_path / "top", dies=has_named("intent.json"))
    with recorder.recording():
        with pytest.raises(Killed):
            FolderStore(store).create(layout.intent("r1"), [b"intent"])
        recorder.revive()
        with pytest.raises(MediaConflict):
            FolderStore(store).create(layout.intent("r1"), [b"intent"])
    require_kept_whenever_cut(History(recorder, {}), "refused")


def test_no_entry_is_there_without_the_one_before(tmp_path: Path) -> None:
    """Whose writer has died before it was durable: the log would have a hole."""
    folder = tmp_path / "top" / MEDIA
    new_media(folder)
    recorder = Recorder(tmp_path / "top", dies=has_named("000000000000"))
    with recorder.recording():
        with pytest.raises(Killed):
            end_run(folder, "r1")
        recorder.revive()
        begins = len(recorder.operations)
        assert end_run(folder, "r2") == 1
    require_kept_whenever_cut(History(recorder, {}, begins), "the entry before")


def end_run(folder: Path, run: str) -> int | None:
    media = Media(FolderStore(folder), write=True)
    return media.append_planned(lambda _: DoomEntry(runs=(run,), reason="it is over"))


def require_kept_whenever_cut(history: History, name: str) -> None:
    for cut in history.cuts(1000, name):
        require_kept(history, cut)


@pytest.mark.parametrize("kind", ["contents", "names", "folders"])
def test_a_sync_that_is_left_out_is_noticed(jobs: History, tmp_path: Path, kind: str) -> None:
    """The tests would fail if the code left out to sync the contents, the name, or a new folder's name."""
    without = replace(jobs, omitted=lambda disk, sync: disk.waits_for(sync.node) == kind)
    with pytest.raises(AssertionError, match="cut at"):
        require_kept_whenever_cut(without, f"without {kind}")
