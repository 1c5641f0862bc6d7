"""Sealed media from end to end: nothing of it is readable, nothing can change, and only its key opens it."""

from __future__ import annotations

import logging
import os
import shutil
import tracemalloc
from itertools import count
from pathlib import Path

import pytest
import zstandard

from tests.media.faulty_store import FaultyStore, Moment, fail_call
from tests.media.making import (
    EXTENT,
    NOW,
    a_disk,
    a_key,
    back_up,
    media_in,
    new_media,
    noise,
    objects,
    read_point,
    text,
    write_disk,
)
from tests.media.test_sealing import a_sealer
from vsa.errors import (
    BadRequest,
    KeyNeeded,
    MediaConflict,
    MediaDamaged,
    MediaUnusable,
    NoMedia,
    TryAgainLater,
    VsaError,
    WrongKey,
)
from vsa.media import layout
from vsa.media.cipher import Cipher
from vsa.media.descriptor import describe_new
from vsa.media.entries import RotateEntry
from vsa.media.folder import FolderStore
from vsa.media.frames import fingerprint
from vsa.media.key_ring import seal_new
from vsa.media.media import Media
from vsa.media.scratch import joined
from vsa.media.wrapping import KeyFile
from vsa.upkeep.rotation import add_key, key_states, plan_rotation, rotate_key

CANARY = b"canary-in-a-coal-mine"
KEY, OTHER = a_key(), a_key("another passphrase")
DAMAGE = (MediaDamaged, MediaUnusable)
FILE = KeyFile(bytes(range(64, 128)))
FIRST = {0: noise(0), 5: CANARY * 100 + text(5)[: EXTENT - 100 * len(CANARY)], 9: noise(9)}


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def point(folder, tmp_path) -> int:
    """A point of sealed media, of a disk and a VM with names worth hiding."""
    media, disk = new_media(folder, key=KEY), a_disk(CANARY.decode())
    return back_up(media, FIRST, run="r1", scratch=tmp_path, disk=disk)


def opened(folder: Path, key=KEY, *, write: bool = False) -> Media:
    return Media.open(str(folder), write=write, wrapping=key)


def everything(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in objects(folder)}


def test_what_was_backed_up_comes_back(folder, tmp_path, point):
    assert read_point(opened(folder), point) == FIRST
    base = opened(folder).view().points[point].point.disks[0].indexes
    media = opened(folder, write=True)
    disk = a_disk(CANARY.decode())
    later = back_up(media, {5: None, 7: noise(7)}, run="r2", scratch=tmp_path, base=base, disk=disk)
    assert read_point(opened(folder), later) == {0: FIRST[0], 7: noise(7), 9: FIRST[9]}


def test_nothing_can_be_read_in_any_object(folder, point):
    """docs/security.md lists what is in clear: names, sizes, the media's id, the kind of key."""
    plain_digest = fingerprint(FIRST[5]).digest
    inner = [b"PAR1", b"azure-vsa.index", b'"seq"', b"/vms/web", b"job-1", b"proxy-1", b"Premium"]
    words = [CANARY, plain_digest, zstandard.compress(FIRST[5])[8:24], *inner]
    found = {
        (name, word)
        for name, data in everything(folder).items()
        for word in words
        if word in data or word in name.encode()
    }
    assert found == set()
    in_clear = {name for name, data in everything(folder).items() if data.startswith(b"{")}
    assert in_clear == {"media.json", "keys/0"}


def test_every_object_is_found_changed_and_called_damaged(folder, tmp_path, point):
    """One bit in each byte of small objects, and in every seventh of others."""
    for name, data in sorted(everything(folder).items()):
        for position in range(0, len(data), 1 if len(data) < 200 else 7 + len(data) // 100):
            changed = bytearray(data)
            changed[position] ^= 1 << position % 8
            (folder / name).write_bytes(changed)
            # Without its mark a folder's media.json is somebody else's.
            with pytest.raises((MediaDamaged, MediaUnusable, NoMedia) if name == "media.json" else DAMAGE):
                look_at_everything(folder, point)
        (folder / name).write_bytes(data)
    look_at_everything(folder, point)


def look_at_everything(folder: Path, point: int) -> None:
    media = opened(folder)
    read_point(media, point)
    media.intent("r1")
    for name in (ref.name for ref in media.view().points[point].point.records):
        from vsa.media.records import read_record

        read_record(media.store.read(name), name, media.codec)
    for path in (folder / "runs/r1/packs").iterdir():
        from vsa.media.pack import check_frames, read_frames

        name, data = str(path.relative_to(folder)), path.read_bytes()
        check_frames(data, read_frames(data, name, media.codec), media.codec, name)


def test_a_wrong_key_is_called_a_wrong_key(folder, point):
    for wrong in (OTHER, KeyFile(bytes(range(100, 164)))):
        with pytest.raises(WrongKey) as caught:
            opened(folder, wrong)
        assert not isinstance(caught.value, MediaDamaged)


def test_without_a_key_the_media_says_what_opens_it_and_how_to_give_it(folder, point):
    with pytest.raises(KeyNeeded, match="sealed; a passphrase opens it: give it on the command"):
        opened(folder, None)


def test_objects_of_other_sealed_media_are_not_damage_but_of_another_key(folder, tmp_path, point):
    other = tmp_path / "other"
    back_up(new_media(other, key=KEY), FIRST, run="r1", scratch=tmp_path)
    (folder / "log/000000000000").write_bytes((other / "log/000000000000").read_bytes())
    with pytest.raises(WrongKey, match="log/000000000000 was sealed under another key"):
        opened(folder).view()


def test_unsealed_media_in_the_place_of_sealed_media_is_refused(folder):
    new_media(folder)
    with pytest.raises(BadRequest, match="is not sealed: if the one that you sealed should be here"):
        opened(folder)


def test_unsealed_objects_on_sealed_media_are_refused(folder, tmp_path, point):
    other = tmp_path / "other"
    back_up(new_media(other), FIRST, run="r1", scratch=tmp_path, disk=a_disk(CANARY.decode()))
    (folder / "log/000000000000").write_bytes((other / "log/000000000000").read_bytes())
    with pytest.raises(MediaDamaged, match="not sealed, on sealed media"):
        opened(folder).view()


def test_an_exchanged_media_json_is_found(folder, tmp_path, point):
    new_media(tmp_path / "other", key=KEY)
    (folder / "media.json").write_bytes((tmp_path / "other/media.json").read_bytes())
    with pytest.raises(MediaDamaged, match="objects have changed places"):
        opened(folder)


def test_media_whose_keys_are_gone_is_damaged(folder, point):
    (folder / "keys/0").unlink()
    with pytest.raises(MediaDamaged, match="put a copy of a key document back"):
        opened(folder)


# Clones


def test_no_nonce_meets_a_key_twice_though_random_is_frozen(folder, tmp_path, monkeypatch):
    """A proxy that was cloned with its memory: pack ids and salts repeat themselves with other contents."""
    seen: dict[tuple[int, bytes], bytes] = {}
    seal = Cipher.seal

    def watched(self: Cipher, plaintext, aad: bytes) -> bytearray:
        sealed = seal(self, plaintext, aad)
        place = (hash(self._nonce_key), bytes(sealed[:12]))
        message = bytes(plaintext) + b"|" + aad
        assert seen.setdefault(place, message) == message
        return sealed

    monkeypatch.setattr(Cipher, "seal", watched)
    new_media(folder, key=KEY)
    packs = set()
    for clone in range(3):
        media = Media.open(str(folder), write=True, wrapping=KEY)
        media._random = lambda size: bytes(range(size))
        contents = {0: noise("same"), 1: noise(clone), 2: text(clone)}
        with pytest.raises(MediaConflict) if clone else NOTHING:
            written = write_disk(media, contents, run="r1", disk=a_disk(), scratch=tmp_path)
            packs.update(written.packs)
        for path in tmp_path.glob("r1-*"):
            for rest in path.iterdir():
                rest.unlink()
            path.rmdir()
    assert len(packs) == 1
    assert len({message.partition(b"|")[0] for message in seen.values()}) > 6


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


NOTHING = _Nothing()


# Making


def test_init_killed_at_any_call_leaves_nothing_that_pretends_to_be_media(tmp_path):
    number = 0
    for number in count():
        folder = tmp_path / f"media-{number}"
        store = FaultyStore(FolderStore.make(folder), fail_call(number, Moment.AFTER, KeyboardInterrupt()))
        try:
            seal_new(store, KEY, extent_size=EXTENT, now=NOW, random=os.urandom)
        except KeyboardInterrupt:
            if (folder / "media.json").exists():
                assert opened(folder).view().head == 0
            else:
                with pytest.raises(MediaConflict, match="Remove keys/ and make the media again"):
                    new_media(folder, key=KEY)
                shutil.rmtree(folder / "keys")
                new_media(folder, key=KEY)
        else:
            break
    assert number == 3


def test_of_two_who_make_media_one_succeeds(folder):
    store = FolderStore.make(folder)
    seal_new(store, KEY, extent_size=EXTENT, now=NOW, random=os.urandom)
    with pytest.raises(MediaConflict):
        seal_new(store, OTHER, extent_size=EXTENT, now=NOW, random=os.urandom)
    with pytest.raises(MediaConflict):
        describe_new(store, extent_size=EXTENT, now=NOW, random=os.urandom)
    assert opened(folder).sealed


# Keys


def rotated(media: Media, given, new, *, lose_others: bool = False) -> int:
    plan = plan_rotation(media, given, new)
    return rotate_key(
        media, given, new, plan, lose_others=lose_others, now=NOW, random=os.urandom, reason="test"
    )


def test_a_second_key_opens_the_media_beside_the_first(folder, point):
    assert add_key(opened(folder, write=True), KEY, FILE, now=NOW, random=os.urandom) == 1
    for key in (KEY, FILE):
        assert read_point(opened(folder, key), point) == FIRST


def test_rotation_retires_the_old_key_and_rewrites_no_data(folder, point):
    before = everything(folder)
    assert rotated(opened(folder, write=True), KEY, OTHER) == 1
    after = everything(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"keys/1", "log/000000000001"}
    assert read_point(opened(folder, OTHER), point) == FIRST
    with pytest.raises(WrongKey, match=r"opens keys/0, which was retired: give one that opens keys/1"):
        opened(folder, KEY).view()


def test_a_rotation_that_would_lock_somebody_else_out_must_be_allowed(folder, point):
    media = opened(folder, write=True)
    add_key(media, KEY, FILE, now=NOW, random=os.urandom)
    with pytest.raises(BadRequest, match=r"keys/1 \(a key file\), too"):
        rotated(media, KEY, OTHER)
    assert set(objects(folder)) & {"keys/2", "log/000000000001"} == set()
    assert rotated(media, KEY, OTHER, lose_others=True) == 2
    add_key(opened(folder, OTHER, write=True), OTHER, FILE, now=NOW, random=os.urandom)
    for key in (OTHER, FILE):
        assert read_point(opened(folder, key), point) == FIRST


def test_several_keys_count_after_a_rotation(folder, point):
    """Whoever wants no gap adds first and retires then."""
    media = opened(folder, write=True)
    for key in (OTHER, FILE):
        add_key(media, KEY, key, now=NOW, random=os.urandom)
    media.append(RotateEntry(key=1))
    states, damaged = key_states(opened(folder, FILE), FILE)
    assert [(state.number, state.retired, state.opens) for state in states] == [
        (0, True, False),
        (1, False, False),
        (2, False, True),
    ]
    assert damaged == []


def test_a_checkpoint_is_sealed_and_remembers_which_keys_are_retired(folder, point):
    rotated(opened(folder, write=True), KEY, OTHER)
    assert opened(folder, OTHER, write=True).checkpoint_if_due(every=1)
    (name,) = (name for name in objects(folder) if name.startswith("checkpoints/"))
    assert (folder / name).read_bytes()[:8] == b"AVSASEAL"
    (folder / "log/000000000000").unlink()
    assert opened(folder, OTHER).view().key == 1
    assert not opens(folder, KEY)


def test_a_job_that_began_before_a_rotation_ends_in_peace(folder, tmp_path, point):
    media = opened(folder, write=True)
    media.view()
    rotated(opened(folder, write=True), KEY, OTHER)
    slot = back_up(media, {1: noise(1)}, run="r2", scratch=tmp_path, disk=a_disk("data"))
    assert read_point(opened(folder, OTHER), slot) == {1: noise(1)}


def test_nobody_retires_all_keys_there_are(folder, point):
    media = opened(folder, write=True)
    with pytest.raises(MediaDamaged, match="keys/1"):
        media.append(RotateEntry(key=1))
    add_key(media, KEY, OTHER, now=NOW, random=os.urandom)
    media.append(RotateEntry(key=1))
    with pytest.raises(MediaConflict, match="not newer than keys/1"):
        media.append(RotateEntry(key=1))


def test_unsealed_media_has_no_keys(folder):
    with pytest.raises(BadRequest, match="not sealed, so it has no keys"):
        new_media(folder).append(RotateEntry(key=1))


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), TryAgainLater("lost")], ids=["killed", "lost"])
def test_rotation_ended_at_any_call_leaves_a_key_that_opens(tmp_path, moment, error):
    calls = 0
    slot = back_up(new_media(tmp_path / "made", key=KEY), {0: noise(0)}, run="r1", scratch=tmp_path)
    for number in count():
        folder = tmp_path / f"media-{number}"
        shutil.copytree(tmp_path / "made", folder)
        store = FaultyStore(FolderStore(folder), fail_call(number, moment, error))
        with ended():
            rotated(media_in(store, key=KEY), KEY, OTHER)
        working = [key for key in (KEY, OTHER) if opens(folder, key)]
        assert working, f"nothing opens the media after call {number}: {store.calls[number]}"
        for key in working:
            assert read_point(opened(folder, key), slot) == {0: noise(0)}
        # And whoever tries again succeeds.
        if KEY in working:
            rotated(opened(folder, write=True), KEY, OTHER)
        assert [key for key in (KEY, OTHER) if opens(folder, key)] == [OTHER]
        calls = len(store.calls)
        if number >= calls:
            break
    assert calls > 10


class ended:
    """Whatever ends it."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, KeyboardInterrupt | VsaError)


def opens(folder: Path, key) -> bool:
    try:
        opened(folder, key).view()
        return True
    except WrongKey:
        return False


def test_a_damaged_key_document_is_named_and_another_one_is_enough(folder, point, caplog):
    add_key(opened(folder, write=True), KEY, FILE, now=NOW, random=os.urandom)
    data = bytearray((folder / "keys/0").read_bytes())
    data[200] ^= 1
    (folder / "keys/0").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert read_point(opened(folder, FILE), point) == FIRST
    assert "keys/0 does not match its own sha256" in caplog.text
    with pytest.raises(MediaDamaged, match=r"keys/0 does not match its own sha256.*something else was given"):
        opened(folder, KEY)
    _, damaged = key_states(opened(folder, FILE), FILE)
    assert len(damaged) == 1


@pytest.mark.parametrize(
    "junk", [b"", b"x" * (layout.MAX_DOCUMENT_SIZE + 1), None], ids=["empty", "huge", "a copy"]
)
def test_what_is_no_key_document_uses_up_no_numbers(folder, point, junk):
    """Under the last number that there can be, and under the next one."""
    for number in (1, 999):
        path = folder / "keys" / str(number)
        path.write_bytes((folder / "keys/0").read_bytes() if junk is None else junk)
    assert add_key(opened(folder, write=True), KEY, FILE, now=NOW, random=os.urandom) == 2
    assert rotated(opened(folder, write=True), KEY, OTHER, lose_others=True) == 3
    assert opened(folder, OTHER).view().key == 3
    with pytest.raises(WrongKey):
        opened(folder, KEY).view()


def test_two_who_add_keys_at_once_get_numbers_of_their_own(folder, point):
    def taken(number: int, method: str, name: str):
        if (method, name) == ("create", "keys/1") and not (folder / "keys/1").exists():
            add_key(opened(folder, write=True), KEY, FILE, now=NOW, random=os.urandom)

    media = media_in(FaultyStore(FolderStore(folder), taken), key=KEY)
    assert add_key(media, KEY, OTHER, now=NOW, random=os.urandom) == 2
    assert all(opens(folder, key) for key in (KEY, FILE, OTHER))


# Cost


def test_a_large_object_is_sealed_piece_by_piece():
    plain = bytes(32 << 20)
    parts = a_sealer(chunk_size=1 << 20).parts("runs/r/index/d-0123456789abcdef.parquet", plain)
    tracemalloc.start()
    try:
        size = sum(len(part) for part in parts)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == len(plain) + 64 + 32 * 28
    assert peak < 4 << 20
    assert len(parts) == 33
    assert bytes(parts[-1]) == bytes(parts[32]) == bytes(parts[32:][0])


@pytest.mark.parametrize("size", [0, 5, 100, 101, 5000])
def test_parts_are_joined_in_memory_or_in_scratch_space(size):
    parts = [noise(number, size // 5) for number in range(5)]
    assert bytes(joined(parts, in_memory=100)) == b"".join(parts)
    assert bytes(joined([b"".join(parts)], in_memory=100)) == b"".join(parts)


def test_parts_that_are_many_are_never_in_memory_together():
    parts = a_sealer(chunk_size=1 << 20).parts("runs/r/index/d-0123456789abcdef.parquet", bytes(32 << 20))
    tracemalloc.start()
    try:
        size = joined(parts, in_memory=4 << 20).nbytes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size == sum(map(len, parts))
    assert peak < 12 << 20
