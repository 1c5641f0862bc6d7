"""What a run does when a prune has given up what it builds on, or a verify has found damage in what it
shares: it reads those disks again and commits then.

The snapshots are still there and can be granted, so nothing is lost but time. What is read again builds on a
point that stands, or on none.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from vsa.errors import ObjectMissing, ObjectsDoomed
from vsa.media.media import Media
from vsa.model import DiskBackup
from vsa.transfer.methods import Known

T = TypeVar("T")

ATTEMPTS = 3
"""How often a run reads again before it gives up; each time a prune or a verify must have come in between."""

_log = logging.getLogger(__name__)


def commit_as_it_stands(
    backups: Sequence[DiskBackup],
    *,
    commit: Callable[[Sequence[DiskBackup]], int],
    read_again: Callable[[DiskBackup], DiskBackup],
    media: Media,
) -> int:
    """Commit the backups and return the slot; those that need what is doomed, or share what was found damaged
    meanwhile, are read again first.

    ObjectsDoomed if that was not enough within ATTEMPTS.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            return commit(backups)
        except ObjectsDoomed as error:
            _log.warning("what the run builds on may not be relied on; reading again: %s", error)
            backups = [
                _explained(read_again(backup), error) if media.must_be_read_again(backup) else backup
                for backup in backups
            ]
    return commit(backups)


def upon_what_stands(stream: Callable[[Known], T], known: Callable[[], Known]) -> T:
    """Run a stream on what the media knows; once more if that was given up while it was read.

    Anything that is missing while the point it belongs to stands is damage, and raised.
    """
    begun = known()
    try:
        return stream(begun)
    except (ObjectMissing, ObjectsDoomed) as error:
        now = known()
        if _slots(begun) == _slots(now):
            raise
        _log.warning("the point that the stream built on was given up; beginning again: %s", error)
        return stream(now)


def _slots(known: Known) -> set[int]:
    return {recorded.slot for recorded in (known.latest, known.base_point) if recorded is not None}


def _explained(backup: DiskBackup, error: ObjectsDoomed) -> DiskBackup:
    why = f"read again: {error}"
    return backup.model_copy(update={"detail": f"{backup.detail}; {why}" if backup.detail else why})
