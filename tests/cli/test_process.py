"""The command as a process of its own: what it loads, and how it ends when it is stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.restore.backups import EXTENT, Backups, names_in
from tests.subclient.builders import a_source_disk, a_vm
from vsa.ranges import GIB, MIB

TIB = 1024 * GIB
VSA = [sys.executable, "-m", "vsa"]


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def modules_loaded_by(*arguments: str) -> set[str]:
    program = (
        "import sys; from vsa.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return set(ran.stderr.split())


def test_no_command_loads_prefect_or_azure_and_only_restore_loads_arrow(
    backups: Backups, tmp_path: Path
) -> None:
    slot = str(backups.point(a_vm(), {a_source_disk(size=MIB): {0: b"\1" * EXTENT}}))
    media = ["--media", str(backups.location)]
    for command in (["--help"], ["points"], ["clients"], ["jobs"], ["show", slot]):
        loaded = modules_loaded_by(*command, *(media if command != ["--help"] else []))
        assert not loaded & {"prefect", "azure", "pyarrow", "numpy"}, command
    loaded = modules_loaded_by("restore", slot, "--to", str(tmp_path / "x"), "--json", *media)
    assert "pyarrow" in loaded and not loaded & {"prefect", "azure"}


def restoring_for_minutes(backups: Backups, folder: Path) -> subprocess.Popen[str]:
    """A restore under way: a disk so large that the checksum of its zeros alone takes minutes."""
    slot = backups.point(a_vm(), {a_source_disk(size=4 * TIB): {0: b"\1" * EXTENT}})
    folder.mkdir()
    command = [*VSA, "restore", str(slot), "--media", str(backups.location), "--to", str(folder / "disk.vhd")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not any(item.stat().st_blocks for item in folder.iterdir()):
        assert time.monotonic() < deadline and process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_restore_that_is_stopped_says_so_and_leaves_nothing(
    backups: Backups, tmp_path: Path, stop: signal.Signals
) -> None:
    process = restoring_for_minutes(backups, tmp_path / "new")
    process.send_signal(stop)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == "" and err.endswith("vsa: interrupted\n") and "Traceback" not in err
    assert names_in(tmp_path / "new") == []


def test_a_restore_that_is_killed_leaves_no_image_under_its_name(backups: Backups, tmp_path: Path) -> None:
    process = restoring_for_minutes(backups, tmp_path / "new")
    process.kill()
    process.communicate(timeout=30)
    assert [name.startswith(".vsa-restore-") for name in names_in(tmp_path / "new")] == [True]


def test_output_that_nobody_reads_to_the_end_is_no_error_message(backups: Backups) -> None:
    backups.point(a_vm(), {a_source_disk(size=MIB): {}})
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run(
        [*VSA, "points", "--media", str(backups.location)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert ran.stderr == ""


def test_names_that_the_terminal_cannot_show_are_escaped(backups: Backups) -> None:
    backups.point(a_vm("größe-名"), {a_source_disk(size=MIB): {}})
    ran = subprocess.run(
        [*VSA, "points", "--media", str(backups.location)],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        check=True,
    )
    assert b"gr\\xf6\\xdfe-\\u540d" in ran.stdout
