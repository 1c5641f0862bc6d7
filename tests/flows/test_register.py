"""deployments.register on a real server: what it makes, what it keeps in step, what it leaves alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import DoNothing
from prefect.events.schemas.automations import Automation, AutomationCore
from prefect.events.utilities import emit_event
from prefect.states import Cancelled, Failed, Pending, Running

from blocks.proxy import BackupProxy
from blocks.saved import saved_names
from deployments.automations import (
    FAILED,
    LATE,
    WITH_ERRORS,
    crash_of_silent_runs,
    ensure_automation,
    flow_names,
    notification_of_late_runs,
)
from deployments.gone import find_gone, remove_gone
from deployments.register import main, register, register_automations, register_proxies
from deployments.streams import JOB_VARIABLES, PULL_STEPS, require_own_names
from flows.backup_subclient import backup_subclient
from flows.prune_media import prune_media
from tasks.pools import LOST_HEARTBEAT
from tests.engine.world import MIB
from tests.flows.prefect_server import ROOT, PrefectServer, messages_of, wait_for
from tests.flows.receiver import Receiver, receiving
from tests.flows.site import Site, managed
from tests.soak import only_in_ci
from vsa.errors import BadRequest

pytestmark = only_in_ci

AUTOMATIONS = (LOST_HEARTBEAT, FAILED, WITH_ERRORS, LATE)


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """A client of a server without other proxies; what a test registers there is removed at its end."""
    before = {name: BackupProxy.load(name) for name in saved_names(BackupProxy)}
    for name in before:
        BackupProxy.delete(name)
    with get_client(sync_client=True) as client:
        yield client
        for name in saved_names(BackupProxy):
            BackupProxy.delete(name)
        _forget_what_was_registered(client)
    for name, block in before.items():
        block.save(name)


def _forget_what_was_registered(client: SyncPrefectClient) -> None:
    list(remove_gone(client, find_gone(client, [])))
    for found in automations(client):
        client.delete_automation(found.id)
    for left in client.read_work_pools(limit=200):
        if left.name.startswith("registered-"):
            client.delete_work_pool(left.name)


def save(name: str, **fields: Any) -> BackupProxy:
    proxy = BackupProxy(proxy_name=name, **fields)
    proxy.save(name.lower(), overwrite=True)
    return proxy


def pool(client: SyncPrefectClient, name: str) -> WorkPool:
    return client.read_work_pool(name)


def stream(client: SyncPrefectClient, proxy: str) -> DeploymentResponse:
    return client.read_deployment_by_name(f"stream-disk/{proxy}")


def automations(client: SyncPrefectClient) -> list[Automation]:
    return [found for name in AUTOMATIONS for found in client.read_automations_by_name(name)]


def changes_said(lines: list[str]) -> list[str]:
    """Without the lines that say that nothing was done, and those of proxies that other tests have left."""
    quiet = ("is registered.", "was left as it is.", "Nobody is told", "/Station-", "station-")
    return [line for line in lines if not any(words in line for words in quiet)]


def test_each_proxy_gets_a_pool_of_its_own_and_a_deployment_in_it(client: SyncPrefectClient) -> None:
    save("Registered-A", streams=3)
    save("Registered-B", work_pool="registered-east")
    list(register_proxies(client))
    for proxy, name, limit in (("Registered-A", "registered-a", 3), ("Registered-B", "registered-east", 4)):
        made, found = pool(client, name), stream(client, proxy)
        variables = made.base_job_template["variables"]["properties"]
        assert (made.type, made.concurrency_limit) == ("process", limit)
        assert variables["stream_output"]["default"] is False
        assert variables["env"]["default"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
        assert (found.work_pool_name, found.entrypoint) == (name, "flows/stream_disk.py:stream_disk")
        assert found.job_variables == {"working_dir": ".", "stream_output": False}
        assert found.pull_steps == [{"prefect.deployments.steps.set_working_directory": {"directory": "."}}]
        assert found.enforce_parameter_schema and "streams" in found.parameter_openapi_schema["properties"]
        assert found.schedules == [] and found.global_concurrency_limit is None
        assert proxy in (found.description or "") and "stream" in found.tags
        assert str(ROOT) not in found.model_dump_json() + made.model_dump_json()


def test_what_an_operator_set_stays(client: SyncPrefectClient) -> None:
    save("registered-a")
    _registered(client)
    deployment = stream(client, "registered-a")
    (silent,) = client.read_automations_by_name(LOST_HEARTBEAT)
    client.update_work_pool(
        "registered-a", WorkPoolUpdate(is_paused=True, description="the one in the cellar")
    )
    client.update_deployment(
        deployment.id,
        DeploymentUpdate(
            paused=True,
            concurrency_limit=1,
            tags=[*deployment.tags, "mine"],
            job_variables={**deployment.job_variables, "env": {"TZ": "UTC"}},
        ),
    )
    changed = silent.model_dump(exclude={"id", "owner_resource"})
    changed |= {"enabled": False, "actions": [*changed["actions"], DoNothing(type="do-nothing")]}
    client.update_automation(silent.id, AutomationCore.model_validate(changed))

    before = _everything(client)
    assert changes_said(_registered(client)) == []
    assert _everything(client) == before
    assert before[0].is_paused and before[1].paused and not before[2].enabled


def _registered(client: SyncPrefectClient, *, silent_seconds: int = 90) -> list[str]:
    return [*register_proxies(client), *register_automations(client, silent_seconds=silent_seconds)]


def _everything(client: SyncPrefectClient) -> tuple[WorkPool, DeploymentResponse, Automation]:
    # A deployment's status follows its workers.
    deployment = stream(client, "registered-a").model_copy(update={"status": None})
    return pool(client, "registered-a"), deployment, client.read_automations_by_name(LOST_HEARTBEAT)[0]


def test_what_is_kept_in_step_is_told(client: SyncPrefectClient) -> None:
    save("registered-a", streams=3)
    _registered(client)
    template = pool(client, "registered-a").base_job_template
    template["variables"]["properties"]["stream_output"]["default"] = True
    template["variables"]["properties"]["env"]["default"] = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60"}
    client.update_work_pool("registered-a", WorkPoolUpdate(base_job_template=template))
    client.update_deployment(stream(client, "registered-a").id, DeploymentUpdate(job_variables={}))
    save("registered-a", streams=8)

    said = changes_said(_registered(client, silent_seconds=120))
    assert [line for line in said if "its limit is 8 and was 3" in line and "job template" in line]
    assert "Deployment stream-disk/registered-a was changed: job_variables." in said
    assert [line for line in said if LOST_HEARTBEAT in line and "was changed" in line]
    variables = pool(client, "registered-a").base_job_template["variables"]["properties"]
    assert pool(client, "registered-a").concurrency_limit == 8
    assert variables["stream_output"]["default"] is False
    assert variables["env"]["default"] == {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "60"}, "an operator's choice"
    assert stream(client, "registered-a").job_variables == JOB_VARIABLES
    assert client.read_automations_by_name(LOST_HEARTBEAT)[0].trigger.within == timedelta(seconds=120)
    assert changes_said(_registered(client, silent_seconds=120)) == []


def test_a_proxy_that_moved_to_another_pool_takes_its_deployment_along(client: SyncPrefectClient) -> None:
    save("registered-a")
    list(register_proxies(client))
    save("registered-a", work_pool="registered-new")
    said = list(register_proxies(client))
    assert stream(client, "registered-a").work_pool_name == "registered-new"
    assert [line for line in said if "Work pool registered-a belongs to no saved proxy" in line]
    assert pool(client, "registered-a").name == "registered-a", "it is told, not deleted"


def test_what_is_left_of_a_deleted_proxy_is_told_and_removed_only_when_asked(
    client: SyncPrefectClient,
) -> None:
    for name in ("registered-a", "registered-b"):
        save(name)
    list(register_proxies(client))
    BackupProxy.delete("registered-a")
    said = list(register_proxies(client))
    assert sum("--remove-gone" in line and "registered-a" in line for line in said) == 2
    assert stream(client, "registered-a").work_pool_name == "registered-a"

    left = stream(client, "registered-a").id
    client.update_deployment(left, DeploymentUpdate(enforce_parameter_schema=False))
    waiting = client.create_flow_run_from_deployment(left)
    said = list(register_proxies(client, remove=True))
    assert sum("was kept" in line and "registered-a" in line for line in said) == 2
    client.set_flow_run_state(waiting.id, Cancelled(), force=True)
    said = list(register_proxies(client, remove=True))
    assert sum("was deleted" in line and "registered-a" in line for line in said) == 2
    assert {found.name for found in client.read_work_pools()} >= {"registered-b"}
    assert stream(client, "registered-b").work_pool_name == "registered-b"


@only_in_ci
def test_three_at_once_make_everything_once(client: SyncPrefectClient) -> None:
    for name in ("registered-a", "registered-b"):
        save(name)
    hook: Any = CustomWebhookNotificationBlock(name="hook", url="http://127.0.0.1:9/")
    hook.save("registered", overwrite=True)

    def one(_: int) -> list[str]:
        with get_client(sync_client=True) as own:
            return list(register(own, notify="custom-webhook/registered"))

    with ThreadPoolExecutor(3) as threads:
        # Which server is meant is a matter of context, which threads do not inherit.
        begun = [threads.submit(copy_context().run, one, number) for number in range(3)]
        assert [len(made.result()) > 0 for made in begun] == [True] * 3
    assert sorted(found.name for found in automations(client)) == sorted(AUTOMATIONS)
    assert changes_said(one(0)) == []


def test_an_automation_that_shows_itself_after_its_maker_has_looked_is_removed_by_the_first(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = client.create_automation

    def beaten(wanted: AutomationCore) -> Any:
        first = create(wanted)
        # Somebody else's, who saw only his own.
        create(wanted)
        return first

    monkeypatch.setattr(client, "create_automation", beaten)
    said = list(ensure_automation(client, crash_of_silent_runs(flow_names())))
    assert [found.name for found in automations(client)] == [LOST_HEARTBEAT]
    assert "the first stays" in said[-1]


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ([{"proxy_name": "a"}, {"proxy_name": "A", "work_pool": "b"}], "several Proxy blocks are called a"),
        (
            [{"proxy_name": "a"}, {"proxy_name": "b", "work_pool": "a"}],
            "several proxies have the work pool a",
        ),
        ([{"proxy_name": "control"}], "proxy control has the work pool control"),
        ([{"proxy_name": "Prefect-1"}], "Prefect keeps such names to itself"),
        ([{"proxy_name": "east/1"}], "name 'east/1' of a proxy is none that Prefect takes"),
        ([{"proxy_name": "east#1"}], "name 'east#1' of a proxy is none that Prefect takes"),
        ([{"proxy_name": "a", "work_pool": "b?"}], "work pool 'b[?]' of a proxy is none that Prefect takes"),
        ([{"proxy_name": "a", "work_pool": " "}], "work pool ' ' of a proxy is none that Prefect takes"),
    ],
)
def test_proxies_that_would_get_in_each_others_way_are_refused(
    blocks: list[dict[str, str]], words: str
) -> None:
    with pytest.raises(BadRequest, match=words):
        require_own_names([BackupProxy(**fields) for fields in blocks])


def test_a_pool_of_another_type_is_refused(
    client: SyncPrefectClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.create_work_pool(WorkPoolCreate(name="registered-docker", type="docker"))
    save("registered-a", work_pool="registered-docker")
    assert main([]) == 2
    client.delete_work_pool("registered-docker")
    assert "work pool registered-docker is of type 'docker', expected 'process'" in capsys.readouterr().err


def test_all_flows_of_this_project_are_known() -> None:
    assert {"backup-subclient", "prune-media", "stream-disk", "verify-media"} <= set(flow_names())


@pytest.mark.parametrize("named", ["custom-webhook/nobody", "nonsense", "vsa-proxy/registered-a"])
def test_what_cannot_notify_is_refused(client: SyncPrefectClient, named: str) -> None:
    save("registered-a")
    with pytest.raises(BadRequest, match=f"{named}.* expected"):
        list(register_automations(client, named))


def test_a_silence_that_is_shorter_than_a_heartbeat_means_nothing() -> None:
    with pytest.raises(BadRequest, match="30 seconds without a heartbeat cannot mean"):
        crash_of_silent_runs(["backup-subclient"], within=30)


def test_a_lateness_that_a_worker_which_lives_may_have_means_nothing() -> None:
    with pytest.raises(BadRequest, match="29 seconds after it was late cannot mean"):
        notification_of_late_runs(["backup-subclient"], uuid4(), within=29)


@flow(name="somebody-elses", persist_result=False)
def somebody_elses() -> Any:
    return Failed(message="nobody's business")


@pytest.fixture
def receiver(client: SyncPrefectClient) -> Iterator[Receiver]:
    """Where the notifications of this project's runs go for the length of a test."""
    with receiving() as receiver:
        hook = CustomWebhookNotificationBlock(
            name="hook", url=receiver.url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
        )
        hook.save("registered", overwrite=True)
        list(register_automations(client, "custom-webhook/registered"))
        yield receiver


def test_failed_jobs_and_those_with_errors_are_told_and_nobody_elses(
    client: SyncPrefectClient, receiver: Receiver, site: Site
) -> None:
    for vm in ("web", "db"):
        site.add_vm(vm, [managed(f"{vm}-os")])
    site.save_blocks()
    site.control.add_fault(
        "status",
        status=403,
        code="AuthorizationFailed",
        plane="arm",
        path=f"{site.snapshots_path('db-os')}/beginGetAccess",
        times=None,
    )
    somebody_elses(return_state=True)
    assert prune_media(f"{site.name}-not", return_state=True).is_failed()
    assert site.back_up(in_process=True).name == "Completed with errors"

    wait_for("both notifications", lambda: len(receiver.received) >= 2)
    failed, with_errors = sorted(receiver.received, key=lambda sent: str(sent["subject"]), reverse=True)
    assert failed["subject"] == "azure-vsa: Failed"
    assert f"there is no backup media '{site.name}-not'" in failed["body"]
    assert with_errors["subject"] == "azure-vsa: Completed with errors"
    assert "1 of 2 VMs have a recovery point" in with_errors["body"]
    assert changes_said(list(register_automations(client))) == [], "told as before, though not named again"


@pytest.fixture
def unserved(client: SyncPrefectClient) -> Iterator[Callable[[Any], FlowRun]]:
    """Plans a run of a flow, for now, in a pool that no worker serves; returns when it is late."""
    save("registered-a")
    list(register_proxies(client))
    made = []

    def plan(of: Any) -> FlowRun:
        deployment = client.create_deployment(
            client.create_flow(of), "unserved", work_pool_name="registered-a"
        )
        made.append(deployment)
        run = client.create_flow_run_from_deployment(deployment)
        wait_for("the run to be late", lambda: client.read_flow_run(run.id).state_name == "Late", seconds=120)
        return run

    yield plan
    for deployment in made:
        client.delete_deployment(deployment)


def test_jobs_that_do_not_begin_are_told_and_nobody_elses(
    client: SyncPrefectClient, receiver: Receiver, unserved: Callable[[Any], FlowRun]
) -> None:
    said = changes_said(list(register_automations(client, late_seconds=60)))
    assert [line for line in said if LATE in line and "was changed" in line], said
    unserved(somebody_elses)
    client.set_flow_run_state(unserved(backup_subclient).id, Pending())
    forgotten = unserved(prune_media)

    wait_for("the notification", lambda: receiver.received or None, seconds=300)
    (told,) = receiver.received
    assert told["subject"] == "azure-vsa: Late"
    assert told["body"].startswith(f"prune-media/unserved: its run {forgotten.name} is late")
    assert "60 seconds" in told["body"] and "work pool registered-a live" in told["body"]


@pytest.fixture
def worker(client: SyncPrefectClient, prefect_server: PrefectServer) -> Iterator[Worker]:
    """A worker of the pool `registered-a`, and a deployment there that runs a whole backup."""
    save("registered-a")
    list(register_proxies(client))
    list(register_automations(client, silent_seconds=40))
    worker = Worker(client, prefect_server)
    yield worker
    worker.end()


class Worker:
    """`python -m deployments.worker registered-a`."""

    def __init__(self, client: SyncPrefectClient, server: PrefectServer) -> None:
        self.client = client
        self.log = server.home / "registered-worker.log"
        self.deployment = client.create_deployment(
            client.create_flow(backup_subclient),
            "in-a-proxy",
            entrypoint="flows/backup_subclient.py:backup_subclient",
            work_pool_name="registered-a",
            pull_steps=PULL_STEPS,
            job_variables=JOB_VARIABLES,
        )
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deployments.worker", "registered-a"],
                env=dict(server.environment(PREFECT_WORKER_QUERY_SECONDS="1")),
                cwd=ROOT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def back_up(self, site: Site) -> FlowRun:
        """Start a job of the site through the worker; returns when its snapshot is there and it is busy."""
        site.add_vm("web", [managed("web-os", size=64 * MIB)])
        site.save_blocks()
        site.control.add_fault("delay", seconds=3, plane="blob", header="x-ms-range", times=None)
        run = self.client.create_flow_run_from_deployment(
            self.deployment, parameters={"subclient": site.name, "in_process": True}
        )
        wait_for("the snapshot", lambda: len(site.snapshots) == 1, seconds=120)
        return run

    def state_of(self, run: FlowRun) -> str:
        state = self.client.read_flow_run(run.id).state
        assert state is not None
        return str(state.name)

    def children(self) -> list[int]:
        listed = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(process) for threads in listed for process in threads.read_text().split()]

    def end(self) -> None:
        for process in (self.process.pid, *self.children()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        self.client.delete_deployment(self.deployment)


@only_in_ci
def test_a_worker_that_is_told_to_stop_finishes_what_has_begun(worker: Worker, site: Site) -> None:
    run = worker.back_up(site)
    worker.process.send_signal(signal.SIGTERM)
    wait_for("the worker to say so", lambda: "1 flow runs have begun" in worker.log.read_text())
    later = worker.client.create_flow_run_from_deployment(
        worker.deployment, parameters={"subclient": site.name, "in_process": True}
    )
    site.control.clear_faults()
    assert worker.process.wait(120) == 0
    assert worker.state_of(run) == "Completed"
    assert worker.state_of(later) in ("Scheduled", "Late")
    site.require_only_bases()


@only_in_ci
def test_a_worker_that_is_told_twice_lets_its_runs_clean_up(worker: Worker, site: Site) -> None:
    run = worker.back_up(site)
    for times in (1, 2):
        worker.process.send_signal(signal.SIGTERM)
        words = ("have begun", "told as well")[times - 1]
        wait_for("the worker to say so", lambda words=words: words in worker.log.read_text())
    assert worker.process.wait(120) == 0
    assert worker.state_of(run) == "Crashed"
    assert site.snapshots == []


@only_in_ci
def test_a_run_that_died_with_its_worker_is_called_crashed_and_nobody_elses(
    worker: Worker, site: Site, client: SyncPrefectClient
) -> None:
    run = worker.back_up(site)
    others = [_beats_once(client, somebody_elses, run), _beats_once(client, backup_subclient, None)]
    wait_for("a heartbeat", lambda: worker.state_of(run) == "Running")
    for process in (worker.process.pid, *worker.children()):
        os.kill(process, signal.SIGKILL)
    assert worker.state_of(run) == "Running", "nobody has noticed"
    wait_for("the run to be called crashed", lambda: worker.state_of(run) == "Crashed", seconds=120)
    state = client.read_flow_run(run.id).state
    assert state is not None and "its heartbeat stopped for 40 seconds" in str(state.message)
    assert [worker.state_of(other) for other in others] == ["Running", "Running"]
    assert messages_of(run)


def _beats_once(client: SyncPrefectClient, of: Any, like: FlowRun | None) -> FlowRun:
    """A run that says once that it lives: of somebody else, or of ours but without a deployment."""
    run = client.create_flow_run(of, state=Running())
    related = [
        {
            "prefect.resource.id": f"prefect.flow.{run.flow_id}",
            "prefect.resource.role": "flow",
            "prefect.resource.name": of.name,
        }
    ]
    if like is not None:
        deployed = {
            "prefect.resource.id": f"prefect.deployment.{like.deployment_id}",
            "prefect.resource.role": "deployment",
        }
        related.append(deployed)
    emit_event(
        "prefect.flow-run.heartbeat",
        resource={"prefect.resource.id": f"prefect.flow-run.{run.id}"},
        related=related,
    )
    return run
