"""What a writer made from the document alone has written is media like any other."""

from __future__ import annotations

import ast
import datetime as dt
import os
from pathlib import Path

import pytest

from tests.media import second_writer
from tests.media.making import EXTENT, noise, read_point, text
from tests.media.second_writer import Writer
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.upkeep.forgetting import named, plan_forgetting
from vsa.upkeep.prune import plan_prune
from vsa.upkeep.rebuild import rebuild
from vsa.upkeep.report import Depth
from vsa.upkeep.verify import verify

LAST = 70_000
SIZE = LAST * EXTENT + 512
FIRST = {0: noise(0), 5: text(5), LAST: noise(9, 512)}
SECOND = {5: None, 7: noise(7)}
NOW = dt.datetime(2026, 3, 4, 6, 0, tzinfo=dt.UTC)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    writer = Writer(tmp_path / "media", extent_size=EXTENT, disk_size=SIZE)
    writer.back_up("run-1", FIRST)
    writer.append(writer.client())
    writer.back_up("run-2", SECOND)
    writer.append(writer.job())
    return writer


def test_every_point_is_what_was_written(writer: Writer) -> None:
    media = Media.open(str(writer.folder), write=True)
    first, second = media.view().points
    assert read_point(media, first) == FIRST
    assert read_point(media, second) == {0: noise(0), 7: noise(7), LAST: noise(9, 512)}


def test_the_log_is_understood(writer: Writer) -> None:
    view = Media.open(str(writer.folder)).view()
    assert [client.vm.name for client in view.clients.values()] == ["web"]
    (job,) = (item.job for item in view.jobs.values())
    assert [disk.name for disk in job.vms[0].disks] == ["os-disk", "data-disk"]
    key = second_writer.key_of(second_writer.SOURCE)
    assert (view.points_of_disk(key), view.base_of(key)[0]) == ((0, 2), 2)
    assert {made.client for made in view.points.values()} == view.clients.keys()


def test_it_is_sound_to_the_last_byte(writer: Writer, tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    report = verify(Media.open(str(writer.folder)), Depth.RESTORE, scratch=scratch, date=NOW.date())
    assert report.is_sound and not report.remarks
    assert len(report.digests) == 2


def test_it_is_forgotten_and_pruned_like_any_other(writer: Writer, tmp_path: Path) -> None:
    media = Media.open(str(writer.folder), write=True, clock=lambda: NOW)
    assert plan_forgetting(media, named([0]), now=NOW).decision.going[0].vm == "web"
    (scratch := tmp_path / "scratch").mkdir()
    plan = plan_prune(media, now=NOW, scratch=scratch)
    assert plan.is_empty and not plan.unknown


def test_a_run_that_it_left_is_judged_by_its_intent(writer: Writer, tmp_path: Path) -> None:
    writer.create("runs/run-3/intent.json", second_writer.document(writer.intent("run-3")))
    writer.pack("run-3", 0, {0: noise("lost")})
    media = Media.open(str(writer.folder), write=True, clock=lambda: NOW)
    for name, ended, dead in (("a", False, ()), ("b", True, ("run-3",))):
        (scratch := tmp_path / name).mkdir()
        plan = plan_prune(media, now=NOW, scratch=scratch, has_ended=lambda process, ended=ended: ended)
        assert plan.dead == dead


def test_it_is_made_again_from_its_packs_alone(writer: Writer, tmp_path: Path) -> None:
    (scratch := tmp_path / "scratch").mkdir()
    target = FolderStore.make(tmp_path / "again")
    done = rebuild(FolderStore(writer.folder), target, scratch=scratch, now=NOW, random=os.urandom)
    assert (done.lost, len(done.points)) == ((), 2)
    assert read_point(done.media, done.points[0]) == FIRST


def test_it_shares_no_code_with_the_engine() -> None:
    tree = ast.parse(Path(second_writer.__file__).read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"vsa", "tests", "tasks", "flows", "blocks"}
