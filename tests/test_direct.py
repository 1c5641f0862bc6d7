"""Large writes past the page cache: the same bytes as ever, also where the file system has no such writes."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vsa import direct
from vsa.media import layout
from vsa.media.folder import FolderStore
from vsa.memory import Buffers
from vsa.ranges import KIB, MIB
from vsa.restore.image import new_image

SIZE = 3 * MIB


def noise(size: int, seed: int = 1) -> memoryview:
    """Where large buffers of the engine lie: at the begin of a page."""
    data = Buffers().take(max(size, 1))[:size]
    data[:] = random.Random(seed).randbytes(size)
    return data


def cached(path: Path, offset: int = 0) -> bool:
    """Whether the page there is in the page cache."""
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(direct.BLOCK)], offset, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False


@contextmanager
def mounted(root: Path, *arguments: str) -> Iterator[Path]:
    """A file system of its own in a folder; skips where that may not be mounted."""
    root.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", *arguments, root], check=False, capture_output=True).returncode
    ):
        pytest.skip(f"needs the right to mount: {' '.join(arguments)}")
    try:
        yield root
    finally:
        subprocess.run(["umount", "-l", root], check=True)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 file system of 24 MiB, whose files can be out of the page cache."""
    if shutil.which("mke2fs") is None:
        pytest.skip("needs mke2fs")
    image = tmp_path / "ext4.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", image, "24M"], check=True)
    with mounted(tmp_path / "ext4", "-o", "loop", str(image)) as root:
        yield root


@pytest.fixture
def without_direct_writes(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "ramfs", "-t", "ramfs", "none") as root:
        with pytest.raises(OSError, match="Invalid argument"):
            os.open(root / "file", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        yield root


def written(folder: Path, pieces: list[tuple[int, memoryview]]) -> bytes:
    path = folder / "image"
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with direct.Writer(file) as writer:
        for offset, data in pieces:
            writer.write(offset, data)
    os.close(file)
    return path.read_bytes()


PIECES = [(0, SIZE), (7, SIZE), (SIZE, 2 * MIB + 511), (SIZE + 4096, 4096), (0, 1), (0, MIB - 1), (513, 0)]


def placed(folder: Path) -> None:
    """Pieces of every sort, in every order of two, end where they belong."""
    for number, first in enumerate(PIECES):
        for second in PIECES:
            where = folder / f"{number}-{second}"
            where.mkdir()
            pieces = [(offset, noise(size, size)) for offset, size in (first, second)]
            expected = bytearray()
            for offset, data in pieces:
                if data:
                    expected.extend(bytes(max(0, offset + len(data) - len(expected))))
                expected[offset : offset + len(data)] = data
            assert written(where, pieces) == expected
            shutil.rmtree(where)


def test_bytes_are_where_they_belong(tmp_path: Path) -> None:
    placed(tmp_path)


@pytest.mark.tools
def test_bytes_are_where_they_belong_on_a_disk(on_disk: Path) -> None:
    placed(on_disk)


@pytest.mark.tools
def test_bytes_are_where_they_belong_without_direct_writes(without_direct_writes: Path) -> None:
    placed(without_direct_writes)


def test_what_does_not_begin_with_a_block_or_may_only_be_read_is_written_all_the_same(tmp_path: Path) -> None:
    for number, data in enumerate((noise(SIZE)[1:], noise(SIZE).toreadonly())):
        (tmp_path / str(number)).mkdir()
        assert written(tmp_path / str(number), [(0, data)]) == data


@pytest.mark.tools
def test_a_file_system_that_wants_larger_blocks_is_written_the_other_way(
    on_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "BLOCK", 1)
    data = noise(SIZE)[:-1]
    assert written(on_disk, [(1, data)]) == b"\0" + bytes(data)


@pytest.mark.parametrize("most", [1, 4096, MIB + 4096, MIB + 17])
def test_all_is_written_however_little_the_system_takes_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    real, data = os.pwrite, noise(SIZE if most > 1 else 100)
    monkeypatch.setattr(os, "pwrite", lambda file, part, offset: real(file, part[:most], offset))
    assert written(tmp_path, [(4096, data)]) == bytes(4096) + bytes(data)


@pytest.mark.tools
def test_packs_and_restored_disks_do_not_fill_the_page_cache(on_disk: Path) -> None:
    data = noise(SIZE + 100)
    store = FolderStore.make(on_disk / "media")
    pack, small = layout.pack("run-1", bytes(16)), layout.MEDIA
    store.create(pack, [data])
    store.create(small, [data[: 64 * KIB]])
    with new_image(on_disk / "disk.raw", size=2 * SIZE, allocated=SIZE) as image:
        image.write(4096, data[:SIZE])
        image.write(0, data[:4096])
    assert not cached(store.root / pack)
    assert not cached(on_disk / "disk.raw", 4096 + MIB)
    assert cached(store.root / small) and cached(on_disk / "disk.raw"), "or the look shows nothing"
    assert store.read(pack) == data
    assert (on_disk / "disk.raw").read_bytes() == bytes(data[:4096]) + bytes(data[:SIZE]) + bytes(SIZE - 4096)


@pytest.mark.tools
def test_a_full_disk_is_told_by_a_direct_write_too(on_disk: Path) -> None:
    file = os.open(on_disk / "image", os.O_WRONLY | os.O_CREAT)
    with (
        direct.Writer(file) as writer,
        pytest.raises(OSError, match="No space left") as raised,
    ):
        for number in range(100):
            writer.write(number * SIZE, noise(SIZE))
    os.close(file)
    assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENOSYS, errno.ENOENT, errno.EINVAL])
def test_a_file_that_cannot_be_opened_for_it_is_written_the_other_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.open

    def refusing(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    assert written(tmp_path, [(0, noise(SIZE))]) == noise(SIZE)


def test_a_file_whose_name_is_another_ones_by_now_is_written_all_the_same(tmp_path: Path) -> None:
    file = os.open(tmp_path / "ours", os.O_RDWR | os.O_CREAT)
    (tmp_path / "ours").rename(tmp_path / "moved")
    (tmp_path / "ours").write_bytes(b"theirs")
    with direct.Writer(file) as writer:
        writer.write(0, noise(SIZE))
    os.close(file)
    assert (tmp_path / "moved").read_bytes() == noise(SIZE)
    assert (tmp_path / "ours").read_bytes() == b"theirs"


def test_parts_are_counted_in_bytes(tmp_path: Path) -> None:
    store = FolderStore.make(tmp_path / "media")
    wide = memoryview(noise(2 * MIB)).cast("I")
    store.create(layout.MEDIA, [wide, b"end"])
    assert store.read(layout.MEDIA) == bytes(noise(2 * MIB)) + b"end"
