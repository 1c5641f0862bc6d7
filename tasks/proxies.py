"""A job's streams through its proxies: each in its lane, and to the next proxy when one fails."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from uuid import UUID

from tasks.child_runs import ChildRuns, ProxyLost
from tasks.flow_runs import end_children
from tasks.lanes import Lane
from tasks.outage import answered
from tasks.pools import seen_by_prefect
from vsa.errors import StreamFailed
from vsa.model import DiskBackup
from vsa.stop import Stop
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.order import StreamOrder
from vsa.transfer.proxies import Attempt, Failure, Proxy, next_proxy

RETURN_SECONDS = 60.0
"""How long a stream waits for a proxy that refuses now: twice the time between two heartbeats of a worker."""
ASK_AGAIN_SECONDS = 3.0
LAST_SECONDS = 3.0
MOST_ATTEMPTS = 8
"""After which a stream waits for nobody any more: proxies that come and go may do so for ever."""

_log = logging.getLogger(__name__)


class _Lookout:
    """What Prefect says of the proxies now, asked once for all streams that want to know at the same time.

    After an outage many do, when the server has most to do.
    """

    def __init__(self, proxies: Sequence[Proxy], stop: Stop, clock: Callable[[], float]) -> None:
        self._proxies = proxies
        self._stop = stop
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at = -math.inf
        self._seen: list[Proxy] = []

    def proxies(self) -> list[Proxy]:
        """Each with its refusal, at most ASK_AGAIN_SECONDS old; RunStopped on a stop."""
        with self._lock:
            if self._clock() - self._asked_at >= ASK_AGAIN_SECONDS:
                self._seen = answered(lambda: seen_by_prefect(self._proxies), self._stop)
                self._asked_at = self._clock()
            return self._seen


class ProxyStreams:
    """Carries streams out on the job's usable proxies; for any number of threads."""

    def __init__(
        self,
        job: BackupJob,
        subclient: str,
        proxies: Sequence[Proxy],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`subclient` is the name of the job's block, `proxies` those that were found usable."""
        self._proxies = {proxy.name: proxy for proxy in proxies}
        self._job = job.id
        self._stop = job.stop
        self._children: dict[str, UUID] = {}
        self._apart: set[str] = set()
        self._moved = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._lookout = _Lookout(proxies, job.stop, clock)
        runs = ChildRuns(subclient, job.media, job.stop, started=self._note)
        self._lanes = {
            proxy.name: Lane(
                min(proxy.streams, job.subclient.streams_per_proxy),
                partial(runs.carry, proxy),
                stop=job.stop,
            )
            for proxy in proxies
        }

    @property
    def children(self) -> Mapping[str, UUID]:
        """The last child run of each disk, by the disk's key."""
        with self._lock:
            return dict(self._children)

    def carry(self, order: StreamOrder) -> DiskBackup:
        """The disk's backup, by its proxy or by the next that can.

        StreamFailed with the reasons if the stream failed or no proxy is left; RunStopped on a stop.
        """
        attempts: list[Attempt] = []
        while True:
            # A disk that may be what killed its proxy's process must not take others along.
            alone = any(attempt.failure is Failure.DIED for attempt in attempts) or order.run in self._apart
            try:
                outcome = self._lanes[order.proxy].carry(order, alone=alone)
            except ProxyLost as lost:
                attempts.append(lost.attempt)
                order = order.model_copy(update={"proxy": self._next(order, attempts).name})
                _log.warning("%s; disk %s goes on to proxy %s", lost, order.disk.name, order.proxy)
                continue
            if outcome.backup is None:
                raise StreamFailed(outcome.error)
            return outcome.backup

    def keep_apart(self, run: str) -> None:
        """Others wait for the streams of this run: each gets a child run of its own."""
        self._apart.add(run)

    def end(self) -> None:
        """Once all streams have come back: end the runs that were given up, and live."""
        # Each stream has waited for its own; of the thirty seconds that Prefect grants, some must be left.
        end_children(UUID(self._job), wait_seconds=LAST_SECONDS)

    def _next(self, order: StreamOrder, attempts: Sequence[Attempt]) -> Proxy:
        """Where the stream goes now.

        Proxies that refuse are waited for a while: after an outage of the server all of them look as if they
        had gone, until their next heartbeat. Where all have failed the stream for good, nobody is waited for.
        """
        with self._lock:
            turn, self._moved = self._moved, self._moved + 1
        proxies = list(self._proxies.values())
        # Those that refused may come back; without them there is nobody to wait for.
        if_they_return = [item for item in attempts if item.failure is not Failure.REFUSED]
        choose = partial(next_proxy, region=order.disk.region, turn=turn)
        in_vain = len(attempts) >= MOST_ATTEMPTS or choose(proxies, if_they_return) is None
        deadline = self._clock() + (0 if in_vain else RETURN_SECONDS)
        considered = attempts
        while True:
            found = choose(self._lookout.proxies(), considered)
            if found is not None:
                return found
            if self._clock() >= deadline:
                tried = "; ".join(f"{item.proxy} {item.failure}: {item.reason}" for item in attempts)
                raise StreamFailed(f"disk {order.disk.name}: no proxy could carry its stream: {tried}")
            self._stop.wait(ASK_AGAIN_SECONDS)
            considered = if_they_return

    def _note(self, order: StreamOrder, child: UUID) -> None:
        with self._lock:
            self._children[order.disk.key] = child
