"""A job's streams through its proxies: each in its lane, and to the next proxy when one fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from uuid import UUID

from tasks.child_runs import ChildRuns, ProxyLost, end_children
from tasks.lanes import Lane
from tasks.outage import answered
from tasks.pools import seen_by_prefect
from vsa.errors import StreamFailed
from vsa.model import DiskBackup
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.order import StreamOrder
from vsa.transfer.proxies import Attempt, Failure, Proxy, next_proxy

_log = logging.getLogger(__name__)


class ProxyStreams:
    """Carries streams out on the job's usable proxies; for any number of threads."""

    def __init__(self, job: BackupJob, subclient: str, proxies: Sequence[Proxy]) -> None:
        """`subclient` is the name of the job's block, `proxies` those that were found usable."""
        self._proxies = {proxy.name: proxy for proxy in proxies}
        self._job = job.id
        self._stop = job.stop
        self._children: dict[str, UUID] = {}
        self._moved = 0
        self._lock = threading.Lock()
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
            alone = any(attempt.failure is Failure.DIED for attempt in attempts)
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

    def end(self) -> None:
        """Once all streams have come back: end the runs that were given up, and live."""
        end_children(UUID(self._job))

    def _next(self, order: StreamOrder, attempts: Sequence[Attempt]) -> Proxy:
        with self._lock:
            turn, self._moved = self._moved, self._moved + 1
        seen = answered(lambda: seen_by_prefect(list(self._proxies.values())), self._stop)
        found = next_proxy(seen, attempts, region=order.disk.region, turn=turn)
        if found is None:
            tried = "; ".join(f"{item.proxy} {item.failure}: {item.reason}" for item in attempts)
            raise StreamFailed(f"disk {order.disk.name}: no proxy could carry its stream: {tried}")
        return found

    def _note(self, order: StreamOrder, child: UUID) -> None:
        with self._lock:
            self._children[order.disk.key] = child
