"""Values as Azure writes them on the wire."""

from __future__ import annotations

from enum import Enum

SERVICE_VERSION = "2021-12-02"
"""Of the blob service, for requests that the engine writes itself. A read by a managed disk's SAS and the
difference of two snapshots need 2019-07-07 at least, a list in pages 2020-10-02."""


def text(value: object) -> str:
    """The wire text of a value; empty for none. `str` of the SDK's enums gives their Python name instead."""
    if value is None:
        return ""
    return str(value.value if isinstance(value, Enum) else value)
