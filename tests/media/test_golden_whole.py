"""Media of version 1 with every kind of entry and of object can be read for ever, and gone on with.

`tests/media/golden/v1-whole` was made once. If a test here fails, it is the code that has to change.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import get_args
from uuid import UUID

import pytest

from tests.faults.small_media import grow, prune
from tests.media import second_reader
from tests.media.golden.make import DATA, GROWN, SMALL
from tests.media.golden.make_whole import HEALED, KEY, OLD_KEY, PASSPHRASE, WORDS
from tests.media.golden.vault import Vault
from tests.media.making import EXTENT, NOW, noise, objects, read_point
from tests.media.second_opener import SealedFolder
from tests.media.test_golden import images, rebuilt, require_images
from vsa.errors import WrongKey
from vsa.media.entries import ClientState, EntryBody
from vsa.media.media import Media
from vsa.media.outcomes import kept_outcome
from vsa.media.signs import heard
from vsa.media.view import WHOLE
from vsa.media.wrapping import KeyFile, VaultWay
from vsa.upkeep.verify import Depth, verify

GOLDEN = Path(__file__).parent / "golden" / "v1-whole"
KINDS = {"media": None, "sealed": KEY}
NAMES = (
    r"media\.json",
    r"log/[0-9]{12}",
    r"checkpoints/[0-9]{12}\.parquet",
    r"runs/[^/]+/intent\.json",
    r"runs/[^/]+/packs/[0-9a-f]{32}\.pack",
    r"runs/[^/]+/index/[^/]+\.parquet",
    r"runs/[^/]+/moves/[0-9a-f]{16}\.parquet",
    r"runs/[^/]+/digests/[^/]+\.parquet",
    r"runs/[^/]+/streams/[^/]+\.json",
    r"runs/[^/]+/alive/[0-9]{8}\.json",
)
"""What docs/media-format.md lists under "Names", but for keys/."""


def opened(kind: str, **options) -> Media:
    return Media.open(str(GOLDEN / kind), wrapping=KINDS[kind], **options)


def entries(kind: str) -> list[dict]:
    store = opened(kind).store
    names = sorted(name for name in objects(GOLDEN / kind) if name.startswith("log/"))
    return [json.loads(store.read(name))["body"] for name in names]


def test_it_has_every_kind_of_entry_and_of_object():
    known = {body.model_fields["type"].default for body in get_args(EntryBody)}
    assert {body["type"] for body in entries("sealed")} == known
    assert {body["type"] for body in entries("media")} == known - {"rotate"}
    for kind, more in (("media", ()), ("sealed", (r"keys/[0-9]+",))):
        names = objects(GOLDEN / kind)
        assert all(any(re.fullmatch(pattern, name) for name in names) for pattern in (*NAMES, *more))
        relocations = [body for body in entries(kind) if body["type"] == "relocate"]
        assert all(any(body[member] for body in relocations) for member in ("table", "indexes", "healed"))
        damages = [body for body in entries(kind) if body["type"] == "damage"]
        assert [bool(body["objects"][0]["offsets"]) for body in damages] == [True, False]
    ways = [json.loads(path.read_bytes())["way"]["kind"] for path in sorted(GOLDEN.glob("sealed/keys/*"))]
    assert ways == ["file", "file", "passphrase", "key-vault"]


@pytest.mark.parametrize("kind", KINDS)
class TestVersion1:
    @pytest.mark.parametrize("from_log", [True, False], ids=["from its log", "from its checkpoint"])
    def test_every_point_restores(self, kind, from_log, tmp_path):
        require_images(opened(kind, from_log=from_log), kind, tmp_path / "image", GOLDEN)

    def test_the_log_means_what_it_meant(self, kind):
        view = opened(kind, from_log=True).view()
        assert (list(view.points), view.given_up, view.pinned) == ([3, 4, 5, 15], {2}, set())
        assert (list(view.forgotten), list(view.doubtful)) == ([], [4])
        states = {client.vm.name: client.state for client in view.clients.values()}
        assert states == {"web": ClientState.PRESENT, "db": ClientState.GONE}
        (report,) = view.jobs.values()
        assert [(item.name, item.point) for item in report.job.vms] == [("web", 4), ("db", None)]
        assert view.base_of(GROWN.key)[0] == 15 and view.base_of(DATA.key) is None
        assert view.key == (1 if kind == "sealed" else 0)

    def test_what_was_damaged_is_healed(self, kind):
        media = opened(kind, from_log=True)
        view = media.view()
        (harm,) = [harm for damage in view.damages for harm in damage.entry.harm]
        assert harm.ranges == ((HEALED * EXTENT, (HEALED + 1) * EXTENT),)
        assert [view.harm_of(slot) for slot in view.points] == [()] * 4
        ((index, copy),) = view.sound_indexes().items()
        assert (view.damaged[index], view.healed[index]) == (WHOLE, WHOLE)
        assert {index} == {ref.name for ref in view.points[3].point.disks[0].indexes}
        assert index not in objects(GOLDEN / kind) and copy.name in objects(GOLDEN / kind)
        pack = next(damage.entry.objects[0].name for damage in view.damages if damage.entry.harm)
        assert view.damaged[pack] == view.healed[pack] != WHOLE and pack not in objects(GOLDEN / kind)

    def test_what_runs_say_among_themselves_is_heard(self, kind):
        media = opened(kind)
        for run in ("run-5", "run-6"):
            said = heard(media, run)
            assert (said.last.number, said.highest, said.last.every_seconds) == (1, 1, 60)
        assert media.intent("run-6").job == "job-1" and media.intent("run-5") is None
        failed = kept_outcome(media, run="run-5", disk_key=GROWN.key, attempt=UUID(int=1))
        assert (failed.backup, failed.error) == (None, "the proxy went away")
        done = kept_outcome(media, run="run-6", disk_key=DATA.key, attempt=UUID(int=2))
        assert done.backup == media.view().points[3].point.disks[0]

    def test_it_is_sound_to_the_last_byte(self, kind, tmp_path):
        report = verify(opened(kind), Depth.RESTORE, scratch=tmp_path, date=NOW.date())
        assert (report.is_sound, report.remarks) == (True, ()), report.text()

    def test_it_can_be_gone_on_with_and_pruned(self, kind, tmp_path):
        shutil.copytree(GOLDEN / kind, tmp_path / "media")
        media = Media.open(str(tmp_path / "media"), write=True, wrapping=KINDS[kind])
        slot = grow(media, "later", GROWN, {3: noise("later")}, scratch=tmp_path, parent=15)
        prune(media)
        assert read_point(media, slot)[3] == noise("later")
        require_images(media, kind, tmp_path / "image", GOLDEN)
        left = objects(tmp_path / "media")
        assert not any(name.startswith(("runs/run-5/alive/", "runs/run-5/streams/")) for name in left)
        assert "keys/0" not in left
        report = verify(media, Depth.BYTES, scratch=tmp_path, date=NOW.date())
        assert report.is_sound, report.text()

    def test_it_can_be_rebuilt_from_its_packs(self, kind, tmp_path):
        made, found = rebuilt(GOLDEN / kind, KINDS[kind], tmp_path)
        assert made.left_out == ()
        runs = {point.run for point in made.media.view().points.values()}
        assert runs == {f"run-{number}" for number in range(1, 6)}
        # With it the one that was given up: its pack is still there, since others need most of it.
        assert set(images(kind, GOLDEN).values()) < found and len(found) == 5


@pytest.mark.parametrize(
    "key", [KEY, PASSPHRASE, Vault.saved(GOLDEN / "vault.json")], ids=["file", "passphrase", "vault"]
)
def test_each_of_its_keys_opens_it(key):
    assert Media.open(str(GOLDEN / "sealed"), wrapping=key).view().head == 25


def test_its_retired_key_is_refused():
    with pytest.raises(WrongKey, match="retired"):
        Media.open(str(GOLDEN / "sealed"), wrapping=OLD_KEY).view()
    with pytest.raises(WrongKey):
        Media.open(str(GOLDEN / "sealed"), wrapping=KeyFile(noise("another key", 32)))


def decrypted_by_the_vault() -> bytes:
    way = json.loads((GOLDEN / "sealed/keys/3").read_bytes())["way"]
    return Vault.saved(GOLDEN / "vault.json").key(VaultWay.model_validate(way))


SECOND_READERS = {
    "media": lambda: second_reader.Folder(GOLDEN / "media"),
    "sealed, file": lambda: SealedFolder(
        GOLDEN / "sealed", 1, noise("the key of the second golden media", 32)
    ),
    "sealed, passphrase": lambda: SealedFolder(GOLDEN / "sealed", 2, WORDS.encode()),
    "sealed, vault": lambda: SealedFolder(GOLDEN / "sealed", 3, decrypted_by_the_vault()),
}


@pytest.mark.parametrize("reader", SECOND_READERS)
def test_a_reader_that_shares_no_code_restores_it(reader, tmp_path):
    names = {3: DATA.name, 4: SMALL.name, 5: GROWN.name, 15: GROWN.name}
    for slot, digest in images(reader.split(",")[0], GOLDEN).items():
        second_reader.restore(SECOND_READERS[reader](), slot, names[slot], tmp_path / "image")
        assert hashlib.sha256((tmp_path / "image").read_bytes()).hexdigest() == digest
