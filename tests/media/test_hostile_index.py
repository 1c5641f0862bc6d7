"""Indexes that a stranger wrote: proven before they are parsed, and bounded after."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.media.faulty_store import FaultyStore, no_fault
from tests.media.making import EXTENT, a_disk, flip_bit, new_media, noise, write_disk
from vsa.errors import MediaDamaged, MediaUnusable
from vsa.media import pinned
from vsa.media.folder import FolderStore
from vsa.media.index import METADATA_KEY, IndexDescription, IndexSegment, PackRef
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.model import IndexRef

SIZE = (SEGMENT + 100) * EXTENT
PACK = PackRef(name=f"runs/r1/packs/{'ab' * 16}.pack", size=1_000_000, sha256="0" * 64)
GOOD = {"extent": 5, "pack": 0, "offset": 64, "length": 100, "crc": 1, "digest": b"d" * 32}
TYPES = {
    "extent": pa.uint32(),
    "pack": pa.int32(),
    "offset": pa.uint32(),
    "length": pa.uint32(),
    "crc": pa.uint32(),
    "digest": pa.binary(32),
}


@pytest.fixture
def media(tmp_path):
    return new_media(tmp_path / "media")


def table_of(rows, types=TYPES) -> pa.Table:
    schema = pa.schema([pa.field(name, kind, nullable=False) for name, kind in types.items()])
    return pa.Table.from_pylist(rows, schema=schema)


def plant(media, groups, *, metadata=None, segments=None, changes=None) -> IndexRef:
    """Store any tables as an index, with a reference that is right about its bytes."""
    numbers = range(len(groups)) if segments is None else segments
    description = IndexDescription(
        media=media.id,
        run="r1",
        disk_key=a_disk().key,
        disk_size=SIZE,
        extent_size=EXTENT,
        kind=IndexKind.BASE,
        packs=(PACK,),
    )
    sink = io.BytesIO()
    schema = groups[0].schema if groups else table_of([]).schema
    with pq.ParquetWriter(sink, schema, store_schema=False, use_dictionary=False) as writer:
        places = []
        for group in groups:
            start = sink.tell()
            writer.write_table(group, row_group_size=len(group) or 1)
            places.append((start, sink.tell()))
        footer_at = sink.tell()
        parts = [part_of(sink, *place, number) for number, place in zip(numbers, places, strict=False)]
        # More segments than row groups are described by repeating the last place.
        parts += [part_of(sink, *places[-1], number) for number in list(numbers)[len(places) :]]
        described = description.model_copy(update={"segments": tuple(parts)} | (changes or {}))
        about = described.model_dump_json().encode() if metadata is None else metadata
        if about:
            writer.add_key_value_metadata({METADATA_KEY: about})
    data = sink.getvalue()
    return plant_bytes(media, data, footer=len(data) - footer_at)


def part_of(sink: io.BytesIO, start: int, end: int, number: int) -> IndexSegment:
    digest = hashlib.sha256(sink.getvalue()[start:end]).hexdigest()
    return IndexSegment(number=number, offset=start, length=max(1, end - start), sha256=digest)


def plant_bytes(media, data: bytes, *, footer: int = 8) -> IndexRef:
    name = f"runs/r1/index/{a_disk().key}-{os.urandom(8).hex()}.parquet"
    media._store.create(name, [data])
    return IndexRef(
        name=name,
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        footer=footer,
        footer_sha256=hashlib.sha256(data[-footer:]).hexdigest(),
    )


def read_all(media, ref: IndexRef) -> None:
    read_all_of(media, ref, SIZE)


def read_all_of(media, ref: IndexRef, size: int) -> None:
    index = media.disk_index([ref], size)
    for segment in index.segments():
        index.segment(segment)


def test_what_the_test_plants_is_accepted_when_it_is_right(media):
    read_all(media, plant(media, [table_of([GOOD]), table_of([GOOD | {"extent": SEGMENT + 99}])]))
    read_all(media, plant(media, []))


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([GOOD | {"extent": SEGMENT}], id="an extent of another segment"),
        pytest.param([GOOD | {"extent": 2**32 - 1}], id="an extent outside the disk"),
        pytest.param([GOOD, GOOD], id="an extent twice"),
        pytest.param([GOOD, GOOD | {"extent": 4}], id="extents out of order"),
        pytest.param([GOOD | {"pack": 1}], id="a pack that is not in the table"),
        pytest.param([GOOD | {"pack": 2**31 - 1}], id="a pack far outside"),
        pytest.param([GOOD | {"pack": -2}], id="a negative pack"),
        pytest.param([GOOD | {"pack": -1}], id="zeros in a base"),
        pytest.param([GOOD | {"offset": 63}], id="a frame inside the header"),
        pytest.param([GOOD | {"offset": 999_900}], id="a frame that runs into the footer"),
        pytest.param([GOOD | {"offset": 2**32 - 1}], id="an offset that overflows"),
        pytest.param([GOOD | {"offset": 2**32 - 50, "length": 100}], id="offset and length that wrap around"),
        pytest.param([GOOD | {"length": 0}], id="an empty frame"),
        pytest.param([GOOD | {"length": EXTENT + 1}], id="a frame longer than its extent"),
        pytest.param([GOOD | {"length": 2**32 - 1}], id="a frame of four gibibytes"),
    ],
)
def test_rows_that_cannot_be_are_damage(media, rows):
    ref = plant(media, [table_of(rows)])
    with pytest.raises(MediaDamaged, match=ref.name):
        read_all(media, ref)


def test_an_extent_beyond_the_end_of_the_last_segment_is_damage(media):
    with pytest.raises(MediaDamaged, match="ascending within"):
        read_all(media, plant(media, [table_of([GOOD | {"extent": SEGMENT + 100}])], segments=(1,)))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"media": "f" * 32}, id="of another media"),
        pytest.param({"extent_size": 8192}, id="with other extents"),
        pytest.param({"disk_size": SIZE + 1}, id="of a larger disk"),
        pytest.param({"kind": IndexKind.DELTA}, id="a delta where a base is expected"),
        pytest.param(
            {"packs": (PACK.model_copy(update={"name": "media.json"}),)}, id="with something else as a pack"
        ),
        pytest.param(
            {"packs": (PACK.model_copy(update={"name": "runs/../../etc/passwd"}),)}, id="with a path"
        ),
    ],
)
def test_descriptions_that_do_not_fit_are_damage(media, changes):
    ref = plant(media, [table_of([GOOD])], changes=changes)
    with pytest.raises(MediaDamaged):
        read_all(media, ref)


@pytest.mark.parametrize(
    "segments",
    [
        pytest.param((), id="fewer segments than row groups"),
        pytest.param((0, 1), id="more segments than row groups"),
        pytest.param((2,), id="a segment outside the disk"),
    ],
)
def test_segments_that_do_not_fit_are_damage(media, segments):
    with pytest.raises(MediaDamaged, match="do not fit"):
        read_all(media, plant(media, [table_of([GOOD])], segments=segments))


@pytest.mark.parametrize("metadata", [b"", b"{}", b"null", b"[" * 10_000, b"\xff\xfe", b'{"format":1}'])
def test_an_index_that_does_not_describe_itself_is_damage(media, metadata):
    with pytest.raises((MediaDamaged, MediaUnusable)):
        read_all(media, plant(media, [table_of([GOOD])], metadata=metadata))


def test_an_index_of_a_later_format_asks_for_an_upgrade(media):
    with pytest.raises(MediaUnusable, match="upgrade"):
        read_all(media, plant(media, [table_of([GOOD])], changes={"format": 2}))


@pytest.mark.parametrize(
    "types",
    [
        pytest.param(TYPES | {"more": pa.int32()}, id="another column"),
        pytest.param({name: TYPES[name] for name in list(TYPES)[:-1]}, id="a missing column"),
        pytest.param(TYPES | {"extent": pa.int64()}, id="a wider number"),
        pytest.param(TYPES | {"crc": pa.float64()}, id="a float"),
        pytest.param(TYPES | {"digest": pa.binary()}, id="digests of any length"),
        pytest.param(TYPES | {"digest": pa.binary(16)}, id="short digests"),
        pytest.param(TYPES | {"digest": pa.string()}, id="text for digests"),
    ],
)
def test_other_columns_are_damage(media, types):
    digest = {pa.string(): "d", pa.binary(16): b"d" * 16}.get(types.get("digest"), b"d" * 32)
    row = GOOD | {"digest": digest, "more": 0}
    with pytest.raises(MediaDamaged, match="columns"):
        read_all(media, plant(media, [table_of([{name: row[name] for name in types}], types)]))


def test_nulls_are_damage(media):
    schema = pa.schema(list(TYPES.items()))
    with pytest.raises(MediaDamaged):
        read_all(media, plant(media, [pa.Table.from_pylist([GOOD | {"offset": None}], schema=schema)]))


def test_a_row_group_larger_than_a_segment_is_refused_unread(media):
    rows = pa.table({name: pa.array([GOOD[name]] * (SEGMENT + 1), kind) for name, kind in TYPES.items()})
    with pytest.raises(MediaDamaged, match="row group of 65537 rows"):
        media.disk_index([plant(media, [rows.cast(table_of([]).schema)])], SIZE)


def test_an_empty_row_group_is_damage(media):
    with pytest.raises(MediaDamaged):
        read_all(media, plant(media, [table_of([])], segments=(0,)))


@pytest.mark.parametrize(
    "data", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"PAR1\xff\xff\xff\xffPAR1", b"x" * 1000]
)
def test_what_is_no_parquet_is_damage(media, data):
    with pytest.raises(MediaDamaged):
        read_all(media, plant_bytes(media, data))


def test_nothing_is_parsed_before_its_digest_is_proven(media, tmp_path):
    """A parser's complaint would be about Parquet or rows; these are all about digest or size."""
    written = write_disk(media, {0: noise(0)}, run="r2", disk=a_disk(), scratch=tmp_path)
    path = tmp_path / "media" / written.index.name
    for bit in range(0, path.stat().st_size * 8, 11):
        flip_bit(path, bit)
        with pytest.raises(MediaDamaged, match="digest that the log states"):
            media.disk_index([written.index], a_disk().size)
        flip_bit(path, bit)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(MediaDamaged, match="the log says"):
        media.disk_index([written.index], a_disk().size)


def test_a_corrupt_page_inside_a_proven_file_is_damage(media, tmp_path):
    """As a hostile writer would store it: the reference is right, the contents are not."""
    written = write_disk(
        media, {at: noise(at) for at in range(500)}, run="r2", disk=a_disk(size=SIZE), scratch=tmp_path
    )
    sound = (tmp_path / "media" / written.index.name).read_bytes()
    refused = 0
    for offset in range(0, len(sound), 97):
        broken = sound[:offset] + bytes([sound[offset] ^ 0x55]) + sound[offset + 1 :]
        try:
            read_all(media, plant_bytes(media, broken))
        except (MediaDamaged, MediaUnusable):
            refused += 1
    assert refused > 0


@pytest.fixture
def fetched_in_parts(monkeypatch):
    """Every index is as large as those that are not fetched whole."""
    monkeypatch.setattr(pinned, "FETCHED_WHOLE", 0)


def test_of_a_large_index_only_what_is_asked_for_is_fetched(tmp_path, fetched_in_parts):
    store = FaultyStore(FolderStore(Path(new_media(tmp_path / "media").location)), no_fault)
    media = Media(store, write=True)
    contents = {segment * SEGMENT + at: noise(at) for segment in range(3) for at in range(100)}
    disk = a_disk(size=3 * SEGMENT * EXTENT)
    written = write_disk(media, contents, run="r2", disk=disk, scratch=tmp_path)
    before = len(store.calls)
    index = media.disk_index([written.index], disk.size)
    assert [method for method, name in store.calls[before:] if name == written.index.name] == ["size", "read"]
    before = len(store.calls)
    assert np.count_nonzero(index.segment(1).pack >= 0) == 100
    assert store.calls[before:] == [("read", written.index.name)]


def test_every_part_of_a_large_index_is_proven_before_it_is_parsed(media, tmp_path, fetched_in_parts):
    written = write_disk(media, {0: noise(0)}, run="r2", disk=a_disk(), scratch=tmp_path)
    path = tmp_path / "media" / written.index.name
    # The magic at the start belongs to no part: no reader looks at it.
    for bit in range(4 * 8, path.stat().st_size * 8, 11):
        flip_bit(path, bit)
        with pytest.raises(MediaDamaged, match=r"digest that (the log|its footer) states"):
            read_all_of(media, written.index, a_disk().size)
        flip_bit(path, bit)


def test_a_part_that_points_elsewhere_is_damage(media, fetched_in_parts):
    """As a hostile writer would describe it: digests are right, but of bytes that are no row group."""
    ref = plant(media, [table_of([GOOD])])
    sound = media.disk_index([ref], SIZE).files[0].description
    part = sound.segments[0]
    cut = part.length - 1
    for offset, length in ((part.offset + 1, cut), (0, part.length), (part.offset, cut)):
        data = media._store.read(ref.name)[offset : offset + length]
        other = IndexSegment(number=0, offset=offset, length=length, sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(MediaDamaged):
            read_all(media, plant(media, [table_of([GOOD])], changes={"segments": (other,)}))
