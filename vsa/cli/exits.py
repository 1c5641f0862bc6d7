"""The exit codes of the command, their one table, and which error means which."""

from __future__ import annotations

from enum import IntEnum

from vsa.errors import BadRequest, MediaConflict, MediaDamaged, NoMedia


class Exit(IntEnum):
    DONE = 0
    FAILED = 1
    BAD_REQUEST = 2
    INCOMPLETE = 3
    NO_MEDIA = 10
    CONFLICT = 11
    DAMAGED = 20
    INTERRUPTED = 130


_MEANINGS = {
    Exit.DONE: "done",
    Exit.FAILED: "failed; the message says why",
    Exit.BAD_REQUEST: "bad request: repeating it cannot help",
    Exit.INCOMPLETE: "done but incomplete: some of what was asked for, not all; or leftovers are there; or "
    "what is damaged is nothing that a restore needs",
    Exit.NO_MEDIA: "no backup media at that place",
    Exit.CONFLICT: "conflict: something is there that would have to be overwritten",
    Exit.DAMAGED: "media damaged: stored data fails its check",
    Exit.INTERRUPTED: "interrupted",
}

_BY_ERROR: tuple[tuple[type[Exception], Exit], ...] = (
    (BadRequest, Exit.BAD_REQUEST),
    (NoMedia, Exit.NO_MEDIA),
    (MediaConflict, Exit.CONFLICT),
    (MediaDamaged, Exit.DAMAGED),
)


def exit_of(error: Exception) -> Exit:
    return next((code for kind, code in _BY_ERROR if isinstance(error, kind)), Exit.FAILED)


def exit_table() -> str:
    return "exit codes:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in _MEANINGS.items())
