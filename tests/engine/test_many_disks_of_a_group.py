"""A job over many disks of one resource group: what it asks of Azure grows with the disks."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.engine.questions import First, Questions
from tests.engine.story import run_job
from tests.engine.world import EXTENT, PROXIES, World, random_bytes
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import Method, Reason

EMPTY: dict[str, Any] = {"status": 200, "body": {"value": []}}
FORBIDDEN: dict[str, Any] = {"status": 403, "code": "AuthorizationFailed"}


def lists_of(world: World, since: int) -> int:
    """How often the snapshots of the world's group were listed, from the first page on."""
    return sum(
        row["path"].lower().endswith(f"/{world.group}/providers/microsoft.compute/snapshots")
        and "skiptoken" not in row["query"]
        for row in world.control.requests(since=since)
    )


def test_the_snapshots_of_a_group_are_listed_once_in_a_job_however_many_disks_it_has(world: World) -> None:
    counted = []
    for vms in (1, 4):
        while len(world.vms) < vms:
            number = len(world.vms)
            world.add_vm({f"os{number}": random_bytes(EXTENT, number)})
        world.back_up()
        since = world.control.last_request()
        world.back_up()
        counted.append(lists_of(world, since))
        world.require_sound()
    assert counted == [1, 1]


def test_the_base_of_a_run_that_committed_meanwhile_goes_although_no_list_shows_it(world: World) -> None:
    """Of two jobs on one disk the one that listed first commits last: its base stays."""
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    world.back_up()
    job = world.job()
    discovery = job.discover()
    disks = job.identify_disks(*job.identify_targets(discovery).vms)
    run = job.new_run(disks)
    (snapshot,) = job.create_snapshots(run)
    other = run_job(world.job()).vms[0]
    assert other.point is not None
    assert len(world.snapshots) == 2
    backup = job.stream(job.order(run, run.disks[0], snapshot, None, PROXIES[0].name))
    assert job.commit(run, [backup]) > other.point
    assert job.release(run) == ()
    assert world.snapshots == {snapshot.id.lower()}
    world.require_no_leftovers()


def test_a_base_that_the_job_s_list_lacks_goes_with_the_job_that_needs_it_no_more(world: World) -> None:
    """A CRC job has come between: the base is older than the newest point."""
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    for _ in range(2):
        world.back_up()
    questions = Questions(world)
    (base,) = world.bases
    world.back_up(by=Method.CRC)
    assert world.bases == {base}
    with world.fault("status", plane="arm", method="GET", path=f"/{world.group}/.*/snapshots$", **EMPTY):
        report = world.back_up()
    assert world.reasons(report) == {"os": Reason.CBT}
    assert base not in world.snapshots
    world.require_no_leftovers()
    questions.ask(world.held(), first=First.JOB, is_dead=False)


def test_a_snapshot_that_azure_refuses_to_show_does_not_keep_the_others(world: World) -> None:
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    world.back_up()
    (base,) = world.snapshots
    job = world.job()
    run = job.new_run(job.identify_disks(*job.identify_targets(job.discover()).vms))
    job.create_snapshots(run)
    with world.fault("status", plane="arm", method="GET", path=f"{base.rsplit('/', 1)[-1]}$", **FORBIDDEN):
        assert job.release(run) == ()
    world.require_no_leftovers()


def test_a_list_from_before_the_job_had_read_the_log_is_too_old_for_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another job of the process lists, makes its base and commits it while this one reads a long log."""
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    world.back_up()
    late, read = world.job(media=world.media.read_anew()), Media.view

    def while_another_job_runs(media: Media) -> View:
        monkeypatch.setattr(Media, "view", read)
        run_job(late)
        return read(media)

    monkeypatch.setattr(Media, "view", while_another_job_runs)
    report = run_job(world.job())
    assert report.vms[0].point is not None
    world.require_no_leftovers()


def asked(world: World, since: int, path: str, query: str = "") -> int:
    """How many requests there were for what the path ends with, pages after the first left out."""
    return sum(
        bool(re.search(path, row["path"], re.IGNORECASE))
        and query in row["query"]
        and "skiptoken" not in row["query"]
        for row in world.control.requests(since=since)
    )


def test_states_of_many_vms_and_many_disks_are_listed_and_not_asked_for_one_by_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsa.azure.vms.FEW", 2)
    monkeypatch.setattr("vsa.transfer.backup_job.MANY_DISKS", 3)
    monkeypatch.setattr("vsa.transfer.backup_job.FEW_OF_ALL", 10**6)
    for number in range(3):
        world.add_vm({f"os{number}": random_bytes(EXTENT, number)})
    world.control.power(world.vms[1], "deallocated")
    since = world.control.last_request()
    job = world.job()
    report = run_job(job)
    assert [vm.point is not None for vm in report.vms] == [True] * 3
    assert asked(world, since, "/instanceView$") == 0
    assert asked(world, since, "/virtualMachines$", "statusOnly=true") == 1
    assert asked(world, since, r"/disks/[^/]+$") == 0
    assert asked(world, since, r"/disks$") == 1
    states = [made.point.vm.power_state for made in world.media.view().points.values()]
    assert sorted(states) == ["deallocated", "running", "running"]


def test_a_state_that_the_list_does_not_know_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules select by it: a VM whose state is unknown would be left out where running ones are selected."""
    monkeypatch.setattr("vsa.azure.vms.FEW", 0)
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    (vm,) = world.job().discover().selected
    row = {"id": vm.resource_id, "properties": {"instanceView": {"statuses": []}}}
    answer = {"status": 200, "body": {"value": [row]}}
    with world.fault("status", plane="arm", query="statusOnly=true", **answer):
        assert world.job().discover().selected[0].power_state == "running"


@pytest.mark.parametrize("answer", [EMPTY, FORBIDDEN], ids=["left out", "refused"])
def test_what_a_list_does_not_tell_is_asked_for(
    world: World, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    """States of VMs and disks: by an identity that sees none of them in lists, or may not list them."""
    monkeypatch.setattr("vsa.azure.vms.FEW", 0)
    monkeypatch.setattr("vsa.transfer.backup_job.MANY_DISKS", 1)
    monkeypatch.setattr("vsa.transfer.backup_job.FEW_OF_ALL", 10**6)
    world.add_vm({"os": random_bytes(EXTENT, 0)})
    with (
        world.fault("status", plane="arm", query="statusOnly=true", **answer),
        world.fault("status", plane="arm", path="/disks$", **answer),
    ):
        report = world.back_up()
    assert report.vms[0].point is not None
    world.require_sound()


def test_a_page_that_is_refused_is_asked_for_again_and_not_the_whole_list(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vsa.azure.vms.FEW", 10**6)
    for number in range(5):
        world.add_vm({f"os{number}": random_bytes(EXTENT, number)})
    since = world.control.last_request()
    with world.fault(
        "status", plane="arm", path="/virtualMachines$", query="skiptoken", skip=1, status=429, retry_after=0
    ):
        found = world.job().discover()
    assert {vm.name for vm in found.selected} == set(world.vms)
    assert asked(world, since, "/virtualMachines$") == 1


@pytest.mark.parametrize("first", [True, False], ids=["first page", "a later page"])
def test_a_page_that_cannot_be_read_is_asked_for_again_and_is_not_the_end_of_the_list(
    world: World, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    monkeypatch.setattr("vsa.azure.vms.FEW", 10**6)
    for number in range(5):
        world.add_vm({f"os{number}": random_bytes(EXTENT, number)})
    query = "" if first else "skiptoken"
    garbled = {"status": 200, "body": {"value": {"a": 1}}}
    with world.fault("status", plane="arm", path="/virtualMachines$", query=query, **garbled):
        found = world.job().discover()
    assert {vm.name for vm in found.selected} == set(world.vms)
