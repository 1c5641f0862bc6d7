"""Stage 6 on a proxy: the stream itself, in a child run of the job."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from tasks.edge import task
from tasks.policy import REPEATED, STAGE
from tasks.progress import stream_progress
from vsa.errors import VsaError
from vsa.media.media import Media
from vsa.media.outcomes import StreamOutcome, keep_outcome
from vsa.model import DiskBackup
from vsa.redact import redact
from vsa.transfer.backup_disk import Streaming, stream
from vsa.transfer.order import StreamOrder


@task(
    name="transfer disk",
    task_run_name="transfer {order.disk.name} of {order.vm} via {order.proxy}",
    **REPEATED,
)
def carry_out(order: StreamOrder, surroundings: Streaming) -> DiskBackup:
    """Download the disk's changed extents and write them to the media."""
    with stream_progress(order.disk, job=order.job) as progress:
        return stream(order, replace(surroundings, progress=progress))


@task(
    name="leave word",
    task_run_name="leave word of {order.disk.name}",
    **STAGE,
    retries=3,
    retry_delay_seconds=2,
)
def leave_word(order: StreamOrder, media: Media, outcome: DiskBackup | Exception, attempt: UUID) -> None:
    """Say on the media what the stream came to; the job reads it there."""
    word = (
        StreamOutcome(backup=outcome)
        if isinstance(outcome, DiskBackup)
        else StreamOutcome(error=_words(outcome))
    )
    keep_outcome(media, word, run=order.run, disk_key=order.disk.key, attempt=attempt)


def _words(error: Exception) -> str:
    """Our own errors are redacted and say all; of others the type says what is safe to say."""
    if isinstance(error, VsaError):
        return str(error) or type(error).__name__
    return redact(f"{type(error).__name__}: {error}")
