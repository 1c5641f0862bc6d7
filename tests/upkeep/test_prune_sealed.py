"""Sealed media is pruned like any other: frames are sealed anew where they go, retired keys are deleted."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from tests.faults.small_media import LATER, Contents, forget_points, grow, prune, require_all_points
from tests.media.making import EXTENT, NOW, a_disk, flip_bit, noise, objects
from vsa.errors import BadRequest
from vsa.media.media import Media
from vsa.media.wrapping import KeyFile
from vsa.transfer.liveness import this_process
from vsa.upkeep.prune import carry_out, plan_prune
from vsa.upkeep.rotation import plan_rotation, rotate_key
from vsa.upkeep.verify import Depth, verify

KEY, OTHER = KeyFile(noise("key", 32)), KeyFile(noise("other", 32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def media(folder: Path) -> Media:
    return Media.create(str(folder), extent_size=EXTENT, now=NOW, wrapping=KEY)


def with_history(media: Media, scratch: Path) -> dict[str, Contents]:
    """Two points; once the first is forgotten, its pack is mostly empty."""
    first = {at: noise(at) for at in range(16)}
    slot = grow(media, "r0", a_disk(), first, scratch=scratch)
    changes = {at: noise(("new", at)) for at in range(12)}
    grow(media, "r1", a_disk(), changes, scratch=scratch, parent=slot)
    return {"r0": first, "r1": first | changes}


def test_what_is_repacked_is_opened_by_the_same_key_and_no_other_place(media, folder, tmp_path):
    held = with_history(media, tmp_path)
    forget_points(media, 0)
    report = prune(media)
    assert (report.points, report.repacked.copied > 0) == ((0,), True)
    anew = Media.open(str(folder), wrapping=KEY)
    require_all_points(anew, held)
    scratch = tmp_path / "verify"
    scratch.mkdir()
    found = verify(anew, Depth.BYTES, scratch=scratch, date=LATER.date())
    assert found.is_sound, found.text()


def test_keys_that_a_rotation_has_retired_are_deleted_and_only_those(media, folder, tmp_path):
    with_history(media, tmp_path)
    (folder / "keys/notes.txt").write_text("not ours")
    plan = plan_rotation(media, KEY, OTHER)
    rotate_key(media, KEY, OTHER, plan, now=NOW + dt.timedelta(days=1), random=os.urandom)
    assert {"keys/0", "keys/1"} <= objects(folder)
    prune(Media.open(str(folder), write=True, wrapping=OTHER))
    left = {name for name in objects(folder) if name.startswith("keys/")}
    assert left == {"keys/1", "keys/notes.txt"}
    Media.open(str(folder), wrapping=OTHER).view()
    with pytest.raises(BadRequest):
        Media.open(str(folder), wrapping=KEY).view()


@pytest.mark.parametrize("spoil", [True, False])
def test_no_key_goes_that_the_plan_has_not_shown_or_that_alone_opens_the_media(
    media, folder, tmp_path, spoil
):
    with_history(media, tmp_path)
    (tmp_path / "plan").mkdir()
    plan = plan_prune(media, now=LATER, scratch=tmp_path / "plan", grace=dt.timedelta(0), trust_clock=True)
    rotate_key(media, KEY, OTHER, plan_rotation(media, KEY, OTHER), now=NOW, random=os.urandom)
    carry_out(plan, process=this_process())
    assert (folder / "keys/0").exists()
    anew = Media.open(str(folder), write=True, wrapping=OTHER)
    if spoil:
        flip_bit(folder / "keys/1", 900)
    prune(anew)
    assert (folder / "keys/0").exists() is spoil


def test_old_checkpoints_are_deleted_and_the_log_is_read_without_them(media, folder, tmp_path):
    held = with_history(media, tmp_path)
    for slot in range(3):
        media.checkpoint_if_due(every=1)
        grow(media, f"x{slot}", a_disk("other"), {slot: noise(slot)}, scratch=tmp_path)
        held[f"x{slot}"] = {slot: noise(slot)}
    before = {name for name in objects(folder) if name.startswith("checkpoints/")}
    prune(Media.open(str(folder), write=True, wrapping=KEY))
    after = {name for name in objects(folder) if name.startswith("checkpoints/")}
    assert (len(before), after) == (3, set(sorted(before)[-2:]))
    require_all_points(Media.open(str(folder), wrapping=KEY), held)


def test_what_is_damaged_and_needed_by_nobody_is_deleted_though_it_does_not_say_its_size(
    media, folder, tmp_path
):
    """Nothing of a sealed object can be told whose last chunk does not open."""
    held = with_history(media, tmp_path)
    grow(media, "r2", a_disk("other"), {0: noise("other")}, scratch=tmp_path)
    (index,) = (folder / "runs/r2/index").iterdir()
    (orphan := folder / f"runs/r2/streams/{a_disk().key}-{'0' * 32}.json").parent.mkdir(exist_ok=True)
    orphan.write_bytes(index.read_bytes())
    flip_bit(index, 999)
    forget_points(media, 2)
    assert prune(media).points == (2,)
    assert not index.exists() and not orphan.exists()
    require_all_points(Media.open(str(folder), wrapping=KEY), held)
