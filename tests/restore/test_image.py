from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.restore.backups import names_in
from vsa.errors import BadRequest
from vsa.ranges import GIB, MIB
from vsa.restore.image import new_image


def test_an_image_appears_under_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "disk.raw"
    with new_image(target, size=10, allocated=10) as image:
        image.write(3, b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"\0\0\0abc\0\0\0\0"
    assert names_in(tmp_path) == ["disk.raw"]
    assert target.stat().st_mode & 0o077 == 0, "a disk's contents are nobody else's business"


def test_an_image_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), new_image(tmp_path / "disk.raw", size=10, allocated=10) as image:
        image.write(0, b"half")
        raise KeyboardInterrupt
    assert names_in(tmp_path) == []


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "disk.raw"
    target.write_bytes(b"precious")
    with (
        pytest.raises(BadRequest, match="exists and is not overwritten"),
        new_image(target, size=1, allocated=1),
    ):
        raise AssertionError("the block must not be entered")
    assert target.read_bytes() == b"precious"


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "disk.raw").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadRequest, match="exists"), new_image(tmp_path / "disk.raw", size=1, allocated=1):
        raise AssertionError("the block must not be entered")


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "disk.raw"
    with pytest.raises(BadRequest, match="File exists"), new_image(target, size=1, allocated=1):
        target.write_bytes(b"precious")
    assert target.read_bytes() == b"precious"
    assert names_in(tmp_path) == ["disk.raw"]


def test_a_lack_of_space_is_found_before_anything_is_written(tmp_path: Path) -> None:
    with (
        pytest.raises(BadRequest, match=r"needs 1048576 TiB, and its file system has .* free"),
        new_image(tmp_path / "disk.raw", size=1, allocated=2**60),
    ):
        raise AssertionError("the block must not be entered")
    assert names_in(tmp_path) == []


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_system_that_cannot_hold_the_file_is_told_in_words(tmp_path: Path) -> None:
    with (
        files_no_larger_than(1 * MIB),
        pytest.raises(BadRequest, match=r"cannot write .*disk\.raw: File too large: name another target"),
        new_image(tmp_path / "disk.raw", size=1 * GIB, allocated=0),
    ):
        raise AssertionError("the block must not be entered")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("target", ["absent/disk.raw", "file/disk.raw"])
def test_a_target_without_a_folder_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadRequest, match="is no folder"), new_image(tmp_path / target, size=1, allocated=1):
        raise AssertionError("the block must not be entered")


def test_an_image_is_sparse(tmp_path: Path) -> None:
    target = tmp_path / "disk.raw"
    with new_image(target, size=8 * GIB, allocated=4096) as image:
        image.write(5 * GIB, b"x" * 4096)
    assert target.stat().st_size == 8 * GIB
    assert target.stat().st_blocks * 512 < 1 * MIB
