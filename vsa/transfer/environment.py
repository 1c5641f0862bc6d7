"""Where a run happens: its Azure, its media, and the request to stop."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from vsa.azure.connection import AzureConnection
from vsa.azure.snapshots import Snapshots, snapshots_of
from vsa.media.media import Media
from vsa.model import SourceDisk
from vsa.stop import Stop


@dataclass(frozen=True)
class Beginning:
    """When a job began: the log's next free slot, and a moment of `time.monotonic` that was no earlier.

    So a list begun after the moment has what runs left whose points are before that slot.
    """

    head: int
    moment: float

    @classmethod
    def now(cls, media: Media) -> Self:
        # The slot first: while the log is read, for minutes perhaps, others go on committing.
        head = media.view().head
        return cls(head, time.monotonic())


@dataclass(frozen=True)
class RunEnvironment:
    """What every stage of a run needs from its surroundings; `now` tells how old things are, no more.

    `job`: a list of snapshots that was begun after that tells what runs before it have left. Without it each
    look at a disk lists anew.
    """

    connection: AzureConnection
    media: Media
    stop: Stop
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    job: Beginning | None = None

    def snapshots(self, disk: SourceDisk) -> Snapshots:
        return snapshots_of(self.connection, disk.kind)
