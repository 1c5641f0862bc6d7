"""Which point and which disks a restore takes when it is told a name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.restore.backups import Backups
from tests.subclient.builders import a_source_disk, a_vm
from vsa.errors import BadRequest
from vsa.media.entries import Damaged, DamageEntry, DoubtEntry, ForgetEntry, Harm
from vsa.model import DiskRole, Exclusion, Point
from vsa.restore.choosing import chosen_disks, latest_good_point, plan_restore
from vsa.restore.disk import Format

OS = a_source_disk("web-os", role=DiskRole.OS, lun=None)
DATA = a_source_disk("web-data", lun=3)
WEB = a_vm("web")


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def a_point(backups: Backups, vm: object = WEB, **given: object) -> int:
    return backups.point(vm, {OS: {}, DATA: {}}, **given)  # type: ignore[arg-type]


def point_of(backups: Backups) -> Point:
    slot = a_point(backups)
    return backups.media.view().points[slot].point


def harm(backups: Backups, slot: int) -> None:
    harmed = Harm(points=(slot,), disk_key=DATA.key, ranges=((0, 4096),))
    backups.media.append(
        DamageEntry(objects=(Damaged(name="runs/run-1/packs/x.pack"),), harm=(harmed,), reason="test")
    )


def test_the_newest_point_without_a_flaw_is_taken(backups: Backups) -> None:
    good, damaged, doubtful, incomplete, forgotten = (
        a_point(backups, incomplete=number == 3) for number in range(5)
    )
    a_point(backups, a_vm("db"))
    harm(backups, damaged)
    backups.media.append(DoubtEntry(points=(doubtful,), disk_key=DATA.key, reason="an audit"))
    backups.media.append(ForgetEntry(points=(forgotten,), reason="test"))
    view = backups.media.view()
    assert latest_good_point(view, "WEB").slot == good
    assert latest_good_point(view, WEB.key, ["os"]).slot == incomplete, "nothing is wrong with that disk"
    backups.media.append(ForgetEntry(points=(good,), reason="test"))
    with pytest.raises(BadRequest) as caught:
        latest_good_point(backups.media.view(), "web")
    assert f"point {damaged}: it is damaged; point {good}: it was forgotten; name" in str(caught.value)
    assert f"point {doubtful}: it is doubtful" in str(caught.value)
    assert f"point {incomplete}: it is incomplete" in str(caught.value)


def test_a_disk_that_the_newest_points_no_longer_hold_comes_from_the_last_that_does(backups: Backups) -> None:
    slot = a_point(backups)
    backups.point(WEB, {OS: {}}, excluded=(Exclusion(name=DATA.name, reason="detached"),))
    assert latest_good_point(backups.media.view(), "web", ["web-data"]).slot == slot
    with pytest.raises(BadRequest, match=r"no disk 'logs', only: web-os \(os\)"):
        latest_good_point(backups.media.view(), "web", ["logs"])


def test_names_that_nobody_or_several_have_are_refused_with_what_there_is(backups: Backups) -> None:
    first, second = a_vm("web"), a_vm("web", vm_id="another")
    for vm in (first, second):
        a_point(backups, vm)
    with pytest.raises(BadRequest, match="2 clients are called 'web': name one by its key") as caught:
        latest_good_point(backups.media.view(), "web")
    assert first.key in str(caught.value) and second.key in str(caught.value)


def test_disks_are_named_by_name_number_or_place_in_any_order_and_once(backups: Backups) -> None:
    point = point_of(backups)
    for wanted in ([], ["3", "os"], ["web-data", "LUN 3", "WEB-OS"]):
        assert [backup.disk.name for backup in chosen_disks(point, wanted)] == ["web-os", "web-data"], wanted


def test_one_disk_for_a_folder_gets_a_file_in_it_whether_it_is_there_or_not(
    backups: Backups, tmp_path: Path
) -> None:
    point = point_of(backups)
    (step,) = plan_restore(point, ["os"], f"{tmp_path / 'new'}{os.sep}", Format.RAW)
    assert step.target == tmp_path / "new" / "web-os.raw"
