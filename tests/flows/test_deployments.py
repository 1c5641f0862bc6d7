"""prefect.yaml and deployments/ on a real server with a real worker, from nothing to a finished backup."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse

from deployments.automations import flow_names
from deployments.pools import CONTROL_POOL
from tests.azsim_process import AzsimProcess
from tests.engine.world import MIB
from tests.flows.prefect_server import ROOT, PrefectServer, messages_of, wait_for
from tests.flows.site import Site, managed
from tests.soak import only_in_ci


@pytest.fixture(scope="module")
def deployed(prefect_server: PrefectServer) -> PrefectServer:
    """A server that knows this project, by the commands of deployments/README.md."""
    run(prefect_server, "-m", "deployments.register")
    run(prefect_server, "-m", "prefect", "--no-prompt", "deploy", "--all")
    return prefect_server


def run(server: PrefectServer, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        env=dict(server.environment()),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def worker(deployed: PrefectServer) -> Iterator[Path]:
    """A process worker of the control pool, started in the checkout as a proxy would be; yields its log."""
    log = deployed.home / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "deployments.worker", CONTROL_POOL],
            env=dict(deployed.environment(PREFECT_WORKER_QUERY_SECONDS="1")),
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield log
    process.terminate()
    process.wait(60)


def deployment(name: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(f"backup-subclient/{name}")


def test_registering_again_changes_nothing_that_an_operator_set(deployed: PrefectServer) -> None:
    run(deployed, "-m", "prefect", "work-pool", "set-concurrency-limit", CONTROL_POOL, "3")
    said = run(deployed, "-m", "deployments.register")
    assert f"Work pool {CONTROL_POOL} exists and was left as it is." in said
    with get_client(sync_client=True) as client:
        pool = client.read_work_pool(CONTROL_POOL)
        slugs = {kind.slug for kind in client.read_block_types()}
    assert (pool.type, pool.concurrency_limit) == ("process", 3)
    assert {"vsa-azure-subscription", "vsa-backup-media", "vsa-proxy", "vsa-subclient"} <= slugs


DEPLOYMENTS = (
    "backup-subclient/ad-hoc",
    "backup-subclient/nightly",
    "backup-subclient/weekly-crc",
    "prune-media/weekly",
    "restore-disks/ad-hoc",
    "sweep-leftovers/hourly",
    "verify-media/weekly",
)


def of_file(name: str) -> DeploymentResponse:
    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(name)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_says_what_it_does_and_waits_to_be_activated(deployed: PrefectServer, name: str) -> None:
    found = of_file(name)
    assert found.description and found.description.endswith(".")
    assert found.tags
    assert found.work_pool_name == CONTROL_POOL
    assert str(ROOT) not in found.model_dump_json()
    assert bool(found.schedules) != ("ad-hoc" in found.tags)
    for planned in found.schedules:
        assert not planned.active
        assert planned.schedule.timezone == "Europe/Berlin"


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_form_explains_every_parameter_asks_for_no_secret_and_is_filled_in_where_it_is_scheduled(
    deployed: PrefectServer, name: str
) -> None:
    found = of_file(name)
    schema: dict[str, Any] = found.parameter_openapi_schema
    for parameter, field in schema["properties"].items():
        assert field["description"].endswith("."), parameter
        assert not re.search("secret|password|passphrase|token|sas$|key$", parameter), parameter
        assert "default" in field or parameter in schema["required"]
    assert found.parameters.keys() <= schema["properties"].keys()
    assert found.parameters == {} if not found.schedules else set(schema["required"]) <= set(found.parameters)


def test_the_file_has_every_flow_but_those_of_the_proxies() -> None:
    """Each proxy has a deployment of stream-disk, which deployments/register.py makes."""
    written = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    files = [(Path(item["entrypoint"].partition(":")[0]).stem, item["name"]) for item in written]
    assert sorted(f"{file.replace('_', '-')}/{name}" for file, name in files) == list(DEPLOYMENTS)
    assert {name.partition("/")[0] for name in DEPLOYMENTS} == {*flow_names()} - {"stream-disk"}


def test_what_is_scheduled_when(deployed: PrefectServer) -> None:
    crons = {name: [item.schedule.cron for item in of_file(name).schedules] for name in DEPLOYMENTS}
    assert crons["backup-subclient/nightly"] == ["0 1 * * *"]
    assert crons["backup-subclient/weekly-crc"] == ["0 8 * * 0"]
    assert crons["sweep-leftovers/hourly"] == ["40 * * * *"]
    weekly = {name: planned for name, planned in crons.items() if name.endswith("/weekly")}
    assert weekly == {"prune-media/weekly": ["0 12 * * 6"], "verify-media/weekly": ["0 12 * * 6"]}
    assert deployment("nightly").parameters == {"subclient": "production"}
    assert deployment("weekly-crc").parameters == {"subclient": "production", "method": "crc"}


def test_the_server_plans_runs_of_a_schedule_that_is_switched_on(deployed: PrefectServer) -> None:
    nightly = deployment("nightly")
    (schedule,) = nightly.schedules
    asked = DeploymentFilter(id=DeploymentFilterId(any_=[nightly.id]))
    with get_client(sync_client=True) as client:
        client.update_deployment_schedule(nightly.id, schedule.id, active=True)
        try:
            wait_for(
                "runs to be planned",
                lambda: client.read_flow_runs(deployment_filter=asked) or None,
                seconds=60,
            )
        finally:
            client.update_deployment_schedule(nightly.id, schedule.id, active=False)


def test_the_form_of_a_restore_offers_what_there_is_to_choose(deployed: PrefectServer) -> None:
    schema: dict[str, Any] = of_file("restore-disks/ad-hoc").parameter_openapi_schema
    assert schema["required"] == ["media", "folder"]
    assert schema["properties"]["format"]["enum"] == ["vhd", "raw"]
    assert schema["properties"]["disks"]["type"] == "array"


def test_the_form_explains_every_parameter_and_asks_for_no_secret(deployed: PrefectServer) -> None:
    ad_hoc = deployment("ad-hoc")
    assert ad_hoc.description
    schema: dict[str, Any] = ad_hoc.parameter_openapi_schema
    shown = sorted(schema["properties"], key=lambda name: schema["properties"][name]["position"])
    assert shown == ["subclient", "method", "full", "stop_after_minutes", "in_process"]
    assert all(field["description"].endswith(".") for field in schema["properties"].values())
    assert schema["required"] == ["subclient"]
    assert schema["properties"]["method"]["anyOf"][0]["enum"] == ["cbt", "crc"]
    assert ad_hoc.parameters == {}


@pytest.fixture
def sites(simulation: AzsimProcess, prefect_server: PrefectServer, tmp_path: Path) -> Iterator[list[Site]]:
    yield [Site(simulation.control, tmp_path) for _ in range(2)]
    simulation.control.clear_faults()


def start_by_hand(server: PrefectServer, site: Site) -> FlowRun:
    """Run the ad-hoc deployment for a site by the command line; returns as soon as it is scheduled."""
    arguments = (
        "run",
        "backup-subclient/ad-hoc",
        "--param",
        f"subclient={site.name}",
        "--param",
        "in_process=true",
    )
    run(server, "-m", "prefect", "deployment", *arguments)
    asked = DeploymentFilter(id=DeploymentFilterId(any_=[deployment("ad-hoc").id]))
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(deployment_filter=asked)
    return next(found for found in runs if found.parameters["subclient"] == site.name)


def start(site: Site) -> FlowRun:
    """What the command line asks the server for, without the seconds that the command line takes to start."""
    with get_client(sync_client=True) as client:
        return client.create_flow_run_from_deployment(
            deployment("ad-hoc").id, parameters={"subclient": site.name, "in_process": True}
        )


def ended(flow_run: FlowRun, log: Path) -> str:
    """The name of the state in which the run ended."""

    def look() -> str | None:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(flow_run.id).state
        return state.name if state and state.is_final() else None

    try:
        return wait_for(f"run {flow_run.name} to end", look, seconds=120)
    except AssertionError as error:
        raise AssertionError(f"{error}; the worker said:\n{log.read_text()[-3000:]}") from None


@only_in_ci
def test_a_deployed_backup_is_run_by_a_worker(deployed: PrefectServer, worker: Path, site: Site) -> None:
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.save_blocks()
    flow_run = start_by_hand(deployed, site)
    assert ended(flow_run, worker) == "Completed"
    assert [report.job for report in site.reports] == [str(flow_run.id)]
    site.require_only_bases()
    site.require_restorable(site.points_of("web")[0])


def _said(flow_run: FlowRun, words: str) -> int:
    """How many messages of the run's log have the words; what is logged last comes a while later."""
    return sum(words in message for message in messages_of(flow_run))


@only_in_ci
def test_runs_that_are_cancelled_or_die_under_a_worker_are_cleaned_up(
    deployed: PrefectServer, worker: Path, sites: list[Site]
) -> None:
    for site in sites:
        site.add_vm("web", [managed("web-os", size=64 * MIB), managed("web-data", size=64 * MIB)])
        site.save_blocks()
    control = sites[0].control
    # Twenty seconds for each disk: time enough to interrupt it, on a busy machine, too.
    control.add_fault("delay", seconds=5, plane="blob", header="x-ms-range", times=None)
    cancelled, killed = (start(site) for site in sites)
    for site in sites:
        wait_for("both snapshots", lambda site=site: len(site.snapshots) == 2, seconds=90)

    os.kill(_process_of(sites[1]), signal.SIGKILL)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(cancelled.id, State(type=StateType.CANCELLING))

    assert ended(killed, worker) == "Crashed"
    assert ended(cancelled, worker) == "Cancelled"
    for site, flow_run in zip(sites, (cancelled, killed), strict=True):
        wait_for("the hook to clean up", lambda site=site: site.snapshots == [], seconds=60)
        assert not site.media.view().points
        wait_for("its word of it", lambda flow_run=flow_run: _said(flow_run, "Cleaning up after") > 0)
    wait_for("what the hook deleted", lambda: _said(killed, "snapshot of run") == 2)
    control.clear_faults()
    assert [site.back_up().name for site in sites] == ["Completed", "Completed"]


def _process_of(site: Site) -> int:
    """The process of the site's only run, by what it wrote down before it began."""
    (run_id,) = site.media.runs()
    intent = site.media.intent(run_id)
    assert intent is not None
    return intent.process.id
