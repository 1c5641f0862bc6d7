"""The whole command on a tiny image: as much of it as takes seconds, and in CI everybody who is there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.meter import children
from bench.results import Results
from demo.ext4 import TOOLS, find_tool

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(any(find_tool(tool) is None for tool in TOOLS), reason="needs e2fsprogs"),
]


def command(folder: Path, *options: str) -> list[str]:
    places = [f"--folder={folder / 'work'}", f"--results={folder / 'results'}"]
    return [sys.executable, "-m", "bench", "--mib=24", *places, *options]


def bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, *options), cwd=ROOT, capture_output=True, text=True, check=False, timeout=280
    )


def results(folder: Path) -> Results:
    found = Results.read(folder / "results")
    assert found is not None
    return found


def test_rounds_are_played_added_to_and_kept_when_somebody_interrupts(tmp_path: Path) -> None:
    done = bench(tmp_path, "--rounds=1", "--only=us-unchecked,dd")
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert [played.failed for played in found.rounds] == [{}]
    assert {"us/full/tls unchecked", "dd/restore"} <= found.rounds[0].measures.keys()
    ours = found.rounds[0].measures["us/full/tls unchecked"]
    assert ours["read"] >= found.about["image"]["allocated"] and ours["memory"] > 50 << 20
    assert not list((tmp_path / "work").glob("[!i]*"))

    with subprocess.Popen(command(tmp_path, "--rounds=9999", "--only=dd", "--add"), cwd=ROOT) as running:
        while len(results(tmp_path).rounds) < 3:
            assert running.poll() is None
            time.sleep(0.1)
        started = children(running.pid)
        running.send_signal(signal.SIGINT)
        assert running.wait(timeout=60) == 130
    assert started and not any(Path(f"/proc/{process}").exists() for process in started)
    kept = results(tmp_path).rounds
    assert kept[0] == found.rounds[0] and all(played.measures.keys() == {"dd/restore"} for played in kept[1:])
    assert not list((tmp_path / "work").glob("[!i]*"))

    other = bench(tmp_path, "--rounds=1", "--only=dd", "--add", "--seed=7")
    assert other.returncode == 2 and "are of another image" in other.stderr


def test_who_is_not_known_is_not_looked_for(tmp_path: Path) -> None:
    done = bench(tmp_path, "--only=resstic")
    assert done.returncode == 2 and "nobody is called resstic" in done.stderr
    assert not (tmp_path / "results").exists() and not list(tmp_path.iterdir())


def test_what_the_work_alone_takes(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "bench.floor", "--mib=24", "--rounds=1", f"--folder={tmp_path}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    about, _, _, *rows = done.stdout.splitlines()
    assert 4 <= int(about.split()[0]) <= 24
    steps = {name.strip(): said for _, name, _, _, said, _ in (row.split("|") for row in rows)}
    proven = "decoding and fingerprints of the proof"
    assert proven in steps["full"] and proven not in steps["full, unchecked"]
    assert "compressing" in steps["full, unchecked"] and "compressing" not in steps["CRC, unchanged"]
