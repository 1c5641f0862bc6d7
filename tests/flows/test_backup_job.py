"""The backup flow on a Prefect server, a simulated Azure and real media: what a job does and leaves."""

from __future__ import annotations

import re
from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Crashed

from blocks.proxy import BackupProxy
from flows.backup_subclient import backup_subclient, clean_up_after
from tests.engine.world import KIB, random_bytes
from tests.flows.prefect_server import flow_run_of, messages_of, task_runs_of, wait_for
from tests.flows.site import Site, managed, unmanaged
from vsa.media.entries import Result
from vsa.model import DiskBackup, Method, Reason

STAGES = (
    r"check witness",
    r"release dead runs",
    r"discover VMs",
    r"create client entries",
    r"identify targets and proxies",
    r"identify disks of (web|db)",
    r"assign streams",
    r"snapshot disks of (web|db)",
    r"transfer (web|db)-\w+ of (web|db) via proxy-[ab]",
    r"commit (web|db)",
    r"release snapshots of (web|db)",
    r"release bases",
    r"complete job",
    r"keep witness",
    r"show report",
)
RUNS_OF_STAGES = (1, 1, 1, 1, 1, 2, 1, 2, 6, 2, 2, 1, 1, 1, 1)


def test_a_job_completes_through_every_documented_stage(site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data"), managed("web-logs")])
    site.add_vm("db", [managed("db-os"), managed("db-data"), managed("db-logs")])
    site.save_blocks()

    state = site.back_up()

    assert (state.type.value, state.name) == ("COMPLETED", "Completed")
    assert state.message == "2 of 2 VMs have a recovery point."
    (report,) = site.reports
    assert report == state.result()
    assert report.result is Result.COMPLETED
    assert {vm.name: vm.point for vm in report.vms} == {vm: site.points_of(vm)[0] for vm in ("web", "db")}
    assert {disk.reason for vm in report.vms for disk in vm.disks} == {Reason.FULL_FIRST}
    for vm in report.vms:
        assert vm.point is not None
        site.require_restorable(vm.point)
    assert len(site.bases) == 6
    site.require_only_bases()

    runs = task_runs_of(flow_run_of(state), expected=sum(RUNS_OF_STAGES))
    assert [sum(_is(stage, run) for run in runs) for stage in STAGES] == list(RUNS_OF_STAGES)
    _require_alternating_proxies(runs)
    said = wait_for("the engine's own words in the log", lambda: _engine_said(state))
    assert "disk web-os via proxy-b: full (FULL_FIRST), 2 MiB changed of 2 MiB" in said


def test_the_hook_takes_nothing_from_a_job_that_has_committed(site: Site) -> None:
    """As when the server holds a job for dead whose last words were lost."""
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    state = site.back_up()
    before = site.reports, site.points_of("web"), site.bases
    clean_up_after(backup_subclient, flow_run_of(state), Crashed())
    assert (site.reports, site.points_of("web"), site.bases) == before
    site.require_only_bases()
    site.require_restorable(site.points_of("web")[0])


def _is(stage: str, run: TaskRun) -> bool:
    # A task without a name of its own for each run gets its task's name and three characters.
    return re.fullmatch(rf"{stage}(-[0-9a-f]{{3}})?", run.name) is not None


def _require_alternating_proxies(runs: list[TaskRun]) -> None:
    """VMs are taken by name, disks in the VM's order, proxies in turn."""
    disks = ["db-os", "db-data", "db-logs", "web-os", "web-data", "web-logs"]
    names = {run.name.split()[1]: run.name.split()[-1] for run in runs if run.name.startswith("transfer")}
    assert [names[disk] for disk in disks] == ["proxy-a", "proxy-b"] * 3


def _engine_said(state: State[Any]) -> list[str] | None:
    said = messages_of(flow_run_of(state))
    return said if sum("FULL_FIRST" in message for message in said) == 6 else None


def test_the_next_job_reads_what_changed_and_replaces_the_bases(site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    site.back_up()
    first = site.bases
    site.write("web-data", 640 * KIB, random_bytes(64 * KIB, "changed"))

    report = site.back_up().result()

    (vm,) = report.vms
    assert [(disk.method, disk.reason) for disk in vm.disks] == [(Method.CBT, Reason.CBT)] * 2
    assert [disk.figures.changed for disk in vm.disks] == [0, 64 * KIB]
    assert not site.bases & first
    site.require_only_bases()
    site.require_restorable(vm.point)


def test_an_ad_hoc_crc_job_keeps_the_base_for_the_next_cbt_job(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    site.back_up()
    bases = site.bases
    site.write("web-os", 0, random_bytes(64 * KIB, "before the crc job"))

    report = site.back_up(method="crc").result()

    assert [disk.reason for disk in report.vms[0].disks] == [Reason.CRC_REQUESTED]
    assert site.bases == bases
    site.require_only_bases()
    site.require_restorable(report.vms[0].point)
    site.write("web-os", 1024 * KIB, random_bytes(64 * KIB, "after the crc job"))
    (disk,) = site.back_up().result().vms[0].disks
    assert (disk.reason, disk.figures.changed) == (Reason.CBT, 128 * KIB)
    site.require_restorable(site.points_of("web")[-1])


def test_a_paused_proxy_gets_no_streams_from_the_next_job_on(site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    BackupProxy(proxy_name="proxy-a", paused=True).save("proxy-a", overwrite=True)
    try:
        state = site.back_up()
    finally:
        site.save_blocks()
    assert {backup.proxy for backup in _disks_of(site)} == {"proxy-b"}
    assert [(item.name, item.reason) for item in state.result().excluded] == [("proxy-a", "it is paused")]


def test_without_a_usable_proxy_the_job_fails_with_every_reason_and_touches_nothing(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(proxies=("proxy-a", "proxy-x"))
    BackupProxy(proxy_name="proxy-a", paused=True).save("proxy-a", overwrite=True)
    try:
        state = site.back_up()
    finally:
        site.save_blocks()
    assert state.name == "Failed"
    for reason in (
        f"subclient {site.name} has no usable proxy: proxy-a: it is paused",
        "proxy-b: the subclient does not name it",
        "proxy-x: the subclient names it, but no such proxy is defined",
    ):
        assert reason in str(state.message)
    assert site.reports[-1].alarms
    assert not site.snapshots
    assert not list(site.media_folder.glob("runs/*"))


def _disks_of(site: Site) -> tuple[DiskBackup, ...]:
    return site.media.view().points[site.points_of("web")[-1]].point.disks


def test_unmanaged_disks_of_a_premium_account_go_through_staging_blobs(site: Site) -> None:
    account = f"{site.name}premium"
    site.add_account(account, "Premium_LRS")
    site.add_vm("legacy", [unmanaged("legacy-os", account), unmanaged("legacy-data", account)])
    site.save_blocks()

    state = site.back_up()

    assert state.name == "Completed", state.message
    runs = task_runs_of(flow_run_of(state), expected=16)
    staged = sorted(run.name for run in runs if run.name.startswith("stage"))
    assert staged == ["stage legacy-data", "stage legacy-os"]
    site.standing.require_untouched()
    blobs = [row for row in site.control.inventory()["blobs"] if row["account"] == account]
    blobs = [row for row in blobs if (row["snapshot"] or row["name"]) not in site.strangers]
    assert {row["container"] for row in blobs} == {"vhds"}
    assert len([row for row in blobs if row["snapshot"]]) == 2
