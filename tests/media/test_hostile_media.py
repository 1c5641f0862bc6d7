"""Media that a stranger wrote, to exhaust or mislead whoever opens it: refused within a bound of memory.

Each case is opened in a process of its own, whose growth is measured. On media that is not sealed a
stranger can make every digest right, so these are right in all of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.media.making import (
    EXTENT,
    a_disk,
    a_point,
    an_intent,
    back_up,
    new_media,
    noise,
    objects,
    read_point,
    text,
    write_disk,
)
from tests.processes import PROCESSES
from vsa.errors import MediaDamaged, VsaError
from vsa.media import layout, parquet
from vsa.media.entries import RelocateEntry
from vsa.media.folder import FolderStore
from vsa.media.frames import fingerprint
from vsa.media.index import METADATA_KEY, ROW, IndexDescription, IndexSegment, PackRef
from vsa.media.layout import SEGMENT, IndexKind
from vsa.media.media import Media
from vsa.media.moves import METADATA_KEY as MOVES_KEY
from vsa.media.moves import MOVE, MovesDescription
from vsa.media.parquet_pages import require_pages
from vsa.model import IndexRef, ObjectRef
from vsa.ranges import GIB, KIB, MIB

GROWTH = 96 * MIB
"""What opening any of these may cost, parsers' own buffers included."""


@pytest.fixture
def folder(tmp_path) -> Path:
    new_media(tmp_path / "media")
    return tmp_path / "media"


def grown(action: Callable[[], None]) -> int:
    """Bytes by which this process has grown at most while it did something."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    action()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * KIB


def read_everything(folder: str, answer) -> None:
    """What a restore of every point would read; the answer is the error and the growth."""
    said: list[str] = []

    def read() -> None:
        try:
            media = Media.open(folder)
            for slot in list(media.view().points):
                read_point(media, slot)
        except VsaError as error:
            said.append(type(error).__name__)

    size = grown(read)
    answer.send((said, size))


def opened(folder: Path) -> tuple[list[str], int]:
    mine, its = PROCESSES.Pipe()
    process = PROCESSES.Process(target=read_everything, args=(str(folder), its))
    process.start()
    try:
        assert mine.poll(60), "it hangs"
        return mine.recv()
    finally:
        process.kill()
        process.join()


def require_refused(folder: Path) -> None:
    said, growth = opened(folder)
    assert said in (["MediaDamaged"], ["NewerVersion"], ["ObjectMissing"]), said
    assert growth < GROWTH, f"{growth / MIB:.0f} MiB"


def proven(body: bytes) -> bytes:
    """A document whose digest is right, whatever its body."""
    return b'{"sha256":"' + hashlib.sha256(body).hexdigest().encode() + b'",' + body[1:]


def entry(folder: Path, body: str | dict, **fields: object) -> None:
    """A log entry that continues the log, with any body."""
    slots = sorted((folder / "log").glob("*")) if (folder / "log").exists() else []
    before = slots[-1] if slots else folder / "media.json"
    about = {
        "nonce": "0" * 32,
        "prev": hashlib.sha256(before.read_bytes()).hexdigest(),
        "run": "r1",
        "seq": len(slots),
        "software": "x",
        "time": "2026-01-01T00:00:00Z",
    } | fields
    said = body if isinstance(body, str) else json.dumps(body)
    data = json.dumps(about)[:-1] + ',"body":' + said + "}"
    (folder / "log").mkdir(exist_ok=True)
    (folder / f"log/{len(slots):012}").write_bytes(proven(data.encode()))


def test_sound_media_passes_all_of_this(folder, tmp_path):
    media = Media.open(str(folder), write=True)
    back_up(media, {0: noise(0), 9: text(9)}, run="r1", scratch=tmp_path)
    said, growth = opened(folder)
    assert said == []
    assert growth < GROWTH


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("[" * 100_000, id="deeply nested"),
        pytest.param('{"type":' + "9" * 100_000 + "}", id="a number of many digits"),
        pytest.param('{"type":"forget","points":[-1],"reason":"x"}', id="a negative slot"),
        pytest.param('{"type":"doom","objects":["../../etc/passwd"],"reason":"x"}', id="a path"),
        pytest.param('{"type":"doom","objects":["/etc/passwd"],"reason":"x"}', id="an absolute path"),
        pytest.param('{"type":"relocate","packs":["runs/\\u0000"],"reason":"x"}', id="a NUL"),
        pytest.param('{"type":"rotate","key":1e308}', id="a key of 300 digits"),
        pytest.param('{"type":"relocate","reason":"x","table":{"name":"x","size":-1}}', id="a negative size"),
        pytest.param('{"type":"__import__","reason":"x"}', id="an unknown type"),
    ],
)
def test_entries(folder, body):
    entry(folder, body)
    require_refused(folder)


def test_millions_of_points_in_one_entry(folder):
    """They name nothing that is there, so they mean nothing."""
    entry(folder, '{"type":"forget","reason":"x","points":[' + "0," * 4_000_000 + "0]}")
    said, growth = opened(folder)
    assert (said, growth < 8 * GROWTH) == ([], True), growth


def test_an_entry_that_fills_its_limit(folder):
    entry(folder, '{"type":"pin","reason":"' + "x" * (16 * MIB) + '","points":[0]}')
    require_refused(folder)


def test_a_point_of_huge_disks_without_contents_costs_nothing(folder, tmp_path):
    """Sizes alone must allocate nothing: 64 TiB of zeros."""
    media, disk = Media.open(str(folder), write=True), a_disk(size=16 * 1024 * GIB)
    media.begin_run(an_intent("r1"))
    written = write_disk(media, {}, run="r1", disk=disk, scratch=tmp_path)
    media.append(a_point(disk, written.indexes), run="r1")
    said, growth = opened(folder)
    assert (said, growth < GROWTH) == ([], True)


class TestIndexes:
    def plant(self, folder: Path, ref: IndexRef, data: bytes | None = None) -> None:
        """A point of one disk that names this index, and the index if it is to be there."""
        if data is not None:
            path = folder / ref.name
            path.parent.mkdir(parents=True)
            path.write_bytes(data)
        disk = a_disk(size=SEGMENT * EXTENT)
        entry(folder, a_point(disk, [ref]).model_dump(mode="json"))

    def made(self, folder: Path, rows: np.ndarray, spoil: Callable[[bytearray], None]) -> None:
        """An index of one row group whose bytes are spoilt before its digests are made."""
        media, sink = Media.open(str(folder)), io.BytesIO()
        schema = parquet.schema_of(ROW)
        pack = PackRef(name=f"runs/r1/packs/{'ab' * 16}.pack", size=2**32 - 1, sha256="0" * 64)
        with parquet.writer(sink, schema) as writer:
            writer.write_table(parquet.to_arrow(rows, schema), row_group_size=SEGMENT)
            group = bytearray(sink.getvalue()[4:])
            spoil(group)
            digest = hashlib.sha256(group).hexdigest()
            about = IndexDescription(
                media=media.id,
                run="r1",
                disk_key=a_disk().key,
                disk_size=SEGMENT * EXTENT,
                extent_size=EXTENT,
                kind=IndexKind.BASE,
                packs=(pack,),
                segments=(IndexSegment(number=0, offset=4, length=len(group), sha256=digest),),
            )
            writer.add_key_value_metadata({METADATA_KEY: about.model_dump_json().encode()})
        data = b"PAR1" + bytes(group) + sink.getvalue()[4 + len(group) :]
        footer = len(data) - 4 - len(group)
        self.plant(folder, self.ref(data, footer), data)

    def ref(self, data: bytes, footer: int, size: int | None = None) -> IndexRef:
        return IndexRef(
            name=f"runs/r1/index/{a_disk().key}-{'0' * 16}.parquet",
            size=size or len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            footer=footer,
            footer_sha256=hashlib.sha256(data[-footer:]).hexdigest(),
        )

    def rows(self) -> np.ndarray:
        rows = np.zeros(SEGMENT, ROW)
        rows["extent"] = np.arange(SEGMENT)
        rows["offset"], rows["length"] = 64, 100
        return rows

    def test_what_is_made_here_is_parsed_when_it_is_not_spoilt(self, folder):
        self.made(folder, self.rows(), lambda _: None)
        said, growth = opened(folder)
        # The rows are read; their pack is not there.
        assert (said, growth < GROWTH) == (["ObjectMissing"], True)

    def test_a_page_that_claims_to_hold_gigabytes(self, folder):
        """The first page's header: type, then the uncompressed size as a zigzag varint of three bytes."""

        def claim(group: bytearray) -> None:
            assert group[:2] == b"\x15\x00"
            assert group[2] == 0x15
            group[3:6] = b"\xfe\xff\x7f"

        self.made(folder, self.rows(), claim)
        require_refused(folder)
        # By the look at its header, not by the parser.
        with pytest.raises(MediaDamaged, match="a page of 1048575 bytes"):
            read_point(Media.open(str(folder)), 0)

    def test_a_sparse_object_of_terabytes(self, folder):
        path = folder / f"runs/r1/index/{a_disk().key}-{'0' * 16}.parquet"
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(40 * GIB)
        zeros = hashlib.sha256(bytes(8)).hexdigest()
        ref = self.ref(b"x" * 9, 8, size=40 * GIB).model_copy(update={"footer_sha256": zeros})
        self.plant(folder, ref)
        require_refused(folder)

    @pytest.mark.parametrize("footer", [2**32 - 1, 300 * MIB])
    def test_a_footer_of_gigabytes(self, folder, footer):
        path = folder / f"runs/r1/index/{a_disk().key}-{'0' * 16}.parquet"
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(8 * GIB)
        self.plant(folder, self.ref(b"x" * 9, 8, size=8 * GIB).model_copy(update={"footer": footer}))
        require_refused(folder)

    def test_columns_of_an_extension_type(self, folder):
        """As CVE-2023-47248 used: the type's metadata is never unpickled, and the columns are refused."""
        schema = pa.schema(
            [
                pa.field(
                    "extent",
                    pa.uint32(),
                    nullable=False,
                    metadata={
                        b"ARROW:extension:name": b"arrow.py_extension_type",
                        b"ARROW:extension:metadata": b"cos\nsystem\n(S'touch /tmp/owned'\ntR.",
                    },
                )
            ]
        )
        sink = io.BytesIO()
        pq.write_table(pa.table({"extent": pa.array([1], pa.uint32())}, schema=schema), sink)
        data = sink.getvalue()
        footer = int.from_bytes(data[-8:-4], "little") + 8
        self.plant(folder, self.ref(data, footer), data)
        require_refused(folder)
        assert not Path("/tmp/owned").exists()


class TestPages:
    """The look at page headers, on the bytes of a real column."""

    def column(self, rows: int = 1000):
        sink = io.BytesIO()
        schema = parquet.schema_of(np.dtype([("a", np.uint32)]))
        with parquet.writer(sink, schema) as writer:
            writer.write_table(pa.table({"a": pa.array(np.arange(rows, dtype="u4"))}, schema=schema))
        return pq.read_metadata(sink).row_group(0).column(0), bytearray(sink.getvalue())

    def test_real_pages_are_counted_exactly(self):
        column, data = self.column(50_000)
        require_pages(column, memoryview(data), 0, at_most=50_000 * 4)
        with pytest.raises(ValueError, match="a page of"):
            require_pages(column, memoryview(data), 0, at_most=50_000 * 4 - 1)

    def test_no_bytes_make_it_run_away(self):
        column, data = self.column()
        choose = np.random.default_rng(5)
        first, length = column.data_page_offset, column.total_compressed_size
        for _ in range(3000):
            spoilt = bytearray(data)
            for at in choose.integers(first, first + min(length, 30), 3):
                spoilt[at] = choose.integers(256)
            try:
                require_pages(column, memoryview(spoilt), 0, at_most=4000)
            except ValueError:
                continue

    @pytest.mark.parametrize(
        "head", [b"\x1c" * 60, b"\x15" + b"\xff" * 20, b"\x18\xff\xff\xff\x7f", b"\x1d" * 9]
    )
    def test_headers_that_are_none(self, head):
        column, data = self.column()
        at = column.data_page_offset
        data[at : at + len(head)] = head
        with pytest.raises(ValueError, match=r"page header|number"):
            require_pages(column, memoryview(data), 0, at_most=4000)


class TestMoves:
    def plant(self, folder: Path, data: bytes, size: int | None = None) -> None:
        name = layout.moves("r1", bytes(8))
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        ref = ObjectRef(name=name, size=size or len(data), sha256=hashlib.sha256(data).hexdigest())
        source = f"runs/r1/packs/{'cd' * 16}.pack"
        body = RelocateEntry(table=ref, packs=(source,), reason="x")
        entry(folder, body.model_dump(mode="json"), run="r9")

    def table(self, folder: Path, rows: list[tuple[int, ...]], **changes: object) -> bytes:
        about = MovesDescription(
            media=Media.open(str(folder)).id,
            run="r9",
            sources=(f"runs/r1/packs/{'cd' * 16}.pack",),
            packs=(PackRef(name=f"runs/r9/packs/{'ef' * 16}.pack", size=1000, sha256="0" * 64),),
        ).model_copy(update=changes)
        sink, schema = io.BytesIO(), parquet.schema_of(MOVE)
        with parquet.writer(sink, schema) as writer:
            writer.write_table(parquet.to_arrow(np.array(rows, MOVE), schema))
            writer.add_key_value_metadata({MOVES_KEY: about.model_dump_json().encode()})
        return sink.getvalue()

    @pytest.fixture
    def moved(self, folder, tmp_path) -> Path:
        """Media with a point whose pack is the source of the moves that the tests plant."""
        media = Media(FolderStore(folder), write=True, random=_numbered(0xCD))
        back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
        assert f"runs/r1/packs/{'cd' * 16}.pack" in objects(folder)
        return folder

    @pytest.mark.parametrize(
        "row",
        [
            pytest.param((1, 64, 0, 64, 100), id="a source that is none"),
            pytest.param((-1, 64, 0, 64, 100), id="a negative source"),
            pytest.param((0, 64, 1, 64, 100), id="a pack that is not named"),
            pytest.param((0, 64, -1, 64, 100), id="a negative pack"),
            pytest.param((0, 64, 0, 63, 100), id="inside the header"),
            pytest.param((0, 64, 0, 900, 100), id="into the footer"),
            pytest.param((0, 64, 0, 2**32 - 1, 2**32 - 1), id="wrapping around"),
            pytest.param((0, 64, 0, 64, 0), id="an empty frame"),
        ],
    )
    def test_rows_that_cannot_be(self, moved, row):
        self.plant(moved, self.table(moved, [row]))
        require_refused(moved)

    def test_the_same_place_twice(self, moved):
        self.plant(moved, self.table(moved, [(0, 64, 0, 64, 100), (0, 64, 0, 164, 100)]))
        require_refused(moved)

    @pytest.mark.parametrize("changes", [{"media": "f" * 32}, {"sources": ("media.json",)}, {"format": 2}])
    def test_descriptions_that_do_not_fit(self, moved, changes):
        self.plant(moved, self.table(moved, [(0, 64, 0, 64, 100)], **changes))
        require_refused(moved)

    def test_a_table_that_claims_gigabytes(self, moved):
        self.plant(moved, b"x", size=8 * GIB)
        require_refused(moved)


class TestFrames:
    def planted(self, folder: Path, tmp_path: Path, stored: bytes, raw: bytes) -> None:
        """A point whose only extent is this frame, with a fingerprint that is right for `raw`."""
        media = Media(FolderStore(folder), write=True, random=_numbered(0xCD))
        back_up(media, {0: text(0)}, run="r1", scratch=tmp_path)
        path = folder / f"runs/r1/packs/{'cd' * 16}.pack"
        data = bytearray(path.read_bytes())
        # The row of the index says how long the frame is; what it says of its contents is right.
        offset, length = struct.unpack_from("<II", data, struct.unpack_from("<Q", data, len(data) - 28)[0])
        assert len(stored) <= length
        data[offset : offset + length] = stored.ljust(length, b"\0")
        path.write_bytes(bytes(data))
        assert fingerprint(text(0)) == fingerprint(raw)

    @pytest.mark.parametrize(
        "stored",
        [
            pytest.param(b"\x28\xb5\x2f\xfd\xa0\xff\xff\xff\xff", id="contents of four gibibytes"),
            pytest.param(b"\x28\xb5\x2f\xfd\x60\x00\x0f", id="contents of an extent, none there"),
            pytest.param(b"\x28\xb5\x2f\xfd\x40\xf8\x00\x0f", id="a window of terabytes"),
            pytest.param(
                b"\x28\xb5\x2f\xfd\x60\x00\x0f" + (131_071 << 3 | 3).to_bytes(3, "little") + b"x",
                id="an extent by its head, 32 of them by its contents",
            ),
            pytest.param(b"\x50\x2a\x4d\x18\xff\xff\xff\xff", id="a frame to skip, of four gibibytes"),
        ],
    )
    def test_frames_that_promise_more(self, folder, tmp_path, stored):
        self.planted(folder, tmp_path, stored, text(0))
        require_refused(folder)


def _numbered(byte: int) -> Callable[[int], bytes]:
    """Not random at all: the first pack is called so, everything else is called otherwise."""
    made: list[int] = []

    def random(length: int) -> bytes:
        made.append(length)
        if length == 16 and made.count(16) == 1:
            return bytes([byte]) * 16
        return hashlib.shake_128(bytes([byte, *made[-3:]]) + len(made).to_bytes(4, "big")).digest(length)

    return random


def test_media_json_is_bounded(folder):
    (folder / "media.json").write_bytes(b" " * (17 * MIB))
    require_refused(folder)


def test_nothing_here_follows_links(folder, tmp_path):
    media = Media.open(str(folder), write=True)
    slot = back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
    (name,) = media.view().points[slot].point.disks[0].packs
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    require_refused(folder)
