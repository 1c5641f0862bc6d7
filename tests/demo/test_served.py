"""Processes that a local installation starts: ended with all they have started, and nobody else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from demo.process_tree import Seen, family, living, send
from demo.served import ProcessFailed, ServedProcess, Stopped, end, stop_together

Started = list[ServedProcess]


@pytest.fixture
def started() -> Iterator[Started]:
    processes: Started = []
    yield processes
    for process in processes:
        process.stop(seconds=0)


def shell(script: str, folder: Path, started: Started) -> ServedProcess:
    """A shell that runs the script in the folder and has said `ready`."""
    process = ServedProcess("the script", ["/bin/sh", "-c", script], log=folder / "said", folder=folder)
    started.append(process.start())
    process.await_ready(lambda: "ready" in process.log.read_text(), seconds=20)
    return process


def test_a_child_in_a_session_of_its_own_ends_with_its_parent(tmp_path: Path, started: Started) -> None:
    process = shell("setsid sleep 100 & echo ready; wait", tmp_path, started)
    assert process.id is not None
    everything = family([process.id])
    assert len(everything) == 2
    assert stop_together([process], seconds=20) == set()
    assert living(everything) == set()
    assert process.code is not None


def test_what_a_process_starts_while_it_ends_is_waited_for(tmp_path: Path, started: Started) -> None:
    hook = "trap '(sleep 1; echo done > hook) & sleep 0.5; exit 0' TERM"
    process = shell(f"{hook}; echo ready; while :; do sleep 0.2; done", tmp_path, started)
    assert stop_together([process], seconds=20) == set()
    assert (tmp_path / "hook").read_text() == "done\n"


def test_who_does_not_listen_is_killed(tmp_path: Path, started: Started) -> None:
    process = shell("trap '' TERM; echo ready; while :; do sleep 0.2; done", tmp_path, started)
    began = time.monotonic()
    hurry = Event()
    hurry.set()
    assert stop_together([process], seconds=100, hurry=hurry)
    assert time.monotonic() - began < 20
    assert process.code == -9


def test_a_process_that_has_the_id_of_an_earlier_one_is_left_alone(tmp_path: Path, started: Started) -> None:
    process = shell("echo ready; sleep 100", tmp_path, started)
    assert process.id is not None
    earlier = Seen(process.id, began=1)
    send([earlier], 9)
    assert end({earlier}, seconds=0) == set()
    assert process.code is None


def test_a_process_that_fails_is_told_of_with_the_end_of_its_log(tmp_path: Path, started: Started) -> None:
    process = ServedProcess(
        "the script", ["/bin/sh", "-c", "echo no such thing; exit 3"], log=tmp_path / "a.log"
    )
    started.append(process.start())
    with pytest.raises(ProcessFailed) as failed:
        process.await_ready(lambda: False, seconds=20)
    assert str(failed.value) == (
        f"the script ended with 3 before it was ready. {tmp_path}/a.log ends with:\n  | no such thing"
    )


def test_waiting_ends_when_somebody_asks_to_stop(tmp_path: Path, started: Started) -> None:
    process = shell("echo ready; sleep 100", tmp_path, started)
    stop = Event()
    stop.set()
    with pytest.raises(Stopped):
        process.await_end(seconds=20, stop=stop)


def test_a_family_is_found_by_parents_and_holds_no_stranger(tmp_path: Path, started: Started) -> None:
    first = shell("echo ready; sleep 100 & wait", tmp_path, started)
    second = shell("echo ready; sleep 100 & wait", tmp_path, started)
    assert first.id and second.id
    assert not family([first.id]) & family([second.id])
    assert family([first.id]) | family([second.id]) <= family([os.getpid()])
