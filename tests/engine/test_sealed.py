"""Jobs on sealed media: every method, several disks, and nothing of them to be read on the media."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from azsim.control import Control
from tests.engine.world import KIB, MANAGED, MIB, PREMIUM_VHD, World, random_bytes
from tests.media.making import a_key
from vsa.media.media import Media
from vsa.model import Method, Reason

CANARY = b"a canary that no compressor hides \xf0\x9f\x90\xa4"


@pytest.fixture
def sealed(control: Control, tmp_path: Path) -> Iterator[World]:
    made = World(control, tmp_path, key=a_key())
    yield made
    control.clear_faults()
    made.delete()


def readable(world: World, *words: bytes) -> set[tuple[str, bytes]]:
    """Which of the words stand anywhere on the media, in a name or in contents."""
    folder = Path(world.media.location)
    found = set()
    for path in folder.rglob("*"):
        seen = str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        found |= {(path.name, word) for word in words if word in seen}
    return found


@pytest.mark.parametrize("kind", [MANAGED, PREMIUM_VHD])
def test_every_method_works_and_nothing_can_be_read(sealed: World, kind: str) -> None:
    os_disk = CANARY + random_bytes(2 * MIB, "os") + bytes(2 * MIB) + random_bytes(MIB, "end")
    disks = {"os": os_disk[: 5 * MIB], "data": random_bytes(MIB + 3 * KIB + 512, "data")}
    vm = sealed.add_vm(disks, kind=kind)
    assert set(sealed.reasons(sealed.back_up()).values()) == {Reason.FULL_FIRST}

    sealed.write("os", 3 * MIB, random_bytes(8 * KIB, 1))
    sealed.clear("os", MIB, MIB)
    assert set(sealed.reasons(sealed.back_up()).values()) == {Reason.CBT}

    sealed.write("os", 64 * KIB, random_bytes(512, 3))
    changed = sealed.back_up(by=Method.CRC)
    assert set(sealed.reasons(changed).values()) == {Reason.CRC_REQUESTED}
    figures = sealed.disks(changed)["os"].figures
    assert figures is not None and figures.new == 64 * KIB, "keyed digests were compared with others"
    sealed.require_sound()

    words = [CANARY, vm.encode(), sealed.group.encode(), b"FULL_FIRST", b"incremental", b"subscriptions"]
    assert readable(sealed, *words) == set()
    # The same words are there for whoever has the key.
    media = Media.open(sealed.media.location, wrapping=a_key())
    assert {made.point.vm.name for made in media.view().points.values()} == {vm}
