"""Words of strangers in Markdown: names, reasons and errors are shown as they are and never become markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vsa.text import printable

_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~])")


def escaped(text: str) -> str:
    """Names come from outside: they are shown as they are and never become markup."""
    return _MARKUP.sub(r"\\\1", printable(text))


def section(title: str, lines: Sequence[str]) -> list[str]:
    """A heading and a list; nothing if there are no lines."""
    return [f"## {title}", "\n".join(f"- {escaped(line)}" for line in lines)] if lines else []


def code_span(text: str) -> str:
    """Text to be copied as it stands. A span ends at a run of backticks as long as the one it begins with."""
    fence = _fence(text, shortest=1)
    # A space on both sides is not shown, and keeps a backtick at the end of the text apart from the fence.
    return f"{fence} {printable(text)} {fence}"


def code_block(lines: Iterable[str]) -> str:
    """Lines to be copied as they stand."""
    text = "\n".join(printable(line) for line in lines)
    fence = _fence(text, shortest=3)
    return f"{fence}\n{text}\n{fence}"


def _fence(text: str, *, shortest: int) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    return "`" * max(shortest, longest + 1)


def table_line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def table(headings: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are Markdown already."""
    return "\n".join(table_line(row) for row in (headings, ["---"] * len(headings), *rows))
