"""Power cuts: what a process does to a folder, recorded, and what of it may be there after a cut.

Recorded is what really happens: each call of `os` that changes something below the folder is made and written
down, one after the other. Of that a POSIX file system has promised only what was synced: a file's contents by
an `fsync` of the file, a name by an `fsync` of its folder, that folder's own name by one of the folder above.
Of all the rest any part may be there, in any order.
"""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from vsa.errors import MediaConflict
from vsa.media.folder import FolderStore

BLOCK = 4096
"""Bytes of which a file system writes all or nothing."""

TOP = 0
"""The number of the folder below which is recorded."""

_REFUSED = (
    *("rename", "replace", "symlink", "mknod", "mkfifo", "removedirs", "truncate", "ftruncate"),
    *("posix_fallocate", "writev", "pwritev", "sendfile", "copy_file_range"),
)
"""Calls that change files and are not modelled: nobody makes them below a folder of media."""


class Killed(BaseException):
    """The process is dead: from here on it changes nothing."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a folder leads to a new or an old file, or a new folder."""

    folder: int
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Unnamed:
    folder: int
    name: str


@dataclass(frozen=True, slots=True)
class Wrote:
    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Synced:
    node: int


@dataclass(frozen=True, slots=True)
class Told:
    """A store's caller knows now that an object is there, or, if it `went`, that it is not."""

    name: str
    went: bool = False


Operation = Named | Unnamed | Wrote | Synced | Told


class Recorder:
    """What was done below a folder, from how it was found; kept in numbers of files and folders."""

    def __init__(self, top: Path, *, dies: Callable[[Sequence[Operation]], bool] = lambda _: False) -> None:
        """`dies`: whether the process is dead after these operations; others may begin after it."""
        self.top = top
        self.operations: list[Operation] = []
        self.folders = {TOP}
        self.found: list[Operation] = []
        """What made the folder as it was found, all of it durable."""
        self._dies = dies
        self._lock = threading.RLock()
        self._nodes = {_identity(top.stat()): TOP}
        self._last = TOP
        self._find(top, TOP)

    def revive(self) -> None:
        """Another process begins, and lives."""
        self._dies = lambda _: False

    @contextmanager
    def recording(self) -> Iterator[None]:
        """For the time of a block, by all threads of this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("open", "mkdir", "link", "unlink", "remove", "rmdir", "write", "pwrite"):
                patch.setattr(os, name, self._around(getattr(os, name), getattr(self, f"_{name}")))
            for name in ("fsync", "fdatasync"):
                patch.setattr(os, name, self._around(getattr(os, name), self._fsync))
            for name in _REFUSED:
                patch.setattr(os, name, self._around(getattr(os, name), self._refuse))
            for name in ("create", "delete"):
                patch.setattr(FolderStore, name, self._telling(getattr(FolderStore, name)))
            yield

    def _around(self, real: Callable[..., Any], record: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with self._lock:
                return record(real, *given, **named)

        return call

    def _telling(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(store: FolderStore, name: str, *given: Any) -> None:
            try:
                real(store, name, *given)
            except MediaConflict:
                self._tell(store, name)
                raise
            self._tell(store, name, went=not given)

        return call

    def _tell(self, store: FolderStore, name: str, *, went: bool = False) -> None:
        with self._lock:
            if _identity(store.root.stat()) in self._nodes:
                self.operations.append(Told(name, went))

    def _find(self, folder: Path, node: int) -> None:
        for path in sorted(folder.iterdir()):
            new = self._new(path.lstat())
            self.found.append(Named(node, path.name, new))
            if path.is_dir():
                self.folders.add(new)
                self._find(path, new)
            else:
                self.found += [Wrote(new, 0, path.read_bytes()), Synced(new)]
        self.found.append(Synced(node))

    def _new(self, found: os.stat_result) -> int:
        self._last += 1
        self._nodes[_identity(found)] = self._last
        return self._last

    def _node(self, file: int) -> int | None:
        return self._nodes.get(_identity(os.fstat(file)))

    def _place(self, path: Any, dir_fd: int | None) -> tuple[int, str] | None:
        """The folder and the name in it; None if that is not below ours."""
        if isinstance(path, int):
            return None
        parent, name = os.path.split(os.fspath(path).rstrip("/"))
        try:
            found = os.stat(parent or ".", dir_fd=dir_fd)
        except OSError:
            return None
        folder = self._nodes.get(_identity(found))
        return None if folder is None else (folder, name)

    def _add(self, operation: Operation) -> None:
        self.operations.append(operation)

    def _live(self) -> None:
        if self._dies(self.operations):
            raise Killed

    def _open(self, real: Any, path: Any, flags: int, *given: Any, **named: Any) -> int:
        place = self._place(path, named.get("dir_fd")) if flags & (os.O_CREAT | os.O_TRUNC) else None
        if place is None:
            return int(real(path, flags, *given, **named))
        assert flags & os.O_EXCL and not flags & os.O_APPEND, f"{path} may be changed, not made"
        self._live()
        file = int(real(path, flags, *given, **named))
        self._add(Named(*place, self._new(os.fstat(file))))
        return file

    def _mkdir(self, real: Any, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        if (place := self._place(path, dir_fd)) is not None:
            self._live()
        real(path, mode, dir_fd=dir_fd)
        if place is not None:
            node = self._new(os.stat(path, dir_fd=dir_fd))
            self.folders.add(node)
            self._add(Named(*place, node))

    def _link(self, real: Any, source: Any, target: Any, **named: Any) -> None:
        if (place := self._place(target, named.get("dst_dir_fd"))) is not None:
            self._live()
        real(source, target, **named)
        if place is not None:
            node = self._nodes[_identity(os.stat(source, dir_fd=named.get("src_dir_fd")))]
            self._add(Named(*place, node))

    def _unlink(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        place = self._place(path, dir_fd)
        if place is None:
            real(path, dir_fd=dir_fd)
            return
        self._live()
        found = os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        real(path, dir_fd=dir_fd)
        if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
            # Its number in the file system may be another file's next.
            del self._nodes[_identity(found)]
        self._add(Unnamed(*place))

    _remove = _rmdir = _unlink

    def _write(self, real: Any, file: int, data: Any) -> int:
        node = self._node(file)
        if node is None:
            return int(real(file, data))
        self._live()
        offset = os.lseek(file, 0, os.SEEK_CUR)
        count = int(real(file, data))
        self._add(Wrote(node, offset, bytes(memoryview(data).cast("B")[:count])))
        return count

    def _pwrite(self, real: Any, file: int, data: Any, offset: int) -> int:
        node = self._node(file)
        if node is None:
            return int(real(file, data, offset))
        self._live()
        count = int(real(file, data, offset))
        self._add(Wrote(node, offset, bytes(memoryview(data).cast("B")[:count])))
        return count

    def _fsync(self, real: Any, file: int) -> None:
        node = self._node(file)
        if node is not None:
            self._live()
        real(file)
        if node is not None:
            self._add(Synced(node))

    def _refuse(self, real: Any, *given: Any, **named: Any) -> Any:
        for one in given:
            ours = self._node(one) is not None if isinstance(one, int) else self._place(one, None) is not None
            assert not ours, f"{real.__name__}{given} is not modelled"
        return real(*given, **named)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@dataclass
class _File:
    durable: bytes = b""
    pending: list[Wrote] = field(default_factory=list)

    def whole(self) -> bytes:
        held = bytearray(self.durable)
        for write in self.pending:
            held += bytes(max(0, write.offset - len(held)))
            held[write.offset : write.offset + len(write.data)] = write.data
        return bytes(held) if self.pending else self.durable


@dataclass
class _Folder:
    durable: dict[str, int] = field(default_factory=dict)
    pending: dict[str, list[int | None]] = field(default_factory=dict)
    """What names have led to since, one after the other; None: to nothing."""


@dataclass(frozen=True)
class Left:
    """What is there after a cut: every file by its path, with its number and its bytes, and every folder."""

    files: dict[str, tuple[int, bytes]]
    folders: list[str]

    def built(self, target: Path, pool: Path) -> None:
        """The same for real. Files of `pool` serve many times: nobody writes to one that has its name."""
        target.mkdir()
        for path in self.folders:
            (target / path).mkdir()
        for path, (node, data) in self.files.items():
            shared = pool / f"{node}-{len(data)}-{hash(data)}"
            if not shared.exists():
                shared.write_bytes(data)
            os.link(shared, target / path)


class Disk:
    """A file system below one folder: what of it is durable, and what may be."""

    def __init__(self, recorder: Recorder) -> None:
        self._folders = recorder.folders
        self._nodes: dict[int, _File | _Folder] = {TOP: _Folder()}
        for operation in recorder.found:
            self.apply(operation)

    def apply(self, operation: Operation) -> None:
        match operation:
            case Named(folder, name, node):
                self._nodes.setdefault(node, _Folder() if node in self._folders else _File())
                self._folder(folder).pending.setdefault(name, []).append(node)
            case Unnamed(folder, name):
                self._folder(folder).pending.setdefault(name, []).append(None)
            case Wrote(node, _, _):
                self._file(node).pending.append(operation)
            case Synced(node):
                self._sync(self._nodes[node])
            case Told():
                pass

    def waits_for(self, node: int) -> str:
        """What a sync of it would make durable now: "contents", "names", "folders", or nothing."""
        found = self._nodes[node]
        if isinstance(found, _File):
            return "contents" if found.pending else ""
        new = {value for pending in found.pending.values() for value in pending}
        return "folders" if new & self._folders else "names" if new - {None} else ""

    def _sync(self, node: _File | _Folder) -> None:
        if isinstance(node, _File):
            node.durable, node.pending = node.whole(), []
            return
        for name, values in node.pending.items():
            if (last := values[-1]) is None:
                node.durable.pop(name, None)
            else:
                node.durable[name] = last
        node.pending = {}

    def _folder(self, node: int) -> _Folder:
        found = self._nodes[node]
        assert isinstance(found, _Folder)
        return found

    def _file(self, node: int) -> _File:
        found = self._nodes[node]
        assert isinstance(found, _File)
        return found

    def whole(self) -> Left:
        """Everything, as if nothing had happened."""
        return self._left(lambda values: values[-1], _File.whole)

    def after_cut(self, choose: random.Random) -> Left:
        """One of all that may be there; how much of what was not synced is drawn, too, nothing and all of it
        among it."""
        appears, goes, block = (choose.choice([0.0, 0.1, 0.5, 0.9, 1.0]) for _ in range(3))

        def survives(value: int | None) -> bool:
            return choose.random() < (goes if value is None else appears)

        files: dict[int, bytes] = {}

        def entry(values: list[int | None]) -> int | None:
            """The last of the changes that came to the disk; `values` begins with what was there."""
            return next((value for value in reversed(values[1:]) if survives(value)), values[0])

        def contents(file: _File) -> bytes:
            if not file.pending:
                return file.durable
            if id(file) not in files:
                files[id(file)] = self._torn(file, block, choose)
            return files[id(file)]

        return self._left(entry, contents)

    def _torn(self, file: _File, share: float, choose: random.Random) -> bytes:
        """Blocks that were not written are as before; where nothing was, zeros or what the disk held before,
        which others have written."""
        whole, before = file.whole(), file.durable
        held = bytearray(self._stale(len(whole), choose) if choose.random() < 0.5 else len(whole))
        held[: len(before)] = before
        for write in file.pending:
            for at in range(write.offset - write.offset % BLOCK, write.offset + len(write.data), BLOCK):
                begin, end = max(at, write.offset), min(at + BLOCK, write.offset + len(write.data))
                if choose.random() < share:
                    held[begin:end] = write.data[begin - write.offset : end - write.offset]
        size = choose.choice([len(whole), len(whole), len(before), choose.randint(len(before), len(whole))])
        return bytes(held[:size])

    def _stale(self, size: int, choose: random.Random) -> bytes:
        """The bytes of some file, over and over."""
        held = [node.durable for node in self._nodes.values() if isinstance(node, _File) and node.durable]
        some = choose.choice(held or [b"\0"])
        return (some * (size // len(some) + 1))[:size]

    def _left(
        self, entry: Callable[[list[int | None]], int | None], contents: Callable[[_File], bytes]
    ) -> Left:
        left = Left({}, [])

        def walk(folder: _Folder, path: PurePosixPath) -> None:
            for name in sorted(folder.durable.keys() | folder.pending.keys()):
                values = [folder.durable.get(name), *folder.pending.get(name, ())]
                if (node := entry(values)) is None:
                    continue
                match self._nodes[node]:
                    case _Folder() as found:
                        left.folders.append(str(path / name))
                        walk(found, path / name)
                    case _File() as found:
                        left.files[str(path / name)] = node, contents(found)

        walk(self._folder(TOP), PurePosixPath())
        return left
