"""One flipped bit anywhere on the media: a verify tells of it, and a restore never returns it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from blake3 import blake3

from tests.soak import SEED, rounds, seeded
from tests.upkeep.estate import OS, Estate, a_full_estate, fresh, lost_of, refusal_of
from vsa.upkeep.report import Depth

TRIALS = rounds(80, 800, 10_000)
MOVED = blake3(fresh("a", 5)[5]).digest()
KINDS = (
    "media.json",
    "log/*",
    "runs/*/intent.json",
    "runs/*/index/*",
    "runs/*/moves/*",
    "runs/*/digests/*",
    "runs/*/packs/*",
)


def some_kind(rng: random.Random) -> str:
    """Packs more often than the rest: they have the most parts."""
    return rng.choices(KINDS, weights=(1, 2, 1, 3, 1, 1, 6))[0]


def flipped(data: bytes, rng: random.Random) -> tuple[bytes, int]:
    """The data with one bit changed, and which byte that is in."""
    at = rng.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed), at // 8


@pytest.mark.timeout(3600)
def test_every_flipped_bit_is_found_and_none_is_restored(tmp_path: Path) -> None:
    rng = seeded("flipped bits")
    estate = a_full_estate(tmp_path)
    assert estate.verify(Depth.RESTORE).is_sound and not estate.verify(Depth.RESTORE).remarks
    for trial in range(TRIALS):
        name = rng.choice(estate.named(some_kind(rng)))
        data, at = flipped(estate.path(name).read_bytes(), rng)
        expected, records = damaged_by(estate, name, at), estate.records
        with estate.changed(name, data):
            where = f"seed {SEED}, trial {trial}: byte {at} of {name}"
            require_found(estate, name, expected, rng.choice(list(estate.images)), records, where=where)


def damaged_by(estate: Estate, name: str, at: int) -> set[bytes]:
    """The digests of the frames of a pack in which the byte is."""
    if "/packs/" not in name or name in estate.records:
        return set()
    return {digest for (start, end), digest in estate.frames(name).items() if start <= at < end}


def require_found(
    estate: Estate, name: str, frames: set[bytes], bystander: int, records: list[str], *, where: str
) -> None:
    if name == "media.json":
        assert refusal_of(estate), where
        return
    report = estate.verify(Depth.BYTES)
    if name.startswith("log/"):
        assert report.error and not report.is_sound and refusal_of(estate), where
        return
    harmed, damaged_before = lost_of(report), estate.packs_of(OS)[0]
    if name.endswith("intent.json") or "/digests/" in name or name in records:
        assert report.is_sound and any(name in remark for remark in report.remarks), where
    # Of a pack that was damaged before it is no news that it has changed where nobody needs it.
    elif harmed or name != damaged_before:
        assert [finding.name for finding in report.findings] == [name], where
    else:
        assert report.is_sound and any(name in remark for remark in report.remarks), where
    if "/packs/" in name and name not in records:
        moved_away = name == damaged_before and frames == {MOVED}
        assert harmed == ({} if moved_away else estate.holding(frames)), where
    assert estate.require_nothing_wrong(harmed, slots={bystander, *harmed}) == len(harmed), where
