"""Prove that the recovery points of a backup media can be restored, and record what is damaged.

The run fails when anything is damaged, so that whatever watches Prefect tells of it. Damage goes into the
media's log; the next backups of the harmed disks read those extents again.

    prefect deployment run 'verify-media/weekly'
    prefect deployment run 'verify-media/weekly' --param media=NAME --param depth=restore --param sample=10
"""

from __future__ import annotations

from typing import Any, Literal

from prefect import flow, runtime
from prefect.states import Completed, Failed
from pydantic import Field

from blocks.backup_media import BackupMedia
from tasks.logs import show_engine_logs
from tasks.signals import heard_at_once
from tasks.verify import look_at_media, record_in_log, show_verify_report
from tasks.witness import check_witness, keep_witness
from vsa.errors import VsaError
from vsa.media.media import Media
from vsa.upkeep.report import Depth, VerifyReport


@flow(
    name="verify-media",
    flow_run_name="verify {media}, depth {depth}",
    description="Prove that recovery points can be restored.",
    persist_result=False,
)
def verify_media(
    media: str = Field(description="Name of the Backup Media block."),
    depth: Literal["log", "objects", "bytes", "restore"] = Field(
        default="bytes",
        description="The log alone; every index, and that packs are there; every byte; whole restores.",
    ),
    sample: float = Field(
        default=100.0,
        gt=0,
        le=100,
        description="Per cent of packs to read or points to restore, half of them by turns.",
    ),
    points: tuple[int, ...] | None = Field(default=None, description="Only these points; all by default."),
    threads: int = Field(default=4, ge=1, le=64, description="Packs read at one time."),
) -> Any:
    """Look, record, report; completed only if everything that was looked at is sound."""
    show_engine_logs(runtime.flow_run.id or "")
    try:
        block = BackupMedia.named(media)
        opened = block.open()
        with heard_at_once():
            report = look_at_media(opened, Depth(depth), points=points, sample=sample / 100, threads=threads)
    except VsaError as error:
        return Failed(message=str(error))
    report = _believed(opened, report)
    recorded = _record(block, report) if report.for_the_log and not report.error else ""
    show_verify_report(report, media, return_state=True)
    return _final_state(report, recorded)


def _believed(media: Media, report: VerifyReport) -> VerifyReport:
    """The report, which says so if the log is not what is remembered of it: what was put back is sound."""
    try:
        if not report.error:
            check_witness(media)
    except VsaError as error:
        return report.model_copy(update={"error": str(error)})
    return report


def _record(block: BackupMedia, report: VerifyReport) -> str:
    """What became of the records, in words: media that cannot be written is verified all the same."""
    try:
        media = block.open(write=True)
        slots = record_in_log(media, report)
        keep_witness(media, return_state=True)
    except VsaError as error:
        return f"\nThe damage is not recorded: {error}"
    return "".join(f"\nRecorded in log slot {slot}." for slot in slots)


def _final_state(report: VerifyReport, recorded: str) -> Any:
    message = report.text() + recorded
    if report.is_sound:
        return Completed(message=message, data=report)
    return Failed(message=message, data=report)
