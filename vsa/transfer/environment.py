"""Where a run happens: its Azure, its media, and the request to stop."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from vsa.azure.connection import AzureConnection
from vsa.azure.snapshots import Snapshots, snapshots_of
from vsa.media.media import Media
from vsa.model import SourceDisk
from vsa.stop import Stop


@dataclass(frozen=True)
class Beginning:
    """When a job began: a moment of `time.monotonic`, and the log's next free slot then."""

    moment: float
    head: int


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
