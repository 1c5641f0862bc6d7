"""What people read and type: sizes, ages, and names that cannot command a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vsa.errors import BadRequest
from vsa.ranges import ByteRange, merge, total

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_AGES = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_SIZE = re.compile(r"(\d{1,15})\s*(B|KiB|MiB|GiB|TiB)?", re.IGNORECASE)


def size_text(size: int) -> str:
    """A byte count in at most four digits and a binary unit: `0 B`, `512 KiB`, `1.5 GiB`."""
    value, unit = float(size), 0
    while value >= 1023.95 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    digits = 0 if unit == 0 or value == int(value) else 1
    return f"{value:.{digits}f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """A time in its two greatest units: `12 s`, `3 min 20 s`, `2 h 5 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def parse_size(text: str) -> int:
    """Bytes from `65536`, `64KiB` or `1 MiB`; raises BadRequest for anything else."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise BadRequest(f"{printable(text)!r} is no size: write a number and B, KiB, MiB, GiB or TiB")
    unit = (found[2] or "B").lower()
    power = [name.lower() for name in _UNITS].index(unit)
    return int(found[1]) << (10 * power)


def age_text(seconds: float) -> str:
    """How long ago, in whole units of the largest that fits twice: `119 seconds`, `2 minutes`, `47 hours`."""
    whole = max(0, int(seconds))
    unit, size = next(((unit, size) for unit, size in _AGES if whole >= 2 * size), _AGES[-1])
    return f"{whole // size} {unit}{'' if whole // size == 1 else 's'}"


def ranges_text(ranges: Iterable[tuple[int, int]], *, at_most: int = 20) -> str:
    """`128 KiB: bytes 0 to 65536, 131072 to 196608`, neighbours joined."""
    found = list(merge(ByteRange(*item) for item in ranges))
    listed = ", ".join(f"{item.offset} to {item.end}" for item in found[:at_most])
    more = f" and {len(found) - at_most} ranges more" if len(found) > at_most else ""
    return f"{size_text(total(found))}: bytes {listed}{more}"


def printable(text: str) -> str:
    """The text on one line, with everything invisible or commanding written out as an escape.

    Names of VMs, disks and tags are chosen by strangers: terminal sequences, line breaks and
    right-to-left overrides in them must not reach a terminal or forge a line of a report.
    """
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")
