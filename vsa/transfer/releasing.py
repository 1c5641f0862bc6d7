"""Releasing runs, disks and bases: what they leave in Azure goes, and is looked for until it is gone; what
stays is said in words.

What a disk is cleared of, and how, is in `vsa/transfer/leftovers.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from vsa.azure.budget import cleaning
from vsa.azure.grants import title
from vsa.errors import MediaConflict, RunStopped, VsaError
from vsa.fault_points import FaultPoint, reached
from vsa.media.media import Media
from vsa.model import Intent, SnapshotName, SourceDisk
from vsa.stop import waiting
from vsa.transfer.departures import Departures
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.leftovers import Kept, clear_disk, fence, intents_of_job, let_go, tried, withdraw
from vsa.transfer.owned import Excess, excess_things, is_over, ours_of, staging_of, staging_thing
from vsa.transfer.pending import Leftover, Price, pending_text


@dataclass(frozen=True)
class ReleasedJob:
    """The runs that a job had begun, and in words what of them is still there and why."""

    intents: tuple[Intent, ...] = ()
    pending: tuple[str, ...] = ()


Clear = Callable[[SourceDisk, RunEnvironment], Kept]
"""Removes something of a disk, as much as will go."""

_log = logging.getLogger(__name__)


def release(
    run: str,
    disks: Sequence[SourceDisk],
    reason: str,
    env: RunEnvironment,
    *,
    with_rest: bool = True,
    in_use: Collection[str] = (),
    departures: Departures | None = None,
) -> tuple[str, ...]:
    """Remove what a run leaves, and return in words what could not be removed; `with_rest`: and what of it
    is still there, its age and its cost. `in_use` as `clear_disk` has it.

    A run that has not committed is fenced first, so that a commit still on its way cannot name snapshots
    that are being deleted here. Where the media takes no fence, its snapshots stay and the rest goes.
    What is deleted is looked for at the end; by the caller if it gives `departures`, for many together.
    """
    env, deleted = env.cleaning_up, Departures() if departures is None else departures
    pending = _release(run, disks, reason, env, deleted, with_rest=with_rest, in_use=in_use)
    if departures is None:
        pending += still_there(deleted, env, with_rest=with_rest)
    return tuple(pending)


def _release(
    run: str,
    disks: Sequence[SourceDisk],
    reason: str,
    env: RunEnvironment,
    departures: Departures,
    *,
    with_rest: bool = True,
    in_use: Collection[str] = (),
) -> list[str]:
    """The same without a look at what is deleted, all of which is added to the departures."""
    pending: list[str] = []
    clear: Clear = partial(clear_disk, run=run, in_use=in_use, departures=departures)
    try:
        _fence_unless_over(run, reason, env.media)
    except VsaError as error:
        pending.append(f"cleanup pending for run {run}, whose snapshots stay until it can be fenced: {error}")
        clear = partial(withdraw, run=run, departures=departures)
    for disk in disks:
        if refused := _clear_now(disk, env, clear=clear):
            pending.append(refused + (_rest_text(disk, env) if with_rest else ""))
        elif (what := env.awaited.of(run, disk)) and not departures.has(disk, what):
            pending.append(_to_come(what, disk))
    for message in pending:
        _log.error("%s", message)
    return pending


def release_disk(
    disk: SourceDisk,
    env: RunEnvironment,
    *,
    in_use: Collection[str],
    departures: Departures | None = None,
) -> tuple[str, ...]:
    """Remove what runs that are over have left of a disk; in words what could not be removed.
    `in_use` as `clear_disk` has it, `departures` as `release` has them."""
    env, deleted = env.cleaning_up, Departures() if departures is None else departures
    clear = partial(clear_disk, in_use=in_use, departures=deleted)
    refused = _clear_now(disk, env, clear=clear)
    if refused:
        _log.error("%s", refused)
    pending = [refused] if refused else []
    if departures is None:
        pending += still_there(deleted, env, with_rest=False)
    return tuple(pending)


def release_bases(bases: Sequence[tuple[SnapshotName, SourceDisk]], env: RunEnvironment) -> list[str]:
    """End the access to bases and delete them; of each in words what keeps it, empty if it is gone."""
    env = env.cleaning_up
    departures = Departures()
    refused = [_release_base(base, disk, env, departures) for base, disk in bases]
    shown = {(item.disk.key, item.what): error for item, error in departures.still_there(env.stop)}
    kept = [shown.get((disk.key, title(base))) for base, disk in bases]
    return [
        text or (pending_text(disk.name, error) if error else "")
        for text, error, (_, disk) in zip(refused, kept, bases, strict=True)
    ]


def _release_base(base: SnapshotName, disk: SourceDisk, env: RunEnvironment, departures: Departures) -> str:
    excess = Excess(grant=True, snapshot=True)
    reached(FaultPoint.BASE_GIVEN_UP)
    pending = _pending(lambda: Kept(refused=let_go(base, disk, excess, env, departures)), disk.name, env)
    reached(FaultPoint.BASE_RELEASED)
    return pending


def release_job(job: str, env: RunEnvironment) -> ReleasedJob:
    """Release every run of a job that has ended: what hooks do after a cancellation or a crash."""
    intents: list[Intent] = []
    pending: list[str] = []
    view, unseen = env.media.view(), 0
    env, departures = env.cleaning_up, Departures()
    # Each as it is found: what the first of them left must not wait until all intents are read.
    try:
        for intent in intents_of_job(job, env.media):
            intents.append(intent)
            if env.last.is_set and is_over(intent.run, view):
                # It has cleaned up after itself, most likely. An open one is fenced all the same.
                unseen += 1
                continue
            pending += _release(intent.run, intent.disks, "the job was cancelled or crashed", env, departures)
    except RunStopped as error:
        pending.append(f"no time was left to look for what else this job has begun, a sweep does: {error}")
    pending += still_there(departures, env, with_rest=True)
    if unseen:
        pending.append(f"no time was left to look again at {unseen} runs that are over: a sweep does")
    return ReleasedJob(intents=tuple(intents), pending=tuple(pending))


def still_there(departures: Departures, env: RunEnvironment, *, with_rest: bool) -> list[str]:
    """What Azure said to have deleted and still shows, in words, a line for a disk."""
    pending: list[str] = []
    shown: dict[str, list[tuple[SourceDisk, VsaError]]] = {}
    for item, error in departures.still_there(env.stop):
        shown.setdefault(item.disk.key, []).append((item.disk, error))
    for (disk, first), *others in shown.values():
        text = pending_text(disk.name, first, *(error for _, error in others))
        pending.append(text + (_rest_text(disk, env) if with_rest else ""))
        _log.error("%s", pending[-1])
    return pending


def _to_come(what: str, disk: SourceDisk) -> str:
    """That something may still come that nobody can delete yet."""
    return (
        f"cleanup pending for disk {disk.name}: {what} may still appear: Azure has accepted to make it "
        "and does not show it; the next job or sweep deletes it"
    )


def _fence_unless_over(run: str, reason: str, media: Media) -> None:
    if is_over(run, media.view()):
        return
    try:
        fence([run], reason, media)
    except MediaConflict:
        # Its commit may have come first.
        if not is_over(run, media.view()):
            raise
        return
    reached(FaultPoint.RUN_FENCED)


def _clear_now(disk: SourceDisk, env: RunEnvironment, *, clear: Clear) -> str:
    """Clear a disk, again while that may help, and say in words what is pending; empty if nothing is.

    `env` is that of cleaning up: the work's stop keeps nothing from it, only the end of its time does.
    """
    return _pending(lambda: clear(disk, env), disk.name, env)


def _pending(clear: Callable[[], Kept], disk: str, env: RunEnvironment) -> str:
    """What is kept at last, in words."""
    try:
        errors = tried(clear, stop=env.stop).errors
    except VsaError as error:
        errors = [error]
    return pending_text(disk, *errors) if errors else ""


def _rest_text(disk: SourceDisk, env: RunEnvironment) -> str:
    """What of ended runs is still there; empty if that cannot be found out either."""
    try:
        with cleaning(), waiting(env.stop.wait):
            texts = [item.text(env.now(), Price()) for item in _rest(disk, replace(env, job=None))]
    except VsaError:
        return ""
    return f"; still there: {', '.join(texts)}" if texts else ""


def _rest(disk: SourceDisk, env: RunEnvironment) -> Iterator[Leftover]:
    view = env.media.view()
    for item in ours_of(disk, env):
        if is_over(item.run, view):
            yield from excess_things(disk, item, view)
    for blob in staging_of(disk, env):
        if is_over(blob.run, view):
            yield staging_thing(disk, blob)
