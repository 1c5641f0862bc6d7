"""Restoring: which point and which disks, one disk at a time, and the report as an artifact."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from tasks.artifacts import artifact_key
from tasks.edge import task
from tasks.markup import escaped, section, table
from tasks.policy import REPEATED, STAGE
from tasks.progress import LoggedProgress
from vsa.errors import BadRequest
from vsa.media.media import Media
from vsa.media.view import CommittedPoint
from vsa.restore.choosing import Step, find_point, latest_good_point, plan_restore, points_called
from vsa.restore.disk import Format, RestoredDisk, restore_disk
from vsa.restore.losses import SUFFIX, summary, told
from vsa.text import printable, size_text

_HEADINGS = ("disk", "place", "file", "size", "written", "sha256", "result")


@dataclass(frozen=True)
class RestorePlan:
    """A point, the files that its disks will become, and what must be known before relying on it."""

    slot: int
    vm: str
    taken_at: dt.datetime
    steps: tuple[Step, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class RestoreOutcome:
    """What became of a step: an image, or why there is none."""

    step: Step
    image: RestoredDisk | None
    error: str = ""


@task(name="plan restore", **REPEATED)
def plan_of(
    media: Media, vm: str, point: int | None, disks: Sequence[str], *, folder: str, format: Format
) -> RestorePlan:
    """Choose the point and the files; BadRequest, and nothing is written, if that cannot be done as asked.

    Without a point it is the newest good one of the VM; with both, the point must be one of that VM.
    """
    if not Path(folder).is_absolute():
        raise BadRequest(f"{printable(folder)!r} is no absolute path of a folder on the worker's machine")
    made = _chosen(media, vm, point, disks)
    held = made.point
    return RestorePlan(
        slot=made.slot,
        vm=held.vm.name,
        taken_at=min(backup.snapshot.taken_at for backup in held.disks),
        steps=tuple(plan_restore(held, disks, f"{folder}/", format)),
        warnings=("the point is doubtful: `vsa show` says why",)
        if made.slot in media.view().doubtful
        else (),
    )


def _chosen(media: Media, vm: str, point: int | None, disks: Sequence[str]) -> CommittedPoint:
    view = media.view()
    if point is None and vm:
        return latest_good_point(view, vm, disks)
    if point is None:
        raise BadRequest("nothing is named: give a VM, whose newest good point is restored, or a point")
    made = find_point(view, point)
    if vm and made.slot not in {other.slot for other in points_called(view, vm)}:
        raise BadRequest(f"point {point} is of VM {printable(made.point.vm.name)}, not of {printable(vm)}")
    return made


@task(name="restore disk", task_run_name="restore {step.backup.disk.name} to {step.target}", **REPEATED)
def restore_one(media: Media, step: Step, *, format: Format, salvage: bool, threads: int) -> RestoredDisk:
    """Write one disk to its file, which is there whole or not at all, and never over another one."""
    logger = get_run_logger()
    step.target.parent.mkdir(parents=True, exist_ok=True)
    image = restore_disk(
        media,
        step.backup,
        step.target,
        format=format,
        threads=threads,
        progress=LoggedProgress(logger),
        salvage=salvage,
    )
    logger.info(
        "disk %s: %s restored to %s, sha256 %s",
        step.backup.disk.name,
        size_text(image.size),
        image.path,
        image.sha256,
    )
    return image


@task(name="show restore", **STAGE)
def show_restore(plan: RestorePlan, outcomes: Sequence[RestoreOutcome], name: str) -> None:
    """Publish the files with their digests; the restores of one VM are versions of one another."""
    create_markdown_artifact(
        markdown(plan, outcomes, dt.datetime.now(dt.UTC)),
        key=artifact_key("restore", name, plan.vm),
        description=f"Point {plan.slot} of VM {plan.vm}, {_done(outcomes)} of {len(outcomes)} disks",
    )


def markdown(plan: RestorePlan, outcomes: Sequence[RestoreOutcome], now: dt.datetime) -> str:
    """Which point and when, one row for each disk, and what needs attention."""
    return "\n\n".join(
        [
            f"# Restore of {escaped(plan.vm)}",
            f"Point {plan.slot}, whose snapshots were taken at {plan.taken_at:%Y-%m-%d %H:%M:%S %Z}; "
            f"{_done(outcomes)} of {len(outcomes)} disks restored at {now:%Y-%m-%d %H:%M:%S %Z}.",
            *section(
                "Needs attention", [*plan.warnings, *(line for item in outcomes for line in remarks(item))]
            ),
            table(_HEADINGS, map(_row, outcomes)),
        ]
    )


def remarks(outcome: RestoreOutcome) -> list[str]:
    """What somebody must know of a disk before they rely on its image."""
    name, image = outcome.step.backup.disk.name, outcome.image
    if image is None:
        return [f"{name}: {outcome.error}"]
    lost = (
        [f"LOST {summary(image.lost)}, listed in {image.path}{SUFFIX}: {told(image.lost)}"]
        if image.lost
        else []
    )
    return [f"{name}: {line}" for line in (*image.warnings, *lost)]


def _row(outcome: RestoreOutcome) -> list[str]:
    disk, image = outcome.step.backup.disk, outcome.image
    start = [escaped(disk.name), disk.place, escaped(str(outcome.step.target))]
    if image is None:
        return [*start, size_text(outcome.step.backup.snapshot.size), "", "", "failed"]
    result = "incomplete: parts are lost" if image.lost else "whole"
    return [*start, size_text(image.size), size_text(image.bytes_written), str(image.sha256), result]


def _done(outcomes: Sequence[RestoreOutcome]) -> int:
    return sum(outcome.image is not None for outcome in outcomes)
