"""The job's report as artifacts: what people look at first in the Prefect UI. The log is the record.

A Markdown summary says how the job ended and what to do; a table has one row for each disk. Of a large job
the summary shows a part and says where the rest is: a page of thousands of lines is read by nobody.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.context import TaskRunContext

from tasks.artifacts import artifact_key, run_link
from tasks.edge import task
from tasks.markup import code_block, code_span, escaped, section, table
from tasks.policy import STAGE
from tasks.report_rows import HEADINGS, Row, rows
from vsa.media.entries import JobEntry, VmOutcome
from vsa.text import duration_text, size_text

# Lines of each list and rows of the table that the summary shows.
MOST_LINES = 50
# Rows of the table artifact, some 600 bytes each at most. Servers stand behind others that refuse more than
# 1 MiB in one request, unless told otherwise.
MOST_ROWS = 1500
_LONGEST_LINE = 1000


@task(name="show report", **STAGE)
def show_report(
    report: JobEntry,
    proxies: Mapping[str, str],
    *,
    streams: Mapping[str, str] | None = None,
    location: str = "LOCATION",
) -> None:
    """Publish the report; the subclient's artifacts are versions of one another.

    `proxies` and `streams`, the flow runs that moved the data, are by disk key; `location` is the media's.
    """
    context = TaskRunContext.get()
    assert context is not None, "called outside of a task"
    own = context.task_run
    _publish(
        rows(report, proxies, streams or {}),
        report,
        location=location,
        flow_run=own.flow_run_id,
        task_run=own.id,
    )


def show_report_of_stopped(report: JobEntry, flow_run: UUID, *, location: str) -> None:
    """Publish the report of a job whose own process has ended, unless it has done so before.

    For a hook, which has no run: the artifacts are those of the job's flow run all the same.
    """
    mine = ArtifactFilter(
        key=ArtifactFilterKey(any_=[summary_key(report)]),
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run]),
    )
    with get_client(sync_client=True) as client:
        is_shown = bool(client.read_artifacts(artifact_filter=mine, limit=1))
    if not is_shown:
        _publish(rows(report, {}, {}), report, location=location, flow_run=flow_run)


def _publish(
    found: Sequence[Row],
    report: JobEntry,
    *,
    location: str,
    flow_run: UUID | None,
    task_run: UUID | None = None,
) -> None:
    """The summary comes last: where there is one, there are both."""
    table = ArtifactCreate(
        key=disks_key(report),
        type="table",
        description=" ".join(
            [f"Disks of job {escaped(report.job)}.", *_left_out(found, MOST_ROWS, location)]
        ),
        data=json.dumps([row.as_record() for row in found[:MOST_ROWS]]),
        flow_run_id=flow_run,
        task_run_id=task_run,
    )
    said = ArtifactCreate(
        key=summary_key(report),
        type="markdown",
        description=f"{report.result}: job {escaped(report.job)}",
        data=summary(report, found, location=location),
        flow_run_id=flow_run,
        task_run_id=task_run,
    )
    with get_client(sync_client=True) as client:
        client.create_artifact(table)
        client.create_artifact(said)


def summary_key(report: JobEntry) -> str:
    """The key of the summary, whose versions are the subclient's jobs."""
    return artifact_key("backup", report.subclient)


def disks_key(report: JobEntry) -> str:
    """The key of the table, whose versions are the subclient's jobs."""
    return artifact_key("backup", report.subclient, "disks")


def summary(report: JobEntry, disks: Sequence[Row], *, location: str) -> str:
    """How the job ended, what needs attention, what was left out and why, the points, and its disks."""
    attention = [*report.alarms, *_errors(report.vms)]
    left_out = [f"{item.name}: {item.reason}" for item in report.excluded]
    parts = [
        f"# {escaped(report.subclient)}: {report.result}",
        _headline(report),
        *_capped("Needs attention", attention, _jobs(location)),
        *_capped("Left out", left_out, _jobs(location)),
        *_points(report.vms, location),
        *_disks(report, disks, location),
    ]
    return "\n\n".join(parts)


def _headline(report: JobEntry) -> str:
    done = sum(vm.point is not None for vm in report.vms)
    figures = [disk.figures for vm in report.vms for disk in vm.disks if disk.figures]
    moved = (
        f"{size_text(sum(f.read for f in figures))} read, {size_text(sum(f.stored for f in figures))} stored"
    )
    took = duration_text((report.ended_at - report.started_at).total_seconds())
    said = f"{done} of {len(report.vms)} VMs have a recovery point, after {took}; {moved}."
    return f"{said} {run_link(report.job, 'The job')}"


def _errors(vms: Iterable[VmOutcome]) -> list[str]:
    return [f"{vm.name}: {vm.error}" for vm in vms if vm.error]


def _capped(title: str, lines: Sequence[str], more: str) -> list[str]:
    """A section of so many lines and no more; `more` is the command that shows the rest."""
    shown = section(title, [_shortened(line) for line in lines[:MOST_LINES]])
    return [*shown, *_and_more(len(lines) - MOST_LINES, f"see {code_span(more)}")]


def _shortened(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]} ..."


def _and_more(count: int, where: str) -> list[str]:
    return [f"and {count} more: {where}"] if count > 0 else []


def _points(vms: Sequence[VmOutcome], location: str) -> list[str]:
    """The commands that restore what the job made; FOLDER is for the reader to choose."""
    media = shlex.quote(location)
    made = [
        f"vsa restore {vm.point} --media {media} --to FOLDER  # {vm.name}"
        for vm in vms
        if vm.point is not None
    ]
    if not made:
        return []
    more = _and_more(len(made) - MOST_LINES, f"see {code_span(f'vsa points --media {media}')}")
    return ["## Recovery points", code_block(made[:MOST_LINES]), *more]


def _disks(report: JobEntry, disks: Sequence[Row], location: str) -> list[str]:
    if not disks:
        return []
    shown = table(HEADINGS, [row.as_markdown() for row in disks[:MOST_LINES]])
    where = f"see the table {code_span(disks_key(report))} and {code_span(_jobs(location))}"
    return ["## Disks", shown, *_and_more(len(disks) - MOST_LINES, where)]


def _jobs(location: str) -> str:
    return f"vsa jobs --media {shlex.quote(location)}"


def _left_out(disks: Sequence[Row], most: int, location: str) -> list[str]:
    return _and_more(len(disks) - most, f"see {code_span(_jobs(location))}")
