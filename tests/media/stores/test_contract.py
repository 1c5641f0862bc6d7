"""What every store promises, asked of each: a folder, an Azure Blob container, an S3 bucket."""

from __future__ import annotations

import io
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.media.making import EXTENT, NOW, back_up, noise, read_point, text
from vsa.cli.exits import Exit
from vsa.cli.program import run
from vsa.errors import BadRequest, MediaConflict, MediaDamaged, ObjectMissing
from vsa.media.media import Media
from vsa.media.places import open_store
from vsa.media.store import Store
from vsa.ranges import MIB, ByteRange
from vsa.secret import Secret

PACK = f"runs/r1/packs/{'ab' * 16}.pack"
SLOT = "log/000000000000"


def test_the_parts_of_an_object_are_stored_as_one(store):
    store.create(PACK, [b"abc", bytearray(b"def"), memoryview(b"ghi")])
    assert store.read(PACK) == b"abcdefghi"
    assert store.size(PACK) == 9


def test_an_object_may_be_empty(store):
    for number, parts in enumerate(([], [b""], [b"", b"", b""])):
        name = f"log/{number:012}"
        store.create(name, parts)
        assert (store.read(name), store.size(name)) == (b"", 0)
        assert store.read(name, ByteRange(0, 0)) == b""


def test_one_part_of_any_kind_is_stored_as_it_is(store):
    for number, kind in enumerate((bytes, bytearray, memoryview)):
        store.create(f"log/{number:012}", [kind(b"abc")])
        assert store.read(f"log/{number:012}") == b"abc"


def test_empty_parts_between_others_do_no_harm(store):
    store.create(PACK, [b"", b"abc", b"", memoryview(b"d")])
    assert store.read(PACK) == b"abcd"


def test_an_object_larger_than_any_block_comes_back_whole(store):
    """Larger than a pack, and than what either library sends in pieces by itself."""
    piece = noise("large", 10 * MIB)
    store.create(PACK, [piece] * 7)
    assert store.size(PACK) == 70 * MIB
    assert store.read(PACK, ByteRange(40 * MIB, 50 * MIB)) == piece
    assert store.read(PACK) == piece * 7


def test_an_existing_object_is_refused_and_kept(store):
    store.create(PACK, [b"first"])
    for _ in range(2):
        with pytest.raises(MediaConflict, match="exists already"):
            store.create(PACK, [b"second, and longer"])
    assert store.read(PACK) == b"first"


def test_of_many_writers_exactly_one_creates(store):
    """And what the others brought is never seen, not even for a moment."""
    writers = 32
    for slot in range(3):
        name, start = f"log/{slot:012}", threading.Barrier(writers)

        def create(
            writer: int, name: str = name, start: threading.Barrier = start
        ) -> tuple[int | None, bytes]:
            start.wait()
            try:
                store.create(name, [b"%04d" % writer * 1000])
            except MediaConflict:
                return None, store.read(name)
            return writer, store.read(name)

        with ThreadPoolExecutor(writers) as threads:
            outcomes = list(threads.map(create, range(writers)))
        (winner,) = [writer for writer, _ in outcomes if writer is not None]
        assert {seen for _, seen in outcomes} == {b"%04d" % winner * 1000}


def test_a_range_is_exact(store):
    data = noise("ranges", 100_000)
    store.create(PACK, [data])
    for offset, end in ((0, 1), (0, 100_000), (99_999, 100_000), (4096, 69_632), (50_000, 50_000)):
        assert store.read(PACK, ByteRange(offset, end)) == data[offset:end]


def test_what_is_not_there_is_missing(store):
    for call in (
        lambda: store.read(PACK),
        lambda: store.read(PACK, ByteRange(0, 1)),
        lambda: store.read(PACK, ByteRange(0, 0)),
        lambda: store.read(PACK, limit=10),
        lambda: store.size(PACK),
    ):
        with pytest.raises(ObjectMissing, match=PACK):
            call()


def test_what_is_short_is_damaged(store):
    store.create(PACK, [b"12345"])
    for offset, end in ((3, 6), (5, 6), (7, 9), (7, 7)):
        with pytest.raises(MediaDamaged, match=f"has 5 bytes, but bytes {offset} to {end}"):
            store.read(PACK, ByteRange(offset, end))


def test_what_is_larger_than_expected_is_not_read(store):
    store.create(PACK, [b"12345"])
    assert store.read(PACK, limit=5) == b"12345"
    with pytest.raises(MediaDamaged, match="at most 4"):
        store.read(PACK, limit=4)


ODD_NAMES = (
    "",
    "/a",
    "../up",
    "runs/../../up",
    "runs//x",
    "a/",
    ".probe/x",
    "A",
    "a\0b",
    "a\\b",
    "é",
    "a?b",
    "a%2e",
)


def test_a_name_that_means_two_things_is_never_asked_for(store):
    for name in ODD_NAMES:
        for call in (
            lambda name: store.create(name, [b""]),
            store.read,
            store.size,
            store.delete,
        ):
            with pytest.raises(BadRequest):
                call(name)


def test_names_are_listed_by_any_prefix(store):
    for name in (SLOT, "log/000000000001", "log/000000000010", "runs/r1/intent.json", "runs/r2/intent.json"):
        store.create(name, [b"x"])
    assert set(store.names("log/")) == {SLOT, "log/000000000001", "log/000000000010"}
    assert set(store.names("log/00000000000")) == {SLOT, "log/000000000001"}
    assert len(set(store.names(""))) == 5
    assert set(store.names("log/", after=SLOT)) == {"log/000000000001", "log/000000000010"}
    assert list(store.names("log/", after="log/000000000010")) == []
    assert list(store.names("absent/")) == []
    assert sorted(store.folders("runs/")) == ["r1", "r2"]
    assert list(store.folders("absent/")) == []


def test_what_is_deleted_is_gone_and_may_be_deleted_again(store):
    store.create(PACK, [b"x"])
    store.create(SLOT, [b"kept"])
    for _ in range(2):
        store.delete(PACK)
    store.delete("runs/never/intent.json")
    with pytest.raises(ObjectMissing):
        store.read(PACK)
    assert set(store.names("")) == {SLOT}
    store.create(f"runs/r1/packs/{'cd' * 16}.pack", [b"beside"])


def test_the_probe_passes_and_leaves_no_object(store):
    store.create(SLOT, [b"x"])
    for _ in range(2):
        store.prepare_for_writing()
    assert list(store.names("")) == [SLOT]


def test_new_media_needs_an_empty_place(site):
    site.make().create(SLOT, [b"x"])
    with pytest.raises(MediaConflict, match="is not empty, it holds log"):
        site.make()


def test_places_below_each_other_do_not_see_each_other(site):
    one, other = site.at("one").make(), site.at("other/deep").make()
    one.create(SLOT, [b"one"])
    other.create(SLOT, [b"other"])
    assert (one.read(SLOT), other.read(SLOT)) == (b"one", b"other")
    assert (list(one.names("")), list(other.names("log/"))) == ([SLOT], [SLOT])


def test_media_is_never_made_inside_other_media(site):
    Media.create(site.at("one").location, extent_size=EXTENT, now=NOW, access=site.access)
    for inside in ("one/runs", "one/runs/run-1"):
        with pytest.raises(BadRequest, match=r"lies inside the media at .*one: new media"):
            site.at(inside).make()
    assert site.at("on").make() and site.at("one-more").make()


def test_a_backup_on_any_store_restores_from_it(site, tmp_path):
    media = Media.create(site.location, extent_size=EXTENT, now=NOW, access=site.access)
    first = back_up(media, {0: noise(0), 5: text(5)}, run="r1", scratch=tmp_path)
    base = media.view().points[first].point.disks[0].indexes
    writer = Media.open(site.location, write=True, access=site.access)
    second = back_up(writer, {0: None, 7: text(7)}, run="r2", scratch=tmp_path, base=base)
    reader = Media.open(site.location, access=site.access)
    assert reader.id == media.id
    assert read_point(reader, first) == {0: noise(0), 5: text(5)}
    assert read_point(reader, second) == {5: text(5), 7: text(7)}
    assert sorted(reader.runs()) == ["r1", "r2"]


def test_the_command_line_makes_and_lists_media_on_any_store(site, monkeypatch):
    """With credentials from the environment, where a folder needs none."""
    for name in [name for name in os.environ if name.startswith("AZURE_VSA_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AZURE_VSA_BLOB_SAS": site.access.blob_sas,
        "AZURE_VSA_BLOB_ENDPOINT": site.access.blob_endpoint,
        "AZURE_VSA_S3_KEY_ID": site.access.s3_key_id,
        "AZURE_VSA_S3_SECRET": site.access.s3_secret,
        "AZURE_VSA_S3_ENDPOINT": site.access.s3_endpoint,
    }.items():
        if value:
            monkeypatch.setenv(name, value.reveal() if isinstance(value, Secret) else value)
    out, err = io.StringIO(), io.StringIO()
    assert run(["init", "--media", site.location], out, err) == Exit.DONE, err.getvalue()
    assert f"at {site.location}" in out.getvalue()
    assert run(["init", "--media", site.location], out, err) == Exit.CONFLICT
    assert run(["points", "--media", site.location, "--json"], out, err) == Exit.DONE


def test_an_opened_store_writes_nothing_by_itself(site):
    site.make()
    store: Store = open_store(site.location, site.access, random=lambda _: pytest.fail("nothing to name"))
    assert list(store.names("")) == []
