"""The page store against a plain model: bytes, and for each page when and how it was last acted on."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from azsim.documents import Documents
from azsim.image_files import load_image_file
from azsim.page_maps import CHUNK
from azsim.page_slots import SEGMENT
from azsim.pages import (
    PAGE,
    GenerationMismatch,
    NotSameImage,
    OlderIsNewer,
    PageError,
    PageStore,
    Range,
    UnknownImage,
)

_MOST_PAGES = 3 * SEGMENT // PAGE + 20
_page_counts = st.integers(1, _MOST_PAGES)
_spans = st.tuples(st.integers(0, _MOST_PAGES), st.integers(1, _MOST_PAGES))
_MOST_IMAGES, _MOST_VERSIONS = 2, 3
WRITTEN, CLEARED, PERHAPS_CLEARED = "written", "cleared", "perhaps cleared"


@dataclass
class Model:
    """An image or version: bytes, and (time, act) of each page acted on."""

    image: str
    generation: int
    data: bytearray
    acts: dict[int, tuple[int, str]] = field(default_factory=dict)
    frozen_at: int | None = None

    def act(self, time: int, act: str, first: int, content: bytes) -> None:
        self.data[first * PAGE : first * PAGE + len(content)] = content
        for page in range(first, first + len(content) // PAGE):
            self.acts[page] = (time, act)

    def resize(self, time: int, pages: int) -> None:
        cut_off = range(pages, len(self.data) // PAGE)
        self.data = self.data[: pages * PAGE].ljust(pages * PAGE, b"\0")
        for page in cut_off:
            _, before = self.acts.get(page, (0, PERHAPS_CLEARED))
            self.acts[page] = (time, PERHAPS_CLEARED if before == PERHAPS_CLEARED else CLEARED)

    def clip(self, span: tuple[int, int]) -> tuple[int, int]:
        """First page and count of the part of a span that exists."""
        first = min(span[0], len(self.data) // PAGE)
        return first, min(span[1], len(self.data) // PAGE - first)

    def after(self, time: int) -> dict[int, str]:
        """What happened to each page, that still exists, after a time."""
        pages = len(self.data) // PAGE
        return {page: act for page, (at, act) in self.acts.items() if at > time and page < pages}


class PageStoreMachine(RuleBasedStateMachine):
    """Random histories of images, versions, copies and restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.models: dict[str, Model] = {}
        self.time = 0
        self.start()

    def start(self) -> None:
        self.documents = Documents(self.folder / "documents.db")
        self.store = PageStore(self.folder / "pages", self.documents)

    def stop(self) -> None:
        self.store.close()
        self.documents.close()

    def teardown(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def tick(self) -> int:
        self.time += 1
        return self.time

    def refs(self, *, frozen: bool) -> list[str]:
        return [ref for ref, model in self.models.items() if (model.frozen_at is not None) == frozen]

    def pick(self, data: st.DataObject, refs: list[str]) -> str:
        return data.draw(st.sampled_from(refs))

    @initialize(pages=_page_counts)
    def create(self, pages: int) -> None:
        image = self.store.create(pages * PAGE)
        self.models[image] = Model(image, 0, bytearray(pages * PAGE))

    @rule(data=st.data(), span=_spans, byte=st.integers(0, 255))
    def write(self, data: st.DataObject, span: tuple[int, int], byte: int) -> None:
        image = self.pick(data, self.refs(frozen=False))
        first, count = self.models[image].clip(span)
        content = bytes([byte]) * (count * PAGE)
        self.store.write(image, first * PAGE, content)
        self.models[image].act(self.tick(), WRITTEN, first, content)

    @rule(data=st.data(), span=_spans)
    def write_again(self, data: st.DataObject, span: tuple[int, int]) -> None:
        self.write(data, span, 1)

    @rule(data=st.data(), span=_spans)
    def clear(self, data: st.DataObject, span: tuple[int, int]) -> None:
        image = self.pick(data, self.refs(frozen=False))
        first, count = self.models[image].clip(span)
        self.store.clear(image, first * PAGE, count * PAGE)
        self.models[image].act(self.tick(), CLEARED, first, bytes(count * PAGE))

    @rule(data=st.data())
    def clear_everything(self, data: st.DataObject) -> None:
        self.clear(data, (0, _MOST_PAGES))

    @precondition(lambda self: len(self.refs(frozen=True)) < _MOST_VERSIONS)
    @rule(data=st.data())
    def freeze(self, data: st.DataObject) -> None:
        image = self.pick(data, self.refs(frozen=False))
        model = self.models[image]
        version = self.store.freeze(image)
        self.models[version] = Model(
            image, model.generation, bytearray(model.data), dict(model.acts), self.tick()
        )

    @rule(data=st.data(), pages=_page_counts)
    def resize(self, data: st.DataObject, pages: int) -> None:
        image = self.pick(data, self.refs(frozen=False))
        self.store.resize(image, pages * PAGE)
        self.models[image].resize(self.tick(), pages)

    @precondition(lambda self: len(self.refs(frozen=False)) < _MOST_IMAGES)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        source = self.models[ref := self.pick(data, list(self.models))]
        image = self.store.copy(ref)
        self.models[image] = Model(image, 0, bytearray(source.data), dict(source.acts))

    @rule(data=st.data())
    def overwrite(self, data: st.DataObject) -> None:
        source = self.models[ref := self.pick(data, list(self.models))]
        image = self.pick(data, self.refs(frozen=False))
        self.store.overwrite(image, ref)
        generation = self.models[image].generation + 1
        self.models[image] = Model(image, generation, bytearray(source.data), dict(source.acts))

    @rule(data=st.data(), pages=_page_counts)
    def reset(self, data: st.DataObject, pages: int) -> None:
        image = self.pick(data, self.refs(frozen=False))
        self.store.reset(image, pages * PAGE)
        self.models[image] = Model(image, self.models[image].generation + 1, bytearray(pages * PAGE))

    @precondition(lambda self: self.refs(frozen=True) or len(self.models) > 1)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        images = self.refs(frozen=False)
        ref = self.pick(data, self.refs(frozen=True) + images[: len(images) - 1])
        self.store.delete(ref)
        del self.models[ref]
        with pytest.raises(UnknownImage):
            self.store.size(ref)

    @precondition(lambda self: self.time % 3 == 0)
    @rule()
    def restart(self) -> None:
        self.stop()
        self.start()

    @invariant()
    def every_byte_and_allocation_is_as_modelled(self) -> None:
        for ref, model in self.models.items():
            assert self.store.size(ref) == len(model.data)
            assert self.store.read(ref, 0, len(model.data)) == model.data
            start, end = _middle(model)
            assert self.store.read(ref, start, end - start) == model.data[start:end]
            found = list(self.store.ranges(ref, 0, len(model.data)))
            _check_ranges(found, {p: act for p, act in model.after(-1).items() if act == WRITTEN})
            _check_clipped(found, self.store.ranges(ref, start, end), start, end)

    @invariant()
    def every_version_differs_from_every_ref_as_modelled(self) -> None:
        for older_ref in self.refs(frozen=True):
            for newer_ref, newer in self.models.items():
                self.compare(older_ref, newer_ref, self.models[older_ref], newer)

    def compare(self, older_ref: str, newer_ref: str, older: Model, newer: Model) -> None:
        if refusal := _refusal(older, newer):
            with pytest.raises(refusal):
                self.store.diff(older_ref, newer_ref, 0, len(newer.data))
            return
        assert older.frozen_at is not None
        found = list(self.store.diff(older_ref, newer_ref, 0, len(newer.data)))
        _check_ranges(found, newer.after(older.frozen_at))
        _check_clipped(found, self.store.diff(older_ref, newer_ref, *_middle(newer)), *_middle(newer))


def _refusal(older: Model, newer: Model) -> type[PageError] | None:
    if older.image != newer.image:
        return NotSameImage
    if older.generation != newer.generation:
        return GenerationMismatch
    assert older.frozen_at is not None
    is_newer = newer.frozen_at is not None and older.frozen_at > newer.frozen_at
    return OlderIsNewer if is_newer else None


def _middle(model: Model) -> tuple[int, int]:
    pages = len(model.data) // PAGE
    return pages // 3 * PAGE, (pages - pages // 4) * PAGE


def _check_ranges(found: list[Range], expected: dict[int, str]) -> None:
    for one, following in itertools.pairwise(found):
        assert one.end < following.start or (one.end == following.start and one.cleared != following.cleared)
    acts = {
        page: CLEARED if one.cleared else WRITTEN
        for one in found
        for page in range(one.start // PAGE, one.end // PAGE)
    }
    unsure = {page for page, act in expected.items() if act == PERHAPS_CLEARED}
    assert all(acts.get(page, CLEARED) == CLEARED for page in unsure)
    assert {p: a for p, a in acts.items() if p not in unsure} == {
        p: a for p, a in expected.items() if p not in unsure
    }


def _check_clipped(whole: list[Range], part: Iterable[Range], start: int, end: int) -> None:
    clipped = [
        Range(max(one.start, start), min(one.end, end), one.cleared)
        for one in whole
        if one.start < end and one.end > start
    ]
    assert list(part) == clipped


TestPageStore = PageStoreMachine.TestCase
TestPageStore.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture
def store(tmp_path: Path) -> PageStore:
    return PageStore(tmp_path / "pages", Documents(tmp_path / "documents.db"))


def test_the_same_bytes_written_again_are_a_change(store: PageStore) -> None:
    image = store.create(1 << 20)
    store.write(image, 0, b"a" * PAGE)
    version = store.freeze(image)
    store.write(image, 0, b"a" * PAGE)
    assert list(store.diff(version, image, 0, 1 << 20)) == [Range(0, PAGE)]


def test_a_page_never_written_but_cleared_is_reported_as_cleared(store: PageStore) -> None:
    image = store.create(1 << 20)
    version = store.freeze(image)
    store.clear(image, 3 * PAGE, PAGE)
    assert list(store.diff(version, image, 0, 1 << 20)) == [Range(3 * PAGE, 4 * PAGE, cleared=True)]


def test_a_page_written_into_a_cleared_segment_leaves_the_rest_cleared(store: PageStore) -> None:
    image = store.create(2 * SEGMENT)
    version = store.freeze(image)
    store.clear(image, 0, 2 * SEGMENT)
    store.write(image, PAGE, b"a" * PAGE)
    assert list(store.diff(version, image, 0, 2 * SEGMENT)) == [
        Range(0, PAGE, cleared=True),
        Range(PAGE, 2 * PAGE),
        Range(2 * PAGE, 2 * SEGMENT, cleared=True),
    ]


def test_ranges_run_on_over_the_border_of_two_map_chunks(store: PageStore) -> None:
    border = CHUNK * SEGMENT
    image = store.create(2 * border)
    store.write(image, border - PAGE, bytes(2 * PAGE))
    assert list(store.ranges(image, 0, 2 * border)) == [Range(border - PAGE, border + PAGE)]


def test_an_eight_tebibyte_image_costs_what_is_written_to_it(store: PageStore, tmp_path: Path) -> None:
    size = 8 << 40
    image = store.create(size)
    store.write(image, size - PAGE, b"z" * PAGE)
    version = store.freeze(image)
    assert list(store.ranges(version, 0, size)) == [Range(size - PAGE, size)]
    used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "pages").rglob("*") if path.is_file())
    assert used < 1 << 20


def test_a_version_refuses_to_change(store: PageStore) -> None:
    version = store.freeze(store.create(PAGE))
    with pytest.raises(PageError, match="frozen version"):
        store.write(version, 0, bytes(PAGE))


@pytest.mark.parametrize(("offset", "length"), [(0, 100), (7, PAGE), (0, 3 * PAGE), (2 * PAGE, PAGE)])
def test_a_write_off_the_pages_or_beyond_the_end_changes_nothing(
    store: PageStore, offset: int, length: int
) -> None:
    image = store.create(2 * PAGE)
    with pytest.raises(PageError):
        store.write(image, offset, bytes(length))
    assert list(store.ranges(image, 0, 2 * PAGE)) == []


def test_an_image_file_is_loaded_without_its_holes_and_zeros(store: PageStore, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(64 * SEGMENT + 700)
        file.seek(2 * SEGMENT)
        file.write(bytes(2 * SEGMENT) + b"data")
        file.seek(64 * SEGMENT)
        file.write(b"x" * 700)
    image = store.create(64 * SEGMENT + 1024)
    written = load_image_file(store, image, path)
    tail = 64 * SEGMENT
    assert list(store.ranges(image, 0, tail + 1024)) == [
        Range(4 * SEGMENT, 5 * SEGMENT),
        Range(tail, tail + 1024),
    ]
    assert written == SEGMENT + 1024
    assert store.read(image, 0, tail + 1024) == path.read_bytes().ljust(tail + 1024, b"\0")


def test_writers_in_many_threads_lose_nothing_while_versions_are_taken(store: PageStore) -> None:
    image = store.create(4 * 64 * PAGE)
    first = store.freeze(image)

    def write_every_fourth(start: int) -> None:
        for page in range(start, 4 * 64, 4):
            store.write(image, page * PAGE, bytes([page]) * PAGE)

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write_every_fourth, start) for start in range(4)]
        versions = [store.freeze(image) for _ in range(10)]
        for writer in writers:
            writer.result()
    assert store.read(image, 0, 4 * 64 * PAGE) == b"".join(bytes([p]) * PAGE for p in range(4 * 64))
    assert list(store.diff(first, image, 0, 4 * 64 * PAGE)) == [Range(0, 4 * 64 * PAGE)]
    for version in versions:
        allocated = _pages_in(store.ranges(version, 0, 4 * 64 * PAGE))
        later = _pages_in(store.diff(version, image, 0, 4 * 64 * PAGE))
        assert allocated | later == set(range(4 * 64))
        assert not allocated & later


def _pages_in(ranges: Iterable[Range]) -> set[int]:
    return {page for found in ranges for page in range(found.start // PAGE, found.end // PAGE)}
