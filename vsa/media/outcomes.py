"""What a stream came to, handed from the proxy that carried it to the job by way of the media.

The job's database may lose results, and a result may be larger than it takes; the media loses nothing. Nobody
needs an outcome once its run is over: a prune removes it.
"""

from __future__ import annotations

from typing import Self
from uuid import UUID

from pydantic import model_validator

from vsa.errors import MediaConflict, MediaDamaged, ObjectMissing
from vsa.media import documents, layout
from vsa.media.media import Media
from vsa.model import DiskBackup, Noun


class StreamOutcome(Noun):
    """The disk's backup, or why there is none."""

    backup: DiskBackup | None = None
    error: str = ""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.backup is None) != bool(self.error):
            raise ValueError("an outcome is a backup or an error, and not both")
        return self


def keep_outcome(media: Media, outcome: StreamOutcome, *, run: str, disk_key: str, attempt: UUID) -> None:
    """Write what the attempt came to, once more if need be; MediaConflict if it came to something else."""
    name, data = layout.outcome(run, disk_key, attempt), documents.encode(outcome)
    try:
        media.store.create(name, [data])
    except MediaConflict:
        if media.store.read(name, limit=layout.MAX_DOCUMENT_SIZE) != data:
            raise


def kept_outcome(media: Media, *, run: str, disk_key: str, attempt: UUID) -> StreamOutcome | None:
    """What the attempt came to; None if it has left no word.

    MediaDamaged if that cannot be trusted, or speaks of another disk.
    """
    name = layout.outcome(run, disk_key, attempt)
    try:
        data = media.store.read(name, limit=layout.MAX_DOCUMENT_SIZE)
    except ObjectMissing:
        return None
    outcome = documents.decode(data, StreamOutcome, name)
    if outcome.backup is not None and outcome.backup.disk.key != disk_key:
        raise MediaDamaged(f"{name}: it is about disk {outcome.backup.disk.key}, expected {disk_key}")
    return outcome
