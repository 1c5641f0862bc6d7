"""Which method is chosen: each reason by its case, and CBT only where nothing at all speaks against it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.subclient.builders import a_source_disk
from tests.transfer.records import NOW, a_backup, a_snapshot
from vsa.model import DiskKind, Method, Reason, SnapshotRef
from vsa.ranges import GIB
from vsa.transfer.methods import DIFF_BOUNDARY, Decision, Known, Recorded, Wish, decide

DISK = a_source_disk(size=32 * GIB)
SNAPSHOT = a_snapshot(DISK)


def known_by(
    latest: SnapshotRef = SNAPSHOT, base: SnapshotRef | None = SNAPSHOT, *, doubt: str = "", **backup: Any
) -> Known:
    """A newest backup in slot 7 and, if there is a base, the point in slot 5 that names it."""
    return Known(
        latest=Recorded(7, a_backup(latest, **backup)),
        base=base,
        base_point=Recorded(5, a_backup(base)) if base else None,
        base_doubt=doubt,
    )


def decided(
    known: Known,
    wish: Wish | None = None,
    *,
    snapshot: SnapshotRef = SNAPSHOT,
    now: dt.datetime = NOW,
    exists: bool = True,
) -> Decision:
    return decide(snapshot, known, wish or Wish(), now=now, base_exists=lambda _: exists)


def sized(size: int) -> SnapshotRef:
    return a_snapshot(DISK, size=size)


OTHER = a_snapshot(a_source_disk(unique_id="another"))
CRC = Wish(Method.CRC)


@pytest.mark.parametrize(
    ("reason", "decision"),
    [
        (Reason.CBT, decided(known_by())),
        (Reason.FULL_FIRST, decided(Known())),
        (Reason.FULL_FIRST, decided(Known(), CRC)),
        (Reason.FULL_REQUESTED, decided(known_by(), Wish(full=True))),
        (Reason.FULL_REQUESTED, decided(known_by(), Wish(Method.CRC, full=True))),
        (Reason.FULL_REQUESTED, decided(known_by(since_full=2), Wish(full_every=3))),
        (Reason.CBT, decided(known_by(since_full=1), Wish(full_every=3))),
        (Reason.FULL_REQUESTED, decided(known_by(), Wish(full_every=1))),
        (Reason.FULL_LINEAGE, decided(known_by(), snapshot=OTHER)),
        (Reason.FULL_LINEAGE, decided(known_by(), CRC, snapshot=OTHER)),
        (Reason.FULL_LINEAGE, decided(known_by(), snapshot=sized(31 * GIB))),
        (Reason.CBT, decided(known_by(), snapshot=sized(33 * GIB))),
        (Reason.FULL_RESIZED_4TB, decided(known_by(), snapshot=sized(DIFF_BOUNDARY + GIB))),
        (Reason.CRC_REQUESTED, decided(known_by(), CRC)),
        (Reason.CRC_REQUESTED, decided(known_by(base=None), CRC)),
        (Reason.CRC_NO_BASE, decided(known_by(base=None))),
        (Reason.CRC_NO_BASE, decided(known_by(latest=OTHER), snapshot=OTHER)),
        (Reason.CRC_NO_BASE, decided(known_by(base=a_snapshot(DISK, family="another")))),
        (Reason.CRC_NO_BASE, decided(known_by(latest=sized(GIB)), snapshot=sized(GIB))),
        (Reason.CRC_AUDIT_FAILED, decided(known_by(doubt="an extent changed"))),
        (Reason.CRC_REQUESTED, decided(known_by(doubt="an extent changed"), CRC)),
        (Reason.CRC_BASE_TOO_OLD, decided(known_by(), now=NOW + dt.timedelta(days=30, seconds=1))),
        (Reason.CBT, decided(known_by(), now=NOW + dt.timedelta(days=30))),
        (Reason.CRC_BASE_GONE, decided(known_by(), exists=False)),
    ],
)
def test_each_reason_has_its_case(reason: Reason, decision: Decision) -> None:
    assert decision.reason is reason


LARGE = DIFF_BOUNDARY + GIB


@pytest.mark.parametrize(
    ("before", "after", "crosses"),
    [
        (DIFF_BOUNDARY - GIB, DIFF_BOUNDARY - 512, False),
        (DIFF_BOUNDARY - GIB, DIFF_BOUNDARY, True),
        (DIFF_BOUNDARY - GIB, LARGE, True),
        (DIFF_BOUNDARY, LARGE, True),
        (DIFF_BOUNDARY, DIFF_BOUNDARY, False),
        (DIFF_BOUNDARY + 512, LARGE, False),
        (LARGE, LARGE, False),
    ],
)
def test_growth_over_four_tebibytes_is_never_compared(before: int, after: int, crosses: bool) -> None:
    after_a_cbt_job = decided(known_by(sized(before), sized(before)), snapshot=sized(after))
    assert (after_a_cbt_job.reason is Reason.FULL_RESIZED_4TB) == crosses
    # A CRC job has seen the new size since, but the base has not.
    after_a_crc_job = decided(known_by(sized(after), sized(before)), snapshot=sized(after))
    assert (after_a_crc_job.reason is Reason.CRC_NO_BASE) == crosses
    assert crosses or after_a_cbt_job.reason is after_a_crc_job.reason is Reason.CBT


def test_the_diff_builds_on_the_point_of_its_base_and_crc_on_the_newest() -> None:
    known = known_by()
    cbt = decided(known)
    assert cbt.parent == known.base_point
    assert cbt.base == known.base
    crc = decided(known, CRC)
    assert crc.parent == known.latest
    assert crc.base is None


def test_after_a_failed_audit_the_list_of_what_is_allocated_is_not_believed_either() -> None:
    decision = decided(known_by(doubt="extent 3 was reported unchanged and is not"))
    assert decision.distrust_allocation
    assert decision.detail == "extent 3 was reported unchanged and is not"
    assert not decided(known_by(), CRC).distrust_allocation


snapshots = st.builds(
    a_snapshot,
    st.builds(
        a_source_disk,
        unique_id=st.sampled_from(["one", "two"]),
        kind=st.sampled_from([DiskKind.MANAGED, DiskKind.UNMANAGED]),
    ),
    size=st.sampled_from([GIB, 2 * GIB, DIFF_BOUNDARY, LARGE]),
    taken_at=st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2026, 3, 1)).map(
        lambda moment: moment.replace(tzinfo=dt.UTC)
    ),
)
knowns = st.builds(
    known_by,
    snapshots,
    st.none() | snapshots,
    doubt=st.sampled_from(["", "", "a doubt"]),
    since_full=st.integers(0, 3),
)


@given(
    snapshot=snapshots,
    known=knowns | st.just(Known()),
    wish=st.builds(
        Wish, st.sampled_from([Method.CBT, Method.CRC]), full=st.booleans(), full_every=st.integers(0, 4)
    ),
    exists=st.booleans(),
)
def test_cbt_needs_everything_to_be_right(
    snapshot: SnapshotRef, known: Known, wish: Wish, exists: bool
) -> None:
    decision = decided(known, wish, snapshot=snapshot, exists=exists)
    assert (decision.method is Method.CBT) == (decision.reason is Reason.CBT)
    assert decision.reason.value.lower().startswith(decision.method.value)
    assert (decision.parent is None) == (decision.method is Method.FULL)
    if decision.method is not Method.CBT:
        assert decision.base is None
        return
    base = known.base
    assert base is not None
    assert exists
    assert not known.base_doubt
    assert base.source_unique_id == snapshot.source_unique_id
    assert base.family == snapshot.family
    assert base.size <= snapshot.size
    assert not base.size < DIFF_BOUNDARY < snapshot.size
    assert wish.method is Method.CBT
    assert not wish.full


@given(snapshot=snapshots, known=knowns, exists=st.booleans())
def test_an_index_is_never_laid_over_a_smaller_disk(
    snapshot: SnapshotRef, known: Known, exists: bool
) -> None:
    decision = decided(known, snapshot=snapshot, exists=exists)
    if decision.parent:
        assert decision.parent.backup.snapshot.size <= snapshot.size


def test_azure_is_asked_for_the_base_only_where_it_would_be_used() -> None:
    def fail(_: SnapshotRef) -> bool:
        raise AssertionError("nobody needs to know")

    for known, wish in [
        (known_by(), CRC),
        (known_by(), Wish(full=True)),
        (known_by(base=None), Wish()),
        (replace(known_by(), base_doubt="a doubt"), Wish()),
    ]:
        decide(SNAPSHOT, known, wish, now=NOW, base_exists=fail)
