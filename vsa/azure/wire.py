"""Values as Azure writes them on the wire."""

from __future__ import annotations

from enum import Enum


def text(value: object) -> str:
    """The wire text of a value; empty for none. `str` of the SDK's enums gives their Python name instead."""
    if value is None:
        return ""
    return str(value.value if isinstance(value, Enum) else value)
