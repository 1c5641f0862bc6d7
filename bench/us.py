"""Our side of the comparison: each measure in a fresh process, on media and snapshots that only it sees.

Once, a VM for each version of the image is backed up whole, with its first contents, and its disk then
written as the version says: its base snapshot and the media stay as they are, and every measure of an
incremental works on a copy of that media, made of hard links, since nothing on media is ever changed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from azure.mgmt.compute import models

from bench.engine import Task, connect
from bench.image import Images
from bench.measures import Failed, Measure, Session, of_command
from bench.meter import CommandFailed, Taken, size_of, take
from bench.servers import PLAIN, TLS, Servers, remove
from demo.images import sha256_of
from vsa.azure.connection import AzureConnection
from vsa.ranges import GIB, MIB

GROUP = "bench"
FIRST, WARM, SPARSE = "first", "warm", "sparse"
MOST_READ = 2 * GIB
SPARSE_SIZE = 32 * 1024 * GIB
_SPARSE_PIECES = 1024
BETWEEN_JOBS = 601
"""Seconds of virtual time: Azure takes seven snapshots of a disk in five minutes."""
CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class How:
    """How a measure is taken; `label` is the last part of its key."""

    transport: str = TLS
    sealed: bool = False
    unchecked: bool = False

    @property
    def label(self) -> str:
        extra = [name for name, wanted in (("sealed", self.sealed), ("unchecked", self.unchecked)) if wanted]
        return " ".join([self.transport, *extra])


@dataclass
class Us:
    """The engine and what it is measured on. `say` tells what is being prepared."""

    servers: Servers
    images: Images
    folder: Path
    say: Callable[[str], None]
    verify: bool = True
    """Restore what every backup has stored, and compare."""
    _number: int = field(default=0, init=False)

    def prepare(self, bases: Sequence[How]) -> None:
        """VMs, disks, and the media that incrementals start from, one for each of `bases`."""
        control, first = self.servers.control, self.images.first.path
        self.folder.mkdir(parents=True)
        self._key_file.write_bytes(bytes(range(32)))
        self._key_file.chmod(0o600)
        small = self.folder / "warm.img"
        with first.open("rb") as file:
            small.write_bytes(file.read(MIB))
        self.say("loading the disk into azsim")
        machines = [_machine(FIRST, first), _machine(WARM, small, group=WARM)]
        control.create_fleet({"resource_group": GROUP, "vms": machines})
        self.servers.serve(first)
        if bases:
            self._prepare_incrementals(bases)

    def _prepare_incrementals(self, bases: Sequence[How]) -> None:
        connection = connect(self._task(FIRST, How()))
        source = connection.compute.disks.get(GROUP, FIRST)
        for percent in self.images.changed:
            _copy_machine(connection, str(source.id), changed(percent))
        for how in bases:
            for number, percent in enumerate(self.images.changed):
                self.say(f"first backup of the disk that will have {percent} % changed, {how.label}")
                self._run(
                    "bench.stream",
                    self._task(changed(percent), how, media=self._base(how), new_media=not number),
                )
        for percent, version in self.images.changed.items():
            self.say(f"changing {percent} % of a disk in azsim")
            self.servers.control.write_image(changed(percent), version.path)

    def backups(self, how: How, *, incrementals: bool = True) -> Session:
        """Full, restore, CBT, CRC."""
        with self._folder() as media:
            full = self._measured("us/full", how, self.images.first, media / "media", FIRST, new=True)
            yield full
            if isinstance(full, Measure) and incrementals:
                point, target = int(full.more["point"]), media / "restored.img"
                yield self._restored(how, media / "media", point, target)
                if not how.sealed:
                    yield self._restored(how, media / "media", point, target, checksum=False)
        if incrementals:
            for percent in self.images.changed:
                yield self._incremental("cbt", percent, how)
            yield self._incremental("crc", min(self.images.changed, key=float), how)

    def readers(self, transport: str, *, ours_first: bool) -> Session:
        """What reading costs us, and curl."""
        self.servers.serve(self.images.first.path)
        with self._folder() as folder:
            task = self._task(FIRST, How(transport), media=folder / "media", new_media=True)
            task = replace(task, most=MOST_READ, ours_first=ours_first, scratch=str(folder), warm_vm="")
            try:
                found = self._run("bench.reads", task)
            except CommandFailed as error:
                yield Failed(f"reader/ours/{transport}", str(error))
                return
            self._forget(found["snapshot"])
            for side in ("ours", "curl"):
                if side in found:
                    yield Measure(f"reader/{side}/{transport}", **found[side], read=found["bytes"])

    def sparse(self) -> Session:
        """A first backup of a disk of 32 TiB with 64 MiB of data, for the memory it takes."""
        control = self.servers.control
        piece = self.folder / "piece.bin"
        if not piece.exists():
            with self.images.first.path.open("rb") as file:
                piece.write_bytes(file.read(MIB)[: MIB // 16].replace(b"\0", b"."))
            disk = {"name": SPARSE, "size": SPARSE_SIZE, "sku": "Premium_LRS"}
            control.create_fleet({"resource_group": GROUP, "vms": [{"name": SPARSE, "disks": [disk]}]})
            for number in range(_SPARSE_PIECES):
                control.write_at(SPARSE, number * (SPARSE_SIZE // _SPARSE_PIECES), piece)
        self.servers.serve(None)
        with self._folder() as folder:
            task = replace(self._task(SPARSE, How(), media=folder / "media", new_media=True), warm_vm="")
            try:
                found = self._run("bench.stream", task)
                self._forget(found["snapshot"])
                yield _measure("us/sparse/tls", found, stored=size_of(folder / "media"))
            except CommandFailed as error:
                yield Failed("us/sparse/tls", str(error))

    def _incremental(self, method: str, percent: str, how: How) -> Measure | Failed:
        with self._folder() as folder:
            shutil.copytree(self._base(how), folder / "media", copy_function=_link)
            version = self.images.changed[percent]
            key = f"us/{method}-{percent}"
            return self._measured(key, how, version, folder / "media", changed(percent), method=method)

    def _measured(
        self,
        key: str,
        how: How,
        version: Any,
        media: Path,
        vm: str,
        *,
        new: bool = False,
        method: str = "cbt",
    ) -> Measure | Failed:
        self.servers.serve(version.path)
        task = self._task(vm, how, media=media, new_media=new, method=method)
        name = f"{key}/{how.label}"
        before = size_of(media)
        try:
            found = self._run("bench.stream", task)
            self._forget(found["snapshot"])
            if not new and found["method"] != method:
                return Failed(name, f"became {found['method']}: {found['reason']}")
            if self.verify:
                self._require_restores(task, int(found["point"]), version.sha256)
        except CommandFailed as error:
            return Failed(name, str(error))
        return _measure(name, found, stored=size_of(media) - before)

    def _restored(
        self, how: How, media: Path, point: int, target: Path, *, checksum: bool = True
    ) -> Measure | Failed:
        key = f"us/restore/{'sealed' if how.sealed else 'plain'}{'' if checksum else ' no-checksum'}"
        target.unlink(missing_ok=True)
        try:
            taken = self._restore(self._task(FIRST, how, media=media), point, target, checksum=checksum)
        except CommandFailed as error:
            return Failed(key, str(error))
        return of_command(key, taken)

    def _require_restores(self, task: Task, point: int, sha256: str) -> None:
        target = Path(task.media).parent / "verified.img"
        self._restore(task, point, target)
        found = sha256_of(target)
        target.unlink()
        if found != sha256:
            raise CommandFailed(f"point {point} of {task.vm} restores to {found}, expected {sha256}")

    def _restore(self, task: Task, point: int, target: Path, *, checksum: bool = True) -> Taken:
        """As an operator does it; with the checksum of the whole disk, unless it is left out."""
        words = ["restore", str(point), "--media", task.media, "--disk", "os", "--to", str(target)]
        words += [] if checksum else ["--no-checksum"]
        key = ["--key-file", task.key_file] if task.key_file else []
        command = [sys.executable, "-m", "vsa", *words, "--format", "raw", *key]
        return take(command, folder=CHECKOUT, durable=target)

    def _run(self, module: str, task: Task) -> dict[str, Any]:
        """One process of ours, to its end; what it says of itself."""
        self._number += 1
        self.servers.control.advance_clock(BETWEEN_JOBS)
        order = Path(task.scratch).with_suffix(".json")
        order.write_text(json.dumps(asdict(task)))
        Path(task.scratch).mkdir(exist_ok=True)
        taken = take([sys.executable, "-m", module, order], folder=CHECKOUT)
        remove(Path(task.scratch))
        order.unlink()
        found: dict[str, Any] = json.loads(taken.output.splitlines()[-1])
        if task.warm_vm:
            self.servers.control.close_access()
            self.servers.control.delete_snapshots(resource_group=WARM)
        return found

    def _forget(self, snapshot: str) -> None:
        """Delete a measure's snapshot, which its media no longer needs. Bases stay."""
        self.servers.control.close_access()
        self.servers.control.delete_snapshot(snapshot)

    def _task(self, vm: str, how: How, *, media: Path | None = None, **more: Any) -> Task:
        folder = self.folder / "work" / f"process-{self._number}"
        folder.parent.mkdir(exist_ok=True)
        return Task(
            azure=str(self.servers.control.state),
            media=str(media or ""),
            vm=vm,
            scratch=str(folder),
            servers=list(self.servers.processes),
            key_file=str(self._key_file) if how.sealed else "",
            tls=self.servers.addresses[TLS],
            plain=self.servers.addresses[PLAIN] if how.transport == PLAIN else "",
            unchecked=how.unchecked,
            **({"warm_vm": WARM} | more),
        )

    @property
    def _key_file(self) -> Path:
        return self.folder / "key"

    def _base(self, how: How) -> Path:
        return self.folder / ("base-sealed" if how.sealed else "base")

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = self.folder / "work" / "media"
        remove(folder)
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            remove(folder)


def changed(percent: str) -> str:
    """The VM, and the disk, of that version."""
    return f"changed-{percent}"


def _measure(key: str, found: dict[str, Any], *, stored: int) -> Measure:
    """A stream's measure is its transfer; what comes before is told beside it. `stored` are the bytes that
    the media has more; its frames are most of them."""
    spans, figures = found["spans"], found["figures"]
    beside = {
        f"{span} {what}": value
        for span, taken in spans.items()
        if span != "transfer"
        for what, value in taken.items()
    }
    counted = {name: figures[name] for name in ("allocated", "changed", "new", "shared", "audited")}
    return Measure(
        key,
        **spans["transfer"],
        read=figures["read"],
        stored=stored,
        memory=found["memory"],
        more=beside | counted | {"frames": figures["stored"], "point": found["point"]},
    )


def _machine(name: str, image: Path, group: str = GROUP) -> dict[str, Any]:
    disk = {"name": name, "image": str(image), "sku": "Premium_LRS"}
    return {"name": name, "resource_group": group, "disks": [disk]}


def _copy_machine(connection: AzureConnection, source: str, name: str) -> None:
    """A VM whose disk is a copy of another, as a clone in Azure is: no history, the same contents."""
    compute = connection.compute
    creation = models.CreationData(create_option="Copy", source_resource_id=source)
    location = "westeurope"
    disk = models.Disk(
        location=location,
        properties=models.DiskProperties(creation_data=creation),
        sku=models.DiskSku(name="Premium_LRS"),
    )
    made = compute.disks.begin_create_or_update(GROUP, name, disk).result()
    attached = models.OSDisk(
        create_option="Attach",
        os_type="Linux",
        name=name,
        managed_disk=models.ManagedDiskParameters(id=made.id),
    )
    machine = models.VirtualMachine(
        location=location,
        properties=models.VirtualMachineProperties(storage_profile=models.StorageProfile(os_disk=attached)),
    )
    compute.virtual_machines.begin_create_or_update(GROUP, name, machine).result()


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)
