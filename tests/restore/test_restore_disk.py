from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.restore.backups import EXTENT, Backups, Extents, image_of, names_in
from tests.subclient.builders import a_source_disk, a_vm
from vsa.errors import BadRequest, MediaDamaged
from vsa.model import DEFAULT_EXTENT_SIZE
from vsa.ranges import GIB, MIB
from vsa.restore.disk import Format, restore_disk
from vsa.restore.image import Image

EXTENTS = 40
SIZE = EXTENTS * EXTENT - 512
"""The last extent of these disks is short."""


def content(extent: int, seed: int) -> bytes:
    """An extent that compresses or not, as `seed` decides; the last one of the disk is short."""
    length = min(EXTENT, SIZE - extent * EXTENT)
    noise = hashlib.shake_256(f"{extent}/{seed}".encode()).digest(length)
    return noise if seed % 2 else (noise[:16] * length)[:length]


written = st.dictionaries(st.integers(0, EXTENTS - 1), st.integers(0, 9), max_size=EXTENTS)
changed = st.dictionaries(st.integers(0, EXTENTS - 1), st.none() | st.integers(10, 19), max_size=10)


def extents(seeds: dict[int, int] | dict[int, int | None]) -> Extents:
    return {extent: None if seed is None else content(extent, seed) for extent, seed in seeds.items()}


@settings(deadline=None, max_examples=30)
@given(written, st.lists(changed, max_size=3), st.sampled_from(Format))
def test_a_restored_disk_is_the_disk_bit_by_bit(
    base: dict[int, int], deltas: list[dict[int, int | None]], format: Format
) -> None:
    with tempfile.TemporaryDirectory() as name:
        backups, disk = Backups(Path(name)), a_source_disk(size=SIZE)
        run = backups.run(a_vm())
        layers = [extents(base), *map(extents, deltas)]
        stored = backups.store(run, disk, layers[0])
        for layer in layers[1:]:
            stored = backups.store(run, disk, layer, upon=stored)
        target = Path(name) / "disk"
        restored = restore_disk(backups.media, backups.backup(disk, stored), target, format=format, threads=2)
        expected = image_of(SIZE, *layers)
        assert target.read_bytes()[:SIZE] == expected
        assert target.stat().st_size == SIZE + (512 if format is Format.VHD else 0)
        assert restored.sha256 == hashlib.sha256(expected).hexdigest()
        assert restored.size == SIZE


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    return Backups(tmp_path)


def test_a_disk_that_has_grown_keeps_its_old_contents_and_gains_zeros(
    backups: Backups, tmp_path: Path
) -> None:
    small, run = a_source_disk(size=SIZE), backups.run(a_vm())
    large = a_source_disk(size=3 * SIZE)
    old, new = extents({0: 1, EXTENTS - 1: 2}), {EXTENTS + 7: b"\7" * EXTENT}
    stored = backups.store(run, large, new, upon=backups.store(run, small, old))
    restored = restore_disk(
        backups.media, backups.backup(large, stored), tmp_path / "disk", format=Format.RAW
    )
    assert restored.path.read_bytes() == image_of(3 * SIZE, old, new)
    assert restored.sha256 == hashlib.sha256(restored.path.read_bytes()).hexdigest()


def test_an_empty_disk_is_restored_as_one_hole(backups: Backups, tmp_path: Path) -> None:
    backup = backups.one_disk({}, size=2 * GIB)
    restored = restore_disk(backups.media, backup, tmp_path / "disk", format=Format.RAW, checksum=False)
    assert restored.path.stat().st_size == 2 * GIB
    assert restored.path.stat().st_blocks == 0
    assert restored.bytes_written == 0 and restored.sha256 is None


def test_only_stored_extents_take_space(backups: Backups, tmp_path: Path) -> None:
    backup = backups.one_disk({0: b"\1" * EXTENT, 99_999: b"\2" * EXTENT}, size=1 * GIB)
    restored = restore_disk(backups.media, backup, tmp_path / "disk", checksum=False)
    assert restored.bytes_written == 2 * EXTENT
    assert restored.path.stat().st_blocks * 512 <= 64 * 1024


def test_two_restores_of_a_point_are_equal_byte_for_byte(backups: Backups, tmp_path: Path) -> None:
    backup = backups.one_disk({3: b"\3" * EXTENT}, size=1 * MIB)
    for name in ("first", "second"):
        restore_disk(backups.media, backup, tmp_path / name, format=Format.VHD)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_azure_s_alignment_is_warned_about(backups: Backups, tmp_path: Path) -> None:
    odd, even = backups.one_disk({}, size=1 * MIB + 512), backups.one_disk({}, size=1 * MIB)
    assert "whole number of MiB" in restore_disk(backups.media, odd, tmp_path / "odd").warnings[0]
    assert restore_disk(backups.media, odd, tmp_path / "raw", format=Format.RAW).warnings == ()
    assert restore_disk(backups.media, even, tmp_path / "even").warnings == ()


def test_a_disk_of_odd_bytes_can_be_restored_raw_but_not_as_vhd(backups: Backups, tmp_path: Path) -> None:
    backup = backups.one_disk({0: b"\1" * 700}, size=700)
    with pytest.raises(BadRequest, match="restore as raw"):
        restore_disk(backups.media, backup, tmp_path / "disk.vhd")
    assert restore_disk(backups.media, backup, tmp_path / "disk.raw", format=Format.RAW).size == 700
    assert names_in(tmp_path) == ["disk.raw", "media", "scratch"]


def some_pack(backups: Backups) -> Path:
    return next(backups.location.glob("runs/*/packs/*.pack"))


def flip_a_bit(path: Path, at: int) -> None:
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_damaged_extent_stops_the_restore_and_leaves_no_file(backups: Backups, tmp_path: Path) -> None:
    backup = backups.one_disk({extent: content(extent, 1) for extent in range(20)}, size=SIZE)
    flip_a_bit(some_pack(backups), 5 * EXTENT)
    with pytest.raises(MediaDamaged, match=r"4 KiB in 1 range .* bytes 16384 to 20480 .*pack"):
        restore_disk(backups.media, backup, tmp_path / "disk.raw", format=Format.RAW)
    assert names_in(tmp_path) == ["media", "scratch"]


def test_a_missing_pack_stops_the_restore_and_leaves_no_file(backups: Backups, tmp_path: Path) -> None:
    backup = backups.one_disk({0: b"\1" * EXTENT}, size=SIZE)
    some_pack(backups).unlink()
    with pytest.raises(MediaDamaged, match=r"packs/"):
        restore_disk(backups.media, backup, tmp_path / "disk.raw", format=Format.RAW)
    assert names_in(tmp_path) == ["media", "scratch"]


class Counted:
    """A listener that adds up what it is told."""

    def __init__(self) -> None:
        self.label, self.total, self.done, self.ended = "", 0, 0, False

    def started(self, label: str, total_bytes: int) -> None:
        self.label, self.total = label, total_bytes

    def advanced(self, count: int) -> None:
        self.done += count

    def finished(self) -> None:
        self.ended = True


def test_progress_reaches_its_total(backups: Backups, tmp_path: Path) -> None:
    counted = Counted()
    backup = backups.one_disk({extent: content(extent, 1) for extent in range(20)}, size=SIZE)
    restore_disk(backups.media, backup, tmp_path / "disk.vhd", progress=counted)
    assert (counted.label, counted.total, counted.done, counted.ended) == (
        "disk.vhd",
        20 * EXTENT,
        20 * EXTENT,
        True,
    )


def test_the_checksum_is_of_the_disk_in_order_whatever_thread_was_first(
    backups: Backups, tmp_path: Path
) -> None:
    layer = {extent: f"{extent:08}".encode() * (EXTENT // 8) for extent in range(0, 20_000)}
    backup = backups.one_disk(layer, size=20_001 * EXTENT)
    restored = restore_disk(backups.media, backup, tmp_path / "disk", format=Format.RAW)
    with restored.path.open("rb") as file:
        assert restored.sha256 == hashlib.file_digest(file, "sha256").hexdigest()
    assert restored.path.stat().st_size == 20_001 * EXTENT


def test_extents_of_several_segments_land_in_their_places(tmp_path: Path) -> None:
    backups = Backups(tmp_path, extent_size=DEFAULT_EXTENT_SIZE)
    places = [*range(0, 700, 2), *range(65_500, 65_700, 3)]
    layer = {extent: f"{extent:08}".encode() * (DEFAULT_EXTENT_SIZE // 8) for extent in places}
    backup = backups.one_disk(layer, size=66_000 * DEFAULT_EXTENT_SIZE)
    restored = restore_disk(backups.media, backup, tmp_path / "disk", format=Format.RAW, checksum=False)
    with restored.path.open("rb") as file:
        for extent, data in layer.items():
            file.seek(extent * DEFAULT_EXTENT_SIZE)
            assert file.read(DEFAULT_EXTENT_SIZE) == data
    assert restored.bytes_written == len(places) * DEFAULT_EXTENT_SIZE
    assert restored.path.stat().st_blocks * 512 < restored.bytes_written + 1 * MIB


@pytest.mark.tools
@pytest.mark.skipif(shutil.which("qemu-img") is None, reason="needs qemu-img")
@pytest.mark.parametrize("size", [1 * MIB, 64 * MIB, 20 * MIB + 512])
def test_qemu_reads_a_restored_vhd_as_the_same_disk(backups: Backups, tmp_path: Path, size: int) -> None:
    layer = {0: b"\1" * EXTENT, 7: b"\7" * EXTENT, size // EXTENT - 1: b"\2" * EXTENT}
    vhd, raw = tmp_path / "disk.vhd", tmp_path / "disk.raw"
    restore_disk(backups.media, backups.one_disk(layer, size=size), vhd)
    info = subprocess.run(
        ["qemu-img", "info", "--output=json", "-f", "vpc", vhd], capture_output=True, check=True
    )
    assert json.loads(info.stdout)["virtual-size"] == size
    subprocess.run(["qemu-img", "convert", "-f", "vpc", "-O", "raw", vhd, raw], check=True)
    subprocess.run(["cmp", "-n", str(size), vhd, raw], check=True)
    assert raw.stat().st_size == size


def test_no_thread_writes_any_more_when_a_restore_ends_however_often_it_is_interrupted(
    backups: Backups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = backups.one_disk({extent: b"%4d" % extent * 1024 for extent in range(8192)}, size=8192 * EXTENT)
    writing, under_way, real = threading.Event(), [], Image.write

    def slow(image: Image, offset: int, data: memoryview) -> None:
        under_way.append(offset)
        writing.set()
        time.sleep(1)
        real(image, offset, data)
        under_way.remove(offset)

    def press() -> None:
        writing.wait()
        for _ in range(3):
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    monkeypatch.setattr(Image, "write", slow)
    somebody = threading.Thread(target=press)
    somebody.start()
    with pytest.raises(KeyboardInterrupt):
        restore_disk(backups.media, backup, tmp_path / "disk.raw", format=Format.RAW)
    assert under_way == []
    somebody.join()
    assert not (tmp_path / "disk.raw").exists()
