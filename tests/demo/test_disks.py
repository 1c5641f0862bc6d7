"""Disk images of the demo: built, changed, cleared, grown and checked with the real file system tools."""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from demo.disks import (
    ChangeSummary,
    DiskChanges,
    DiskKind,
    DiskRecipe,
    FileWork,
    PageWork,
    ToolFailed,
    Verdict,
    allocated_bytes,
    build_disk,
    change_disk,
    check_disk,
    clear_range,
    grow_disk,
    missing_tools,
    sha256_of,
)
from demo.ext4 import Ext4
from demo.images import block_digests, create_image, data_ranges, differences
from demo.pagefile import PAGE
from demo.partitions import PARTITION_START, find_filesystem
from demo.sources import FILE_SIZES, Root, SourceFile, choose, list_sources, machine_roots
from vsa.ranges import KIB, MIB, ByteRange, total

SIZE, CONTENT = 48 * MIB, 16 * MIB
SECOND_DAY = dt.datetime(2025, 1, 2, tzinfo=dt.UTC)

needs_e2fsprogs = [
    pytest.mark.tools,
    pytest.mark.skipif(bool(missing_tools()), reason=f"e2fsprogs lacks {', '.join(missing_tools())}"),
]
FILESYSTEMS = [
    pytest.param(kind, id=kind.name, marks=needs_e2fsprogs)
    for kind in (DiskKind.EXT4, DiskKind.GPT_EXT4, DiskKind.MBR_EXT4)
]
KINDS = [*FILESYSTEMS, pytest.param(DiskKind.PAGES, id="PAGES")]
PLAIN_EXT4 = FILESYSTEMS[:1]


@pytest.fixture(scope="module")
def sources() -> tuple[SourceFile, ...]:
    return list_sources(machine_roots(), 64 * MIB)


def recipe_for(kind: DiskKind, *, size: int = SIZE, content: int = CONTENT) -> DiskRecipe:
    return DiskRecipe(kind, size, content, seed=5)


def work_for(kind: DiskKind) -> FileWork | PageWork:
    if kind is DiskKind.PAGES:
        return PageWork(update=128 * KIB, drop=1 * MIB)
    return FileWork(add=320 * KIB, rewrite=320 * KIB, delete=320 * KIB, trim=True)


def changes_for(kind: DiskKind, grow_to: int | None = None) -> DiskChanges:
    return DiskChanges(work_for(kind), seed=9, moment=SECOND_DAY, grow_to=grow_to)


def filesystem_on(path: Path) -> Ext4:
    offset = find_filesystem(path)
    assert offset is not None
    return Ext4(path, offset, SECOND_DAY)


def guest_paths(path: Path, scratch: Path) -> set[str]:
    return {file.path for file in filesystem_on(path).files(scratch)}


def guest_content(path: Path, inside: str, scratch: Path) -> bytes:
    filesystem_on(path).read([f"dump {inside} {scratch / 'dumped'}"], scratch)
    return (scratch / "dumped").read_bytes()


def apply_blocks(summary: ChangeSummary, before: Path, after: Path) -> None:
    """Bring `before` to the state of `after` by nothing but the blocks that the summary names."""
    with before.open("r+b") as old, after.open("rb") as new:
        old.truncate(summary.size)
        for item in summary.written:
            new.seek(item.offset)
            old.seek(item.offset)
            old.write(new.read(item.length))
    for item in summary.cleared:
        clear_range(before, item.offset, item.length)


@pytest.mark.parametrize("kind", KINDS)
def test_a_built_disk_is_sound_sparse_and_holds_what_was_asked_for(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    assert check_disk(disk).verdict is Verdict.CLEAN
    assert disk.stat().st_size == SIZE
    assert 0.95 * CONTENT <= allocated_bytes(disk) <= 1.4 * CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_a_recipe_always_makes_the_same_bytes_and_another_seed_makes_others(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    recipe = recipe_for(kind, size=32 * MIB, content=8 * MIB)
    for name, built in (("a", recipe), ("b", recipe), ("c", replace(recipe, seed=6))):
        build_disk(built, tmp_path / name, sources)
    a, b, c = (sha256_of(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_the_file_system_holds_the_machines_real_files(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    recipe = recipe_for(kind)
    build_disk(recipe, disk, sources)
    chosen = choose(sources, recipe.content, recipe.seed)
    assert guest_paths(disk, tmp_path) == {f"/{source.target}" for source in chosen}
    for source in chosen[:: max(1, len(chosen) // 5)]:
        assert guest_content(disk, f"/{source.target}", tmp_path) == source.content()


@pytest.mark.parametrize("kind", PLAIN_EXT4)
def test_too_few_files_come_again_as_variants_that_are_no_duplicates(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    few = [source for source in sources if MIB <= source.size <= 2 * MIB][:4]
    disk = tmp_path / "disk.img"
    recipe = recipe_for(kind)
    chosen = choose(few, recipe.content, recipe.seed)
    assert chosen[-1].variant > 1
    assert len({source.content() for source in chosen}) == len(chosen)
    build_disk(recipe, disk, few)
    assert check_disk(disk).verdict is Verdict.CLEAN
    assert guest_content(disk, f"/{chosen[-1].target}", tmp_path) == chosen[-1].content()


@pytest.mark.parametrize("kind", KINDS)
def test_work_leaves_the_disk_sound_and_changes_a_small_part_that_the_summary_names_exactly(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk, before = tmp_path / "disk.img", tmp_path / "before.img"
    build_disk(recipe_for(kind), disk, sources)
    shutil.copy(disk, before)
    summary = change_disk(disk, changes_for(kind), sources)
    assert check_disk(disk).verdict is Verdict.CLEAN
    assert summary.written
    assert summary.cleared
    assert total((*summary.written, *summary.cleared)) < allocated_bytes(before) / 10
    assert sha256_of(before) != sha256_of(disk)
    apply_blocks(summary, before, disk)
    assert sha256_of(before) == sha256_of(disk)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_work_on_the_same_disk_gives_the_same_bytes(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    build_disk(recipe_for(kind, size=32 * MIB, content=12 * MIB), tmp_path / "a", sources)
    shutil.copy(tmp_path / "a", tmp_path / "b")
    summaries = [change_disk(tmp_path / name, changes_for(kind), sources) for name in "ab"]
    assert summaries[0] == summaries[1]
    assert sha256_of(tmp_path / "a") == sha256_of(tmp_path / "b")


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_files_are_added_rewritten_and_deleted_as_the_summary_says(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk, before = tmp_path / "disk.img", tmp_path / "before.img"
    build_disk(recipe_for(kind), disk, sources)
    shutil.copy(disk, before)
    files = change_disk(disk, changes_for(kind), sources).files
    assert all(files)
    had, has = guest_paths(before, tmp_path), guest_paths(disk, tmp_path)
    assert has - had == set(files.added)
    assert had - has == set(files.deleted)
    assert set(files.rewritten) <= had & has
    inside = files.rewritten[0]
    assert guest_content(before, inside, tmp_path) != guest_content(disk, inside, tmp_path)


@pytest.mark.parametrize("kind", PLAIN_EXT4)
def test_work_can_follow_work_for_days(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    for seed in range(4):
        change_disk(disk, replace(changes_for(kind), seed=seed), sources)
        assert check_disk(disk).verdict is Verdict.CLEAN


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_a_trim_clears_every_free_block(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    work = FileWork(delete=4 * MIB, trim=True)
    summary = change_disk(disk, DiskChanges(work, seed=1, moment=SECOND_DAY), sources)
    assert total(summary.cleared) > 2 * MIB
    free = filesystem_on(disk).free_ranges()
    data = data_ranges(disk)
    assert not [item for item in data for hole in free if item.offset < hole.end and hole.offset < item.end]


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_grows_and_stays_sound(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    summary = change_disk(disk, changes_for(kind, grow_to=2 * SIZE), sources)
    assert summary.size == disk.stat().st_size == 2 * SIZE
    assert check_disk(disk).verdict is Verdict.CLEAN
    with pytest.raises(ValueError, match="cannot shrink"):
        grow_disk(disk, SIZE, SECOND_DAY)


@pytest.mark.parametrize("kind", PLAIN_EXT4)
def test_a_file_system_without_a_table_fills_the_grown_disk(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    assert filesystem_on(disk).free_ranges()[-1].end == SIZE
    grow_disk(disk, 2 * SIZE, SECOND_DAY)
    assert filesystem_on(disk).free_ranges()[-1].end == 2 * SIZE


@pytest.mark.parametrize("kind", FILESYSTEMS)
def test_a_damaged_file_system_is_dirty(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    offset = filesystem_on(disk).offset
    with disk.open("r+b") as image:
        image.seek(offset + 4096)  # the group descriptors
        image.write(b"\xa5" * 64)
    result = check_disk(disk)
    assert result.verdict is Verdict.DIRTY
    assert result.detail


def test_a_damaged_page_is_dirty(sources: tuple[SourceFile, ...], tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(DiskKind.PAGES), disk, sources)
    number = data_ranges(disk)[-1].offset // PAGE + 3
    with disk.open("r+b") as image:
        image.seek(number * PAGE + 5000)
        flipped = image.read(1)[0] ^ 1
        image.seek(number * PAGE + 5000)
        image.write(bytes([flipped]))
    result = check_disk(disk)
    assert result.verdict is Verdict.DIRTY
    assert str(number) in result.detail


def test_a_disk_of_unknown_content_is_skipped_not_called_clean(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"\x11" * MIB)
    assert check_disk(tmp_path / "disk.img").verdict is Verdict.SKIPPED


def test_work_that_does_not_fit_the_disk_is_refused(sources: tuple[SourceFile, ...], tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(DiskKind.PAGES), disk, sources)
    digest = sha256_of(disk)
    with pytest.raises(ValueError, match="FileWork does not fit a disk that holds no ext file system"):
        change_disk(disk, changes_for(DiskKind.EXT4), sources)
    assert sha256_of(disk) == digest


@pytest.mark.parametrize("kind", PLAIN_EXT4)
def test_a_failed_command_speaks_with_the_tools_words(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    gone = [SourceFile(str(tmp_path / f"gone-{n}"), f"usr/gone-{n}", 64 * KIB) for n in range(16)]
    with pytest.raises(ToolFailed, match="No such file or directory"):
        build_disk(recipe_for(kind, content=MIB), tmp_path / "disk.img", gone)


@pytest.mark.parametrize("size", [0, 1, 4 * MIB, 9 * MIB + 5])
def test_the_digest_covers_holes_before_between_and_behind_the_data(size: int, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    create_image(disk, size)
    with disk.open("r+b") as image:
        for offset in range(MIB, size - 3 * MIB, 5 * MIB):
            image.seek(offset)
            image.write(b"data" * 10_000)
    assert sha256_of(disk) == hashlib.sha256(disk.read_bytes()).hexdigest()


def test_a_cleared_range_reads_as_zeros_and_occupies_nothing(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"\xff" * (4 * MIB))
    clear_range(disk, MIB, 2 * MIB)
    assert disk.read_bytes() == b"\xff" * MIB + bytes(2 * MIB) + b"\xff" * MIB
    assert data_ranges(disk) == (ByteRange(0, MIB), ByteRange(3 * MIB, 4 * MIB))
    assert allocated_bytes(disk) <= 2 * MIB + 64 * KIB
    with pytest.raises(ValueError, match="cannot clear"):
        clear_range(disk, 3 * MIB, 2 * MIB)


def test_differences_tell_written_blocks_from_cleared_ones(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"\xff" * MIB)
    before = block_digests(disk)
    assert differences(before, disk) == ((), ())
    clear_range(disk, 64 * KIB, 8 * KIB)
    with disk.open("r+b") as image:
        image.seek(128 * KIB + 1)
        image.write(b"\x00")
        image.seek(MIB)
        image.write(b"\x01" * 100)
    found = differences(before, disk)
    assert found.cleared == (ByteRange(64 * KIB, 72 * KIB),)
    assert found.written == (ByteRange(128 * KIB, 132 * KIB), ByteRange(MIB, MIB + 100))


def test_zeros_written_into_a_hole_are_no_difference(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    create_image(disk, MIB)
    before = block_digests(disk)
    with disk.open("r+b") as image:
        image.write(bytes(64 * KIB))
    assert differences(before, disk) == ((), ())


def partx(disk: Path) -> list[str]:
    """Scheme, first sector and number of sectors of the only partition, as util-linux reads them."""
    program = shutil.which("partx")
    if program is None:
        pytest.skip("partx of util-linux is absent")
    command = [program, "--raw", "--noheadings", "--output", "SCHEME,START,SECTORS", str(disk)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("kind", FILESYSTEMS[1:])
def test_other_tools_read_the_partition_table(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    scheme, end = ("gpt", SIZE - MIB) if kind is DiskKind.GPT_EXT4 else ("dos", SIZE)
    assert partx(disk) == [scheme, str(PARTITION_START // 512), str((end - PARTITION_START) // 512)]


@pytest.mark.parametrize("kind", FILESYSTEMS[1:2])
def test_the_gpt_survives_the_loss_of_its_first_copy(
    kind: DiskKind, sources: tuple[SourceFile, ...], tmp_path: Path
) -> None:
    disk = tmp_path / "disk.img"
    build_disk(recipe_for(kind), disk, sources)
    intact = partx(disk)
    clear_range(disk, 512, 33 * 512)
    assert partx(disk) == intact


@pytest.mark.parametrize(
    ("size", "content", "words"),
    [(16 * MIB, MIB, "at least 32"), (64 * MIB + 512, MIB, "whole MiB"), (64 * MIB, 60 * MIB, "70 %")],
)
def test_a_recipe_that_cannot_be_built_is_refused(size: int, content: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DiskRecipe(DiskKind.PAGES, size, content, seed=1)


def write_tree(folder: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * size)


def test_the_listing_takes_plain_files_once_in_a_fixed_order(tmp_path: Path) -> None:
    usual = FILE_SIZES.start
    write_tree(
        tmp_path,
        {
            "b/two": usual,
            "a/one": usual,
            "a/tiny": usual - 1,
            "a/with space": usual,
            "a/__pycache__/one.pyc": usual,
        },
    )
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "one")
    listed = list_sources([Root(tmp_path, "usr"), Root(tmp_path / "a", "again")])
    assert [(source.target, source.size) for source in listed] == [("usr/a/one", usual), ("usr/b/two", usual)]


def test_the_listing_shares_its_budget_between_roots(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"{root}/{number:03}": MIB for root in ("a", "b") for number in range(20)})
    listed = list_sources([Root(tmp_path / "a", "a"), Root(tmp_path / "b", "b")], 16 * MIB)
    assert [source.folder for source in listed] == ["a"] * 8 + ["b"] * 8


def test_a_choice_keeps_to_its_budget(sources: tuple[SourceFile, ...]) -> None:
    chosen = choose(sources, 10 * MIB, seed=3)
    assert 0.97 * 10 * MIB <= sum(source.size for source in chosen) <= 10 * MIB
    assert max(source.size for source in chosen) <= 10 * MIB / 4
    with pytest.raises(ValueError, match="small enough"):
        choose(sources, 4 * KIB, seed=3)
