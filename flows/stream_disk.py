"""Carry one disk, or a few small ones, through this proxy: the child run of a backup job.

A job starts it by the deployment `stream-disk/<proxy>` in that proxy's work pool; nobody starts it by hand.
What each stream came to is left on the media, where the job reads it.
"""

from __future__ import annotations

import datetime as dt
from contextlib import ExitStack
from typing import Any
from uuid import UUID

from prefect import flow, runtime
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.futures import PrefectFuture, wait
from prefect.states import Cancelled, Completed, Crashed, Failed
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from blocks.subclient import BackupSubclient
from tasks.child_runs import UNFIT
from tasks.flow_runs import is_held_for_dead, say_cancelled
from tasks.logs import show_engine_logs
from tasks.pools import STREAM_FLOW
from tasks.scratch import make_scratch, remove_scratch
from tasks.signals import heard_at_once
from tasks.stream import carry_out, leave_word
from tasks.watch import Watch
from vsa.errors import MediaUnusable, VsaError
from vsa.memory import Memory
from vsa.model import DiskBackup
from vsa.progress import SILENT
from vsa.ranges import MIB
from vsa.rate import Rate
from vsa.stop import Stop
from vsa.transfer.backup_disk import Streaming
from vsa.transfer.order import StreamOrder


def _clean_scratch(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook: a process that was killed has left its scratch space."""
    remove_scratch(str(flow_run.id))


# Not in the signature, where the linter takes a list's default for one that may change.
_STREAMS: Any = Field(description="The disks to carry, and how.", min_length=1)


@flow(
    name=STREAM_FLOW,
    description="Carry disks of a backup job through a proxy. Started by the job.",
    # One at a time: how many disks a proxy moves at once is what its work pool says.
    task_runner=ThreadPoolTaskRunner(max_workers=1),  # type: ignore[arg-type]
    on_crashed=[_clean_scratch],
    persist_result=False,
)
def stream_disk(
    subclient: str = Field(description="Name of the job's Subclient block."),
    streams: list[StreamOrder] = _STREAMS,
) -> State[None]:
    """Carry out the orders in turn; one that fails keeps no other from being carried out."""
    attempt = UUID(str(runtime.flow_run.id))
    show_engine_logs(str(attempt))
    try:
        return _carried(subclient, streams, attempt)
    except BaseException:
        # The job waits for this. The worker says so too, but first looks for hooks in another process.
        say_cancelled(attempt)
        raise


def _carried(subclient: str, streams: list[StreamOrder], attempt: UUID) -> State[None]:
    stop = Stop()
    with heard_at_once(), ExitStack() as stack:
        try:
            surroundings = _open(subclient, streams, stop, stack)
        except VsaError as error:
            return Failed(name=UNFIT, message=str(error))
        stack.enter_context(Watch((attempt, UUID(streams[0].job)), stop.set))
        if stop.is_set:
            return _stopped(attempt)
        return _carry_out(streams, surroundings, attempt)


def _carry_out(streams: list[StreamOrder], surroundings: Streaming, attempt: UUID) -> State[None]:
    futures = [carry_out.submit(order, surroundings) for order in streams]

    try:
        return _words_of(streams, futures, surroundings, attempt)
    finally:
        # Whatever ended this run: no stream goes on in the background.
        surroundings.stop.set()
        wait(futures)


def _words_of(
    streams: list[StreamOrder],
    futures: list[PrefectFuture[DiskBackup]],
    surroundings: Streaming,
    attempt: UUID,
) -> State[None]:
    """Leave word of each stream as soon as it has ended; nothing more once a stop was asked for."""
    failed: list[str] = []
    for order, future in zip(streams, futures, strict=True):
        future.wait()
        if surroundings.stop.is_set:
            return _stopped(attempt)
        outcome = future.state.result(raise_on_failure=False)
        leave_word(order, surroundings.media, outcome, attempt)
        if isinstance(outcome, Exception):
            failed.append(f"disk {order.disk.name} of {order.vm}: {outcome}")
    if failed:
        return Failed(message="\n".join(failed))
    return Completed(message=f"{len(streams)} of {len(streams)} disks are on the media.")


def _stopped(own: UUID) -> State[None]:
    """A run that was held for dead stays so, and its disks move on: they are not what somebody cancelled."""
    if is_held_for_dead(own):
        return Crashed(message="held for dead, since it was not heard of for too long")
    return Cancelled(message="the job is over, or this run was cancelled")


def _open(subclient: str, streams: list[StreamOrder], stop: Stop, stack: ExitStack) -> Streaming:
    """What the proxy has of its own: its way to Azure, its media, its scratch space."""
    first = streams[0]
    block = BackupSubclient.named(subclient)
    media = block.media.open(write=True)
    if media.id != first.media:
        raise MediaUnusable(
            f"media at {media.location}: this proxy finds {media.id}, the job writes {first.media}: "
            "is the same place mounted here?"
        )
    own = str(runtime.flow_run.id)
    stack.callback(remove_scratch, own)
    memory = Memory(block.settings.memory_mib * MIB)
    return Streaming(
        connection=block.subscription.connection(),
        media=media,
        stop=stop,
        progress=SILENT,
        scratch=make_scratch(own),
        now=lambda: dt.datetime.now(dt.UTC),
        sharing=media.sharing(first.sharing, memory=memory.caches),
        memory=memory,
        rate=Rate(block.settings.most_mib_per_second * MIB),
    )
