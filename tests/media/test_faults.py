"""Calls to the store fail, before or after their effect; then a kill at any moment.

Whatever happened: what was committed restores, what was not is invisible, and the next run succeeds.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.media.faulty_store import FaultyStore, Moment, fail_call, no_fault
from tests.media.making import (
    a_disk,
    a_point,
    an_intent,
    back_up,
    flip_bit,
    new_media,
    noise,
    read_disk,
    read_point,
    temporaries,
    text,
    write_disk,
)
from tests.soak import chosen, more_in_ci
from vsa.errors import MediaDamaged, MediaUnusable, TryAgainLater, VsaError
from vsa.media import pinned
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.ranges import MIB

FIRST = {0: noise(0), 5: text(5), 9: noise(9)}
CHANGES = {0: None, 5: noise("new"), 7: text(7)}
SECOND = {5: noise("new"), 7: text(7), 9: noise(9)}


def two_backups(media: Media, scratch, *, attempt: str) -> tuple[int, int]:
    """A base and a delta on it, each in a run of its own; the slots of their points."""
    first = back_up(media, FIRST, run=f"{attempt}-1", scratch=scratch)
    base = media.view().points[first].point.disks[0].indexes
    return first, back_up(media, CHANGES, run=f"{attempt}-2", scratch=scratch, base=base)


def calls_of_two_backups(folder, scratch) -> list[tuple[str, str]]:
    new_media(folder)
    store = FaultyStore(FolderStore(folder), no_fault)
    two_backups(Media(store, write=True), scratch, attempt="a")
    return store.calls


@more_in_ci
@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("error", [TryAgainLater("lost"), MediaUnusable("full")], ids=["lost", "full"])
def test_any_single_failure_leaves_only_whole_points(tmp_path, moment, error):
    calls = calls_of_two_backups(tmp_path / "counted", tmp_path)
    assert len(calls) > 20
    commits = {
        number for number, (method, name) in enumerate(calls) if (method, name[:4]) == ("create", "log/")
    }
    assert len(commits) == 2
    spread = chosen(f"media {error} {moment}", range(len(calls)), by_default=16, in_ci=len(calls))
    survived = 0
    for number in sorted(commits.union(spread)):
        folder = tmp_path / f"media-{number}"
        new_media(folder)
        store = FaultyStore(FolderStore(folder), fail_call(number, moment, error))
        try:
            two_backups(Media(store, write=True), tmp_path, attempt="a")
            survived += 1
        except VsaError:
            pass
        assert_every_point_restores(folder)
        first, second = two_backups(Media.open(str(folder), write=True), tmp_path, attempt="b")
        media = Media.open(str(folder))
        assert (read_point(media, first), read_point(media, second)) == (FIRST, SECOND)
        assert temporaries(folder) == []
    if isinstance(error, TryAgainLater):
        # Losing the answer to a commit is survived: the slot is read back.
        assert survived >= 2


def assert_every_point_restores(folder) -> None:
    media = Media.open(str(folder))
    view = media.view()
    for slot, made in view.points.items():
        assert read_point(media, slot) == (FIRST if made.run.endswith("-1") else SECOND)
    assert set(view.committed.values()) == set(view.points)


def test_a_repeated_append_after_a_lost_answer_commits_nothing_twice(tmp_path):
    """The caller of an append that gave up may simply call it again."""
    new_media(tmp_path / "media")
    left = iter([(Moment.AFTER, MediaUnusable("lost in the middle"))])

    def script(_number: int, method: str, name: str):
        return next(left, None) if method == "create" and name.startswith("log/") else None

    media = Media(FaultyStore(FolderStore(tmp_path / "media"), script), write=True)
    with pytest.raises(MediaUnusable):
        back_up(media, FIRST, run="r1", scratch=tmp_path)
    assert media.view().committed == {"r1": 0}
    point = next(iter(media.view().points.values())).point
    from vsa.media.entries import PointEntry

    assert media.append(PointEntry(point=point), run="r1") == 0
    assert media.view().head == 1


_BACK_UP_FOR_EVER = """
import sys
from pathlib import Path
from tests.media.making import back_up, noise
from vsa.media.media import Media
media = Media.open(sys.argv[1], write=True)
print("ready", flush=True)
for number in range(10_000):
    run = f"{sys.argv[2]}-{number}"
    back_up(media, {at: noise((run, at)) for at in range(4)}, run=run, scratch=Path(sys.argv[3]))
    print("committed", flush=True)
"""


def test_a_killed_backup_leaves_only_whole_points(tmp_path):
    new_media(tmp_path / "media")
    choose = random.Random(7)
    for life in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", _BACK_UP_FOR_EVER, tmp_path / "media", f"life{life}", tmp_path],
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        # Every second life has committed something, however busy the machine is.
        for _ in range(1 + life % 2):
            process.stdout.readline()
        time.sleep(choose.uniform(0.02, 0.12))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    media = Media.open(str(tmp_path / "media"))
    points = media.view().points
    assert points
    for made in points.values():
        backup = made.point.disks[0]
        expected = {at: noise((made.run, at)) for at in range(4)}
        assert read_disk(media, backup.indexes, backup.disk.size) == expected
    two_backups(Media.open(str(tmp_path / "media"), write=True), tmp_path, attempt="after")


class SpoilingStore(FolderStore):
    """Says that it has stored an index, and has one bit of its first row group otherwise."""

    def create(self, name, parts) -> None:
        super().create(name, parts)
        if "/index/" in name:
            flip_bit(Path(self.location) / name, ROW_GROUP)


ROW_GROUP = 4 * 8
"""A bit there: right behind the four bytes of Parquet's magic, in what a footer pins and does not prove."""


@pytest.fixture(params=[4 * MIB, 0], ids=["fetched whole", "of which opening proves the footer alone"])
def index_of_any_size(request, monkeypatch):
    monkeypatch.setattr(pinned, "FETCHED_WHOLE", request.param)


def test_an_index_that_a_store_did_not_keep_is_found_when_it_is_written(tmp_path, index_of_any_size):
    new_media(tmp_path / "media")
    media = Media(SpoilingStore(tmp_path / "media"), write=True)
    with pytest.raises(MediaDamaged, match=r"/index/.* reads back differently"):
        write_disk(media, FIRST, run="r1", disk=a_disk(), scratch=tmp_path)


def test_no_point_is_committed_over_an_index_that_has_gone_bad_since(tmp_path, index_of_any_size):
    media = new_media(tmp_path / "media")
    media.begin_run(an_intent("r1"))
    written = write_disk(media, FIRST, run="r1", disk=a_disk(), scratch=tmp_path)
    assert written.index is not None
    flip_bit(tmp_path / "media" / written.index.name, ROW_GROUP)
    with pytest.raises(MediaDamaged, match=written.index.name):
        media.append(a_point(a_disk(), written.indexes, packs=written.packs), run="r1")
    assert not Media.open(str(tmp_path / "media")).view().points
