"""What the Prefect server does by itself: end runs that died unseen, and tell people.

Everything is limited to the flows of this project, by their names: on a server that others use too, nobody
else's runs are touched. Names are what Prefect itself knows flows by, so they hold for runs with and without
a deployment, whatever their tags.
"""

from __future__ import annotations

import datetime as dt
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import Flow

import flows as flow_files
from deployments.pools import HEARTBEAT_SECONDS
from flows.stream_disk import stream_disk
from tasks import ending
from tasks.child_runs import UNFIT
from tasks.pools import LOST_HEARTBEAT
from vsa.errors import BadRequest

FAILED = "azure-vsa: failed runs"
WITH_ERRORS = "azure-vsa: runs completed with errors"
LATE = "azure-vsa: runs that do not begin"

WITHIN_SECONDS = 180
"""Six heartbeats. To a server that was away for longer all runs are dead: an upgrade of it must fit in."""

LATE_SECONDS = 1800
"""So long may a run stay late: a worker that is started anew finishes first what it had begun."""
_LEAST_LATE_SECONDS = 30
"""A worker asks for runs every ten seconds (PREFECT_WORKER_QUERY_SECONDS)."""

_HEARTBEAT = "prefect.flow-run.heartbeat"
_ENDS = ("Completed", ending.WITH_ERRORS, "Failed", UNFIT, "TimedOut", "Cancelled", "Crashed")
_FLOW_RUNS = "prefect.flow-run.*"
# What the event says of the state, not what the run says later.
_STATE = "{{ event.resource['prefect.state-name'] }}"
_LINK = "{{ (flow_run | ui_url) or '' }}"
_BODY = (
    "{{ event.resource['prefect.resource.name'] }}: "
    + _STATE
    + "\n\n{{ event.resource['prefect.state-message'] | truncate(2000) }}\n\n"
    + _LINK
)
# A run has the name that its flow gives it only once it has begun.
_LATE_BODY = (
    "{{ flow.name }}/{{ deployment.name }}: its run {{ event.resource['prefect.resource.name'] }} is late "
    "and has not begun for SECONDS seconds. Does a worker of the work pool {{ work_pool.name }} live, and is "
    "the pool neither paused nor full?\n\n"
) + _LINK


def flow_names() -> list[str]:
    """Names of all flows of this project, in order."""
    files = (
        importlib.import_module(f"flows.{found.name}") for found in pkgutil.iter_modules(flow_files.__path__)
    )
    values = (value for file in files for value in vars(file).values())
    return sorted({flow.name for flow in values if isinstance(flow, Flow)})


def crash_of_silent_runs(flows: Sequence[str], *, within: int = WITHIN_SECONDS) -> AutomationCore:
    """Say of a deployed run that it crashed when it has said nothing for `within` seconds.

    Only of a deployed run: our work pools make those beat often enough; a run that somebody started by hand
    may beat every three minutes and be well. BadRequest if a run that is well could be taken for dead.
    """
    if within <= HEARTBEAT_SECONDS:
        raise BadRequest(
            f"{within} seconds without a heartbeat cannot mean that a run has died: it beats every "
            f"{HEARTBEAT_SECONDS} seconds; expected {2 * HEARTBEAT_SECONDS} or more"
        )
    trigger = EventTrigger(
        after={_HEARTBEAT},
        expect={_HEARTBEAT, *(f"prefect.flow-run.{name}" for name in _ENDS)},
        match=ResourceSpecification({"prefect.resource.id": [_FLOW_RUNS]}),
        match_related=[
            _of_flows(flows),
            ResourceSpecification(
                {"prefect.resource.role": ["deployment"], "prefect.resource.id": ["prefect.deployment.*"]}
            ),
        ],
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=dt.timedelta(seconds=within),
    )
    message = f"its heartbeat stopped for {within} seconds: its process or its machine died"
    return AutomationCore(
        name=LOST_HEARTBEAT,
        description="Without it, a run whose machine died would stay Running. Made by deployments.register.",
        trigger=trigger,
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)],
    )


def notification_of_failures(flows: Sequence[str], block: UUID) -> AutomationCore:
    """Tell of every run that failed, timed out or crashed, except single streams: their job tells of those.

    A stream that fails is taken over by another proxy; hundreds may fail for one cause.
    """
    trigger = EventTrigger(
        expect={_FLOW_RUNS},
        match=ResourceSpecification(
            {"prefect.resource.id": [_FLOW_RUNS], "prefect.state-type": ["FAILED", "CRASHED"]}
        ),
        match_related=_of_flows([name for name in flows if name != stream_disk.name]),
        posture=Posture.Reactive,
        threshold=1,
    )
    return _notification(FAILED, trigger, block)


def notification_of_errors(flows: Sequence[str], block: UUID) -> AutomationCore:
    """Tell of every run that completed with errors: some of what it was to do is not done."""
    trigger = EventTrigger(
        expect={f"prefect.flow-run.{ending.WITH_ERRORS}"},
        match=ResourceSpecification({"prefect.resource.id": [_FLOW_RUNS]}),
        match_related=_of_flows([name for name in flows if name != stream_disk.name]),
        posture=Posture.Reactive,
        threshold=1,
    )
    return _notification(WITH_ERRORS, trigger, block)


def notification_of_late_runs(
    flows: Sequence[str], block: UUID, *, within: int = LATE_SECONDS
) -> AutomationCore:
    """Tell of every run that is late for `within` seconds and has not begun: most often no worker lives.

    The server calls a planned run late, once, when nobody has claimed it 15 seconds after its time
    (prefect/server/services/late_runs.py); whatever it says of the run next ends the waiting. Single streams
    are left out: their job gives them to another proxy. BadRequest if a worker that is well needs longer.
    """
    if within < _LEAST_LATE_SECONDS:
        raise BadRequest(
            f"a run that has not begun {within} seconds after it was late cannot mean that no worker lives: "
            f"expected {_LEAST_LATE_SECONDS} seconds or more"
        )
    trigger = EventTrigger(
        after={"prefect.flow-run.Late"},
        expect={_FLOW_RUNS},
        match=ResourceSpecification({"prefect.resource.id": [_FLOW_RUNS]}),
        match_related=_of_flows([name for name in flows if name != stream_disk.name]),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=dt.timedelta(seconds=within),
    )
    return _notification(LATE, trigger, block, body=_LATE_BODY.replace("SECONDS", str(within)))


def _of_flows(names: Sequence[str]) -> ResourceSpecification:
    return ResourceSpecification({"prefect.resource.role": ["flow"], "prefect.resource.name": [*names]})


def _notification(name: str, trigger: EventTrigger, block: UUID, *, body: str = _BODY) -> AutomationCore:
    action = SendNotification(block_document_id=block, subject=f"azure-vsa: {_STATE}", body=body)
    return AutomationCore(
        name=name,
        description="Sends a notification. Made by deployments.register --notify.",
        trigger=trigger,
        actions=[action],
    )


def notification_block(client: SyncPrefectClient, named: str) -> UUID:
    """The id of the block that TYPE-SLUG/NAME means; BadRequest if there is none, or if it cannot notify."""
    slug, _, name = named.partition("/")
    try:
        found = client.read_block_document_by_name(name, slug, include_secrets=False)
    except ObjectNotFound:
        raise BadRequest(
            f"there is no notification block {named!r}: expected TYPE-SLUG/NAME as `prefect block ls` shows "
            "it, for example slack-webhook/operators"
        ) from None
    schema = found.block_schema
    if schema is None or "notify" not in schema.capabilities:
        raise BadRequest(f"block {named} cannot send notifications: expected a notification block")
    return found.id


def ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Iterator[str]:
    """Create the automation or keep its trigger, first action and description in step; says what was done.

    Whether it is enabled, its tags and further actions are the operator's.
    """
    existing = _named(client, wanted.name)
    if not existing:
        client.create_automation(wanted)
        yield f"Automation {wanted.name!r} was created."
        yield from _leave_the_first(client, wanted.name)
        return
    found = existing[0]
    kept = in_step(found, wanted)
    if kept == _core(found):
        yield f"Automation {wanted.name!r} exists and was left as it is."
    else:
        client.update_automation(found.id, kept)
        yield f"Automation {wanted.name!r} was changed: its trigger or its first action was another."


def in_step(found: AutomationCore, wanted: AutomationCore) -> AutomationCore:
    """The automation that was found, with what is wanted in the places that are kept in step."""
    kept = {"trigger": wanted.trigger, "actions": [*wanted.actions, *found.actions[1:]]}
    return _core(found.model_copy(update={"description": wanted.description, **kept}))


def _core(automation: AutomationCore) -> AutomationCore:
    """What an update takes, every field of it set: Prefect's client leaves out those that were not."""
    fields = set(AutomationCore.model_fields) - {"owner_resource"}
    return AutomationCore.model_validate(automation.model_dump(include=fields))


def notified_block(client: SyncPrefectClient) -> UUID | None:
    """The block that failed runs are told by now; None if nobody is told."""
    for found in _named(client, FAILED):
        for action in found.actions[:1]:
            if isinstance(action, SendNotification):
                return action.block_document_id
    return None


def _named(client: SyncPrefectClient, name: str) -> list[Automation]:
    """The automations of that name, in an order that everybody who asks sees."""
    return sorted(client.read_automations_by_name(name), key=lambda found: found.id)


def _leave_the_first(client: SyncPrefectClient, name: str) -> Iterator[str]:
    """Automations may share a name: of those that were made in the same moment, only the first stays.

    Whoever made one removes all but the first, not only its own: the first may have shown itself last, when
    the makers of the others had looked already.
    """
    for second in _named(client, name)[1:]:
        _delete(client, second)
        yield f"Automation {name!r} was made twice in the same moment; the first stays."


def _delete(client: SyncPrefectClient, automation: Automation) -> None:
    try:
        client.delete_automation(automation.id)
    except PrefectHTTPStatusError as error:
        # Somebody else who saw two was faster. The client means to pass over this, and does not.
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise
