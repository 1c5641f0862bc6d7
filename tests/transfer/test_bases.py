"""Which base snapshots a job lets go: those that no later job will start from, and not one more."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.subclient.builders import a_source_disk, a_vm
from tests.transfer.records import NOW, a_point, a_snapshot, a_view
from vsa.media.entries import DiskOutcome, JobEntry, Result, VmOutcome
from vsa.media.view import View
from vsa.model import Method, SourceDisk, Vm
from vsa.subclient import Subclient
from vsa.transfer.bases import UNATTENDED, Estate, base_disk, bases_to_release, old_bases, unattended_bases

VM = a_vm()
DISK = a_source_disk()
DATA = a_source_disk("data-1")


def with_base(disk: SourceDisk = DISK, *, vm: Vm = VM, subclient: str = "all") -> View:
    return a_view(a_point(disk, vm=vm, subclient=subclient, base=a_snapshot(disk)))


def an_estate(**given: Any) -> Estate:
    seen = {
        "subscription_id": VM.subscription_id,
        "listed": [VM],
        "selected": [VM],
        "identified": {VM.key: [DISK]},
    }
    return Estate(**{**seen, **given})


def released(view: View, estate: Estate, *, now: dt.datetime = NOW, **settings: Any) -> list[tuple[str, str]]:
    subclient = Subclient(**{"name": "all", **settings})
    return [(item.base.disk_key, item.reason) for item in bases_to_release(view, subclient, estate, now=now)]


@pytest.mark.parametrize(
    ("estate", "settings", "reason"),
    [
        (an_estate(), {"method": "crc"}, "the subclient's method is CRC"),
        (an_estate(listed=[a_vm("other")], selected=[], identified={}), {}, "its VM is gone"),
        (an_estate(selected=[], identified={}), {}, "the subclient no longer selects its VM"),
        (an_estate(identified={VM.key: [DATA]}), {}, "the disk is no longer a target of the subclient"),
        (
            an_estate(),
            {"max_base_age_days": 1, "now": NOW + dt.timedelta(days=1.1)},
            "it is older than 1 days",
        ),
    ],
)
def test_each_reason_has_its_case(estate: Estate, settings: dict[str, Any], reason: str) -> None:
    assert released(with_base(), estate, **settings) == [(DISK.key, reason)]


def test_where_azure_lists_no_vm_at_all_a_base_goes_by_its_age_alone() -> None:
    """An identity whose rights were taken away sees the same as one whose VMs are gone."""
    nothing = an_estate(listed=[], selected=[], identified={})
    assert released(with_base(), nothing) == []
    later = NOW + dt.timedelta(days=31)
    assert released(with_base(), nothing, now=later) == [(DISK.key, "it is older than 30 days")]


def test_a_base_that_will_be_used_stays() -> None:
    assert released(with_base(), an_estate()) == []
    assert released(with_base(), an_estate(), now=NOW + dt.timedelta(days=30)) == []


def test_where_disks_could_not_be_identified_bases_stay() -> None:
    assert released(with_base(), an_estate(identified={})) == []


def test_other_subclients_bases_are_theirs() -> None:
    view = with_base(subclient="others")
    assert released(view, an_estate(listed=[], selected=[], identified={})) == []


def test_other_subscriptions_vms_are_not_gone() -> None:
    view = with_base(vm=a_vm(subscription_id="99999999-2222-3333-4444-555555555555"))
    assert released(view, an_estate(listed=[], selected=[], identified={})) == []


def a_report(subclient: str, *, ended_at: dt.datetime = NOW) -> JobEntry:
    """A job that found DISK to back up."""
    outcome = VmOutcome(
        key=VM.key, name=VM.name, result=Result.COMPLETED, disks=(DiskOutcome(name="d", key=DISK.key),)
    )
    return JobEntry(
        job="j",
        subclient=subclient,
        method=Method.CBT,
        started_at=ended_at,
        ended_at=ended_at,
        result=Result.COMPLETED,
        vms=(outcome,),
    )


def test_a_job_that_knows_no_vm_lets_go_what_is_too_old_and_nothing_else() -> None:
    def old(view: View, days: float) -> list[str]:
        now = NOW + dt.timedelta(days=days)
        found = old_bases(view, Subclient(name="all"), VM.subscription_id, now=now)
        return [item.reason for item in found]

    assert old(with_base(), 29) == []
    assert old(with_base(), 31) == ["it is older than 30 days"]
    assert old(with_base(subclient="others"), 31) == []
    assert old(with_base(vm=a_vm(subscription_id="99999999-2222-3333-4444-555555555555")), 31) == []


LONG = UNATTENDED + dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([], True),
        ([a_report("all"), a_report("others")], True),
        ([a_report("all", ended_at=NOW + LONG)], False),
        ([a_report("others", ended_at=NOW + LONG)], False),
        ([a_report("others", ended_at=NOW + LONG).model_copy(update={"vms": ()})], True),
    ],
)
def test_a_base_is_told_once_no_subclient_with_its_disk_runs_any_more(
    reports: list[JobEntry], told: bool
) -> None:
    view = a_view(a_point(DISK, vm=VM, subclient="all", base=a_snapshot(DISK)), *reports)
    seen = [a_snapshot(DISK)]
    assert len(list(unattended_bases(view, seen, now=NOW + LONG))) == told
    assert list(unattended_bases(view, seen, now=NOW + UNATTENDED)) == []
    assert list(unattended_bases(view, [], now=NOW + LONG)) == []


def test_a_disk_that_another_subclient_backs_up_keeps_its_base() -> None:
    report = a_report("others")
    view = a_view(a_point(DISK, vm=VM, base=a_snapshot(DISK)), report)
    assert released(view, an_estate(selected=[], identified={})) == []
    without = report.model_copy(update={"vms": ()})
    later = a_view(a_point(DISK, vm=VM, base=a_snapshot(DISK)), report, without)
    assert len(released(later, an_estate(selected=[], identified={}))) == 1


class Counted(tuple[Vm, ...]):
    """Counts how often it is gone through."""

    def __init__(self, _: object) -> None:
        self.times = 0

    def __iter__(self) -> Any:
        self.times += 1
        return super().__iter__()


def a_fleet(size: int) -> tuple[View, Estate, Counted]:
    vms = Counted(a_vm(f"vm-{number}") for number in range(size))
    disks = {vm.key: [a_source_disk(f"{vm.name}-{name}") for name in ("os", "data")] for vm in vms}
    points = [
        a_point(disk, vm=vm, base=a_snapshot(disk)) for vm in tuple.__iter__(vms) for disk in disks[vm.key]
    ]
    estate = Estate(VM.subscription_id, listed=vms, selected=vms, identified=disks)
    vms.times = 0
    return a_view(*points), estate, vms


def test_the_listed_vms_are_gone_through_once_however_many_bases_there_are() -> None:
    """Once a base, it would be the square of the fleet."""
    for size in (2, 8):
        view, estate, vms = a_fleet(size)
        assert len(view.bases()) == 2 * size
        assert released(view, estate) == []
        assert vms.times == 2


def test_looking_up_the_disk_of_a_base_does_not_look_at_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    view, _, _ = a_fleet(3)
    disk = a_source_disk("vm-1-data")
    monkeypatch.setattr(View, "bases", None)
    assert base_disk(view, disk.key) == disk
