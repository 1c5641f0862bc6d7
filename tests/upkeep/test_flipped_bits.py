"""One flipped bit anywhere on the media: a verify tells of it, and a restore never returns it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path, PurePath

import pytest

from tests.faults.small_media import LATER, prune
from tests.media.making import a_key, noise
from tests.soak import SEED, more_in_ci, rounds, seeded
from tests.upkeep.estate import NOW, OS, Estate, a_full_estate, fresh, lost_of, refusal_of
from vsa.media.media import Media
from vsa.media.wrapping import KeyFile
from vsa.upkeep.forgetting import Limits, forget, named, plan_forgetting
from vsa.upkeep.report import Cost, Depth, VerifyReport
from vsa.upkeep.rotation import add_key

TRIALS = rounds(80, 300, 10_000)
KEY = KeyFile(noise("the key of the flipped bits", 32))
OTHERS_KEY = "keys/1"
"""The document that somebody else's passphrase opens."""
WEIGHTS = {
    "media.json": 1,
    "log/*": 2,
    "checkpoints/*": 2,
    "keys/*": 2,
    "runs/*/intent.json": 1,
    "runs/*/index/*": 3,
    "runs/*/moves/*": 1,
    "runs/*/digests/*": 1,
    "runs/*/streams/*": 1,
    "runs/*/alive/*": 1,
    "runs/*/packs/*": 6,
}
"""Every kind of object there is. Packs more often than the rest: they have the most parts."""
HARMLESS = ("/digests/", "/streams/", "/alive/", "checkpoints/")
"""Caches and messages: nothing is lost with them, and a remark says that they are bad."""


def some_kind(rng: random.Random) -> str:
    return rng.choices(list(WEIGHTS), weights=list(WEIGHTS.values()))[0]


def flipped(data: bytes, rng: random.Random) -> tuple[bytes, int]:
    """The data with one bit changed, and which byte that is in."""
    at = rng.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[at // 8] ^= 1 << at % 8
    return bytes(changed), at // 8


def estates(folder: Path) -> list[Estate]:
    """One that is not sealed, and one that is, with a key of somebody else's."""
    for name in ("plain", "sealed"):
        (folder / name).mkdir()
    sealed = a_full_estate(folder / "sealed", KEY)
    assert add_key(sealed.backups.media, KEY, a_key(), now=NOW, random=random.Random(1).randbytes) == 1
    return [a_full_estate(folder / "plain"), sealed]


@more_in_ci
@pytest.mark.timeout(3600)
def test_every_flipped_bit_is_found_and_none_is_restored(tmp_path: Path) -> None:
    rng = seeded("flipped bits")
    both = estates(tmp_path)
    for estate in both:
        sound = estate.verify(Depth.RESTORE)
        assert sound.is_sound and not sound.remarks
    kinds = {kind for kind in WEIGHTS for estate in both if estate.named(kind)}
    assert kinds == WEIGHTS.keys()
    for trial in range(TRIALS):
        kind = some_kind(rng)
        estate = rng.choice([estate for estate in both if estate.named(kind)])
        name = rng.choice(estate.named(kind))
        data, at = flipped(estate.path(name).read_bytes(), rng)
        expected, records = damaged_by(estate, name, at), estate.records
        with estate.changed(name, data):
            where = f"seed {SEED}, trial {trial}: byte {at} of {name} in {estate.location}"
            require_found(estate, name, expected, rng.choice(list(estate.images)), records, where=where)


@pytest.mark.parametrize("bit", [65, 86])
def test_a_bit_in_the_version_or_the_flags_of_what_is_sealed_is_damage_as_any_other(
    tmp_path: Path, bit: int
) -> None:
    _, sealed = estates(tmp_path)
    for kind in WEIGHTS.keys() - {"media.json", "keys/*"}:
        name, records = sealed.named(kind)[-1], sealed.records
        data = bytearray(sealed.path(name).read_bytes())
        data[bit // 8] ^= 1 << bit % 8
        with sealed.changed(name, bytes(data)):
            require_found(sealed, name, set(), min(sealed.images), records, where=name)


def with_another_key(folder: Path, name: str) -> bytes:
    """An object of the same kind, of other media."""
    (folder / "other").mkdir()
    other = a_full_estate(folder / "other", KeyFile(noise("another key", 32)))
    kind = next(kind for kind in WEIGHTS if PurePath(name).match(kind))
    return other.path(other.named(kind)[-1]).read_bytes()


def by_a_newer_version(folder: Path, name: str) -> bytes:
    """The object with another version, and another last byte: it does not open as one of ours either."""
    data = bytearray((folder / "sealed/media" / name).read_bytes())
    data[8] ^= 2
    data[-1] ^= 1
    return bytes(data)


@pytest.mark.parametrize("seal", [with_another_key, by_a_newer_version])
@pytest.mark.parametrize("kind", sorted(WEIGHTS.keys() - {"media.json", "keys/*"}))
def test_what_seems_to_be_sealed_by_somebody_else_is_damage_as_any_other(
    tmp_path: Path, kind: str, seal: Callable[[Path, str], bytes]
) -> None:
    """And keeps nobody from forgetting and pruning the rest."""
    _, sealed = estates(tmp_path)
    records = sealed.records
    name = records[-1] if kind == "runs/*/packs/*" else sealed.named(kind)[-1]
    sealed.path(name).write_bytes(seal(tmp_path, name))
    require_found(sealed, name, set(), min(sealed.images), records, where=name)
    if kind not in ("log/*", "runs/*/moves/*"):
        media = Media.open(str(sealed.location), write=True, wrapping=KEY)
        plan = plan_forgetting(
            media, named([min(sealed.images)]), now=LATER, limits=Limits(override_share=True)
        )
        forget(media, plan, now=LATER)
        assert prune(media).points == (min(sealed.images),)


def damaged_by(estate: Estate, name: str, at: int) -> set[bytes]:
    """The digests of the frames of a pack in which the byte is."""
    if "/packs/" not in name or name in estate.records:
        return set()
    return {digest for (start, end), digest in estate.frames(name).items() if start <= at < end}


def require_found(
    estate: Estate, name: str, frames: set[bytes], bystander: int, records: list[str], *, where: str
) -> None:
    if name == "media.json" or (name.startswith("keys/") and name != OTHERS_KEY):
        assert refusal_of(estate), where
        return
    report = estate.verify(Depth.BYTES)
    if name.startswith("log/"):
        assert report.error and not report.is_sound and refusal_of(estate), where
        return
    harmed = lost_of(report)
    if cost := cost_of(estate, name, records):
        assert [(finding.name, finding.cost) for finding in report.findings] == [(name, cost)], where
        assert report.all_restores and not report.is_sound, where
    elif name.endswith("intent.json") or any(part in name for part in HARMLESS):
        assert report.is_sound and any(name in remark for remark in report.remarks), where
    else:
        require_damage(estate, report, name, frames, where=where)
    assert estate.require_nothing_wrong(harmed, slots={bystander, *harmed}) == len(harmed), where


def cost_of(estate: Estate, name: str, records: list[str]) -> Cost | None:
    """What is lost with an object that no restore needs; None if nothing is, or a restore may need it."""
    if name == OTHERS_KEY:
        return Cost.KEY
    if name in records:
        return Cost.REBUILD
    is_open = name.split("/")[1] not in estate.backups.media.view().committed
    return Cost.CLEANUP if name.endswith("intent.json") and is_open else None


def require_damage(
    estate: Estate, report: VerifyReport, name: str, frames: set[bytes], *, where: str
) -> None:
    harmed, damaged_before = lost_of(report), estate.packs_of(OS)[0]
    # Of a pack that was damaged before it is no news that it has changed where nobody needs it.
    if harmed or name != damaged_before:
        assert [(finding.name, finding.cost) for finding in report.findings] == [(name, Cost.RESTORE)], where
        assert not report.all_restores
    else:
        assert report.is_sound and any(name in remark for remark in report.remarks), where
    if "/packs/" in name:
        moved = estate.backups.media.codec.fingerprint(fresh("a", 5)[5]).digest
        moved_away = name == damaged_before and frames == {moved}
        assert harmed == ({} if moved_away else estate.holding(frames)), where
