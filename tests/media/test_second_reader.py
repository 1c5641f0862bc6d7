"""A reader written from the document alone restores what the engine stored, and refuses what is altered."""

from __future__ import annotations

import ast
import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.media import second_reader
from tests.media.making import EXTENT, a_disk, back_up, flip_bit, new_media, noise, text
from tests.media.moving import packs_of, repack
from vsa.media.entries import DoomEntry, DoubtEntry, ForgetEntry
from vsa.media.index import Offer
from vsa.media.layout import SEGMENT
from vsa.media.media import Media
from vsa.ranges import MIB

READER = Path(second_reader.__file__)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "media"


@pytest.fixture
def stored(folder, tmp_path):
    """Three points of a growing disk, other entries between them; slot of each and the images expected."""
    media = new_media(folder)
    choose = random.Random(3)
    small, large = a_disk(size=40 * EXTENT + 512), a_disk(size=(SEGMENT + 50) * EXTENT)
    image = bytearray(small.size)
    expected: dict[int, str] = {}
    base = ()
    for number, disk in enumerate([small, small, large]):
        image.extend(bytes(disk.size - len(image)))
        contents = changes(choose, disk.size, base=not base)
        for extent, data in contents.items():
            length = min(EXTENT, disk.size - extent * EXTENT)
            image[extent * EXTENT : extent * EXTENT + length] = data or bytes(length)
        slot = back_up(media, contents, run=f"r{number}", scratch=tmp_path, disk=disk, base=base)
        media.append(DoomEntry(runs=(f"dead-{number}",), reason="its process ended"))
        media.append(DoubtEntry(points=(slot,), disk_key=disk.key, reason="audit"))
        base = media.view().points[slot].point.disks[0].indexes
        expected[slot] = hashlib.sha256(image).hexdigest()
    for number, path in enumerate(packs_of(folder, "r0") + packs_of(folder, "r1")):
        repack(media, path, run=f"repack-{number}")
        path.unlink()
    return expected


def changes(choose: random.Random, size: int, *, base: bool) -> dict[int, bytes | None]:
    """New contents of a few extents, the last one among them."""
    last = (size - 1) // EXTENT
    result: dict[int, bytes | None] = {}
    for extent in [*choose.sample(range(min(last, 60)), 15), last]:
        length = min(EXTENT, size - extent * EXTENT)
        kinds = [noise(choose.random(), length), text(choose.random(), length), None]
        data = choose.choice(kinds[:2] if base else kinds)
        result[extent] = data
    return result


def test_it_restores_every_point(folder, stored, tmp_path):
    for slot, digest in stored.items():
        target = tmp_path / f"{slot}.img"
        subprocess.run([sys.executable, READER, folder, str(slot), "os", target], check=True, cwd=tmp_path)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == digest
    assert target.stat().st_blocks * 512 < MIB


def test_it_restores_a_disk_whose_extents_others_stored(folder, tmp_path):
    media, contents = new_media(folder), {extent: noise(extent) for extent in range(50)}
    sharing = media.sharing(Offer.MEDIA)
    for name in ("image", "clone"):
        disk = a_disk(name, size=50 * EXTENT)
        slot = back_up(media, contents, run=name, scratch=tmp_path, disk=disk, sharing=sharing)
    assert media.view().points[slot].point.disks[0].packs == ()
    target = tmp_path / "clone.img"
    subprocess.run([sys.executable, READER, folder, str(slot), "clone", target], check=True, cwd=tmp_path)
    assert target.read_bytes() == b"".join(contents.values())


def test_it_shares_no_code_with_the_engine():
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(READER.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"pyarrow", "zstandard"}


def test_a_point_that_was_given_up_is_none(folder, stored, tmp_path):
    media, first = Media.open(str(folder), write=True), min(stored)
    media.append(ForgetEntry(points=(first,), reason="x"))
    second_reader.restore(folder, first, "os", tmp_path / "forgotten")
    media.append(DoomEntry(points=(first,), reason="x"))
    with pytest.raises(second_reader.BadMedia, match="no recovery point"):
        second_reader.restore(folder, first, "os", tmp_path / "given up")


@pytest.mark.parametrize("kind", ["media.json", "log/*", "runs/*/index/*", "runs/*/moves/*"])
def test_it_refuses_what_was_altered(folder, stored, tmp_path, kind):
    """Documents and indexes whole; packs are covered frame by frame, by the engine's own tests too."""
    last = max(stored)
    for path in folder.glob(kind):
        for bit in range(5, path.stat().st_size * 8, 997):
            flip_bit(path, bit)
            with pytest.raises(second_reader.BadMedia):
                second_reader.restore(folder, last, "os", tmp_path / "target")
            flip_bit(path, bit)
    second_reader.restore(folder, last, "os", tmp_path / "target")
    assert hashlib.sha256((tmp_path / "target").read_bytes()).hexdigest() == stored[last]


def test_its_crc_is_castagnoli():
    """The check value of the CRC catalogue for CRC-32/ISCSI."""
    assert second_reader.crc32c(b"123456789") == 0xE3069283
