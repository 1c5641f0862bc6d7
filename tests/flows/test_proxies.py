"""Streams on proxies: a real server, real workers in processes of their own, and whose turn it is."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from blocks.proxy import BackupProxy
from deployments.register import register
from tasks.artifacts import run_url
from tasks.proxies import RETURN_SECONDS
from tests.azsim_process import AzsimProcess
from tests.engine.world import KIB, MIB, random_bytes
from tests.flows.fleet import (
    SILENT_SECONDS,
    Fleet,
    cancel_run,
    child_of,
    children_of,
    most_at_once,
    pool_changed,
    pools_of,
    state_of,
)
from tests.flows.job_process import Job
from tests.flows.prefect_server import PrefectServer, flow_run_of, messages_of, wait_for
from tests.flows.running_job import RunningJob, newest_job_of
from tests.flows.site import PROXIES, Site, managed
from tests.flows.slow import read_slowly, slow_disk
from tests.flows.test_jobs_that_are_stopped import OnDemand
from tests.flows.test_signals import hears_at_once
from tests.flows.test_watching import artifacts_of
from tests.soak import only_in_ci, only_in_soak

pytestmark = [only_in_ci, pytest.mark.timeout(900)]


def test_six_disks_alternate_between_the_pools_of_two_proxies(fleet: Fleet, site: Site) -> None:
    disks = {"web": ["web-os", "web-data", "web-logs"], "db": ["db-os", "db-data", "db-logs"]}
    for vm, names in disks.items():
        site.add_vm(vm, [managed(name) for name in names])
    site.save_blocks()

    job = RunningJob(site)
    state = job.ended()

    assert state.name == "Completed", state.message
    pools = pools_of(job.children)
    assert [pools[name] for name in (*disks["db"], *disks["web"])] == ["proxy-a", "proxy-b"] * 3
    require_told(job, pools)
    for vm in disks:
        site.require_restorable(site.points_of(vm)[0])
    site.require_only_bases()


def test_ten_clones_through_one_proxy_cost_little_more_than_one(fleet: Fleet, site: Site) -> None:
    """Whose places are processes: one clone goes first, the others find what it has stored.

    With two places, and not its four, it takes half of the processes, whose start is what this costs.
    """
    for number in range(10):
        site.add_vm(f"web{number}", [managed(f"web{number}-os", size=CLONE)])
        make_clone(site, f"web{number}-os", number)
    site.save_blocks(proxies=("proxy-a",), streams_per_proxy=2)
    state = site.back_up(in_process=False)

    assert state.name == "Completed", state.message
    made = [site.media.view().points[slot].point.disks for slot in sorted(site.media.view().points)]
    figures = [disk.figures for (disk,) in made]
    assert figures[0].shared == 0
    assert all(item.shared > item.new / 2 for item in figures[1:])
    assert held(site) <= 1.15 * figures[0].stored
    first = site.media.view().points[min(site.media.view().points)].point.vm.name
    wait_for(
        "the log to say who waits for whom",
        lambda: (
            sum(f"waits for the point of {first}:" in text for text in messages_of(flow_run_of(state))) == 9
        ),
    )
    for name in ("web0", "web9"):
        site.require_restorable(site.points_of(name)[0])
    site.require_only_bases()


CLONE = 64 * MIB
IMAGE = random_bytes(CLONE, "image")


def make_clone(site: Site, disk: str, number: int) -> None:
    """The disk as if it had been made from the image, and started: with a host name, so to speak."""
    site.write(disk, 0, IMAGE)
    site.write(disk, (8 + number) * MIB, random_bytes(64 * KIB, f"host {number}"))
    make_from_image(site, disk)


def make_from_image(site: Site, disk: str) -> None:
    """Have Azure say that the disk was made from the site's image."""
    image = {"id": f"/subscriptions/s/providers/Microsoft.Compute/images/{site.name}"}
    creation = {"createOption": "FromImage", "imageReference": image}
    site.control.set_disk_properties(site.disk_id(disk), creationData=creation)


def held(site: Site) -> int:
    """Bytes of all objects of the site's media."""
    return sum(path.stat().st_size for path in site.media_folder.rglob("*") if path.is_file())


def require_told(job: RunningJob, pools: dict[str, str | None]) -> None:
    """The job's table says of each disk which proxy carried it, and leads to that proxy's run."""
    (table,) = artifacts_of(job.id, "table")
    told = {row["disk"]: (row["proxy"], row["stream"]) for row in json.loads(str(table.data))}
    carried = [child for child in job.children if child.state and child.state.is_completed()]
    assert told == {
        name: (pools[name], run_url(str(child.id))) for child in carried for name in [child.name.split()[0]]
    }


@pytest.mark.parametrize("end", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=only_in_soak)])
def test_a_stream_whose_process_is_ended_moves_to_the_other_proxy(
    fleet: Fleet, site: Site, end: signal.Signals
) -> None:
    site.add_vm("web", [slow_disk("web-os"), slow_disk("web-data")], scattered=96)
    site.save_blocks()
    with read_slowly(site.control):
        job = RunningJob(site)
        child = child_of(job.id, "web-os", proxy="proxy-a")
        wait_for("the disk to be read", lambda: site.is_being_read("web-os"), seconds=60)
        process = fleet["proxy-a"].process_of(child.id)
        assert process is not None
        assert hears_at_once(process)
        os.kill(process, end)
    state = job.ended()

    assert state.name == "Completed", state.message
    assert state_of(child.id).name == "Crashed"
    assert pools_of(job.children) == {"web-os": "proxy-b", "web-data": "proxy-b"}
    require_told(job, pools_of(job.children))
    (slot,) = site.points_of("web")
    proxies = {backup.disk.name: backup.proxy for backup in site.media.view().points[slot].point.disks}
    assert proxies == {"web-os": "proxy-b", "web-data": "proxy-b"}
    site.require_restorable(slot)
    site.require_only_bases()
    said = wait_for(
        "the move in the job's log",
        lambda: [text for text in messages_of(flow_run_of(state)) if "goes on to proxy proxy-b" in text],
    )
    assert said[0].startswith("proxy proxy-a died: web-os of web via proxy-a: ")
    assert site.back_up(in_process=False).name == "Completed"
    site.require_restorable(site.points_of("web")[-1])
    site.require_only_bases()


def test_without_a_worker_a_job_fails_at_once_and_touches_nothing(
    site: Site, simulation: AzsimProcess
) -> None:
    names = ("idle-a", "idle-b")
    blocks = [BackupProxy(proxy_name=name, region="westeurope") for name in names]
    for block in blocks:
        block.save(block.proxy_name, overwrite=True)
    with get_client(sync_client=True) as client:
        for _ in register(client, silent_seconds=SILENT_SECONDS):
            pass
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(proxies=names)
    asked = len(simulation.control.requests())
    began = time.monotonic()
    try:
        state = site.back_up(in_process=False)
    finally:
        for name in names:
            BackupProxy.delete(name)

    assert state.name == "Failed"
    assert time.monotonic() - began < RETURN_SECONDS / 2, "nobody is waited for"
    for name in names:
        assert f"{name}: work pool {name} has never had a worker" in str(state.message)
    changed = [
        request["path"]
        for request in simulation.control.requests()[asked:]
        if request["plane"] == "arm" and request["method"] != "GET"
    ]
    assert changed == []
    assert site.snapshots == []

    site.save_blocks()
    assert site.back_up().name == "Completed"
    site.require_only_bases()


def test_the_pools_limit_holds_for_all_jobs_together(fleet: Fleet, sites: list[Site]) -> None:
    first, second, _ = sites
    for site in (first, second):
        site.add_vm("web", [managed(f"web-{number}") for number in range(3)])
        site.save_blocks()
    with pool_changed("proxy-a", concurrency_limit=2), pool_changed("proxy-b", concurrency_limit=1):
        jobs = [RunningJob(site) for site in (first, second)]
        states = [job.ended() for job in jobs]

    assert [state.name for state in states] == ["Completed", "Completed"]
    children = [child for job in jobs for child in job.children]
    assert len(children) == 6
    limited = [child for child in children if child.work_pool_name == "proxy-b"]
    assert (len(limited), most_at_once(limited)) == (2, 1)
    assert most_at_once([child for child in children if child not in limited]) <= 2
    for site in (first, second):
        site.require_only_bases()


def test_a_stream_that_somebody_cancels_costs_its_own_vm_the_point(fleet: Fleet, site: Site) -> None:
    """And nobody else: not even a clone of its disk, which waited for that point."""
    proxies = {"db": "proxy-a", "web": "proxy-b"}
    for vm in proxies:
        site.add_vm(vm, [slow_disk(f"{vm}-os")], scattered=96)
        make_from_image(site, f"{vm}-os")
    site.save_blocks()
    with read_slowly(site.control):
        job = RunningJob(site)
        (child,) = wait_for(
            "the stream of the clone that goes first", lambda: job.children or None, seconds=60
        )
        first, other = proxies if child.name.startswith("db-os") else reversed(proxies)
        wait_for("the disk to be read", lambda: site.is_being_read(f"{first}-os"), seconds=60)
        cancel_run(child.id)
        wait_for("the stream to end", lambda: state_of(child.id).is_final(), seconds=60)
    state = job.ended()

    assert state.name == "Completed with errors"
    assert state_of(child.id).name == "Cancelled"
    assert [len(site.points_of(vm)) for vm in (first, other)] == [0, 1]
    outcome = next(outcome for outcome in site.reports[-1].vms if outcome.name == first)
    assert f"its stream was cancelled: {child.name} on proxy {proxies[first]}" in outcome.error
    site.require_only_bases()
    assert site.back_up(in_process=False).name == "Completed"
    site.require_restorable(site.points_of(first)[0])
    site.require_only_bases()


CLONES = ("app", "db", "web")


def save_slow_clones(site: Site) -> None:
    for vm in CLONES:
        site.add_vm(vm, [slow_disk(f"{vm}-os")], scattered=96)
        make_from_image(site, f"{vm}-os")
    site.save_blocks()


def first_of_clones(site: Site, job: UUID) -> tuple[str, list[str], UUID]:
    """Whose disk is being read, those that wait for its point, and the run that reads."""
    (child,) = wait_for(
        "the stream of the clone that goes first", lambda: children_of(job) or None, seconds=60
    )
    (first,) = (vm for vm in CLONES if child.name.startswith(f"{vm}-os"))
    wait_for("the disk to be read", lambda: site.is_being_read(f"{first}-os"), seconds=60)
    with get_client(sync_client=True) as client:
        run = client.read_flow_run(job)
    said = f"waits for the point of {first}:"
    wait_for("the others to wait", lambda: sum(said in text for text in messages_of(run)) == len(CLONES) - 1)
    return first, [vm for vm in CLONES if vm != first], child.id


@contextmanager
def frozen(fleet: Fleet, run: UUID) -> Iterator[None]:
    """Inside, the process of a proxy's run answers nobody: a job waits for its end for 18 seconds."""
    (process,) = (found for proxy in PROXIES if (found := fleet[proxy].process_of(run)))
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def test_clones_that_wait_end_at_a_stop_also_if_the_first_one_cannot(
    fleet: Fleet, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_slow_clones(site)
    monkeypatch.setattr("flows.backup_subclient.Timer", OnDemand)
    with read_slowly(site.control):
        job = RunningJob(site, stop_after_minutes=1)
        first, others, child = first_of_clones(site, job.id)
        with frozen(fleet, child):
            OnDemand.made.pop().is_up()
            require_released_before(site, first, others)
    state = job.ended()

    assert state.name == "Failed"
    for vm in site.reports[-1].vms:
        assert f"disk {vm.name}-os: the job was told to stop" in vm.error
    assert site.snapshots == []


def require_released_before(site: Site, first: str, others: Collection[str]) -> None:
    wait_for(
        "the snapshots of the others to go",
        lambda: not any(site.snapshots_of(f"{vm}-os") for vm in others),
        seconds=60,
    )
    assert site.snapshots_of(f"{first}-os"), "they waited for the end of its stream"


def test_clones_that_wait_when_their_job_is_told_to_end_say_so_and_are_released_together(
    fleet: Fleet, site: Site, prefect_server: PrefectServer
) -> None:
    save_slow_clones(site)
    with read_slowly(site.control):
        job = Job(site, prefect_server, with_server=True, in_process=False)
        try:
            first, others, child = first_of_clones(site, newest_job_of(site))
            path = "|".join(site.snapshots_path(f"{vm}-os") for vm in others)
            deletes = site.control.add_fault("delay", seconds=4, method="DELETE", path=path, times=None)
            with frozen(fleet, child):
                job.send(signal.SIGTERM)
                wait_for("both to be deleted", lambda: site.control.fired(deletes) == len(others), seconds=60)
                assert all(site.snapshots_of(f"{vm}-os") for vm in others), "one after the other"
                require_released_before(site, first, others)
            assert job.wait() != 0
        finally:
            job.end()

    (report,) = site.reports
    assert {vm.name: vm.error for vm in report.vms if vm.name in others} == dict.fromkeys(
        others, f"the job ended while it waited for the point of {first}"
    )
    assert site.snapshots == [], job.logged[-3000:]
