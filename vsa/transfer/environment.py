"""Where a run happens: its Azure, its media, and the request to stop."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

from vsa.azure.connection import AzureConnection
from vsa.azure.snapshots import Snapshots, snapshots_of
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import SourceDisk
from vsa.stop import Stop
from vsa.transfer.awaited import Awaited


@dataclass(frozen=True)
class Beginning:
    """When a job began: what the log said, and a moment of `time.monotonic` that was no earlier.

    So a list begun after the moment has what runs left whose points are in that view.
    """

    view: View
    moment: float

    @classmethod
    def now(cls, media: Media) -> Self:
        # The log first: while it is read, for minutes perhaps, others go on committing.
        view = media.view()
        return cls(view, time.monotonic())

    @property
    def head(self) -> int:
        """The log's next free slot."""
        return self.view.head

    def base_runs(self, disk_key: str) -> tuple[str, ...]:
        """The run that made the base which the log named for the disk, if it named one."""
        base = self.view.base_of(disk_key)
        return () if base is None else (self.view.points[base[0]].run,)


@dataclass(frozen=True)
class RunEnvironment:
    """What every stage of a run needs from its surroundings; `now` tells how old things are, no more.

    `last` ends the time for cleaning up, which is deaf to `stop`: what is not removed by then, the next job
    or a sweep removes.
    `job`: a list of snapshots that was begun after that tells what runs before it have left. Without it each
    look at a disk lists anew.
    `awaited`: what the job's runs asked for and have not seen, so that their release does not call it clean.
    """

    connection: AzureConnection
    media: Media
    stop: Stop
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)
    job: Beginning | None = None
    last: Stop = field(default_factory=Stop)
    awaited: Awaited = field(default_factory=Awaited)

    @property
    def cleaning_up(self) -> Self:
        """The same for what cleans up."""
        return replace(self, stop=self.last)

    def snapshots(self, disk: SourceDisk) -> Snapshots:
        return snapshots_of(self.connection, disk.kind)
