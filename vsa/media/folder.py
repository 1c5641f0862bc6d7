"""A store in a folder of a POSIX file system.

An object becomes visible by `link(2)`, which refuses an existing name where `rename(2)` replaces it. Every
path is resolved below a directory descriptor, so a media that is unmounted and replaced while we run is
never mistaken for the one that was opened.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Self

from vsa import direct
from vsa.errors import DeleteRefused, MediaConflict, MediaDamaged, MediaUnusable, NoMedia, ObjectMissing
from vsa.fault_points import FaultPoint, reached
from vsa.media import layout
from vsa.media.store import Buffer
from vsa.ranges import ByteRange
from vsa.threads import Threads

TEMPORARY = ".tmp"
"""Unfinished files; no object name can begin with a dot."""

_NOT_CONTENT = (TEMPORARY, "lost+found")
"""What an empty folder may hold: our own unfinished files, and what a new file system comes with."""

_STALE_AFTER = 24 * 3600.0
_PROBE_WRITERS = 8
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KEPT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY)
"""What says no to a deletion alone: modes, immutable files, read-only mounts."""

_ADVICE = {
    errno.ENOSPC: "the file system is full: free some space",
    errno.EDQUOT: "the quota is used up: raise it or free some space",
    errno.EFBIG: "the file system or a limit refuses files of this size",
    errno.EROFS: "it is mounted read-only: mount it for writing",
    errno.EACCES: "permission denied: check owner and mode of the folder",
    errno.EPERM: "the file system refuses hard links or the write: use one that supports them",
    errno.EOPNOTSUPP: "the file system has no hard links: use one that supports them",
    errno.EMFILE: "raise this process's limit on open files (ulimit -n)",
    errno.ENOENT: "the folder is gone: check that the media is still mounted",
}


class FolderStore:
    """Objects as files below `root`; safe for many threads and processes at once."""

    def __init__(self, root: Path, *, random: Callable[[int], bytes] = os.urandom) -> None:
        """NoMedia if `root` is not a folder; creates nothing."""
        self.root = root.absolute()
        self._random = random
        self._folder = _open_folder(self.root)
        weakref.finalize(self, os.close, self._folder)
        self._settled: set[PurePosixPath] = set()
        self._settling = threading.Lock()
        self._log_was_read = True
        """Whether something of the log was read since it was last synced here."""

    @classmethod
    def make(cls, root: Path, *, random: Callable[[int], bytes] = os.urandom) -> Self:
        """A store ready for writing in a new or empty folder; MediaConflict saying what else is there."""
        try:
            _make_durable(root.absolute())
        except OSError as error:
            raise MediaUnusable(f"{root}: the folder cannot be made: {error.strerror}") from error
        store = cls(root, random=random)
        if found := [name for name in store._list(".") if name not in _NOT_CONTENT]:
            raise MediaConflict(
                f"{root} is not empty, it holds {', '.join(found[:3])}: "
                "new media needs a folder of its own, existing media is never made anew"
            )
        store.prepare_for_writing()
        return store

    @property
    def location(self) -> str:
        return str(self.root)

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        layout.require_name(name)
        with self._writing(name):
            temporary = self._write_temporary(parts)
            try:
                reached(FaultPoint.OBJECT_WRITTEN)
                self._settle(PurePosixPath(name).parent)
                if name.startswith(layout.LOG):
                    self._settle_log()
                self._publish(temporary, name)
                reached(FaultPoint.OBJECT_NAMED)
            except MediaConflict:
                # Whoever hears that it exists may rely on it, and who made it may not have come to this.
                self._sync(PurePosixPath(name).parent)
                raise
            finally:
                self._unlink(temporary)
            self._sync(PurePosixPath(name).parent)

    def read(self, name: str, at: ByteRange | None = None, *, limit: int | None = None) -> bytes:
        with self._opened(name) as (file, size):
            if at is None:
                if limit is not None and size > limit:
                    raise MediaDamaged(
                        f"{self.location}: {name} has {size} bytes, at most {limit} were expected"
                    )
                at = ByteRange(0, size)
            data = _read_range(file, at)
        if len(data) != at.length or size < at.end:
            raise MediaDamaged(
                f"{self.location}: {name} has {size} bytes, but bytes {at.offset} to {at.end} are needed"
            )
        if name.startswith(layout.LOG):
            self._log_was_read = True
        return data

    def size(self, name: str) -> int:
        with self._opened(name) as (_, size):
            return size

    def folders(self, prefix: str) -> Iterator[str]:
        with self._reading(prefix):
            for entry in self._list(prefix.rstrip("/")):
                if stat.S_ISDIR(self._mode(f"{prefix}{entry}")):
                    yield entry

    def names(self, prefix: str, *, after: str = "") -> Iterator[str]:
        folder = prefix.rpartition("/")[0]
        with self._reading(prefix):
            yield from (name for name in self._walk(folder, after) if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """As the protocol says. Folders stay, also empty ones: another writer may be about to use them."""
        layout.require_name(name)
        with self._deleting(name), suppress(FileNotFoundError):
            self._settle_log()
            os.unlink(name, dir_fd=self._folder)
            self._sync(PurePosixPath(name).parent)

    def prepare_for_writing(self) -> None:
        """Prove that an existing name is refused here, by many writers at once; MediaUnusable if it is not.

        Also removes unfinished files that are a day old by this file system's own clock. A living
        writer whose file is taken away gets an error, never a wrong object.
        """
        area = f"{TEMPORARY}/probe-{self._random(8).hex()}"
        with self._writing(area):
            self._make_folder(TEMPORARY)
            os.mkdir(area, dir_fd=self._folder)
            try:
                self._probe(area)
                self._sweep(now=os.stat(area, dir_fd=self._folder).st_mtime)
            finally:
                self._remove_area(area)

    def _probe(self, area: str) -> None:
        target = f"{area}/once"
        with Threads(_PROBE_WRITERS) as writers:
            won = sum(writers.map(lambda _: self._try_publish(target), range(_PROBE_WRITERS)))
        if won != 1 or self._try_publish(target):
            raise MediaUnusable(
                f"{self.location}: {won} of {_PROBE_WRITERS} concurrent writers created the same file; "
                "exactly one must win. Keep backup media on a file system with working hard links"
            )

    def _try_publish(self, target: str) -> bool:
        temporary = self._write_temporary([self._random(16)])
        try:
            self._publish(temporary, target)
        except MediaConflict:
            return False
        finally:
            self._unlink(temporary)
        return True

    def _sweep(self, *, now: float) -> None:
        for name in self._list(TEMPORARY):
            path = f"{TEMPORARY}/{name}"
            with suppress(FileNotFoundError):
                found = os.stat(path, dir_fd=self._folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and now - found.st_mtime > _STALE_AFTER:
                    self._unlink(path)

    def _remove_area(self, area: str) -> None:
        for name in self._list(area):
            self._unlink(f"{area}/{name}")
        os.rmdir(area, dir_fd=self._folder)

    def _write_temporary(self, parts: Sequence[Buffer]) -> str:
        name = f"{TEMPORARY}/{self._random(16).hex()}"
        self._make_folder(TEMPORARY)
        file = os.open(name, _WRITE_NEW, 0o600, dir_fd=self._folder)
        try:
            _write_all(file, parts)
            os.fsync(file)
        except BaseException:
            self._unlink(name)
            raise
        finally:
            os.close(file)
        return name

    def _publish(self, temporary: str, name: str) -> None:
        try:
            self._link(temporary, name)
        except FileExistsError as error:
            # Over NFS a repeated request reports its own first success as a refusal; the link count tells.
            if os.stat(temporary, dir_fd=self._folder).st_nlink != 2:
                raise MediaConflict(f"{self.location}: {name} exists already") from error

    def _link(self, temporary: str, name: str) -> None:
        os.link(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _settle(self, folder: PurePosixPath) -> None:
        """Make the folder and its parents, each durable in its own parent before anything is put into it.

        One that another writer made is synced here as well: it may not have come that far.
        """
        for path in [*reversed(folder.parents), folder]:
            if path == PurePosixPath("."):
                continue
            with self._settling:
                if path in self._settled:
                    continue
                self._make_folder(str(path))
                self._sync(path.parent)
                self._settled.add(path)

    def _settle_log(self) -> None:
        """Make durable what was read of the log, before something is done because of it.

        Who has placed an entry may have died, or be about to sync it: a power cut would take the entry, and
        leave what follows from it, a deletion or the next entry.
        """
        with self._settling:
            if not self._log_was_read:
                return
            # Before the sync: what is read during it may not be part of it.
            self._log_was_read = False
            try:
                with suppress(FileNotFoundError):
                    self._sync(PurePosixPath(layout.LOG))
            except OSError:
                self._log_was_read = True
                raise

    def _make_folder(self, path: str) -> None:
        with suppress(FileExistsError):
            os.mkdir(path, 0o700, dir_fd=self._folder)

    def _sync(self, folder: PurePosixPath) -> None:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        try:
            os.fsync(file)
        finally:
            os.close(file)

    def _unlink(self, path: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(path, dir_fd=self._folder)

    def _walk(self, folder: str, after: str) -> Iterator[str]:
        for entry in self._list(folder or "."):
            path = f"{folder}/{entry}" if folder else entry
            # "0" follows "/": neither this name nor any below it comes after. Not even its kind is asked.
            if f"{path}0" <= after:
                continue
            mode = self._mode(path)
            if stat.S_ISDIR(mode) and not entry.startswith("."):
                yield from self._walk(path, after)
            elif stat.S_ISREG(mode) and path > after:
                yield path

    def _mode(self, path: str) -> int:
        """The file's type bits; 0 if it was removed since it was listed."""
        with suppress(FileNotFoundError):
            return os.stat(path, dir_fd=self._folder, follow_symlinks=False).st_mode
        return 0

    def _list(self, folder: str) -> list[str]:
        try:
            file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._folder)
        except FileNotFoundError:
            return []
        try:
            return sorted(os.listdir(file))  # noqa: PTH208 - a descriptor, not a path
        finally:
            os.close(file)

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        """The open file and its size."""
        layout.require_name(name)
        with self._reading(name):
            file = os.open(name, _READ, dir_fd=self._folder)
            try:
                found = os.fstat(file)
                if not stat.S_ISREG(found.st_mode):
                    raise MediaDamaged(f"{self.location}: {name} is no regular file")
                yield file, found.st_size
            finally:
                os.close(file)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissing(f"{self.location}: {name} is missing") from error
        except OSError as error:
            if error.errno in (errno.EIO, errno.ELOOP, errno.ENOTDIR):
                raise MediaDamaged(f"{self.location}: {name} cannot be read: {error.strerror}") from error
            raise MediaUnusable(f"{self.location}: {name} cannot be read: {_told(error)}") from error

    @contextmanager
    def _deleting(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            kind = DeleteRefused if error.errno in _KEPT else MediaUnusable
            raise kind(f"{self.location}: cannot delete {name}: {_told(error)}") from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise MediaUnusable(f"{self.location}: cannot store {name}: {_told(error)}") from error


def _told(error: OSError) -> str:
    return f"{error.strerror}; {_ADVICE.get(error.errno or 0, 'check the file system and its log')}"


def _open_folder(root: Path) -> int:
    try:
        return os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NoMedia(f"{root}: no backup media, there is no such folder") from error
    except OSError as error:
        raise MediaUnusable(f"{root}: the folder cannot be opened: {_told(error)}") from error


def _make_durable(root: Path) -> None:
    """Make the folder and its missing parents, each synced into its parent.

    One that is there may have been made a moment ago, by a person or by us before we died: up to where the
    file system is mounted they are synced as well, where that is allowed.
    """
    for path in reversed((root, *root.parents)):
        if not path.exists():
            path.mkdir(0o700, exist_ok=True)
            _sync_folder(path.parent)
        elif not path.is_mount():
            with suppress(OSError):
                _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, parts: Sequence[Buffer]) -> None:
    views = [memoryview(part).cast("B") for part in parts]
    if sum(map(len, views)) >= direct.LEAST:
        _write_past_cache(file, views)
        return
    for view in views:
        rest = view
        while rest:
            rest = rest[os.write(file, rest) :]


def _write_past_cache(file: int, views: Sequence[memoryview]) -> None:
    offset = 0
    with direct.Writer(file) as writer:
        for view in views:
            writer.write(offset, view)
            offset += len(view)


def _read_range(file: int, at: ByteRange) -> bytes:
    """The bytes, fewer only if the file ends before; one read unless the kernel gives less."""
    pieces: list[bytes] = []
    offset = at.offset
    while offset < at.end and (piece := os.pread(file, at.end - offset, offset)):
        pieces.append(piece)
        offset += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
