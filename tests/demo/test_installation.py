"""The folder of a local installation: whose it is, who may use it, and what the next start finds."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from demo.installation import CannotUse, Installation, choose_port, empty, free_port, left_behind, sole_use
from demo.process_tree import family


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all my work")
    with pytest.raises(CannotUse, match="no local installation: name another folder"), sole_use(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_installations_never_share_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    with sole_use(folder), pytest.raises(CannotUse, match="is in use"), sole_use(folder):
        pass
    with sole_use(folder):
        pass


def test_a_fresh_start_leaves_nothing_of_the_last(tmp_path: Path) -> None:
    with sole_use(tmp_path):
        (tmp_path / "media").mkdir()
        (tmp_path / "media" / "media.json").write_text("{}")
        (tmp_path / "azure.ready").write_text("{}")
        empty(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == {"installation.json", "lock"}


def test_the_port_of_the_last_start_is_taken_again_if_it_is_free(tmp_path: Path) -> None:
    port = free_port()
    with sole_use(tmp_path):
        Installation(tmp_path, port).remember([])
        assert choose_port(tmp_path, 0) == port
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            assert choose_port(tmp_path, 0) != port
            with pytest.raises(CannotUse, match=f"port {port} of 127.0.0.1 is in use"):
                choose_port(tmp_path, port)


def test_processes_that_a_killed_start_left_are_found_by_the_next(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        with sole_use(tmp_path):
            Installation(tmp_path, 4200).remember(family([process.pid]))
            assert left_behind(tmp_path) == family([process.pid]) != set()
    finally:
        process.kill()
        process.wait()
    assert left_behind(tmp_path) == set()
