from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.restore.backups import EXTENT, NOW, Backups, image_of, names_in
from tests.subclient.builders import a_source_disk, a_vm
from vsa.cli.program import parser, run
from vsa.media.entries import (
    ClientEntry,
    DiskOutcome,
    DoubtEntry,
    JobEntry,
    ReleasedBase,
    Result,
    SeenName,
    VmOutcome,
)
from vsa.media.media import Media
from vsa.model import DiskRole, Exclusion, Method, Reason, Vm
from vsa.ranges import MIB


@dataclass
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        return dict(json.loads(self.out))

    def rows(self) -> Iterator[list[str]]:
        """The cells of each line of a table."""
        return (re.split(r" {2,}", line.strip()) for line in self.out.splitlines())


def vsa(*arguments: object) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    code = run([str(argument) for argument in arguments], out, err)
    return Ran(code, out.getvalue(), err.getvalue())


OS = a_source_disk("os-disk", role=DiskRole.OS, lun=None, size=1 * MIB)
DATA = a_source_disk("data-0", lun=3, size=2 * MIB)
OS_EXTENTS = {0: b"\1" * EXTENT, 9: b"\2" * EXTENT}
DATA_EXTENTS = {4: b"\3" * EXTENT}


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def one_point(backups: Backups, vm: Vm | None = None, **given: Any) -> int:
    return backups.point(vm or a_vm("web-01"), {OS: OS_EXTENTS, DATA: DATA_EXTENTS}, **given)


def a_client(vm: Vm, *names: str) -> ClientEntry:
    seen = tuple(
        SeenName(name=name, resource_id="/vm", first_seen=NOW, last_seen=NOW) for name in names or (vm.name,)
    )
    return ClientEntry(vm=vm, names=seen, first_seen=NOW, last_seen=NOW)


def a_job(**given: Any) -> JobEntry:
    return JobEntry(
        **{
            "job": "job-1",
            "subclient": "nightly",
            "method": Method.CBT,
            "started_at": NOW,
            "ended_at": NOW + dt.timedelta(seconds=3723),
            "result": Result.COMPLETED,
            **given,
        }
    )


def test_init_makes_media_that_can_be_opened(tmp_path: Path) -> None:
    ran = vsa("init", "--media", tmp_path / "media", "--extent-size", "128KiB", "--json")
    media = Media.open(str(tmp_path / "media"), write=True)
    assert ran.code == 0
    assert ran.document["media"]["id"] == media.id
    assert media.extent_size == 128 * 1024


def test_init_is_never_done_over_something(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    ran = vsa("init", "--media", tmp_path)
    assert ran.code == 11
    assert names_in(tmp_path) == ["precious"]


@pytest.mark.parametrize("inside", ["x", "runs/run-1", "runs/run-1/deep/er"])
def test_init_is_never_done_inside_media(tmp_path: Path, inside: str) -> None:
    assert vsa("init", "--media", tmp_path / "media").code == 0
    (tmp_path / "link").symlink_to(tmp_path / "media")
    before = sorted(tmp_path.rglob("*"))
    for around in ("media", "link"):
        ran = vsa("init", "--media", tmp_path / around / inside)
        assert ran.code == 2 and f"lies inside the media at {tmp_path / 'media'}" in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_is_called_as_media_is_no_media_to_lie_in(tmp_path: Path) -> None:
    (tmp_path / "media.json").write_text('{"format":"films"}')
    assert vsa("init", "--media", tmp_path / "media").code == 0


@pytest.mark.parametrize("size", ["3KiB", "lots", "0"])
def test_init_refuses_an_extent_size_that_makes_no_sense(tmp_path: Path, size: str) -> None:
    assert vsa("init", "--media", tmp_path / "media", "--extent-size", size).code == 2
    assert names_in(tmp_path) == []


COMMANDS = [("points",), ("clients",), ("jobs",), ("show", 0), ("restore", 0, "--to", "x")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_place_without_media_is_told_in_one_line(tmp_path: Path, command: tuple[object, ...]) -> None:
    ran = vsa(*command, "--media", tmp_path / "nowhere")
    assert ran.code == 10
    assert ran.out == "" and ran.err.startswith("vsa: ") and ran.err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_damaged_media_has_its_own_exit_code(backups: Backups, command: tuple[object, ...]) -> None:
    one_point(backups)
    one_point(backups)
    entry = backups.location / "log" / "000000000000"
    entry.chmod(0o600)
    entry.write_bytes(entry.read_bytes().replace(b"web-01", b"web-02"))
    ran = vsa(*command, "--media", backups.location)
    assert ran.code == 20
    assert "log/00000000000" in ran.err


def test_an_unknown_kind_of_place_is_a_bad_request() -> None:
    assert vsa("points", "--media", "gopher://somewhere").code == 2


def test_points_are_listed_by_their_slot(backups: Backups) -> None:
    backups.media.append(a_client(a_vm("web-01")))
    first = one_point(backups)
    second = backups.point(
        a_vm("db-01"), {DATA: {}}, excluded=(Exclusion(name="ultra", reason="4096-byte sectors"),)
    )
    ran = vsa("points", "--media", backups.location)
    heading, *rows = ran.rows()
    assert heading == ["POINT", "TAKEN", "VM", "SUBCLIENT", "METHOD", "DISKS", "SIZE", "STORED", "REMARK"]
    taken = "2026-03-04 05:06:07Z"
    assert rows == [
        [str(first), taken, "web-01", "nightly", "full", "2", "3 MiB", "2.4 KiB"],
        [str(second), taken, "db-01", "nightly", "full", "1", "2 MiB", "1.2 KiB", "1 excluded"],
    ]


def test_points_of_one_vm_are_found_by_any_of_its_names(backups: Backups) -> None:
    vm = a_vm("web-01")
    backups.media.append(a_client(vm, "old-name", "web-01"))
    slot = one_point(backups, vm)
    backups.point(a_vm("db-01"), {DATA: {}})
    for name in ("WEB-01", "old-name", vm.resource_id, vm.key):
        points = vsa("points", "--media", backups.location, "--vm", name, "--json").document["points"]
        assert [item["point"] for item in points] == [slot], name


def test_points_of_an_unknown_vm_are_a_bad_request(backups: Backups) -> None:
    ran = vsa("points", "--media", backups.location, "--vm", "web-99")
    assert ran.code == 2 and "no client is called 'web-99'" in ran.err


def test_empty_media_is_no_error(backups: Backups) -> None:
    for command, said in (
        ("points", "No recovery points."),
        ("clients", "No clients."),
        ("jobs", "No jobs."),
    ):
        ran = vsa(command, "--media", backups.location)
        assert (ran.code, ran.out.strip()) == (0, said)


def test_clients_show_their_state_and_newest_point(backups: Backups) -> None:
    vm = a_vm("web-01")
    backups.media.append(a_client(vm))
    one_point(backups, vm)
    slot = one_point(backups, vm)
    (client,) = vsa("clients", "--media", backups.location, "--json").document["clients"]
    assert (client["key"], client["state"], client["points"]) == (vm.key, "present", [slot - 1, slot])
    _, row = vsa("clients", "--media", backups.location).rows()
    assert row == ["web-01", "present", "rg-web", "westeurope", "2026-03-04 05:06:07Z", "2", str(slot)]


def test_jobs_come_newest_first_with_what_they_complained_of(backups: Backups) -> None:
    backups.media.append(a_job())
    base = backups.one_disk({}).snapshot
    backups.media.append(
        a_job(
            job="job-2",
            result=Result.COMPLETED_WITH_ERRORS,
            vms=(
                VmOutcome(key="k1", name="web-01", result=Result.FAILED, error="snapshot refused"),
                VmOutcome(
                    key="k2",
                    name="db-01",
                    result=Result.COMPLETED,
                    point=0,
                    disks=(
                        DiskOutcome(
                            name="d", key="k", reason=Reason.CRC_BASE_GONE, detail="deleted by somebody"
                        ),
                    ),
                ),
            ),
            alarms=("a lock holds snapshot s1",),
            released=(ReleasedBase(base=base, reason="method is crc"),),
        )
    )
    out = vsa("jobs", "--media", backups.location).out
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["job-2", "job-1"]
    assert "1:02:03" in out and "1/2" in out
    assert "1: web-01 failed: snapshot refused" in out
    assert "1: db-01, d: CRC_BASE_GONE deleted by somebody" in out
    assert "1: ALARM: a lock holds snapshot s1" in out
    assert f"1: base {base.id} released: method is crc" in out
    jobs = vsa("jobs", "--media", backups.location, "--limit", 1, "--json").document["jobs"]
    assert [(job["slot"], job["job"]) for job in jobs] == [(1, "job-2")]


def test_show_tells_everything_about_a_point(backups: Backups) -> None:
    slot = one_point(
        backups,
        excluded=(Exclusion(name="ultra", reason="4096-byte sectors"),),
        bases=(backups.one_disk({}).snapshot.model_copy(update={"disk_key": OS.key}),),
    )
    backups.media.append(DoubtEntry(points=(slot,), disk_key=DATA.key, reason="audit found a difference"))
    ran = vsa("show", slot, "--media", backups.location)
    assert ran.code == 0
    assert "VM           web-01" in ran.out
    rows = {row[0]: row for row in ran.rows()}
    assert rows["os-disk"][1:5] == ["os", "1 MiB", "full", "FULL_FIRST"] and rows["os-disk"][-1] == "yes"
    assert rows["data-0"][1] == "lun 3" and rows["data-0"][-1] == "no"
    assert "Not in this point: ultra: 4096-byte sectors" in ran.out
    assert "DOUBTFUL: data-0: audit found a difference" in ran.out
    document = vsa("show", slot, "--media", backups.location, "--json").document["point"]
    assert document["doubts"][0]["disk_key"] == DATA.key
    assert {index["name"].split("/")[0] for disk in document["disks"] for index in disk["indexes"]} == {
        "runs"
    }


def test_show_refuses_a_slot_that_is_no_point(backups: Backups) -> None:
    slot = backups.media.append(a_client(a_vm()))
    ran = vsa("show", slot, "--media", backups.location)
    assert ran.code == 2 and f"there is no recovery point {slot}" in ran.err


def test_all_disks_are_restored_to_a_folder(backups: Backups, tmp_path: Path) -> None:
    slot = one_point(backups)
    ran = vsa("restore", slot, "--media", backups.location, "--to", tmp_path / "new", "--format", "raw")
    assert ran.code == 0
    assert (tmp_path / "new" / "os-disk.raw").read_bytes() == image_of(OS.size, OS_EXTENTS)
    assert (tmp_path / "new" / "data-0.raw").read_bytes() == image_of(DATA.size, DATA_EXTENTS)
    assert "ended, 100%" in ran.err
    assert hashlib.sha256(image_of(OS.size, OS_EXTENTS)).hexdigest() in ran.out


@pytest.mark.parametrize(
    ("wanted", "disk"), [("os", OS), ("OS-Disk", OS), ("3", DATA), ("data-0", DATA)], ids=lambda v: str(v)[:8]
)
def test_one_disk_is_restored_to_a_file(backups: Backups, tmp_path: Path, wanted: str, disk: Any) -> None:
    slot = one_point(backups)
    ran = vsa(
        "restore", slot, "--media", backups.location, "--disk", wanted, "--to", tmp_path / "x.vhd", "--json"
    )
    (made,) = ran.document["disks"]
    expected = image_of(disk.size, OS_EXTENTS if disk is OS else DATA_EXTENTS)
    assert (tmp_path / "x.vhd").read_bytes()[:-512] == expected
    assert made["sha256"] == hashlib.sha256(expected).hexdigest()
    assert (made["path"], made["size"], made["error"]) == (str(tmp_path / "x.vhd"), disk.size, None)
    assert ran.err == ""


def test_a_disk_that_the_point_does_not_hold_is_a_bad_request(backups: Backups, tmp_path: Path) -> None:
    slot = one_point(backups)
    ran = vsa("restore", slot, "--media", backups.location, "--disk", "7", "--to", tmp_path / "x")
    assert ran.code == 2
    assert "no disk '7', only: os-disk (os), data-0 (lun 3)" in ran.err


def test_nothing_is_restored_if_one_target_exists(backups: Backups, tmp_path: Path) -> None:
    slot = one_point(backups)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "data-0.vhd").write_bytes(b"precious")
    ran = vsa("restore", slot, "--media", backups.location, "--to", tmp_path / "new")
    assert ran.code == 2
    assert names_in(tmp_path / "new") == ["data-0.vhd"]
    assert (tmp_path / "new" / "data-0.vhd").read_bytes() == b"precious"


def test_a_damaged_disk_does_not_keep_the_others_from_being_saved(backups: Backups, tmp_path: Path) -> None:
    slot = one_point(backups)
    packs = backups.media.view().points[slot].point.disks[0].packs
    (backups.location / packs[0]).unlink()
    ran = vsa("restore", slot, "--media", backups.location, "--to", tmp_path / "new")
    assert ran.code == 3
    assert names_in(tmp_path / "new") == ["data-0.vhd"]
    assert [line for line in ran.err.splitlines() if line.startswith("vsa: ") and packs[0] in line]


def test_a_restore_of_damaged_disks_only_says_damaged(backups: Backups, tmp_path: Path) -> None:
    slot = one_point(backups)
    for pack in backups.location.glob("runs/*/packs/*.pack"):
        pack.unlink()
    ran = vsa("restore", slot, "--media", backups.location, "--to", tmp_path / "new", "--json")
    assert ran.code == 20
    assert all("pack" in item["error"] for item in ran.document["disks"])
    assert names_in(tmp_path / "new") == []


def test_a_doubtful_point_is_restored_with_a_warning(backups: Backups, tmp_path: Path) -> None:
    slot = one_point(backups)
    backups.media.append(DoubtEntry(points=(slot,), disk_key=OS.key, reason="audit found a difference"))
    ran = vsa("restore", slot, "--media", backups.location, "--to", tmp_path / "new", "--json")
    assert ran.code == 0 and "doubtful" in ran.err and ran.document["doubtful"] is True


HOSTILE = "../../\x1b[2J\u202e\nevil"


def test_names_from_the_media_command_neither_terminal_nor_file_system(
    backups: Backups, tmp_path: Path
) -> None:
    vm = a_vm(HOSTILE)
    disks = {
        a_source_disk(HOSTILE, lun=0, size=MIB): {},
        a_source_disk(HOSTILE.replace("\n", "\t"), lun=1, size=MIB): {},
    }
    backups.media.append(a_client(vm))
    slot = backups.point(vm, disks, excluded=(Exclusion(name=HOSTILE, reason=HOSTILE),))
    backups.media.append(a_job(alarms=(HOSTILE,)))
    (tmp_path / "new" / "deep").mkdir(parents=True)
    target = tmp_path / "new" / "deep"
    for command in (["points"], ["clients"], ["jobs"], ["show", slot], ["restore", slot, "--to", target]):
        ran = vsa(*command, "--media", backups.location)
        assert ran.code == 0
        assert all(line.isprintable() for text in (ran.out, ran.err) for line in text.split("\n"))
    assert names_in(tmp_path / "new") == ["deep"] and names_in(tmp_path) == ["media", "new", "scratch"]
    assert all(re.fullmatch(r"2J_evil-[0-9a-f]{20}\.vhd", name) for name in names_in(target))
    assert len(names_in(target)) == 2


def test_documents_are_plain_ascii_whatever_the_names(backups: Backups) -> None:
    one_point(backups, a_vm(HOSTILE))
    ran = vsa("points", "--media", backups.location, "--json")
    assert ran.out.isascii() and "\x1b" not in ran.out
    assert ran.document["points"][0]["vm"] == HOSTILE


@pytest.mark.parametrize(
    "arguments", [["points"], ["show", "x", "--media", "m"], ["fly", "--media", "m"], []]
)
def test_what_cannot_be_parsed_is_a_bad_request(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(arguments, io.StringIO(), io.StringIO())
    assert ended.value.code == 2
    assert "usage: vsa" in capsys.readouterr().err


def test_every_help_shows_the_exit_codes() -> None:
    top = parser()
    assert "  3  done but incomplete" in top.format_help() and " 20  media damaged" in top.format_help()
