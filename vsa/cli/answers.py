"""What every command gives back, and how errors are told."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

from vsa.cli.exits import Exit
from vsa.redact import redact
from vsa.text import printable

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found out: the same as a document and as text, and how it went."""

    document: Document
    text: str
    exit: Exit = Exit.DONE


Command = Callable[[argparse.Namespace, TextIO], Answer]
"""Takes the parsed options and the stream for progress and warnings."""


def complain(err: TextIO, error: object) -> None:
    """One line, free of secrets and of anything a terminal would obey."""
    err.write(f"vsa: {printable(redact(str(error)))}\n")
