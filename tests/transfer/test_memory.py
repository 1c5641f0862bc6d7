"""What the streams of a process hold stays below one bound, and buffers are used again."""

from __future__ import annotations

import subprocess
import sys
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.memory import (
    LARGEST_PACK,
    LEAST_CACHES,
    LEAST_PACK,
    LEAST_SHARE,
    LONGEST_READ,
    PACKS,
    SMALL_DISK_PACK,
    WORKING,
    Buffers,
    Memory,
    resident,
)
from vsa.ranges import GIB, MIB

TIB = 1024 * GIB
CODE = 190 * MIB
"""What a process takes before it streams."""


def held(memory: Memory, disk_size: int) -> int:
    found = memory.of_stream(disk_size, threads=6)
    return found.buffers * found.read_length + PACKS * found.pack_target


@given(
    bound=st.integers(256, 8192).map(lambda mib: mib * MIB),
    streams=st.integers(1, 64),
    disks=st.lists(st.integers(512, 64 * TIB), min_size=1),
)
def test_all_that_streams_hold_and_remember_is_below_the_bound(bound: int, streams: int, disks: list[int]):
    memory = Memory(bound, streams=streams, resident=lambda: CODE)
    most = memory.caches + streams * max(held(memory, disk) for disk in disks)
    # A bound that leaves streams less than they need to work is all that is exceeded.
    assert most <= max(bound - CODE - WORKING, LEAST_CACHES + streams * LEAST_SHARE)


def test_a_small_disk_needs_little_whatever_the_bound():
    memory = Memory(8 * GIB, resident=lambda: CODE)
    assert memory.of_stream(4 * GIB, threads=6).pack_target == SMALL_DISK_PACK
    assert CODE + WORKING + held(memory, 4 * GIB) <= 256 * MIB
    assert memory.of_stream(128 * GIB, threads=6).pack_target == LARGEST_PACK
    assert CODE + WORKING + held(memory, 32 * TIB) <= 384 * MIB


def test_reads_are_long_where_there_is_room_and_short_where_there_is_not():
    assert Memory(512 * MIB, resident=lambda: CODE).of_stream(GIB, threads=6).read_length == LONGEST_READ
    least = Memory(1, streams=3, resident=lambda: CODE).of_stream(GIB, threads=6)
    assert (least.read_length, least.pack_target) == (MIB, LEAST_PACK)


def test_a_stream_loads_nothing_that_only_other_disks_and_media_need():
    """Account keys are for unmanaged disks, vaults for sealed media: eight MiB of every other stream."""
    said = subprocess.run(
        [sys.executable, "-c", "import sys, flows.stream_disk; print(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = said.stdout.split()
    assert "azure.mgmt.compute" in loaded
    assert not [name for name in loaded if name.startswith(("azure.mgmt.storage", "azure.keyvault"))]


def test_a_process_knows_what_it_takes():
    before = resident()
    ballast = bytearray(b"x") * (64 * MIB)
    assert 60 * MIB < resident() - before < 100 * MIB
    del ballast


class TestBuffers:
    def test_what_was_given_back_is_taken_again(self):
        buffers = Buffers()
        first = buffers.take(4 * MIB)
        first[:4] = b"used"
        buffers.give_back(first)
        again = buffers.take(3 * MIB)
        assert again is first
        assert buffers.take(3 * MIB) is not first

    def test_the_smallest_that_fits_is_taken(self):
        buffers = Buffers()
        small, large = buffers.take(4 * MIB), buffers.take(8 * MIB)
        buffers.give_back(large)
        buffers.give_back(small)
        assert buffers.take(4 * MIB) is small
        assert buffers.take(4 * MIB) is large

    def test_a_read_does_not_take_the_memory_of_a_pack(self):
        buffers = Buffers()
        pack = buffers.take(64 * MIB)
        buffers.give_back(pack)
        assert buffers.take(4 * MIB) is not pack

    def test_what_does_not_fit_is_not_kept_beside_what_does(self):
        """Disks of all sizes one after another must not each leave their buffers behind."""
        buffers = Buffers()
        buffers.give_back(buffers.take(16 * MIB))
        buffers.give_back(buffers.take(64 * MIB))
        buffers.take(64 * MIB)
        assert buffers.free == 0

    def test_what_nobody_uses_can_be_given_back_to_the_machine(self):
        buffers = Buffers()
        used, lent = buffers.take(4 * MIB), buffers.take(8 * MIB)
        memory = weakref.ref(lent.obj)
        buffers.give_back(lent)
        del lent
        assert memory() is not None
        buffers.release()
        assert (memory(), buffers.free, len(used)) == (None, 0, 4 * MIB)

    @pytest.mark.parametrize("size", [1, 4096, 5 * MIB])
    def test_a_new_one_is_as_long_as_it_must_be_and_zeros(self, size: int):
        assert bytes(Buffers().take(size)) == bytes(size)


def test_what_is_loaded_is_spared_the_garbage_collector_once() -> None:
    """Not at every stream: what is garbage by then would stay for ever, time and again."""
    program = """
import gc
from vsa.memory import settle
before = len(gc.get_objects())
settle()
assert gc.get_freeze_count() >= 0.9 * before and len(gc.get_objects()) < 0.1 * before
more = [[] for _ in range(10_000)]
settle()
assert len(gc.get_objects()) >= 10_000
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
