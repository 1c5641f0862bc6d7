"""Plain text for terminals: aligned columns, and nothing in a cell that a terminal would obey."""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Sequence

from vsa.text import printable

RIGHT = ">"


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; a heading that starts with `>` aligns its column right."""
    titles = [heading.removeprefix(RIGHT) for heading in headings]
    lines = [titles, *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*lines, strict=True)]
    right = [heading.startswith(RIGHT) for heading in headings]
    return "\n".join(_line(line, widths, right) for line in lines)


def fields(pairs: Sequence[tuple[str, object]]) -> str:
    """One `name  value` per line, values aligned; pairs with an empty value are left out."""
    shown = [(name, str(value)) for name, value in pairs if value not in ("", None)]
    width = max(len(name) for name, _ in shown)
    return "\n".join(f"{name.ljust(width)}  {printable(value)}" for name, value in shown)


def moment(time: dt.datetime) -> str:
    """A time to the second, in UTC, and said to be."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = (
        " " * (width - _width(cell)) + cell if to_right else cell + " " * (width - _width(cell))
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(padded).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal that the text fills: none for combining marks, two for wide characters."""
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in text
    )
