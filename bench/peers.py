"""The others, each with the versions of the image as a local file: the first, 0.1 %, 1 %, restore.

A session works in an empty folder of its own. What a tool has written is durable when its time ends: the
files are synced within it, which costs nothing where the tool has done that itself.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.image import Images, Version
from bench.measures import Failed, Measure, Session, of_command
from bench.meter import CommandFailed, Taken, size_of, take
from demo.ext4 import find_tool
from vsa.ranges import ByteRange

DISK = "disk.img"
RESTORED = "restored.img"


@dataclass(frozen=True)
class Bench:
    """Where a peer works, and with what. `verify`: compare what it restores."""

    folder: Path
    images: Images
    verify: bool = True

    def source(self, version: Version) -> Path:
        """The version under the one name that peers know the disk by."""
        path = self.folder / "source" / DISK
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.hardlink_to(version.path)
        return path

    def stores(
        self, key: str, command: Sequence[str | Path], into: Path, **options: object
    ) -> Measure | Failed:
        """Measure a command that adds to what is in `into`."""
        before = size_of(into)
        try:
            taken = self._take(command, durable=into, **options)
        except CommandFailed as error:
            return Failed(key, str(error))
        return of_command(key, taken, stored=size_of(into) - before)

    def restores(
        self, key: str, command: Sequence[str | Path], target: Path, **options: object
    ) -> Measure | Failed:
        """Measure a command that makes `target`, which must be the first version of the image then."""
        try:
            taken = self._take(command, durable=target, **options)
            if self.verify:
                take(["cmp", target, self.images.first.path])
        except CommandFailed as error:
            return Failed(key, str(error))
        finally:
            if target.exists():
                target.unlink()
        return of_command(key, taken)

    def _take(self, command: Sequence[str | Path], *, durable: Path, **options: object) -> Taken:
        return take(command, durable=durable, environment=_environment(self.folder), **options)  # type: ignore[arg-type]


class Peer(Protocol):
    """One tool."""

    name: str
    install: str

    @property
    def program(self) -> str | None:
        """Where it is; None if it is not installed."""

    def version_command(self) -> Sequence[str]: ...

    def session(self, bench: Bench) -> Session: ...


class _Tool:
    name = ""
    install = ""
    tool = ""
    version = "--version"

    @property
    def program(self) -> str | None:
        return find_tool(self.tool)

    def version_command(self) -> Sequence[str]:
        return [str(self.program), self.version]


class Restic(_Tool):
    name, tool, install, version = "restic", "restic", "apt-get install restic", "version"

    def session(self, bench: Bench) -> Session:
        repository = bench.folder / "repository"
        restic = [str(self.program), "-r", str(repository), "--no-cache"]
        take([*restic, "init", "--repository-version", "2"], environment=_environment(bench.folder))
        for what, version in _versions(bench.images):
            source = bench.source(version)
            command = [*restic, "--compression", "auto", "backup", "--tag", what, source.name]
            yield bench.stores(f"restic/{what}", command, repository, folder=source.parent)
        command = [*restic, "restore", "latest", "--tag", "full", "--target", str(bench.folder / "out")]
        (bench.folder / "out").mkdir()
        yield bench.restores("restic/restore", command, bench.folder / "out" / DISK)


class Borg(_Tool):
    name, tool, install = "borg", "borg", "apt-get install borgbackup"

    def session(self, bench: Bench) -> Session:
        repository, out = bench.folder / "repository", bench.folder / "out"
        take([str(self.program), "init", "-e", "none", repository], environment=_environment(bench.folder))
        for what, version in _versions(bench.images):
            source = bench.source(version)
            options = ["-C", "zstd,1", "--chunker-params", "fixed,4194304", "--sparse"]
            command = [str(self.program), "create", *options, f"{repository}::{what}", source.name]
            yield bench.stores(f"borg/{what}", command, repository, folder=source.parent)
        out.mkdir()
        command = [str(self.program), "extract", "--sparse", f"{repository}::full"]
        yield bench.restores("borg/restore", command, out / DISK, folder=out)


class Benji(_Tool):
    """With hints it is told what has changed, as we are by Azure. Each incremental works on a copy of the
    first backup: blocks that another one has stored already would cost it nothing."""

    name, tool, version = "benji", "benji", "--help"
    install = (
        "with Python 3.8 (its dependencies do not build on newer ones): python3.8 -m venv DIR, "
        "DIR/bin/pip install benji zstandard, then BENJI=DIR/bin/benji"
    )

    @property
    def program(self) -> str | None:
        return os.environ.get("BENJI") or find_tool(self.tool)

    def version_command(self) -> Sequence[str]:
        return [str(Path(str(self.program)).with_name("pip")), "show", "benji"]

    def session(self, bench: Bench) -> Session:
        first = bench.folder / "first"
        benji = self._repository(first)
        take([*benji, "database-init"], environment=_environment(bench.folder))
        source = bench.source(bench.images.first)
        yield bench.stores(
            "benji/full", [*benji, "backup", "--snapshot", "full", f"file:{source}", "disk"], first
        )
        listed = take([*benji, "-m", "ls"], environment=_environment(bench.folder)).output
        uid = str(json.loads(listed[listed.index("{") :])["versions"][0]["uid"])
        for percent, version in bench.images.changed.items():
            hints = bench.folder / "hints.json"
            hints.write_text(json.dumps([_hint(item) for item in version.changed]))
            for kind, options in (("incremental", ()), ("hints", ("-r", str(hints), "-f", uid))):
                copied = bench.folder / f"{kind}-{percent}"
                command = [*self._copy(first, copied), "backup", "--snapshot", kind, *options]
                command += [f"file:{bench.source(version)}", "disk"]
                yield bench.stores(f"benji/{kind}-{percent}", command, copied)
                shutil.rmtree(copied)
        target = bench.folder / RESTORED
        command = [*benji, "restore", "--sparse", "--force", uid, f"file:{target}"]
        yield bench.restores("benji/restore", command, target)

    def _copy(self, first: Path, target: Path) -> list[str]:
        """Blocks by hard links, the database as it is."""
        target.mkdir()
        shutil.copytree(first / "blocks", target / "blocks", copy_function=os.link)
        with sqlite3.connect(first / "benji.sqlite") as source:
            source.execute("PRAGMA wal_checkpoint")
        shutil.copyfile(first / "benji.sqlite", target / "benji.sqlite")
        return self._configured(target)

    def _repository(self, folder: Path) -> list[str]:
        (folder / "blocks").mkdir(parents=True)
        return self._configured(folder)

    def _configured(self, folder: Path) -> list[str]:
        configuration = folder / "benji.yaml"
        configuration.write_text(_BENJI.format(folder=folder))
        return [str(self.program), "-c", str(configuration), "--log-level", "ERROR"]


_BENJI = """\
configurationVersion: '1'
databaseEngine: sqlite:///{folder}/benji.sqlite
defaultStorage: blocks
blockSize: 4194304
hashFunction: BLAKE2b,digest_bits=256
ios:
  - name: file
    module: file
    configuration: {{simultaneousReads: 4, simultaneousWrites: 4}}
storages:
  - name: blocks
    storageId: 1
    module: file
    configuration:
      path: {folder}/blocks
      activeTransforms: [zstd]
      simultaneousReads: 4
      simultaneousWrites: 4
transforms:
  - name: zstd
    module: zstd
    configuration: {{level: 1}}
"""


class QemuImg(_Tool):
    name, tool, install = "qemu-img", "qemu-img", "apt-get install qemu-utils"

    def session(self, bench: Bench) -> Session:
        stored, target = bench.folder / "disk.qcow2", bench.folder / RESTORED
        convert = [str(self.program), "convert", "-m", "8", "-W"]
        options = ["-c", "-O", "qcow2", "-o", "compression_type=zstd", "-f", "raw"]
        yield bench.stores("qemu-img/full", [*convert, *options, bench.images.first.path, stored], stored)
        yield bench.restores("qemu-img/restore", [*convert, "-O", "raw", stored, target], target)


class Zstd(_Tool):
    name, tool, install = "zstd", "zstd", "apt-get install zstd"

    def session(self, bench: Bench) -> Session:
        stored, target = bench.folder / "disk.zst", bench.folder / RESTORED
        zstd = [str(self.program), "-q", "-f"]
        command = [*zstd, "-1", "-T1", str(bench.images.first.path), "-o", str(stored)]
        yield bench.stores("zstd/full", command, stored)
        yield bench.restores("zstd/restore", [*zstd, "-d", stored, "-o", target], target)


class Dd(_Tool):
    """The floor of every restore: nothing is decoded."""

    name, tool, install = "dd", "dd", "coreutils"

    def session(self, bench: Bench) -> Session:
        target = bench.folder / RESTORED
        command = [str(self.program), f"if={bench.images.first.path}", f"of={target}", "bs=4M"]
        yield bench.restores("dd/restore", [*command, "conv=sparse,fsync"], target)


PEERS: tuple[Peer, ...] = (Restic(), Borg(), Benji(), QemuImg(), Zstd(), Dd())


def _versions(images: Images) -> Iterator[tuple[str, Version]]:
    yield "full", images.first
    for percent in sorted(images.changed, key=float):
        yield f"incremental-{percent}", images.changed[percent]


def _hint(item: ByteRange) -> dict[str, object]:
    """As `rbd diff` says it."""
    return {"offset": item.offset, "length": item.length, "exists": "true"}


def _environment(folder: Path) -> Mapping[str, str]:
    """No configuration or cache of the user, and no questions."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "RESTIC_PASSWORD": "bench",
        "BORG_BASE_DIR": str(folder / "borg"),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
    }
