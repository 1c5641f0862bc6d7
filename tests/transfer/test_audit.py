"""What the audit reads: enough, nothing twice, never what is read anyway, and everything in time."""

from __future__ import annotations

import random
import tracemalloc
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa.media.layout import SEGMENT
from vsa.ranges import GIB, KIB, MIB, ByteRange
from vsa.transfer.audit import AuditPolicy, _drawn, choose_audit
from vsa.transfer.reads import CLEARED, READ, ReadPlan

EXTENT = 4 * KIB
POLICIES = st.builds(
    AuditPolicy,
    minimum=st.integers(0, 40),
    share=st.sampled_from([0.0, 0.001, 0.1, 0.5, 1.0]),
    cycle=st.integers(1, 60),
)
DISK_SIZES = st.integers(1, 300).map(lambda sectors: sectors * 3 * 512)


def a_plan(size: int, *, read: set[int] = frozenset(), cleared: set[int] = frozenset()) -> ReadPlan:
    """A plan that reads and clears these extents, as far as the disk has them."""
    plan = ReadPlan(size, EXTENT)
    for extent in sorted(cleared):
        if extent < plan.extents:
            plan.clear(plan.extent_range(extent))
    plan.finish()
    for extent in sorted(read):
        if extent < plan.extents:
            plan.read(plan.extent_range(extent))
    return plan


def audited(plan: ReadPlan, policy: AuditPolicy, *, turn: int = 0, seed: int = 0) -> list[int]:
    """The extents that are audited, in the order in which they are read."""
    chosen = choose_audit(plan, policy, turn=turn, rng=random.Random(seed))
    assert list(chosen) == sorted(chosen)
    return [segment * SEGMENT + position for segment in chosen for position in chosen[segment]]


def marked(plan: ReadPlan, mark: int) -> set[int]:
    return {
        segment * SEGMENT + position
        for segment in range(plan.segments)
        if (marks := plan.marks(segment)) is not None
        for position in (marks == mark).nonzero()[0].tolist()
    }


@settings(deadline=None)
@given(
    size=DISK_SIZES,
    read=st.sets(st.integers(0, 250)),
    cleared=st.sets(st.integers(0, 250)),
    policy=POLICIES,
    turn=st.integers(0, 10**6),
    seed=st.integers(),
)
def test_enough_extents_all_different_and_none_that_is_read_anyway(size, read, cleared, policy, turn, seed):
    plan = a_plan(size, read=read, cleared=cleared)
    chosen = audited(plan, policy, turn=turn, seed=seed)
    skipped = plan.extents - plan.marked(READ)
    assert chosen == sorted(set(chosen))
    assert not set(chosen) & marked(plan, READ)
    assert all(0 <= extent < plan.extents for extent in chosen)
    wanted = max(policy.minimum, ceil(skipped * policy.share))
    rotating = max(policy.minimum // 2, ceil(plan.extents / policy.cycle))
    assert min(skipped, wanted) <= len(chosen) <= min(skipped, wanted + rotating)
    assert chosen == audited(plan, policy, turn=turn, seed=seed)


@settings(deadline=None, max_examples=50)
@given(size=DISK_SIZES, cycle=st.integers(1, 30), start=st.integers(0, 10**6), data=st.data())
def test_every_extent_is_read_or_audited_within_a_cycle_whatever_else_changes(size, cycle, start, data):
    """The other reads differ from job to job; nothing may hide between them for longer than a cycle."""
    policy = AuditPolicy(minimum=0, share=0.0, cycle=cycle)
    seen: set[int] = set()
    for turn in range(start, start + cycle):
        plan = a_plan(size, read=data.draw(st.sets(st.integers(0, 250))))
        seen |= marked(plan, READ) | set(audited(plan, policy, turn=turn))
    assert seen == set(range(plan.extents))


def test_half_is_left_to_chance():
    """Who knows the rotation does not know what else is looked at."""
    plan = a_plan(10_000 * EXTENT)
    policy = AuditPolicy(minimum=200, share=0.0, cycle=2000)
    one, other = (set(audited(plan, policy, turn=7, seed=seed)) for seed in (1, 2))
    assert len(one) == len(other) == 200
    assert 100 <= len(one & other) < 110


def test_a_window_wider_than_the_audit_leaves_as_much_to_chance_as_ever():
    policy = AuditPolicy(minimum=20, share=0.0, cycle=10)
    chosen = audited(a_plan(1000 * EXTENT), policy, turn=3)
    assert set(range(300, 400)) < set(chosen)
    assert len(chosen) == 100 + 10


def test_chance_looks_everywhere():
    plan = a_plan(100 * EXTENT, read=set(range(40, 60)))
    policy = AuditPolicy(minimum=4, share=0.0, cycle=2000)
    seen = {extent for seed in range(400) for extent in audited(plan, policy, turn=0, seed=seed)}
    assert seen == set(range(100)) - set(range(40, 60))


def test_extents_of_zeros_are_audited_too():
    plan = a_plan(50 * EXTENT, read=set(range(10)), cleared=set(range(10, 20)))
    assert marked(plan, CLEARED) == set(range(10, 20))
    assert audited(plan, AuditPolicy(minimum=40)) == list(range(10, 50))


@pytest.mark.parametrize("read", [set(range(10)), set(range(9))])
def test_a_disk_that_is_read_whole_or_nearly(read):
    assert audited(a_plan(10 * EXTENT, read=read), AuditPolicy()) == sorted(set(range(10)) - read)


def test_extents_of_every_segment_are_audited_absent_ones_included():
    plan = a_plan((3 * SEGMENT + 5) * EXTENT, read={SEGMENT, SEGMENT + 1, 3 * SEGMENT})
    assert [segment for segment in range(plan.segments) if plan.marks(segment) is None] == [0, 2]
    policy = AuditPolicy(minimum=2000, share=0.0, cycle=2000)
    chosen = choose_audit(plan, policy, turn=0, rng=random.Random(5))
    assert set(chosen) >= {0, 1, 2}
    assert all(position < plan.segment_length(segment) for segment in chosen for position in chosen[segment])
    last = choose_audit(
        plan, AuditPolicy(0, 0.0, 3 * SEGMENT + 5), turn=3 * SEGMENT + 4, rng=random.Random(5)
    )
    assert {segment: list(found) for segment, found in last.items()} == {3: [4]}


def test_a_huge_disk_costs_what_is_audited_and_no_more():
    plan = a_plan(32 * 1024**4)
    policy = AuditPolicy(minimum=64, share=0.0, cycle=10**9)
    assert len(audited(plan, policy, turn=3)) == 64


def test_half_a_million_extents_are_chosen_in_little_memory() -> None:
    """What a disk of 32 TiB has audited by default; with sets and lists of them it were 80 MiB."""
    plan = ReadPlan(32 * 1024 * GIB, 64 * KIB)
    for segment in range(plan.segments):
        plan.read(ByteRange(segment * 4 * GIB, segment * 4 * GIB + KIB))
    tracemalloc.start()
    try:
        chosen = choose_audit(plan, AuditPolicy(), turn=3, rng=random.Random(5))
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sum(map(len, chosen.values())) >= ceil((plan.extents - plan.segments) * 0.001)
    assert all(0 not in positions for positions in chosen.values()), "what is read anyway"
    assert (kept < 6 * MIB, most < 48 * MIB) == (True, True), (kept, most)


@given(count=st.integers(1, 400), seed=st.integers(0, 10**6), data=st.data())
def test_what_is_drawn_is_all_different_and_in_no_order(count: int, seed: int, data: st.DataObject) -> None:
    wanted = data.draw(st.integers(0, count))
    drawn = _drawn(count, wanted, random.Random(seed)).tolist()
    assert len(drawn) == len(set(drawn)) == wanted
    assert all(0 <= number < count for number in drawn)


def test_every_place_of_a_large_disk_is_as_likely_to_be_drawn() -> None:
    drawn = _drawn(2**29, 100_000, random.Random(5))
    tenths = np.bincount(drawn * 10 // 2**29, minlength=10)
    assert tenths.min() > 9_500 and tenths.max() < 10_500
    assert tenths.size == 10
    early = drawn[:10_000]
    assert abs(int(early.mean()) - 2**28) < 2**28 // 20, "the first drawn are not the first of the disk"
