"""Media of every format version that was ever written can be read for ever, and gone on with.

`tests/media/golden/v1` was made once, by the first version of the format; what it lacks is in `v1-whole`
(test_golden_whole.py). If a test here fails, it is the code that has to change.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from tests.faults.small_media import grow, prune
from tests.media import second_reader
from tests.media.golden.make import GROWN, KEY
from tests.media.making import NOW, noise, read_point
from vsa.errors import KeyNeeded, WrongKey
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.wrapping import KeyFile, WrappingKey
from vsa.restore.disk import Format, restore_disk
from vsa.upkeep.rebuild import Rebuilt, rebuild
from vsa.upkeep.verify import Depth, verify

GOLDEN = Path(__file__).parent / "golden" / "v1"
KINDS = {"media": None, "sealed": KEY}


def images(kind: str, golden: Path = GOLDEN) -> dict[int, str]:
    return {int(slot): digest for slot, digest in json.loads((golden / f"{kind}.json").read_text()).items()}


def require_images(media: Media, kind: str, target: Path, golden: Path = GOLDEN) -> None:
    """Every point of the golden media restores to what was backed up then."""
    for slot, digest in images(kind, golden).items():
        (backup,) = media.view().points[slot].point.disks
        restore_disk(media, backup, target, format=Format.RAW)
        assert hashlib.sha256(target.read_bytes()).hexdigest() == digest, slot
        target.unlink()


def rebuilt(place: Path, key: WrappingKey | None, folder: Path) -> tuple[Rebuilt, set[str]]:
    """What a rebuild makes of the packs alone, and the digests of what its points restore to; none of them
    has lost anything."""
    source = folder / "packs"
    for path in place.rglob("*"):
        if path.suffix == ".pack" or path.parent.name == "keys":
            target = source / path.relative_to(place)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    made = rebuild(
        FolderStore(source),
        FolderStore.make(folder / "rebuilt"),
        scratch=folder,
        now=NOW,
        random=os.urandom,
        wrapping=key,
    )
    found, view = set(), made.media.view()
    for slot, point in view.points.items():
        assert view.harm_of(slot) == ()
        (backup,) = point.point.disks
        restore_disk(made.media, backup, folder / "image", format=Format.RAW)
        found.add(hashlib.sha256((folder / "image").read_bytes()).hexdigest())
        (folder / "image").unlink()
    return made, found


@pytest.mark.parametrize(("kind", "key"), KINDS.items())
class TestVersion1:
    def opened(self, kind: str, key, **options) -> Media:
        return Media.open(str(GOLDEN / kind), wrapping=key, **options)

    @pytest.mark.parametrize("from_log", [True, False], ids=["from its log", "from its checkpoint"])
    def test_every_point_restores(self, kind, key, from_log, tmp_path):
        require_images(self.opened(kind, key, from_log=from_log), kind, tmp_path / "image")

    def test_the_log_means_what_it_meant(self, kind, key):
        view = self.opened(kind, key, from_log=True).view()
        assert (list(view.points), view.given_up, view.pinned) == ([2, 3, 4, 5], {1}, {3})
        assert list(view.doubtful) == [3]
        assert [client.vm.name for client in view.clients.values()] == ["web"]
        assert [item.job.job for item in view.jobs.values()] == ["job-1"]
        assert [item.entry.reason for item in view.relocations] != []
        assert view.base_of(GROWN.key)[0] == 5
        recalled = self.opened(kind, key).view()
        assert (recalled.head, recalled.head_hash) == (view.head, view.head_hash)

    def test_it_is_sound_to_the_last_byte(self, kind, key, tmp_path):
        report = verify(self.opened(kind, key), Depth.RESTORE, scratch=tmp_path, date=NOW.date())
        assert (report.is_sound, report.remarks) == (True, ()), report.text()

    def test_it_can_be_gone_on_with_and_pruned(self, kind, key, tmp_path):
        shutil.copytree(GOLDEN / kind, tmp_path / "media")
        media = Media.open(str(tmp_path / "media"), write=True, wrapping=key)
        slot = grow(media, "later", GROWN, {3: noise("later")}, scratch=tmp_path, parent=5)
        prune(media)
        assert read_point(media, slot)[3] == noise("later")
        require_images(media, kind, tmp_path / "image")

    def test_it_can_be_rebuilt_from_its_packs(self, kind, key, tmp_path):
        made, found = rebuilt(GOLDEN / kind, key, tmp_path)
        assert set(images(kind).values()) == found
        # The one that was given up: its record is kept for its index, some of its data is gone.
        (left_out,) = made.left_out
        assert "run-1," in left_out


def test_a_reader_that_shares_no_code_restores_version_1(tmp_path):
    for slot, digest in images("media").items():
        point = Media.open(str(GOLDEN / "media")).view().points[slot].point
        second_reader.restore(
            second_reader.Folder(GOLDEN / "media"), slot, point.disks[0].disk.name, tmp_path / "image"
        )
        assert hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest() == digest


def test_sealed_media_of_version_1_opens_by_its_key_alone():
    with pytest.raises(KeyNeeded):
        Media.open(str(GOLDEN / "sealed"))
    with pytest.raises(WrongKey):
        Media.open(str(GOLDEN / "sealed"), wrapping=KeyFile(noise("another key", 32)))
