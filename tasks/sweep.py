"""Sweeping: what the server knows of jobs, the plan, its execution, and the report as an artifact."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence

from prefect.artifacts import create_markdown_artifact

from tasks.artifacts import artifact_key
from tasks.edge import task
from tasks.flow_runs import end_children, flow_run_ids, states_of
from tasks.markup import escaped, section, table
from tasks.policy import REPEATED, STAGE
from vsa.model import SourceDisk
from vsa.text import size_text
from vsa.transfer.dead_runs import JobState, JudgedRun, OpenRuns
from vsa.transfer.pending import Leftover, Price, age_of, money
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepPlan, SweepReport

CLEANUP = STAGE | {"retries": 2, "retry_delay_seconds": 2}
_LEFTOVER = ("what", "name", "disk", "run", "age", "size", "a month, estimated")


@task(name="find open runs", **REPEATED)
def find_open_runs(sweep: Sweep) -> OpenRuns:
    """The runs that have begun and of which the log knows no end."""
    return sweep.open_runs()


@task(name="ask for their jobs", **STAGE | {"retries": 2, "retry_delay_seconds": 2})
def states_of_jobs(runs: OpenRuns) -> dict[str, JobState]:
    """The flow runs of these jobs that this server knows, by their ids."""
    return _states(runs)


@task(name="plan sweep", **REPEATED)
def plan_sweep(
    sweep: Sweep, runs: OpenRuns, jobs: Mapping[str, JobState], named: Collection[str]
) -> SweepPlan:
    """Decide which runs are dead, and look for everything that may go; touches nothing."""
    return sweep.plan(runs, jobs, named)


@task(name="look at silent runs once more", **REPEATED)
def second_look(sweep: Sweep, plan: SweepPlan, named: Collection[str]) -> SweepPlan:
    """Wait as long as live runs may take for another sign, if any give none, and plan again."""
    return sweep.second_look(plan, _states, named)


@task(name="end streams", task_run_name="end streams of job {job}", **STAGE)
def end_streams(job: str) -> None:
    """Cancel the child runs of a job that is given up, and wait a while for their end: streams stop before
    the snapshots go that they read. Those that do not are refused new access by the fence."""
    for flow_run in flow_run_ids([job]):
        end_children(flow_run)


@task(
    name="release dead run", task_run_name="release run {run.intent.run} of {run.intent.vm_name}", **CLEANUP
)
def release_dead_run(sweep: Sweep, run: JudgedRun, in_use: Collection[str]) -> tuple[str, ...]:
    """Fence the run in the log, then remove what it left; returns what is pending."""
    return sweep.release(run, in_use)


@task(name="clear disk", task_run_name="clear disk {disk.name}", **CLEANUP)
def clear_disk(sweep: Sweep, disk: SourceDisk, in_use: Collection[str]) -> tuple[str, ...]:
    """Remove what runs that are over have left of the disk; returns what is pending."""
    return sweep.clear(disk, in_use)


@task(name="look again", **REPEATED)
def look_again(sweep: Sweep, plan: SweepPlan, pending: Sequence[str]) -> SweepReport:
    """Compare the plan with what Azure shows now: only what is no longer there was removed."""
    return sweep.report(plan, pending)


@task(name="show sweep", **STAGE)
def show_sweep(swept: SweepPlan | SweepReport, name: str) -> None:
    """Publish what was found; the sweeps of one media block are versions of one another."""
    headline = swept.text().splitlines()[0]
    create_markdown_artifact(markdown(swept, name), key=artifact_key("sweep", name), description=headline)


def markdown(swept: SweepPlan | SweepReport, name: str) -> str:
    """What needs attention, what was removed or would be, and what is left alone, each with its age."""
    is_dry = isinstance(swept, SweepPlan)
    plan, now = (swept, swept.planned_at) if isinstance(swept, SweepPlan) else (swept.plan, swept.ended_at)
    gone = swept.leftovers if isinstance(swept, SweepPlan) else swept.removed
    left = () if isinstance(swept, SweepPlan) else swept.remaining
    parts = [
        f"# Sweep of {escaped(name)}{': dry run' if is_dry else ''}",
        escaped(swept.text().splitlines()[0]),
        *section("Needs attention", swept.attention),
        *_part("Cleanup pending", _LEFTOVER, [_leftover_row(item, now, plan.price) for item in left]),
        *_part("Dead runs", ("run", "VM", "age", "known by"), [_run_row(run, now) for run in plan.dead]),
        *_part(
            "Would be removed" if is_dry else "Removed",
            _LEFTOVER,
            [_leftover_row(item, now, plan.price) for item in gone],
        ),
        *_part("Silent runs", ("run", "VM", "age", "why"), [_run_row(run, now) for run in plan.silent]),
        *_part(
            "Would be removed if they stay silent",
            _LEFTOVER,
            [_leftover_row(item, now, plan.price) for item in plan.doubted],
        ),
        *_part("Left alone", ("run", "VM", "age", "why"), [_run_row(run, now) for run in plan.left_alone]),
        *section("Notes", plan.notes),
    ]
    return "\n\n".join(parts)


def _run_row(run: JudgedRun, now: dt.datetime) -> tuple[str, ...]:
    intent = run.intent
    return intent.run, intent.vm_name, age_of(intent.started_at, now), run.reason


def _leftover_row(item: Leftover, now: dt.datetime, price: Price) -> tuple[str, ...]:
    age = age_of(item.since, now) if item.since else "unknown"
    size, cost = (size_text(item.billed), money(price.of(item.billed))) if item.billed else ("", "")
    return item.thing, item.name, item.disk.name, item.run, age, size, cost


def _part(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A heading and a table; nothing if there are no rows."""
    return [f"## {title}", table(headings, [map(escaped, row) for row in rows])] if rows else []


def _states(runs: OpenRuns) -> dict[str, JobState]:
    return states_of({intent.job for intent in runs.intents})
