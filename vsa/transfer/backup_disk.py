"""One stream: a snapshot's changed extents into packs and an index. Nothing is visible until a commit."""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vsa.azure.connection import AzureConnection
from vsa.azure.grants import Grants, title
from vsa.azure.snapshots import snapshots_of
from vsa.azure.staging import StagingBlobs
from vsa.errors import AzureNotFound, RunStopped, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.media.disk_writer import samples_of
from vsa.media.layout import IndexKind
from vsa.media.media import Media
from vsa.media.sharing import Sharing
from vsa.memory import Memory, settle
from vsa.model import DiskBackup, DiskFigures, Method, Reason
from vsa.progress import Progress
from vsa.rate import UNLIMITED, Rate
from vsa.stop import Stop, again, waiting
from vsa.text import size_text
from vsa.transfer import runs
from vsa.transfer.audit import choose_audit
from vsa.transfer.compare import AuditMismatch, Comparison
from vsa.transfer.doomed import upon_what_stands
from vsa.transfer.doubts import mark_doubtful
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.healing import Healing, unless_parent_is_damaged
from vsa.transfer.leftovers import make_room
from vsa.transfer.methods import Decision, Known, crc, decide
from vsa.transfer.order import StreamOrder
from vsa.transfer.pump import Pump
from vsa.transfer.reads import READ
from vsa.transfer.source import NoChangeList, Planned, SnapshotSource, open_source

_log = logging.getLogger(__name__)


READERS = 4
"""Requests of a stream under way at a time. Azure gives about 60 MiB/s and 500 requests a second of one page
blob (https://learn.microsoft.com/azure/storage/blobs/scalability-targets): four long reads hold the first up
to a latency of 250 ms, four short ones come up to the second at 8 ms. More would only ask one disk harder."""
MOST_WORKERS = 2
"""One compares, compresses and proves more than one disk gives; the second goes on while that one stores."""


def workers_of(cores: int) -> int:
    """Threads of a stream that compare and store, on a machine of so many processor cores."""
    return min(MOST_WORKERS, cores)


@dataclass(frozen=True)
class Streaming:
    """What a stream needs from its surroundings; time and randomness are part of it.

    Streams of one process share `memory` and `rate`.
    """

    connection: AzureConnection
    media: Media
    stop: Stop
    progress: Progress
    scratch: Path
    now: Callable[[], dt.datetime]
    sharing: Sharing | None = None
    rng: random.Random = field(default_factory=random.SystemRandom)
    memory: Memory = field(default_factory=Memory)
    rate: Rate = UNLIMITED
    readers: int = READERS
    workers: int = field(default_factory=lambda: workers_of(os.cpu_count() or 1))


def stream(order: StreamOrder, surroundings: Streaming) -> DiskBackup:
    """Carry out one order, upon what the media knows of the disk; raises what `backup_disk` does."""
    settle()
    with waiting(surroundings.stop.wait):
        return upon_what_stands(
            lambda known: backup_disk(order, known, surroundings),
            lambda: runs.known_of(surroundings.media.view(), order.disk.key),
        )


def backup_disk(order: StreamOrder, known: Known, surroundings: Streaming) -> DiskBackup:
    """Bring the snapshot's contents to the media and say how.

    The method is decided first; a refused diff, a vanished base or a failed audit turns it into CRC, which
    is recorded as the reason. Raises RunStopped, TryAgainLater, AzureRefused or a media error.
    """
    env = surroundings
    with Grants(
        env.connection,
        guard=partial(runs.guard, order.run, env.media),
        make_room=partial(
            make_room, order.disk, RunEnvironment(env.connection, env.media, env.stop, env.now)
        ),
        stop=env.stop,
    ) as grants:
        return _backed_up(order, known, grants, env)


def _backed_up(order: StreamOrder, known: Known, grants: Grants, env: Streaming) -> DiskBackup:
    exists = snapshots_of(env.connection, order.disk.kind).exists
    decision = decide(
        order.snapshot,
        known,
        order.wish,
        now=env.now(),
        base_exists=lambda base: again(lambda: exists(base), stop=env.stop),
    )
    decision = unless_parent_is_damaged(decision, env.media, order.snapshot.size)
    began = time.monotonic()
    with _needed(order, env):
        source = open_source(
            env.connection,
            grants,
            order.snapshot,
            staging=order.staging,
            extent_size=env.media.extent_size,
            stop=env.stop,
            rate=env.rate,
        )
        reached(FaultPoint.SOURCE_OPENED)
        backup = copy_source(source, order, decision, known, env)
    elapsed = round(time.monotonic() - began, 3)
    return backup.model_copy(update={"figures": backup.figures.model_copy(update={"elapsed": elapsed})})


@contextmanager
def _needed(order: StreamOrder, env: Streaming) -> Iterator[None]:
    """Inside, the run's own snapshot is read: say of one that goes which it was, and what to do."""
    try:
        yield
    except AzureNotFound as error:
        gone = _gone_of(order, env)
        if not gone:
            raise
        raise AzureNotFound(
            f"{gone} is gone, which this run had made and still reads: {error}. "
            "Azure's activity log says who deleted it; keep them from it, the next job takes another",
            code=error.code,
        ) from error


def _gone_of(order: StreamOrder, env: Streaming) -> str:
    """What Azure shows no more of that which the run had made of the disk; empty if all is there, or if that
    cannot be found out."""
    snapshot, staging = order.snapshot, order.staging
    try:
        if not again(lambda: snapshots_of(env.connection, order.disk.kind).exists(snapshot), stop=env.stop):
            return title(snapshot)
        if staging and not again(lambda: StagingBlobs(env.connection).is_shown(staging), stop=env.stop):
            return f"staging blob {staging} of {title(snapshot)}"
    except RunStopped:
        raise
    except VsaError as error:
        _log.warning(
            "disk %s: whether its snapshot is still there cannot be told: %s", order.disk.name, error
        )
    return ""


def copy_source(
    source: SnapshotSource, order: StreamOrder, decision: Decision, known: Known, env: Streaming
) -> DiskBackup:
    """The same from a snapshot that can be read, by the method that was decided upon."""
    allocated = source.allocated_bytes()
    planned, decision = _plan(source, decision, known)
    reached(FaultPoint.READS_PLANNED)
    transfer = _Transfer(order, source, known, env)
    read_before = 0
    try:
        backup = transfer.run(planned, decision)
    except AuditMismatch as mismatch:
        _log.error("disk %s: %s; comparing the whole disk", order.disk.name, mismatch)
        mark_doubtful(order.disk.key, str(mismatch), run=order.run, media=env.media)
        read_before = transfer.read
        whole = crc(known, Reason.CRC_AUDIT_FAILED, str(mismatch), distrust_allocation=True)
        # What made this disk build on nothing still holds.
        decision = whole if decision.parent else replace(whole, parent=None)
        decision = unless_parent_is_damaged(decision, env.media, order.snapshot.size)
        planned, decision = _plan(source, decision, known)
        backup = transfer.run(planned, decision)
    known_now = {"allocated": allocated, "read": backup.figures.read + read_before}
    reached(FaultPoint.DISK_STORED)
    return backup.model_copy(update={"figures": backup.figures.model_copy(update=known_now)})


def _plan(source: SnapshotSource, decision: Decision, known: Known) -> tuple[Planned, Decision]:
    """Ask Azure what to read, falling back to CRC when it will not say."""
    if decision.base is not None:
        try:
            return source.plan_changes(decision.base), decision
        except NoChangeList as error:
            decision = crc(known, error.reason, str(error))
    return source.plan_whole() if decision.distrust_allocation else source.plan_allocated(), decision


class _Transfer:
    """Runs a plan; twice if the first run's audit fails."""

    def __init__(self, order: StreamOrder, source: SnapshotSource, known: Known, env: Streaming) -> None:
        self._order = order
        self._source = source
        self._known = known
        self._env = env
        self.read = 0

    def run(self, planned: Planned, decision: Decision) -> DiskBackup:
        plan, env, order = planned.reads, self._env, self._order
        parent = decision.parent.backup if decision.parent else None
        _log.info(
            "disk %s via %s: %s (%s%s), %s changed of %s",
            order.disk.name,
            order.proxy,
            decision.method,
            decision.reason,
            f": {decision.detail}" if decision.detail else "",
            size_text(planned.listed),
            size_text(plan.disk_size),
        )
        memory = env.memory.of_stream(order.snapshot.size, threads=env.readers + env.workers)
        longest = max(memory.read_length, plan.extent_size)
        older = env.media.disk_index(parent.indexes, order.snapshot.size) if parent else None
        healing = Healing(older, env.media.view().damaged)
        audited = choose_audit(plan, order.audit, turn=self._known.turn, rng=env.rng)
        comparison = Comparison(
            plan,
            unplanned_is_zero=decision.method is not Method.CBT,
            parent=older,
            writer=env.media.disk_writer(
                run=order.run,
                disk_key=order.disk.key,
                disk_size=order.snapshot.size,
                kind=IndexKind.DELTA if parent else IndexKind.BASE,
                scratch=env.scratch,
                parent=older,
                sharing=env.sharing.of(order.client) if env.sharing else None,
                pack_target=memory.pack_target,
                buffers=env.memory.buffers,
            ),
            progress=env.progress,
            healing=healing,
            longest_read=longest,
        )
        env.progress.started(order.disk.name, plan.bytes_of(plan.marked(READ)))
        try:
            with Pump(
                self._source.reader,
                longest=longest,
                stop=env.stop,
                readers=env.readers,
                workers=env.workers,
                buffers=env.memory.buffers,
            ) as pump:
                for segment in range(plan.segments):
                    env.stop.check()
                    comparison.segment(segment, audited.get(segment, ()), pump)
            written = comparison.finish()
            healing.commit(written.index, run=order.run, media=env.media)
        except BaseException:
            comparison.abandon()
            raise
        finally:
            self.read = comparison.read
            env.progress.finished()
        return DiskBackup(
            disk=order.disk.model_copy(update={"size": order.snapshot.size}),
            snapshot=order.snapshot,
            method=decision.method,
            reason=decision.reason,
            detail=decision.detail,
            parent=decision.parent.slot if decision.parent else None,
            turn=self._known.turn,
            since_full=0 if decision.method is Method.FULL else self._known.since_full + 1,
            indexes=written.indexes,
            packs=written.packs,
            digests=samples_of(written, parent.digests if parent else ()),
            figures=DiskFigures(
                size=order.snapshot.size,
                changed=comparison.new if decision.method is Method.CRC else planned.listed,
                read=comparison.read,
                new=comparison.new,
                shared=written.shared,
                stored=written.stored,
                audited=comparison.audited,
            ),
            proxy=order.proxy,
        )
