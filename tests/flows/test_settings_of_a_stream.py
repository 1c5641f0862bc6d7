"""What the subclient says of memory and speed reaches a stream on its proxy, in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from flows.stream_disk import _open
from tests.flows.site import Site
from tests.tasks.orders import an_order
from vsa.media.recent_extents import RECENT_EXTENTS
from vsa.memory import LARGEST_PACK, LEAST_CACHES, LEAST_PACK
from vsa.ranges import GIB, MIB
from vsa.stop import Stop
from vsa.transfer.backup_disk import Streaming

LARGE_DISK = 32 * 1024 * GIB


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def opened(site: Site, stack: ExitStack, **settings: int) -> Streaming:
    """What a child run has that carries a disk of the subclient with these settings."""
    site.save_blocks(**settings)
    return _open(site.name, [an_order("web-os", media=site.media.id)], Stop(), stack)


def test_memory_is_what_the_subclient_says(site: Site, stack: ExitStack) -> None:
    little, much = (opened(site, stack, memory_mib=bound) for bound in (128, 8192))
    packs = [item.memory.of_stream(LARGE_DISK, threads=6).pack_target for item in (little, much)]
    assert packs == [LEAST_PACK, LARGEST_PACK]
    assert little.memory.caches == LEAST_CACHES < much.memory.caches


def test_what_is_remembered_of_stored_extents_is_within_that_memory(site: Site, stack: ExitStack) -> None:
    little, much = (opened(site, stack, memory_mib=bound) for bound in (128, 8192))
    assert little.sharing and much.sharing
    assert little.sharing._recent._limit < much.sharing._recent._limit == RECENT_EXTENTS


def test_speed_is_what_the_subclient_says(site: Site, stack: ExitStack) -> None:
    for most, expected in ((4, 0.25), (0, 0.0)):
        waits: list[float] = []
        rate = opened(site, stack, most_mib_per_second=most).rate
        for _ in range(2):
            rate.take(MIB, wait=waits.append)
        assert sum(waits) == pytest.approx(expected, abs=0.1)
