"""What is said of a measured command is what it did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from bench.meter import CommandFailed, cpu_seconds, peak_memory, size_of, take

MIB = 1 << 20


def test_a_command_is_measured_with_what_it_has_started(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(bytes(8 * MIB))
    child = "x = bytearray(b'x' * (64 << 20)); import time; time.sleep(0.5); sum(range(2_000_000))"
    parent = f"""
import subprocess, sys
open({str(data)!r}, 'rb').read()
subprocess.run([sys.executable, '-c', {child!r}], check=True)
print('done')
"""
    taken = take([sys.executable, "-c", parent], durable=data)
    assert taken.output == "done\n"
    assert taken.wall > 0.5 and taken.cpu > 0.02 and 0 <= taken.synced < taken.wall
    assert 8 * MIB < taken.read < 64 * MIB
    assert taken.memory > 64 * MIB


def test_a_command_that_fails_is_named_with_what_it_said() -> None:
    with pytest.raises(CommandFailed, match=r"ended with 3: no such disk"):
        take([sys.executable, "-c", "print('no such disk'); raise SystemExit(3)"])


def test_processes_are_told_by_what_they_have_used() -> None:
    before = cpu_seconds([os.getpid()])
    while cpu_seconds([os.getpid()]) == before:
        sum(range(100_000))
    assert peak_memory() > MIB
    assert cpu_seconds([2**22 + 1]) == 0 == peak_memory(2**22 + 1)


def test_the_size_of_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "one").write_bytes(bytes(100))
    (tmp_path / "two").write_bytes(bytes(23))
    assert size_of(tmp_path) == 123 and size_of(tmp_path / "two") == 23 and size_of(tmp_path / "none") == 0
