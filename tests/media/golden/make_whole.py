"""Makes the second media of version 1, which has every kind of entry and of object that the version knows.

    python -m tests.media.golden.make_whole FOLDER

Run it once, never again, as make.py was: it makes FOLDER/media and FOLDER/sealed, the digests of what they
hold beside them, and FOLDER/vault.json, the key of a vault that does not exist. All random bytes are drawn
from one seed, but for those with which RSA pads. What its log calls damaged was, and a prune has deleted it:
nothing restores but by the moves and the copy of an index that stand in for it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from uuid import UUID

from tests.media.golden.make import DATA, GROWN, SMALL, Changes, Maker
from tests.media.golden.vault import Vault
from tests.media.making import EXTENT, NOW, a_snapshot, a_vm, an_intent, noise, text
from vsa.media import layout, signs
from vsa.media.entries import (
    ClientEntry,
    ClientState,
    Damaged,
    DamageEntry,
    DiskOutcome,
    DoubtEntry,
    ForgetEntry,
    Harm,
    JobEntry,
    MovedIndex,
    PinEntry,
    ReleasedBase,
    RelocateEntry,
    Result,
    RotateEntry,
    SeenName,
    UnforgetEntry,
    VmOutcome,
)
from vsa.media.media import Media
from vsa.media.outcomes import StreamOutcome, keep_outcome
from vsa.media.signs import Sign
from vsa.media.wrapping import KeyFile, Passphrase
from vsa.model import Exclusion, Method, ProcessName, Reason, SourceDisk
from vsa.secret import Secret
from vsa.upkeep.prune import carry_out, plan_prune
from vsa.upkeep.rotation import add_key

SEED = 20261127
OLD_KEY = KeyFile(noise("the first key of the second golden media", 32))
KEY = KeyFile(noise("the key of the second golden media", 32))
WORDS = "the passphrase of the second golden media"
PASSPHRASE = Passphrase(Secret(WORDS))
PROCESS = ProcessName(host="proxy-1", boot="b", id=1, started="1")
HEALED = 7
"""The extent of the grown disk whose frame went bad."""


class Whole:
    """The media as it is made, from draws of one seed and a clock that ticks once a minute."""

    def __init__(self, place: Path, key: KeyFile | None, scratch: Path) -> None:
        self.draw = random.Random(SEED).randbytes
        self.place = place
        self.scratch = scratch
        self._now = NOW
        self.media = Media.create(
            str(place), extent_size=EXTENT, now=NOW, wrapping=key, clock=self.clock, random=self.draw
        )
        self.maker = Maker(self.media, scratch)

    def clock(self) -> dt.datetime:
        self._now += dt.timedelta(minutes=1)
        return self._now

    def fill(self) -> dict[int, str]:
        self._clients()
        first, second = self._points()
        self._say_of_points(second)
        self._heal()
        self._mend_an_index()
        self.media.append(ForgetEntry(points=(first,), reason="retention"))
        self._prune()
        self.media.checkpoint_if_due(every=1)
        self._messages()
        if self.media.sealed:
            self._rotate()
        self.media.append(PinEntry(points=(second,), pinned=False))
        self.media.checkpoint_if_due(every=1)
        del self.maker.images[first]
        return self.maker.images

    def _clients(self) -> None:
        for name, state in (("web", ClientState.PRESENT), ("db", ClientState.GONE)):
            seen = SeenName(name=name, resource_id=f"/vms/{name}", first_seen=NOW, last_seen=NOW)
            self.media.append(
                ClientEntry(vm=a_vm(name), names=(seen,), first_seen=NOW, last_seen=NOW, state=state)
            )

    def _points(self) -> tuple[int, int]:
        full: Changes = {at: text(at) if at % 5 else noise(at) for at in range(40)}
        first = self.maker.back_up("run-1", SMALL, {**full, 60: noise("the short end", 512)})
        # The second disk shares what the first has, and has some of its own.
        self.maker.back_up(
            "run-2", DATA, {at: text(at + 1) if (at + 1) % 5 else noise(at + 1) for at in range(20)}
        )
        second = self.maker.back_up("run-3", SMALL, {0: None, 1: noise("new 1"), 60: noise("e", 512)})
        self.maker.back_up("run-4", GROWN, {HEALED: noise("new 7"), 60: noise("grown"), 89: text(89)})
        return first, second

    def _say_of_points(self, slot: int) -> None:
        media = self.media
        media.append(DoubtEntry(points=(slot,), disk_key=SMALL.key, reason="an audit found a change"))
        media.append(PinEntry(points=(slot,), reason="before the update"))
        media.append(PinEntry(points=(slot,), pinned=False))
        media.append(ForgetEntry(points=(slot,), reason="by name"))
        media.append(UnforgetEntry(points=(slot,)))
        media.append(PinEntry(points=(slot,), reason="after all"))
        outcome = DiskOutcome(name=SMALL.name, key=SMALL.key, method=Method.CBT, reason=Reason.CBT)
        media.append(
            JobEntry(
                job="job-1",
                subclient="all",
                method=Method.CBT,
                started_at=NOW,
                ended_at=NOW + dt.timedelta(minutes=5),
                result=Result.COMPLETED_WITH_ERRORS,
                vms=(
                    VmOutcome(
                        key=a_vm().key,
                        name="web",
                        result=Result.COMPLETED,
                        run="run-3",
                        point=slot,
                        disks=(outcome,),
                    ),
                    VmOutcome(key=a_vm("db").key, name="db", result=Result.FAILED, error="it has gone"),
                ),
                excluded=(Exclusion(name="test", reason="its name begins with test"),),
                released=(
                    ReleasedBase(base=a_snapshot(DATA, "run-2"), reason="the disk is in no subclient"),
                ),
                alarms=("an audit found a change",),
            )
        )

    def _heal(self) -> None:
        """A frame goes bad; the next backup stores its extent anew, and every point is led there."""
        slot, backup = self.media.view().latest_point_of_disk(GROWN.key) or (0, None)
        assert backup is not None
        index = self.media.disk_index(backup.indexes, GROWN.size)
        table = index.segment(0)
        assert table is not None
        position = HEALED - table.first_extent
        pack, offset = index.packs[table.pack[position]], int(table.offset[position])
        harm = Harm(
            points=(slot,),
            disk_key=GROWN.key,
            ranges=((HEALED * EXTENT, (HEALED + 1) * EXTENT),),
            offsets=(offset,),
        )
        damaged = Damaged(name=pack, offsets=(offset,))
        self.media.append(DamageEntry(objects=(damaged,), harm=(harm,), reason="a flipped bit"))
        self._flip(pack, offset + 99)
        self.maker.back_up(
            "run-5",
            GROWN,
            {HEALED: noise("new 7"), 8: noise("new 8")},
            heals={HEALED: (pack, offset)},
        )

    def _mend_an_index(self) -> None:
        """An index goes bad; a copy stands in for it."""
        _, backup = self.media.view().latest_point_of_disk(DATA.key) or (0, None)
        assert backup is not None
        (ref,) = backup.indexes
        data = self.media.store.read(ref.name)
        run = layout.run_of(ref.name) or ""
        copy = ref.model_copy(update={"name": layout.index(run, DATA.key, self.draw(8))})
        self.media.store.create(copy.name, [data])
        damaged = Damaged(name=ref.name)
        self.media.append(DamageEntry(objects=(damaged,), reason="a flipped bit"))
        self._flip(ref.name, 99)
        self.media.begin_run(an_intent("mender"))
        self.media.append(
            RelocateEntry(
                indexes=(MovedIndex(name=ref.name, ref=copy),), healed=(damaged,), reason="made anew"
            ),
            run="mender",
        )

    def _flip(self, name: str, byte: int) -> None:
        path = self.place / name
        data = bytearray(path.read_bytes())
        data[byte] ^= 1
        path.write_bytes(data)

    def _prune(self) -> None:
        folder = self.scratch / "prune"
        folder.mkdir()
        plan = plan_prune(
            self.media, now=NOW + dt.timedelta(days=60), scratch=folder, threshold=0.6, trust_clock=True
        )
        assert plan.points and plan.repack.packs
        carry_out(plan, process=PROCESS, random=self.draw)

    def _messages(self) -> None:
        """Of a run that has committed, and of one that nobody has seen the end of."""
        self.media.begin_run(an_intent("run-6"))
        backup = self.media.view().latest_point_of_disk(DATA.key)
        assert backup is not None
        for run in ("run-5", "run-6"):
            for number in range(2):
                signs.give(self.media, Sign(run=run, number=number, at=self.clock(), every_seconds=60))
        self._outcome("run-5", GROWN, StreamOutcome(error="the proxy went away"), 1)
        self._outcome("run-6", DATA, StreamOutcome(backup=backup[1]), 2)

    def _outcome(self, run: str, disk: SourceDisk, outcome: StreamOutcome, attempt: int) -> None:
        keep_outcome(self.media, outcome, run=run, disk_key=disk.key, attempt=UUID(int=attempt))

    def _rotate(self) -> None:
        """The first key is retired; a file, a passphrase and a vault open what it opened."""
        for key in (KEY, PASSPHRASE, VAULT):
            add_key(self.media, OLD_KEY, key, now=NOW, random=self.draw)
        self.media.append(RotateEntry(key=1, reason="somebody has left"))


VAULT = Vault.of_seed(SEED)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, key in (("media", None), ("sealed", OLD_KEY)):
        with tempfile.TemporaryDirectory() as scratch:
            images = Whole(folder / name, key, Path(scratch)).fill()
        (folder / f"{name}.json").write_text(json.dumps(images, indent=2) + os.linesep)
    VAULT.save(folder / "vault.json")


if __name__ == "__main__":
    make(Path(sys.argv[1]))
