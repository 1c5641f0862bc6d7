"""Makes the media of this version that the tests open for ever.

    python -m tests.media.golden.make FOLDER

Run it once for each format version, never again for the same one: that a later release reads what an earlier
one wrote is what the tests are about. It makes FOLDER/media and FOLDER/sealed, and writes the digests of
what they hold beside them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.faults.small_media import forget_points, prune
from tests.media.making import (
    EXTENT,
    NOW,
    a_disk,
    a_point,
    a_snapshot,
    a_vm,
    an_intent,
    noise,
    text,
    write_disk,
)
from vsa.media.disk_writer import samples_of
from vsa.media.entries import (
    ClientEntry,
    DoubtEntry,
    JobEntry,
    PinEntry,
    PointEntry,
    Result,
    SeenName,
)
from vsa.media.heal import Place
from vsa.media.index import Offer
from vsa.media.layout import IndexKind
from vsa.media.media import Media
from vsa.media.wrapping import KeyFile
from vsa.model import Method, ProcessName, SourceDisk

KEY = KeyFile(noise("the key of the golden media", 32))
SMALL = a_disk("os", size=60 * EXTENT + 512)
GROWN = a_disk("os", size=90 * EXTENT)
DATA = a_disk("data", size=40 * EXTENT)

Changes = dict[int, bytes | None]


class Maker:
    """Backs up two disks some times; remembers the image of each point."""

    def __init__(self, media: Media, scratch: Path) -> None:
        self.media = media
        self.scratch = scratch
        self.images: dict[int, str] = {}
        self._contents: dict[str, dict[int, bytes]] = {}
        self._newest: dict[str, int] = {}
        self._sharing = media.sharing(Offer.MEDIA)

    def back_up(
        self, run: str, disk: SourceDisk, changes: Changes, *, heals: Mapping[int, Place] | None = None
    ) -> int:
        """A full, or a delta on the newest point of the disk; bases are kept. Whoever is led to the places
        `heals`, by extent, is led to what this stores of them."""
        media, parent = self.media, self._newest.get(disk.key)
        view = media.view()
        older_disk = view.points[parent].point.disks[0] if parent is not None else None
        older = older_disk.indexes if older_disk else ()
        media.begin_run(an_intent(run))
        written = write_disk(
            media,
            changes,
            run=run,
            disk=disk,
            scratch=self.scratch,
            kind=IndexKind.DELTA if older else IndexKind.BASE,
            parent=media.disk_index(older, disk.size, view) if older else None,
            sharing=None if heals else self._sharing,
        )
        if heals:
            media.heal(written.indexes[-1], heals, run=run, planned_on=view)
        entry = a_point(
            disk,
            written.indexes,
            packs=written.packs,
            bases=[a_snapshot(disk, run)],
            parent=parent,
        )
        samples = samples_of(written, older_disk.digests if older_disk else ())
        sampled = entry.point.disks[0].model_copy(update={"digests": samples})
        point = entry.point.model_copy(update={"disks": (sampled,)})
        slot = media.append(PointEntry(point=point), run=run)
        self._newest[disk.key] = slot
        held = self._contents.setdefault(disk.key, {})
        held.update({at: data or b"" for at, data in changes.items()})
        self.images[slot] = _image(held, disk.size)
        return slot


def _image(held: dict[int, bytes], size: int) -> str:
    image = bytearray(size)
    for extent, data in held.items():
        at = extent * EXTENT
        image[at : at + len(data)] = data
        if not data:
            end = min(at + EXTENT, size)
            image[at:end] = bytes(end - at)
    return hashlib.sha256(image).hexdigest()


def _fill(media: Media, scratch: Path) -> dict[int, str]:
    """Every kind of entry and of object that this version writes."""
    seen = SeenName(name="web", resource_id="/vms/web", first_seen=NOW, last_seen=NOW)
    media.append(ClientEntry(vm=a_vm(), names=(seen,), first_seen=NOW, last_seen=NOW))
    maker = Maker(media, scratch)
    full: Changes = {at: text(at) if at % 3 else noise(at) for at in range(60)}
    first = maker.back_up("run-1", SMALL, {**full, 60: noise("the short end", 512)})
    # The second disk shares what the first has, and has some of its own.
    maker.back_up("run-2", DATA, {at: text(at + 1) if (at + 1) % 3 else noise(at + 1) for at in range(30)})
    second = maker.back_up(
        "run-3", SMALL, {0: None, 1: noise("new 1"), 2: text("new 2"), 60: noise("e", 512)}
    )
    grown: Changes = {5: noise("new 5"), 60: noise("grown"), 70: noise(70), 89: text(89)}
    maker.back_up("run-4", GROWN, grown)
    maker.back_up("run-5", GROWN, {at: text(("many", at)) for at in range(10, 50)})
    media.append(DoubtEntry(points=(second,), disk_key=SMALL.key, reason="an audit found a change"))
    media.append(PinEntry(points=(second,), reason="before the update"))
    report = JobEntry(
        job="job-1",
        subclient="all",
        method=Method.CBT,
        started_at=NOW,
        ended_at=NOW + dt.timedelta(minutes=5),
        result=Result.COMPLETED,
    )
    media.append(report)
    forget_points(media, first)
    # What is left of the first pack moves, the pack and the point go.
    prune(media, threshold=1.0, process=ProcessName(host="proxy-1", boot="b", id=1, started="1"))
    media.checkpoint_if_due(every=1)
    maker.images.pop(first)
    return maker.images


def make(folder: Path) -> None:
    opened: dict[str, Callable[[str], Media]] = {
        "media": lambda place: Media.create(place, extent_size=EXTENT, now=NOW),
        "sealed": lambda place: Media.create(place, extent_size=EXTENT, now=NOW, wrapping=KEY),
    }
    for name, create in opened.items():
        with tempfile.TemporaryDirectory() as scratch:
            images = _fill(create(str(folder / name)), Path(scratch))
        (folder / f"{name}.json").write_text(json.dumps(images, indent=2) + os.linesep)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
