"""What the engine's data path costs: `python -m bench.data_path [--mib 1024] [--rounds 5]`.

An image of an ext4 file system made of files of this machine, and versions of it with 1 % and 0.1 % changed,
are served by `bench.snapshot_server` from a process of its own. Each measurement is a fresh process that does
what a stream does: lists by the SDK, reads, compares, stores, commits. CPU seconds are that process's, from
the first list to the confirmed log entry; peak memory is of the whole process. `zstd -1 -T1` over the image
file stands beside.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime as dt
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azsim.tls import ensure_certificates
from bench.deduplication import a_disk, intent_of, vm_of
from bench.snapshot_server import allocated_ranges
from vsa.azure.connection import AzureConnection
from vsa.azure.grants import GrantedAccess, Grants
from vsa.media.entries import PointEntry
from vsa.media.index import Offer
from vsa.media.media import Media
from vsa.memory import Memory, settle
from vsa.model import DiskBackup, DiskKind, Method, Point, SnapshotRef, SourceDisk
from vsa.progress import SILENT
from vsa.ranges import KIB, MIB
from vsa.restore.disk import Format, restore_disk
from vsa.secret import Secret
from vsa.stop import Stop
from vsa.transfer import runs
from vsa.transfer.backup_disk import Streaming, copy_source
from vsa.transfer.methods import Wish, decide
from vsa.transfer.order import StreamOrder
from vsa.transfer.source import SnapshotSource

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
TREES = ("bin", "sbin", "share", "lib/x86_64-linux-gnu", "lib/python3", "lib/git-core", "lib/gcc", "lib/jvm")
FILLED = 0.59
"""Share of the image that files take."""
BLOCK = 4 * KIB
CASES = ("full", "crc", "cbt1", "cbt01", "restore")
_IMAGE_OF = {"full": "v1", "crc": "v3", "cbt1": "v2", "cbt01": "v3"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=1024, help="size of the image")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", default=",".join(CASES), help="some of: %(default)s")
    parser.add_argument("--transport", choices=["plain", "tls", "both"], default="both")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "data-path")
    parser.add_argument(
        "--profile", action="store_true", help="show where each kind of thread spends its time"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(json.loads(options.one))))
        return
    make_images(options.folder / "images", options.mib)
    transports = {"plain": [False], "tls": [True], "both": [False, True]}[options.transport]
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    with serving(options.folder, transports) as origins:
        for _ in range(options.rounds):
            found["zstd -1 -T1"].append(zstd(options.folder / "images" / "v1.img"))
            for tls in transports:
                for case in options.cases.split(","):
                    if case == "restore" and tls and len(transports) > 1:
                        continue
                    task = {
                        "case": case,
                        "origin": origins[tls],
                        "folder": str(options.folder),
                        "mib": options.mib,
                        "profile": options.profile,
                    }
                    name = case if case == "restore" else f"{case} {'TLS' if tls else 'plain'}"
                    found[name].append(_in_process(task))
    report(found, options.mib)


def report(found: dict[str, list[dict[str, float]]], mib: int) -> None:
    print(f"image of {mib} MiB, {len(next(iter(found.values())))} rounds, medians")
    print("| | CPU s | CPU s/GiB of disk | wall s | read MiB | stored MiB | peak MiB |")
    print("|---|---|---|---|---|---|---|")
    for name, rows in found.items():
        median = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        print(
            f"| {name} | {median['cpu']:.2f} | {median['cpu'] * 1024 / mib:.2f} | {median['wall']:.2f} "
            f"| {median['read'] / MIB:.1f} | {median['stored'] / MIB:.1f} | {median['peak'] / MIB:.0f} |"
        )


# Images


def make_images(folder: Path, mib: int) -> None:
    """`v1.img`, and `v2` and `v3` with 1 % and 0.1 % changed; kept if they are there in this size."""
    first = folder / "v1.img"
    if first.exists() and first.stat().st_size == mib * MIB:
        return
    shutil.rmtree(folder, ignore_errors=True)
    stage = folder / "stage"
    stage.mkdir(parents=True)
    _copy_files(stage, int(mib * MIB * FILLED))
    with first.open("wb") as file:
        file.truncate(mib * MIB)
    # Without a journal, as an image that was written once.
    subprocess.run(
        [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=0",
            "-d",
            stage,
            first,
        ],
        check=True,
    )
    shutil.rmtree(stage)
    donor = _donor()
    for name, share, seed in (("v2", 0.01, 1), ("v3", 0.001, 2)):
        _change(first, folder / f"{name}.img", share, random.Random(seed), donor)


def _copy_files(stage: Path, budget: int) -> None:
    """Files of /usr in order, until they fill the budget."""
    for tree in TREES:
        for path in sorted(Path("/usr", tree).rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            size = -(-path.stat().st_size // BLOCK) * BLOCK
            if size > budget:
                continue
            budget -= size
            target = stage / path.relative_to("/usr")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def _donor() -> bytes:
    data = bytearray()
    for path in sorted(Path("/usr/include").rglob("*")) + sorted(Path("/usr/lib").glob("*.so*")):
        if path.is_file() and not path.is_symlink():
            data += path.read_bytes()
        if len(data) > 64 * MIB:
            break
    return bytes(data)


def _change(first: Path, target: Path, share: float, rng: random.Random, donor: bytes) -> None:
    """Half of the bytes by writes of 4 KiB, most of them in hot regions; half by runs, in free space too."""
    subprocess.run(["cp", "--sparse=always", first, target], check=True)
    size = first.stat().st_size
    file = os.open(target, os.O_RDWR)
    blocks = [block for start, end in allocated_ranges(file) for block in range(start // BLOCK, end // BLOCK)]
    wanted, changed = int(size * share), set[int]()
    hot = [rng.randrange(len(blocks) - 2048) for _ in range(max(1, int(8 * share / 0.01)))]

    def write(block: int, length: int) -> None:
        start = rng.randrange(len(donor) - length)
        os.pwrite(file, donor[start : start + length], block * BLOCK)
        changed.update(range(block, block + length // BLOCK))

    while len(changed) * BLOCK < wanted // 2:
        near = rng.choice(hot) + rng.randrange(2048) if rng.random() < 0.7 else rng.randrange(len(blocks))
        write(blocks[near], BLOCK)
    while len(changed) * BLOCK < wanted:
        length = rng.choice([64, 128, 256, 512, 1024, 2048, 4096]) * KIB
        anywhere = rng.randrange(size // BLOCK - 1024)
        block = blocks[rng.randrange(len(blocks))] if rng.random() < 0.5 else anywhere
        if block * BLOCK + length <= size:
            write(block, length)
    os.close(file)
    target.with_suffix(".json").write_text(
        json.dumps([(b * BLOCK, (b + 1) * BLOCK) for b in sorted(changed)])
    )


# One measurement, in a process of its own


@contextmanager
def serving(folder: Path, transports: Sequence[bool]) -> Iterator[dict[bool, str]]:
    """Serve the images of a folder, plain or over TLS or both; the origin of each."""
    certificates = folder / "tls"
    certificates.mkdir(parents=True, exist_ok=True)
    files = ensure_certificates(certificates, dt.datetime.now(dt.UTC))
    started: list[subprocess.Popen[str]] = []
    origins: dict[bool, str] = {}
    try:
        for tls in transports:
            command = [sys.executable, "-m", "bench.snapshot_server", str(folder / "images")]
            command += ["--tls", str(files.certificate), str(files.key)] if tls else []
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            started.append(process)
            assert process.stdout
            origins[tls] = f"{'https' if tls else 'http'}://127.0.0.1:{process.stdout.readline().strip()}"
        yield origins
    finally:
        for process in started:
            process.communicate()


def _in_process(task: dict[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.data_path", "--one", json.dumps(task)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def zstd(image: Path) -> dict[str, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(["zstd", "-1", "-T1", "-q", "-c", image], check=True, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    wall = time.monotonic() - began
    return {"cpu": spent, "wall": wall, "read": image.stat().st_size, "stored": len(done.stdout), "peak": 0}


def measured(task: dict[str, Any]) -> dict[str, float]:
    """Do one of CASES and say what it took. All but the first start from a copy of the first one's media."""
    folder, case = Path(task["folder"]), str(task["case"])
    base = folder / "base"
    if case != "full" and not base.exists():
        _back_up("full", base, task)
    work = Path(tempfile.mkdtemp(dir=folder))
    try:
        if case != "full":
            # Objects never change, so links are copies.
            shutil.copytree(base, work / "media", copy_function=os.link)
        with _profiled(bool(task["profile"])):
            before, began = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
            figures = _restore(work) if case == "restore" else _back_up(case, work / "media", task)
            after = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "wall": time.monotonic() - began,
            "peak": _peak(),
            **figures,
        }
    finally:
        shutil.rmtree(work)


def _peak() -> int:
    """The most memory that this process ever had resident; `getrusage` counts its parent's, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * KIB


@contextmanager
def _profiled(wanted: bool) -> Iterator[None]:
    """Profile this thread, and each thread that is started meanwhile, by kind; sorted by own CPU time."""
    if not wanted:
        yield
        return
    profiles: dict[str, list[cProfile.Profile]] = defaultdict(list)
    original = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        profile = cProfile.Profile(time.thread_time)
        profiles["threads"].append(profile)
        profile.runcall(original, thread)

    threading.Thread.run = run  # type: ignore[assignment,method-assign]
    own = cProfile.Profile(time.thread_time)
    try:
        own.runcall(lambda: None)
        yield
    finally:
        threading.Thread.run = original  # type: ignore[method-assign]
        import pstats  # noqa: PLC0415 - of the profile alone

        for found in profiles.values():
            stats = pstats.Stats(found[0], stream=sys.stderr)
            for other in found[1:]:
                stats.add(other)
            stats.sort_stats("tottime").print_stats(32)


def _back_up(case: str, place: Path, task: dict[str, Any]) -> dict[str, float]:
    image = _IMAGE_OF[case]
    disk = a_disk("disk", int(task["mib"]) * MIB).model_copy(update={"kind": DiskKind.UNMANAGED})
    media = Media.open(str(place), write=True) if case != "full" else Media.create(str(place), now=NOW)
    run = f"run-{case}"
    media.begin_run(intent_of(run))
    snapshot = SnapshotRef(
        disk_key=disk.key,
        kind=disk.kind,
        id=disk.source,
        moment=f"2026-03-0{image[1:]}T00:00:00.0000000Z",
        source_unique_id=disk.unique_id,
        taken_at=NOW,
        size=disk.size,
    )
    known = runs.known_of(media.view(), disk.key)
    wish = Wish(method=Method.CRC if case == "crc" else Method.CBT)
    decision = decide(snapshot, known, wish, now=NOW, base_exists=lambda _: True)
    memory = Memory()
    with tempfile.TemporaryDirectory() as scratch:
        surroundings = Streaming(
            connection=AzureConnection(
                subscription_id="bench", ca_file=str(Path(task["folder"], "tls", "ca.pem"))
            ),
            media=media,
            stop=Stop(),
            progress=SILENT,
            scratch=Path(scratch),
            now=lambda: NOW,
            sharing=media.sharing(Offer.MEDIA, memory=memory.caches),
            memory=memory,
            rng=random.Random(7),
        )
        order = StreamOrder(
            job="bench", run=run, media=media.id, client="vm", vm="vm", disk=disk, snapshot=snapshot,
            proxy="bench", wish=wish,
        )  # fmt: skip
        settle()
        backup = copy_source(_source(task, image, order, surroundings), order, decision, known, surroundings)
    media.append(_point(disk, backup), run=run)
    return {"read": backup.figures.read, "stored": backup.figures.stored}


def _source(task: dict[str, Any], image: str, order: StreamOrder, env: Streaming) -> SnapshotSource:
    """A snapshot to which access was granted."""
    access = GrantedAccess(lambda: Secret(f"{task['origin']}/disks/{image}?sv=2021-12-02&sig=a%2Bb"), image)
    grants = Grants(env.connection, guard=lambda: None, stop=env.stop)
    return SnapshotSource(
        env.connection, grants, order.snapshot, env.media.extent_size, access, access, env.stop
    )


def _restore(work: Path) -> dict[str, float]:
    media = Media.open(str(work / "media"))
    backup = next(iter(media.view().points.values())).point.disks[0]
    done = restore_disk(media, backup, work / "restored.img", format=Format.RAW)
    return {"read": backup.figures.stored, "stored": done.bytes_written}


def _point(disk: SourceDisk, backup: DiskBackup) -> PointEntry:
    point = Point(vm=vm_of(disk), subclient="bench", job="bench", disks=(backup,), bases=(backup.snapshot,))
    return PointEntry(point=point)


if __name__ == "__main__":
    main()
