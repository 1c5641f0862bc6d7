"""Images that are measured on: the same every time, and different exactly where they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import image
from bench.image import Images, make_images
from demo.ext4 import BLOCK, TOOLS, find_tool
from vsa.ranges import MIB

pytestmark = [
    pytest.mark.tools,
    pytest.mark.skipif(any(find_tool(tool) is None for tool in TOOLS), reason="needs e2fsprogs"),
]
SIZE_MIB = 24


def quiet(_text: str) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return make_images(tmp_path_factory.mktemp("images"), SIZE_MIB, say=quiet)


def differing_blocks(one: Path, other: Path) -> set[int]:
    first, second = one.read_bytes(), other.read_bytes()
    return {
        at // BLOCK for at in range(0, len(first), BLOCK) if first[at : at + BLOCK] != second[at : at + BLOCK]
    }


def test_the_same_seed_makes_the_same_bytes_and_another_one_others(images: Images, tmp_path: Path) -> None:
    again = make_images(tmp_path / "again", SIZE_MIB, say=quiet)
    other = make_images(tmp_path / "other", SIZE_MIB, seed=image.SEED + 1, say=quiet)
    assert again.first.sha256 == images.first.sha256 != other.first.sha256
    assert [version.sha256 for version in again.changed.values()] == [
        version.sha256 for version in images.changed.values()
    ]


def test_versions_differ_where_they_say_and_by_as_much_as_their_name(images: Images) -> None:
    for percent, version in images.changed.items():
        said = {block for item in version.changed for block in range(item.offset // BLOCK, item.end // BLOCK)}
        assert differing_blocks(images.first.path, version.path) == said
        wanted = images.size * float(percent) / 100
        assert wanted <= version.changed_bytes <= wanted + image._RUNS[0] * 4
        assert version.path.stat().st_size == images.size


def test_images_that_are_there_are_taken_and_others_are_made_anew(images: Images) -> None:
    folder = images.first.path.parent
    before = images.first.path.stat().st_mtime_ns
    assert make_images(folder, SIZE_MIB, say=quiet) == images
    assert images.first.path.stat().st_mtime_ns == before
    try:
        assert make_images(folder, SIZE_MIB + 8, say=quiet).size == (SIZE_MIB + 8) * MIB
        assert make_images(folder, SIZE_MIB, seed=1, say=quiet).first.sha256 != images.first.sha256
    finally:
        assert make_images(folder, SIZE_MIB, say=quiet) == images
