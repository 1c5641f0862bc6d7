"""Page images with frozen versions and a history of acts, as a page blob and a disk have them.

A difference between two versions is what was *done* in between, not where the bytes differ: a page
rewritten with the same bytes is written, a page cleared is cleared even if it was never written
(REST "Get Page Ranges", `prevsnapshot`). Every image counts epochs, a freeze starts the next one, and
each page carries the epoch and kind of its last act; see `page_slots`.

Death of the process at any instruction leaves a consistent store: data before the map that shows it,
marks before the data they announce, the new epoch before the version that ends the old one.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from azsim.documents import Documents
from azsim.page_maps import CHUNK, Entries, SegmentMap
from azsim.page_ranges import (
    CLEARED,
    WRITTEN,
    Acts,
    GenerationMismatch,
    NotSameImage,
    OlderIsNewer,
    PageError,
    Range,
    UnknownImage,
    joined,
    runs_of,
)
from azsim.page_slots import PAGE, PAGES_PER_SEGMENT, SEGMENT, SlotPool, as_slots

__all__ = [
    "PAGE",
    "GenerationMismatch",
    "NotSameImage",
    "OlderIsNewer",
    "PageError",
    "PageStore",
    "Range",
    "UnknownImage",
]

_KIND = "pages"
_COUNTER = "pages-counter"
_ZEROS = bytes(SEGMENT)
_CHUNK_PAGES = CHUNK * PAGES_PER_SEGMENT


@dataclass(frozen=True, slots=True)
class _Ref:
    """An image or a frozen version of one; `map` names the file under maps/."""

    id: str
    image: str
    frozen: bool
    size: int
    epoch: int
    generation: int
    map: str


class PageStore:
    """All page images, their frozen versions and their write history, in one folder.

    Thread-safe; one process at a time. Sizes and offsets are bytes. Survives SIGKILL.
    """

    def __init__(self, folder: Path, documents: Documents) -> None:
        self._documents = documents
        self._lock = threading.RLock()
        self._maps_folder = folder / "maps"
        self._maps_folder.mkdir(parents=True, exist_ok=True)
        self._pool = SlotPool(folder)
        self._refs: dict[str, _Ref] = {}
        self._maps: dict[str, SegmentMap] = {}
        self._load()

    def create(self, size: int) -> str:
        """A new image of `size` bytes, a multiple of 512, with no page allocated."""
        _check_aligned("size", size)
        with self._lock:
            name = self._next_id()
            empty = SegmentMap(self._maps_folder / name)
            empty.flush()
            self._add(_Ref(name, name, frozen=False, size=size, epoch=1, generation=1, map=name), empty)
            return name

    def size(self, ref: str) -> int:
        with self._lock:
            return self._ref(ref).size

    def write(self, image: str, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write whole pages. The pages count as written even if their bytes do not change."""
        with self._lock:
            target = self._image(image)
            _check_inside(target, offset, len(data))
            self._put(target, offset, memoryview(data), mark=2 * target.epoch + 1)

    def clear(self, image: str, offset: int, length: int) -> None:
        """Deallocate whole pages. A cleared segment costs 8 bytes, also where nothing was written."""
        with self._lock:
            target = self._image(image)
            _check_inside(target, offset, length)
            self._clear(target, offset, offset + length, touched_only=False)

    def resize(self, image: str, size: int) -> None:
        """Grow with unallocated pages, or shrink; what is cut off counts as cleared if it ever returns."""
        _check_aligned("size", size)
        with self._lock:
            target = self._image(image)
            if size < target.size:
                self._clear(target, size, target.size, touched_only=True)
            self._save(dataclasses.replace(target, size=size))

    def freeze(self, image: str) -> str:
        """A version of the image as it is now, sharing its data until one of them is written."""
        with self._lock:
            target = self._image(image)
            # The next epoch is durable before the version: otherwise a death in between would let
            # later writes carry the version's own epoch, and no difference would ever show them.
            self._save(dataclasses.replace(target, epoch=target.epoch + 1))
            name = self._next_id()
            self._add_sharing(dataclasses.replace(target, id=name, frozen=True, map=name), target)
            return name

    def copy(self, ref: str) -> str:
        """A new image with the same bytes and allocated pages, sharing data, with no history."""
        with self._lock:
            source = self._ref(ref)
            name = self._next_id()
            # The source's epoch is not less than any mark that comes along: no later difference reports them.
            epoch = source.epoch
            copied = _Ref(name, name, frozen=False, size=source.size, epoch=epoch, generation=1, map=name)
            self._add_sharing(copied, source)
            return name

    def overwrite(self, image: str, ref: str) -> None:
        """Give the image the bytes, size and allocated pages of `ref`; older versions cannot be compared."""
        with self._lock:
            target, source = self._image(image), self._ref(ref)
            entries = self._maps[ref].copy_to(self._maps_folder / self._next_id())
            epoch = max(target.epoch, source.epoch) + 1
            self._replace_content(target, entries, size=source.size, epoch=epoch)

    def reset(self, image: str, size: int) -> None:
        """Make the image empty and of this size; older versions cannot be compared."""
        _check_aligned("size", size)
        with self._lock:
            target = self._image(image)
            empty = SegmentMap(self._maps_folder / self._next_id())
            empty.flush()
            self._replace_content(target, empty, size=size, epoch=target.epoch + 1)

    def delete(self, ref: str) -> None:
        """Forget an image or a version. Versions outlive their image; shared data outlives both."""
        with self._lock:
            gone = self._ref(ref)
            self._documents.delete(_KIND, ref)
            del self._refs[ref]
            self._drop_map(self._maps.pop(gone.id))

    def read(self, ref: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes, at any alignment; bytes never written are zeros."""
        with self._lock:
            source = self._ref(ref)
            if offset < 0 or length < 0 or offset + length > source.size:
                raise PageError(f"{ref} has {source.size} bytes, asked for {length} at {offset}")
            first, last = offset // SEGMENT, -(-(offset + length) // SEGMENT)
            return self._gather(self._maps[ref].entries(first, last), offset - first * SEGMENT, length)

    def ranges(self, ref: str, start: int, end: int) -> Iterator[Range]:
        """Allocated pages that overlap [start, end), as maximal ranges in offset order."""
        with self._lock:
            end = min(end, self._ref(ref).size)
        return (found for found in self._runs(ref, start, end, since=0) if not found.cleared)

    def diff(self, older_version: str, newer_ref: str, start: int, end: int) -> Iterator[Range]:
        """Pages of `newer_ref` written or cleared after `older_version`, maximal and in offset order.

        Raises NotSameImage, GenerationMismatch or OlderIsNewer at the call, not at the first range.
        """
        with self._lock:
            older, newer = self._ref(older_version), self._ref(newer_ref)
            _check_comparable(older, newer)
            return self._runs(newer_ref, start, min(end, newer.size), since=older.epoch)

    def close(self) -> None:
        with self._lock:
            self._pool.close()

    def _load(self) -> None:
        for _, body in self._documents.items(_KIND):
            ref = _Ref(**body)
            self._refs[ref.id] = ref
            self._maps[ref.id] = SegmentMap.load(self._maps_folder / ref.map)
            self._pool.retain(self._maps[ref.id].slots())
        self._pool.find_free()
        named = {ref.map for ref in self._refs.values()}
        for path in self._maps_folder.iterdir():
            if path.name not in named:
                path.unlink()

    def _ref(self, ref: str) -> _Ref:
        try:
            return self._refs[ref]
        except KeyError:
            raise UnknownImage(f"no image or version {ref!r}") from None

    def _image(self, image: str) -> _Ref:
        ref = self._ref(image)
        if ref.frozen:
            raise PageError(f"{image} is a frozen version of {ref.image}; only images change")
        return ref

    def _next_id(self) -> str:
        number = (self._documents.get(_COUNTER, "next") or {"number": 1})["number"]
        self._documents.put(_COUNTER, "next", {"number": number + 1})
        return f"p{number:08d}"

    def _save(self, ref: _Ref) -> None:
        body: dict[str, Any] = dataclasses.asdict(ref)
        self._documents.put(_KIND, ref.id, body)
        self._refs[ref.id] = ref

    def _add(self, ref: _Ref, entries: SegmentMap) -> None:
        self._pool.retain(entries.slots())
        self._maps[ref.id] = entries
        self._save(ref)

    def _add_sharing(self, ref: _Ref, source: _Ref) -> None:
        self._add(ref, self._maps[source.id].copy_to(self._maps_folder / ref.map))

    def _replace_content(self, target: _Ref, entries: SegmentMap, *, size: int, epoch: int) -> None:
        before = self._maps[target.id]
        generation = target.generation + 1
        self._add(
            dataclasses.replace(target, size=size, epoch=epoch, generation=generation, map=entries.path.name),
            entries,
        )
        self._drop_map(before)

    def _drop_map(self, entries: SegmentMap) -> None:
        entries.path.unlink()
        self._pool.release(entries.slots())

    def _put(self, target: _Ref, offset: int, data: memoryview, *, mark: int) -> None:
        entries = self._maps[target.id]
        replaced = []
        for segment, start, stop in _parts(offset, offset + len(data)):
            piece, data = data[: stop - start], data[stop - start :]
            before = entries[segment]
            after = self._put_part(before, start, piece, mark)
            if after != before:
                entries[segment] = after
                replaced.append(before)
        entries.flush()
        self._pool.release(as_slots(slot for slot in replaced if slot > 0))

    def _put_part(self, entry: int, start: int, piece: memoryview, mark: int) -> int:
        """Store part of one segment and mark its pages; returns the segment's entry from now on."""
        pages = slice(start // PAGE, (start + len(piece)) // PAGE)
        if entry > 0 and not self._pool.is_shared(entry):
            # A mark without its data is harmless, data without its mark is a change nobody sees.
            self._pool.marks[entry, pages] = mark
            self._pool.write(entry, start, piece)
            return entry
        slot = self._pool.take()
        self._pool.marks[slot] = self._pool.marks[entry] if entry > 0 else -2 * entry
        self._pool.marks[slot, pages] = mark
        self._pool.write(slot, 0, self._whole_segment(entry, start, piece))
        return slot

    def _whole_segment(self, entry: int, start: int, piece: memoryview) -> bytearray | memoryview:
        if len(piece) == SEGMENT:
            return piece
        content = bytearray(self._pool.read(entry, 0, SEGMENT) if entry > 0 else _ZEROS)
        content[start : start + len(piece)] = piece
        return content

    def _clear(self, target: _Ref, start: int, end: int, *, touched_only: bool) -> None:
        entries = self._maps[target.id]
        first, last = -(-start // SEGMENT), end // SEGMENT
        edges = [(start, end)] if first > last else [(start, first * SEGMENT), (last * SEGMENT, end)]
        for begin, stop in edges:
            if begin < stop and not (touched_only and entries[begin // SEGMENT] == 0):
                self._put(target, begin, memoryview(_ZEROS)[: stop - begin], mark=2 * target.epoch)
        freed = entries.fill(first, max(first, last), -target.epoch, touched_only=touched_only)
        entries.flush()
        self._pool.release(freed)

    def _gather(self, entries: Entries, start: int, length: int) -> bytes:
        """Bytes [start, start + length) of the segments with these entries, zeros where there is no slot."""
        breaks = np.flatnonzero((np.diff(entries) != 1) | (entries[:-1] <= 0)) + 1
        if len(entries) and len(breaks) == 0 and entries[0] > 0:
            return self._pool.read(int(entries[0]), start, length)
        content = bytearray(length)
        view = memoryview(content)
        for first, last in zip([0, *breaks.tolist()], [*breaks.tolist(), len(entries)], strict=True):
            if last > first and entries[first] > 0:
                begin, stop = max(first * SEGMENT, start), min(last * SEGMENT, start + length)
                self._pool.read_into(
                    int(entries[first]), begin - first * SEGMENT, view[begin - start : stop - start]
                )
        return bytes(content)

    def _runs(self, ref: str, start: int, end: int, *, since: int) -> Iterator[Range]:
        """Runs of pages in [start, end) whose last act is later than epoch `since`."""
        acts = self._acts_by_chunk(ref, start // PAGE, -(-end // PAGE), since)
        return joined(found for first_page, part in acts for found in runs_of(part, first_page))

    def _acts_by_chunk(self, ref: str, first: int, last: int, since: int) -> Iterator[tuple[int, Acts]]:
        """The acts after `since` on pages [first, last), one array for each touched chunk of the map."""
        with self._lock:
            self._ref(ref)
            chunks = self._maps[ref].touched_chunks(first // PAGES_PER_SEGMENT, -(-last // PAGES_PER_SEGMENT))
        for number in chunks:
            base = number * _CHUNK_PAGES
            with self._lock:
                self._ref(ref)
                acts = self._acts(self._maps[ref].entries(number * CHUNK, (number + 1) * CHUNK), since)
            begin = max(first, base)
            yield begin, acts[begin - base : last - base]

    def _acts(self, entries: Entries, since: int) -> Acts:
        """For each page of these segments: 0, written, or cleared after epoch `since`."""
        acts = np.zeros((len(entries), PAGES_PER_SEGMENT), np.uint8)
        held = entries > 0
        marks = self._pool.marks[entries[held]]
        acts[held] = np.where(marks > 2 * since + 1, np.where(marks & 1, WRITTEN, CLEARED), 0)
        acts[-entries > since] = CLEARED
        return acts.reshape(-1)


def _parts(start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Cut [start, end) at segment borders: (segment, start and end within it)."""
    while start < end:
        segment = start // SEGMENT
        stop = min(end, (segment + 1) * SEGMENT)
        yield segment, start - segment * SEGMENT, stop - segment * SEGMENT
        start = stop


def _check_comparable(older: _Ref, newer: _Ref) -> None:
    if older.image != newer.image:
        raise NotSameImage(f"{older.id} is of image {older.image}, {newer.id} of image {newer.image}")
    if older.generation != newer.generation:
        raise GenerationMismatch(f"image {newer.image} was overwritten between {older.id} and {newer.id}")
    if not older.frozen or older.epoch > newer.epoch:
        raise OlderIsNewer(f"{older.id} is not older than {newer.id}")


def _check_aligned(what: str, value: int) -> None:
    if value < 0 or value % PAGE:
        raise PageError(f"{what} must be a multiple of {PAGE} bytes, got {value}")


def _check_inside(target: _Ref, offset: int, length: int) -> None:
    _check_aligned("offset", offset)
    _check_aligned("length", length)
    if offset + length > target.size:
        raise PageError(f"image {target.id} has {target.size} bytes, asked for {length} at {offset}")
