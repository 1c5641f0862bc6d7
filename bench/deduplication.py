"""What deduplication saves and what it costs: `python -m bench.deduplication [--mib 512] [--tib 1]`.

Clones of an image of files of this machine, through one process and through one after the other; then the
sample and the segments of a large index, made without the data behind it; then the lookup's share of the CPU.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vsa.media.digests import SampleSpool, open_digests, store_digests
from vsa.media.disk_writer import samples_of
from vsa.media.entries import PointEntry
from vsa.media.extent_sample import ExtentSample
from vsa.media.frames import Fingerprint, fingerprint
from vsa.media.index import ROW, IndexDescription, Offer, PackRef, write_index
from vsa.media.layout import SEGMENT, IndexKind, index, pack
from vsa.media.media import Media
from vsa.media.recent_extents import RecentExtents
from vsa.media.sharing import SharedExtents, Sharing
from vsa.media.stored_extents import StoredExtents
from vsa.model import (
    DEFAULT_EXTENT_SIZE,
    DiskBackup,
    DiskFigures,
    DiskKind,
    DiskRole,
    IndexRef,
    Intent,
    Method,
    ObjectRef,
    Point,
    ProcessName,
    Reason,
    SnapshotRef,
    SourceDisk,
    Vm,
)
from vsa.ranges import GIB, KIB, MIB

EXTENT = DEFAULT_EXTENT_SIZE
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
CLONES = 10
OWN_CHANGE = 0.005
"""Share of its extents that each clone has changed since it was made."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="size of the image that is cloned")
    parser.add_argument("--tib", type=float, default=1.0, help="extents of the large index, as data")
    parser.add_argument(
        "--files", type=Path, default=Path("/usr"), help="where the image's contents come from"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        image = image_of(options.files, options.mib * MIB)
        print(f"image: {len(image) / MIB:.0f} MiB of files of {options.files}")
        clones(Path(folder), image)
        cpu_share(Path(folder), image)
        large_index(Path(folder), int(options.tib * 2**40 / EXTENT))


def image_of(root: Path, size: int) -> bytes:
    """Files of this machine one after the other, each from the start of an extent's 4 KiB block."""
    data = bytearray()
    for path in sorted(root.rglob("*")):
        if len(data) >= size:
            break
        if path.is_file() and not path.is_symlink():
            data += path.read_bytes()
            data += bytes(-len(data) % (4 * KIB))
    return bytes(data[:size]).ljust(size, b"\0")


@dataclass(frozen=True)
class Clone:
    """An image as a machine has changed it: some extents begin with bytes of its own."""

    image: bytes
    own: dict[int, bytes]

    @classmethod
    def made(cls, image: bytes, number: int) -> Clone:
        rng = random.Random(number)
        extents = len(image) // EXTENT
        changed = rng.sample(range(extents), int(extents * OWN_CHANGE)) if number else []
        return cls(image, {extent: rng.randbytes(4 * KIB) for extent in changed})

    def extents(self) -> Iterator[tuple[int, memoryview]]:
        """Those that are not zeros, in order."""
        view, zero = memoryview(self.image), bytes(EXTENT)
        for extent in range(len(self.image) // EXTENT):
            data = view[extent * EXTENT : (extent + 1) * EXTENT]
            if extent in self.own:
                data = memoryview(self.own[extent] + data[4 * KIB :])
            if data != zero:
                yield extent, data


@dataclass
class Backup:
    """One disk's way to the media, as a stream of the engine takes it from the comparison on."""

    media: Media
    name: str
    scratch: Path

    def run(self, clone: Clone, sharing: Sharing | None) -> tuple[int, int]:
        """Write, commit; bytes stored and bytes of extents shared."""
        disk = a_disk(self.name, len(clone.image))
        self.media.begin_run(intent_of(self.name))
        writer = self.media.disk_writer(
            run=self.name,
            disk_key=disk.key,
            disk_size=disk.size,
            kind=IndexKind.BASE,
            scratch=self.scratch,
            sharing=sharing.of(self.name) if sharing else None,
        )
        for extent, data in clone.extents():
            writer.put(extent, data, *fingerprint(data))
        written = writer.finish()
        self.media.append(point_of(disk, written.indexes, samples_of(written, ())), run=self.name)
        return written.stored, written.shared


def clones(folder: Path, image: bytes) -> None:
    """Clone 0 is the image itself."""
    made = [Clone.made(image, number) for number in range(CLONES)]
    one = measured(folder / "one", made[:1], together=True)
    print(f"1 clone: {one[0] / MIB:.2f} MiB of objects")
    for how, together in (
        ("one process, all at once", True),
        ("a process for each, one after another", False),
    ):
        whole, indexes, digests = measured(folder / str(together), made, together=together)
        print(
            f"{CLONES} clones, {how}: {whole / MIB:.2f} MiB of objects, {whole / one[0]:.3f} of one clone "
            f"({(CLONES - 1) * OWN_CHANGE:.3f} are changes of their own), "
            f"indexes {indexes / KIB:.0f} KiB, digests {digests / KIB:.0f} KiB"
        )


def measured(folder: Path, made: Sequence[Clone], *, together: bool) -> tuple[int, int, int]:
    """Bytes on the media once all have a point."""
    folder.mkdir()
    media = Media.create(str(folder / "media"), now=NOW)
    shared = media.sharing(Offer.MEDIA)
    backups = [Backup(media, f"clone-{number}", folder) for number in range(len(made))]
    if together:
        with ThreadPoolExecutor(len(made)) as threads:
            list(threads.map(lambda backup, clone: backup.run(clone, shared), backups, made))
    else:
        for backup, clone in zip(backups, made, strict=True):
            backup.run(clone, Media.open(media.location, write=True).sharing(Offer.MEDIA))
    return sizes(folder / "media")


def sizes(folder: Path) -> tuple[int, int, int]:
    """Bytes of all objects, of indexes, of digests objects."""
    files = [path for path in folder.rglob("*") if path.is_file()]

    def of(part: str) -> int:
        return sum(path.stat().st_size for path in files if part in path.parts)

    return sum(path.stat().st_size for path in files), of("index"), of("digests")


def cpu_share(folder: Path, image: bytes) -> None:
    """New data with and without the lookup, interleaved, medians of five; and the lookup by itself."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(5):
        for on in (True, False):
            place = folder / f"cpu-{turn}-{on}"
            place.mkdir()
            media = Media.create(str(place / "media"), now=NOW)
            began = time.process_time()
            Backup(media, "disk", place).run(
                Clone.made(image, 0), media.sharing(Offer.MEDIA if on else Offer.OFF)
            )
            seconds[on].append(time.process_time() - began)
    with_it, without = (sorted(seconds[key])[2] * GIB / len(image) for key in (True, False))
    print(f"CPU of a first backup: {without:.2f} s/GiB with the switch off, {with_it:.2f} s/GiB with it on")


def large_index(folder: Path, extents: int) -> None:
    media = Media.create(str(folder / "large"), now=NOW)
    segments = -(-extents // SEGMENT)
    began = time.monotonic()
    disk, ref, digests = an_index_of(media, segments, folder)
    media.begin_run(intent_of("large"))
    media.store.create(layout_pack(), [bytes(2 * KIB)])
    media.append(point_of(disk, [ref], [digests]), run="large")
    data = segments * SEGMENT * EXTENT / 2**40
    print(
        f"index of {segments * SEGMENT / 2**20:.1f} Mi extents ({data:.2f} TiB): "
        f"{ref.size / MIB:.0f} MiB, digests {digests.size / MIB:.2f} MiB, "
        f"made in {time.monotonic() - began:.0f} s"
    )
    before = resident()
    sample = ExtentSample(lambda item: open_digests(media.store, item, media_id=media.id))
    stored = StoredExtents(
        sample, opened=media.whereabouts.index, relocations=media.whereabouts.moves, size_of=lambda _: 2 * KIB
    )
    sharing = Sharing(Offer.MEDIA, recent=RecentExtents(), stored=stored, view=media.view)
    began = time.monotonic()
    extents_of = sharing.of("client")
    spent = time.monotonic() - began
    print(f"sample: {len(sample)} digests, {sample.size / MIB:.2f} MiB, read in {spent:.2f} s")
    new_data(extents_of, 4 * SEGMENT)
    clone(extents_of, segments)
    print(f"resident memory grew by {(resident() - before) / MIB:.0f} MiB, loaded rows {stored.loaded_rows}")


def new_data(extents_of: SharedExtents, count: int) -> None:
    proofs = [Fingerprint(n, os.urandom(32)) for n in range(count)]
    began = time.process_time()
    for proof in proofs:
        if extents_of.find(proof) is None:
            extents_of.withdraw(proof)
    spent = time.process_time() - began
    each = spent / count
    print(f"looked up in vain: {each * 1e6:.2f} us an extent, {each * GIB / EXTENT * 1000:.0f} ms/GiB")


def clone(extents_of: SharedExtents, segments: int) -> None:
    """Every extent of the large index asked for in its order, as a clone's backup would."""
    hits = total = 0
    began = time.process_time()
    for segment in range(segments):
        for row in rows_of(segment):
            proof = Fingerprint(int(row["crc"]), row["digest"].tobytes())
            found = extents_of.find(proof)
            total += 1
            if found is None:
                extents_of.withdraw(proof)
            else:
                hits += 1
    spent = time.process_time() - began
    print(
        f"a clone of it: {hits / total:.4%} found, {spent / total * 1e6:.2f} us an extent "
        f"({spent / total * GIB / EXTENT * 1000:.0f} ms/GiB, the loop's own work included)"
    )


def rows_of(segment: int) -> np.ndarray:
    """Rows as a backup of incompressible data would make them, the same for the same segment."""
    rng = np.random.default_rng(segment)
    rows = np.zeros(SEGMENT, ROW)
    rows["extent"] = np.arange(segment * SEGMENT, (segment + 1) * SEGMENT, dtype=np.uint64).astype(np.uint32)
    rows["offset"], rows["length"], rows["crc"] = 64, 100, rng.integers(0, 2**32, SEGMENT, np.uint64)
    rows["digest"] = np.frombuffer(rng.bytes(32 * SEGMENT), "V32")
    return rows


def layout_pack() -> str:
    return pack("large", bytes(16))


def an_index_of(media: Media, segments: int, folder: Path) -> tuple[SourceDisk, IndexRef, ObjectRef]:
    disk = a_disk("large", segments * SEGMENT * EXTENT)
    about = IndexDescription(
        media=media.id,
        run="large",
        disk_key=disk.key,
        disk_size=disk.size,
        extent_size=EXTENT,
        kind=IndexKind.BASE,
        offer=Offer.MEDIA,
        client="large",
        packs=(PackRef(name=layout_pack(), size=2 * KIB, sha256="0" * 64),),
    )
    sample = SampleSpool(about)
    groups: Iterator[tuple[int, np.ndarray]] = ((segment, rows_of(segment)) for segment in range(segments))
    name = index("large", disk.key, bytes(8))
    ref = write_index(folder / "index", name, about, sample.watch(groups))
    media.store.create(name, [(folder / "index").read_bytes()])
    return disk, ref, store_digests(media.store, ref, about, sample.rows())


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def a_disk(name: str, size: int) -> SourceDisk:
    return SourceDisk(
        name=name,
        role=DiskRole.OS,
        lun=None,
        kind=DiskKind.MANAGED,
        source=f"/disks/{name}",
        unique_id=name,
        size=size,
        sku="Premium_LRS",
        region="westeurope",
        resource_group="rg",
    )


def intent_of(run: str) -> Intent:
    process = ProcessName(host="bench", boot="b", id=1, started="1")
    return Intent(
        run=run, job="bench", vm_key=run, vm_name=run, subclient="bench", started_at=NOW, process=process
    )


def vm_of(disk: SourceDisk) -> Vm:
    """The VM that has this disk alone."""
    return Vm(
        resource_id=f"/vms/{disk.name}",
        vm_id=disk.name,
        name=disk.name,
        resource_group="rg",
        subscription_id="s",
        region="westeurope",
        size="D2",
        os_type="Linux",
        power_state="running",
    )


def point_of(disk: SourceDisk, indexes: Sequence[IndexRef], digests: Sequence[ObjectRef]) -> PointEntry:
    snapshot = SnapshotRef(
        disk_key=disk.key,
        kind=disk.kind,
        id=f"/snapshots/{disk.name}",
        source_unique_id=disk.unique_id,
        taken_at=NOW,
        size=disk.size,
    )
    backup = DiskBackup(
        disk=disk,
        snapshot=snapshot,
        method=Method.FULL,
        reason=Reason.FULL_FIRST,
        indexes=tuple(indexes),
        digests=tuple(digests),
        figures=DiskFigures(size=disk.size),
        proxy="bench",
    )
    return PointEntry(point=Point(vm=vm_of(disk), subclient="bench", job="bench", disks=(backup,)))


if __name__ == "__main__":
    main()
