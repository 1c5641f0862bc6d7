"""Verifying backup media: look, record what is damaged, show the report."""

from __future__ import annotations

import datetime as dt
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from tasks.edge import task
from tasks.markup import escaped, section
from tasks.policy import REPEATED, STAGE
from tasks.progress import LoggedProgress
from vsa.media.media import Media
from vsa.text import ranges_text, size_text
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Depth, Finding, VerifyReport
from vsa.upkeep.verify import verify


@task(name="look at media", task_run_name="look at {media.location}, depth {depth.value}", **REPEATED)
def look_at_media(
    media: Media, depth: Depth, *, points: Sequence[int] | None, sample: float, threads: int
) -> VerifyReport:
    """Prove the points (None: all) at a depth, or a share of what they consist of."""
    with tempfile.TemporaryDirectory(prefix="vsa-verify-") as scratch:
        return verify(
            media,
            depth,
            scratch=Path(scratch),
            date=dt.datetime.now(dt.UTC).date(),
            points=points,
            sample=sample,
            threads=threads,
            progress=LoggedProgress(get_run_logger()),
        )


@task(name="record damage", **REPEATED)
def record_in_log(media: Media, report: VerifyReport) -> tuple[int, ...]:
    """Put what is damaged into the log, for the next backups to heal; the slots of what was news."""
    return record_damage(media, report)


@task(name="show verify report", **STAGE)
def show_verify_report(report: VerifyReport, name: str) -> None:
    """Publish the report; those of one media block are versions of one another."""
    key = re.sub(r"[^a-z0-9]+", "-", f"verify-{name}".lower()).strip("-")
    verdict = "sound" if report.is_sound else "DAMAGED"
    create_markdown_artifact(markdown(report), key=key, description=f"{verdict}, depth {report.depth}")


def markdown(report: VerifyReport) -> str:
    """The verdict, what was looked at, and every damaged object with the bytes that are lost by it."""
    read = f", {report.packs_read} read with {size_text(report.bytes_read)}" if report.packs_read else ""
    share = f" A sample of {report.sample:.1%} was taken." if report.sample < 1 else ""
    parts = [
        f"# {escaped(report.location)}: {'sound' if report.is_sound else 'DAMAGED'}",
        f"Depth {report.depth}: {len(report.points)} points, {report.indexes} indexes, "
        f"{report.packs} packs{read}.{share}",
        *section("The log cannot be trusted", [report.error] if report.error else []),
        *section("Damaged", [line for item in report.findings for line in _lines(item, report)]),
        *section("Does not restore", report.failures),
        *section("Remarks", report.remarks),
        *section(
            "Restored",
            [f"point {item.point}, disk {item.disk}: sha256 {item.sha256}" for item in report.digests],
        ),
    ]
    return "\n\n".join(parts)


def _lines(finding: Finding, report: VerifyReport) -> list[str]:
    lines = ["; ".join(filter(None, (finding.name + ": " + finding.reason, finding.consequence)))]
    for harm in finding.harm:
        points = ", ".join(map(str, harm.points))
        disk = report.names.get(harm.disk_key, harm.disk_key)
        lines.append(f"points {points}, {disk}: lost {ranges_text(harm.ranges)}")
    return lines
