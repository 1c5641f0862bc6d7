"""A sealed store is a store: above it nobody sees that it seals, below it nobody sees what."""

from __future__ import annotations

import pytest

from tests.media.faulty_store import FaultyStore, no_fault
from tests.media.making import noise, text
from tests.media.test_sealing import CHUNK, a_sealer
from vsa.errors import MediaConflict, MediaDamaged, ObjectMissing, WrongKey
from vsa.media.folder import FolderStore
from vsa.media.sealed_store import SealedStore
from vsa.ranges import ByteRange

SLOT = "log/000000000000"
PACK = f"runs/r/packs/{'0' * 32}.pack"


@pytest.fixture
def below(tmp_path):
    return FolderStore.make(tmp_path / "media")


@pytest.fixture
def store(below):
    return SealedStore(below, a_sealer())


def test_what_is_created_is_read_whole_and_in_ranges(store):
    data = noise(1, 3 * CHUNK + 7)
    store.create(SLOT, [data[:100], data[100:]])
    assert store.read(SLOT) == store.read(SLOT, limit=len(data)) == data
    assert store.size(SLOT) == len(data)
    for at in (
        ByteRange(0, 1),
        ByteRange(CHUNK - 1, 2 * CHUNK + 1),
        ByteRange(5, 5),
        ByteRange(0, len(data)),
    ):
        assert store.read(SLOT, at) == data[at.offset : at.end]


def test_everything_but_packs_and_what_comes_before_the_key_is_sealed_below(store, below):
    clear = ("media.json", "keys/0", PACK)
    sealed = (SLOT, "runs/r/intent.json", "checkpoints/000000000000.parquet", "runs/r/digests/d-0.parquet")
    for name in (*clear, *sealed):
        store.create(name, [text("readable")])
        assert (b"readable" in below.read(name)) == (name in clear)
        assert store.read(name) == text("readable")
        assert store.size(name) == len(text("readable"))
    assert set(store.names("")) == {*clear, *sealed}


def test_a_name_is_created_once(store):
    store.create(SLOT, [b"first"])
    with pytest.raises(MediaConflict):
        store.create(SLOT, [b"first"])
    assert store.read(SLOT) == b"first"


def test_what_is_not_there_is_missing(store):
    for ask in (store.read, store.size):
        with pytest.raises(ObjectMissing):
            ask(SLOT)


def test_sizes_are_judged_as_in_any_store(store):
    store.create(SLOT, [b"entry"])
    with pytest.raises(MediaDamaged, match="has 5 bytes, expected 6 or more"):
        store.read(SLOT, ByteRange(0, 6))
    with pytest.raises(MediaDamaged, match="has 5 bytes, expected at most 4"):
        store.read(SLOT, limit=4)


def test_a_whole_object_or_a_range_of_chunks_is_one_request(below):
    counted = FaultyStore(below, no_fault)
    store = SealedStore(counted, a_sealer())
    data = noise(1, 5 * CHUNK + 7)
    store.create(SLOT, [data])
    counted.calls.clear()
    assert store.read(SLOT, limit=len(data)) == data
    assert counted.calls == [("read", SLOT)]
    counted.calls.clear()
    at = ByteRange(CHUNK // 2, 4 * CHUNK)
    assert store.read(SLOT, at) == data[at.offset : at.end]
    # Its size, header and last chunk prove the object; then the chunks that were asked for.
    assert counted.calls == [("size", SLOT), *[("read", SLOT)] * 3]


def test_objects_exchanged_below_are_found(store, below, tmp_path):
    store.create(SLOT, [b"entry"])
    below.create("log/000000000001", [below.read(SLOT)])
    with pytest.raises(MediaDamaged, match="log/000000000001"):
        store.read("log/000000000001")
    with pytest.raises(WrongKey):
        SealedStore(below, a_sealer(key=bytes(32))).size(SLOT)


def test_a_sealed_object_is_deleted_and_the_store_below_is_probed(below):
    store = SealedStore(below, a_sealer())
    store.create(SLOT, [b"entry"])
    store.prepare_for_writing()
    store.delete(SLOT)
    assert list(below.names("")) == []
