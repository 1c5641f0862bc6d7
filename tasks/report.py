"""The job's report as an artifact: what people look at first in the Prefect UI. The log is the record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from prefect import task
from prefect.artifacts import create_markdown_artifact

from tasks.policy import STAGE
from vsa.media.entries import DiskOutcome, JobEntry, VmOutcome
from vsa.text import printable, size_text

_HEADINGS = (
    "VM",
    "disk",
    "proxy",
    "method",
    "reason",
    "size",
    "changed",
    "read",
    "shared",
    "stored",
    "rate",
    "result",
)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|#~])")


@task(name="show report", **STAGE)
def show_report(report: JobEntry, proxies: Mapping[str, str]) -> None:
    """Publish the report; the subclient's artifacts are versions of one another. `proxies` is by disk key."""
    key = re.sub(r"[^a-z0-9]+", "-", f"backup-{report.subclient}".lower()).strip("-")
    create_markdown_artifact(
        markdown(report, proxies), key=key, description=f"{report.result}: job {report.job}"
    )


def markdown(report: JobEntry, proxies: Mapping[str, str]) -> str:
    """Result, one row for each disk, and what needs attention."""
    done = sum(vm.point is not None for vm in report.vms)
    seconds = (report.ended_at - report.started_at).total_seconds()
    parts = [
        f"# {escaped(report.subclient)}: {report.result}",
        f"{done} of {len(report.vms)} VMs have a recovery point, after {seconds:.0f} s.",
        *section("Needs attention", [*report.alarms, *_errors(report.vms)]),
        *section("Left out", [f"{item.name}: {item.reason}" for item in report.excluded]),
    ]
    rows = [_row(vm, disk, proxies) for vm in report.vms for disk in vm.disks]
    if rows:
        parts.append("\n".join(_line(row) for row in (_HEADINGS, ["---"] * len(_HEADINGS), *rows)))
    return "\n\n".join(parts)


def _errors(vms: Iterable[VmOutcome]) -> list[str]:
    return [f"{vm.name}: {vm.error}" for vm in vms if vm.error]


def section(title: str, lines: Sequence[str]) -> list[str]:
    """A heading and a list; nothing if there are no lines."""
    return [f"## {title}", "\n".join(f"- {escaped(line)}" for line in lines)] if lines else []


def _row(vm: VmOutcome, disk: DiskOutcome, proxies: Mapping[str, str]) -> list[str]:
    figures = disk.figures
    start = [escaped(vm.name), escaped(disk.name), escaped(proxies.get(disk.key, ""))]
    if figures is None or disk.method is None or disk.reason is None:
        return [*start, *[""] * 8, "failed"]
    moved = [
        size_text(n) for n in (figures.size, figures.changed, figures.read, figures.shared, figures.stored)
    ]
    rate = f"{size_text(round(figures.read / figures.elapsed))}/s" if figures.elapsed else ""
    point = f"point {vm.point}" if vm.point is not None else "read, but the VM has no point"
    return [*start, disk.method.value, escaped(disk.reason.value), *moved, rate, point]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Names come from outside: they are shown as they are and never become markup."""
    return _MARKUP.sub(r"\\\1", printable(text))
