"""Open files run out in the middle of a backup or of upkeep. (F64)

As with a full disk: the work is refused with advice, what was committed stays whole, and the same work
succeeds once there are files enough.
"""

from __future__ import annotations

import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path

import pytest

from tests.faults.small_media import Contents, forget_points, grow, grown_media, prune, require_all_points
from tests.media.making import a_disk, noise, temporaries
from vsa.errors import MediaUnusable
from vsa.media.media import Media

CHANGES = {at: noise(("few files", at)) for at in range(4)}
OPEN = Path("/proc/self/fd")

pytestmark = pytest.mark.skipif(not OPEN.exists(), reason="counts open files where Linux tells them")


@contextmanager
def only(files: int) -> Iterator[None]:
    """This process may open so many files beside those that it has, whose numbers may have gaps."""
    taken = {int(file.name) for file in OPEN.iterdir() if file.is_symlink()}
    free = (number for number in count() if number not in taken)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, files, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def opened(folder: Path) -> list[str]:
    """What of the folder is open."""
    found = [str(file.readlink()) for file in OPEN.iterdir() if file.is_symlink()]
    return sorted(path for path in found if path.startswith(str(folder)))


def work(media: Media, scratch: Path, run: str) -> None:
    scratch.mkdir()
    parent = max(slot for slot, made in media.view().points.items() if made.disks == (a_disk().key,))
    grow(media, run, a_disk(), CHANGES, scratch=scratch, parent=parent)
    forget_points(media, 0, 1)
    prune(media)


def refused(folder: Path, scratch: Path, files: int) -> bool:
    """Whether so few files are too few for the work."""
    media = Media.open(str(folder), write=True)
    before, error = opened(folder), None
    with only(files):
        try:
            work(media, scratch, "few")
        except MediaUnusable as raised:
            error = str(raised)
    assert error is None or "limit on open files" in error
    assert opened(folder) == before
    return error is not None


def test_open_files_run_out_at_any_place(tmp_path: Path) -> None:
    held = grown_media(tmp_path / "grown", tmp_path)
    held |= dict.fromkeys(("few", "next"), held["r3"] | CHANGES)
    # Once undisturbed: modules that are imported late are files, too.
    require_whole(Path(shutil.copytree(tmp_path / "grown", tmp_path / "warm")), tmp_path / "w", held)
    for files in range(20):
        folder = Path(shutil.copytree(tmp_path / "grown", tmp_path / f"media-{files}"))
        enough = not refused(folder, tmp_path / f"few-{files}", files)
        require_whole(folder, tmp_path / f"next-{files}", held)
        if enough:
            break
    sys.stdout.write(f"enough with {files} files more\n")
    assert enough and files > 2


def require_whole(folder: Path, scratch: Path, held: dict[str, Contents]) -> None:
    """All points restore, also after the same work undisturbed."""
    require_all_points(Media.open(str(folder)), held)
    work(Media.open(str(folder), write=True), scratch, "next")
    require_all_points(Media.open(str(folder)), held)
    assert temporaries(folder) == []
