"""Orders of streams with only what a test is about spelled out."""

from __future__ import annotations

from typing import Any

from tests.subclient.builders import a_source_disk
from tests.transfer.records import a_backup, a_snapshot
from vsa.media.outcomes import StreamOutcome
from vsa.ranges import GIB
from vsa.transfer.order import StreamOrder


def an_order(disk: str, *, size: int = GIB, **given: Any) -> StreamOrder:
    source = a_source_disk(name=disk, size=size)
    return StreamOrder(
        **{
            "job": "00000000-0000-0000-0000-000000000001",
            "run": "run",
            "media": "media",
            "client": "client",
            "vm": "web",
            "disk": source,
            "snapshot": a_snapshot(source),
            "proxy": "proxy-a",
            **given,
        }
    )


def its_outcome(order: StreamOrder) -> StreamOutcome:
    """What a stream comes to that goes well."""
    return StreamOutcome(backup=a_backup(order.snapshot, disk=order.disk, proxy=order.proxy))
