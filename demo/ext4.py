"""ext4 file systems inside image files, made, changed and checked with e2fsprogs and without mounting.

The tools address a file system at an offset as `image?offset=N`. They take the time of day from
E2FSPROGS_FAKE_TIME (seconds since 1970), which together with fixed identities makes every byte repeatable.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from vsa.ranges import ByteRange

BLOCK = 4096
BYTES_PER_INODE = 8192
TOOLS = ("mke2fs", "debugfs", "dumpe2fs", "e2fsck", "resize2fs")

_REGULAR_FILE, _DIRECTORY = "10", "04"
_FREE_BLOCKS = re.compile(r"^  Free blocks: (.+)$", re.MULTILINE)
# e2fsck(8): 4 = errors left uncorrected (with -n all of them), 8 = too broken to be checked.
_E2FSCK_FOUND_ERRORS = 4 | 8


class ToolFailed(Exception):
    """A tool ended with an error; the message holds its own words."""


class GuestFile(NamedTuple):
    """A regular file in the file system."""

    path: str
    size: int


def find_tool(name: str) -> str | None:
    """The tool's absolute path; system folders count even when the caller's PATH omits them."""
    folders = (os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")
    return shutil.which(name, path=os.pathsep.join(folders))


@dataclass(frozen=True, slots=True)
class Ext4:
    """One file system: the image it lies in, where it begins, and the time of day its guest sees."""

    image: Path
    offset: int
    moment: dt.datetime

    def create(self, size: int, identity: UUID, hash_seed: UUID) -> None:
        """Make an empty file system of `size` bytes; tables and journal stay holes of the image."""
        extended = f"offset={self.offset},hash_seed={hash_seed},root_owner=0:0"
        extended += ",lazy_itable_init=1,lazy_journal_init=1,nodiscard"
        shape = ("-t", "ext4", "-b", str(BLOCK), "-i", str(BYTES_PER_INODE), "-m", "0")
        options = ("-q", "-F", *shape, "-U", str(identity), "-E", extended)
        self._run("mke2fs", *options, self.image, f"{size // 1024}k")

    def change(self, commands: Sequence[str], scratch: Path) -> None:
        """Let debugfs carry out commands that write."""
        self._debugfs(commands, scratch, "-w")

    def read(self, commands: Sequence[str], scratch: Path) -> str:
        """Let debugfs carry out commands that only read; returns what it printed."""
        return self._debugfs(commands, scratch)

    def files(self, scratch: Path) -> list[GuestFile]:
        """All regular files, ordered by path."""
        found: list[GuestFile] = []
        folders = ["/"]
        while folders:
            files, folders = _read_listing(self.read([f"ls -p {folder}" for folder in folders], scratch))
            found += files
        return sorted(found)

    def free_ranges(self) -> list[ByteRange]:
        """Bytes of the image that belong to blocks the file system does not use."""
        report = self._run("dumpe2fs", self._spec).stdout
        spans = (span for group in _FREE_BLOCKS.findall(report) for span in group.split(", "))
        bounds = ([int(number) for number in span.split("-")] for span in spans)
        return [ByteRange(self._at(span[0]), self._at(span[-1] + 1)) for span in bounds]

    def grow_to_image(self) -> None:
        """Let the file system fill its image; only for one that is alone on its disk."""
        assert self.offset == 0, "resize2fs takes the image's size for its own"
        self._run("resize2fs", "-f", self.image)

    def errors(self) -> str:
        """What e2fsck finds wrong, empty for a clean file system. Nothing is repaired."""
        done = self._run("e2fsck", "-fn", self._spec, accept=_E2FSCK_FOUND_ERRORS)
        return "\n".join((done.stdout + done.stderr).strip().splitlines()[:20]) if done.returncode else ""

    def _debugfs(self, commands: Sequence[str], scratch: Path, *options: str) -> str:
        """Run debugfs on a batch of commands; any complaint is a failure."""
        batch = scratch / "debugfs-commands"
        batch.write_text("".join(f"{command}\n" for command in commands))
        done = self._run("debugfs", *options, "-f", batch, self._spec)
        # debugfs goes on after a failed command and ends with 0; its first line names the version.
        complaints = done.stderr.splitlines()[1:]
        if complaints:
            raise ToolFailed(f"debugfs on {self._spec}: {'; '.join(complaints[:5])}")
        return done.stdout

    @property
    def _spec(self) -> str:
        return f"{self.image}?offset={self.offset}" if self.offset else str(self.image)

    def _at(self, block: int) -> int:
        return self.offset + block * BLOCK

    def _run(self, tool: str, *arguments: str | Path, accept: int = 0) -> subprocess.CompletedProcess[str]:
        """Run one of TOOLS; its exit status must consist of bits of `accept`."""
        program = find_tool(tool)
        if program is None:
            raise ToolFailed(f"{tool} is not installed; it is part of e2fsprogs")
        environment = {
            "LC_ALL": "C",
            "PATH": os.defpath,
            "E2FSPROGS_FAKE_TIME": str(int(self.moment.timestamp())),
        }
        command = [program, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if done.returncode & ~accept:
            words = (done.stderr or done.stdout).strip()
            raise ToolFailed(f"{' '.join(command)} ended with {done.returncode}: {words}")
        return done


def _read_listing(listing: str) -> tuple[list[GuestFile], list[str]]:
    """Files and subfolders out of the echoed `ls -p` commands and their answers.

    An answer's line is `/inode/mode/uid/gid/name/size/`; the mode is octal, six digits.
    """
    files: list[GuestFile] = []
    folders: list[str] = []
    folder = ""
    for line in listing.splitlines():
        if line.startswith("debugfs: ls -p "):
            folder = line.removeprefix("debugfs: ls -p ").rstrip("/")
        elif line.startswith("/"):
            _, _, mode, _, _, name, size, _ = line.split("/")
            if mode.startswith(_REGULAR_FILE):
                files.append(GuestFile(f"{folder}/{name}", int(size)))
            elif mode.startswith(_DIRECTORY) and name not in (".", "..", "lost+found"):
                folders.append(f"{folder}/{name}")
    return files, folders
