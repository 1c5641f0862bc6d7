"""Dead is only what is known to be dead: its place is run in by real processes here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vsa.model import ProcessName
from vsa.transfer.liveness import has_ended, machine_id, this_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are named by Linux's /proc")

SAY = "from vsa.transfer.liveness import this_process; print(this_process().model_dump_json(), flush=True)"


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[str], ProcessName]]:
    """A process that has named itself and lives until it is told to end."""
    program = f"{SAY}; input()"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield process, ProcessName.model_validate_json(process.stdout.readline())
    process.kill()
    process.communicate()


def test_this_process_lives() -> None:
    assert not has_ended(this_process())


def test_a_process_is_alive_until_it_is_killed_even_before_it_is_waited_for(
    sleeper: tuple[subprocess.Popen[str], ProcessName],
) -> None:
    process, name = sleeper
    assert name.id == process.pid
    assert not has_ended(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert has_ended(name), "a zombie has ended"
    process.wait()
    assert has_ended(name)


def test_a_process_id_that_is_used_again_is_another_process() -> None:
    mine = this_process()
    assert has_ended(mine.model_copy(update={"started": str(int(mine.started) - 1)}))


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"host": "another"},
        {"namespace": "pid:[1]"},
        {"boot": "another", "machine": ""},
        {"boot": "another", "machine": "another"},
        {"boot": ""},
        {"started": ""},
    ],
)
def test_what_cannot_be_judged_from_here_counts_as_alive(elsewhere: dict[str, str]) -> None:
    dead_here = {"id": 2**22 - 1, "started": "1"}
    mine = this_process()
    assert has_ended(mine.model_copy(update=dead_here))
    assert not has_ended(mine.model_copy(update=dead_here | elsewhere))


def on_its_board(**update: str) -> ProcessName:
    return this_process().model_copy(update={"machine": "its board"} | update)


def test_a_restarted_machine_has_no_old_processes() -> None:
    assert has_ended(on_its_board(boot="the one before"), here=on_its_board())


@pytest.mark.parametrize("other", [{"machine": "a clone's"}, {"machine": ""}, {"host": "another"}])
def test_what_ran_in_another_boot_may_be_another_machine(other: dict[str, str]) -> None:
    assert not has_ended(on_its_board(boot="another", **other), here=on_its_board())
    assert not has_ended(on_its_board(boot="another"), here=on_its_board(**other))


def test_the_machine_is_named_by_the_first_place_that_this_user_can_read(tmp_path: Path) -> None:
    silent, copy, later = tmp_path / "silent", tmp_path / "copy", tmp_path / "later"
    silent.mkdir()
    assert machine_id((silent, copy)) == ""
    copy.write_text("its board\n")
    later.write_text("another\n")
    assert machine_id((silent, copy, later)) == "its board"
