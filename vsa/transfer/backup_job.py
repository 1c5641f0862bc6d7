"""A backup job: the documented stages, one method each, in the order in which they happen.

A job keeps no state between stages but what it was given: every stage takes and returns small frozen
values, so that a stage can be a task that is retried, logged and shown by itself.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from vsa.azure.connection import AzureConnection
from vsa.azure.disks import ListedDisks, describe_disk, identify_disk, image_of
from vsa.azure.vms import list_vms
from vsa.errors import AzureNotFound, BadRequest, NoPoint
from vsa.fault_points import FaultPoint, reached
from vsa.media.entries import (
    ClientState,
    JobEntry,
    ReleasedBase,
    Result,
    VmOutcome,
)
from vsa.media.index import Offer
from vsa.media.media import Media
from vsa.media.view import View
from vsa.memory import Memory
from vsa.model import AttachedDisk, DiskBackup, Exclusion, Intent, Method, Noun, SnapshotRef, SourceDisk, Vm
from vsa.progress import SILENT, Progress
from vsa.ranges import MIB
from vsa.rate import Rate
from vsa.stop import Stop, again, waiting
from vsa.subclient import Subclient, explain, preview, select_disks, select_vms
from vsa.transfer import runs
from vsa.transfer.audit import AuditPolicy
from vsa.transfer.awaited import Awaited
from vsa.transfer.backup_disk import Streaming, stream
from vsa.transfer.bases import Estate, base_disk, bases_to_release, old_bases
from vsa.transfer.clients import client_entries
from vsa.transfer.dead_runs import EarlierRuns
from vsa.transfer.doomed import commit_as_it_stands
from vsa.transfer.doubts import harm_to
from vsa.transfer.environment import Beginning, RunEnvironment
from vsa.transfer.leftovers import make_room, open_intents
from vsa.transfer.methods import Wish
from vsa.transfer.order import StreamOrder
from vsa.transfer.proxies import Assignment, Proxy, assign_round_robin, split_targets, usable_proxies
from vsa.transfer.releasing import ReleasedJob, release, release_bases, release_job
from vsa.transfer.report import job_result
from vsa.transfer.signs import SignsOfLife

Carry = Callable[[StreamOrder], DiskBackup]
"""Has a stream carried out, here or elsewhere."""

MANY_DISKS = 100
"""From so many on, the disks of a job are listed and not asked for one by one;"""
FEW_OF_ALL = 20
"""unless they are less than this part of the subscription's, all of which such a list has."""

_log = logging.getLogger(__name__)


class Discovery(Noun):
    """Stage 1: every VM that was listed, those the subclient selects, and the others it might have meant."""

    listed: tuple[Vm, ...]
    selected: tuple[Vm, ...]
    excluded: tuple[Exclusion, ...]


class Targets(Noun):
    """Stage 3: the VMs that can be backed up, the proxies that can do it, and every refusal."""

    vms: tuple[Vm, ...]
    proxies: tuple[Proxy, ...]
    excluded: tuple[Exclusion, ...]


class VmDisks(Noun):
    """Stage 4: the target disks of one VM; `error` says why they could not be identified.

    `images` says what disks were made from, by their keys: those of one image have much in common.
    """

    vm: Vm
    disks: tuple[SourceDisk, ...] = ()
    images: Mapping[str, str] = {}
    excluded: tuple[Exclusion, ...] = ()
    error: str = ""


class LetGo(Noun):
    """Stage 7b: the bases that are gone, and in words those that are still there and why."""

    released: tuple[ReleasedBase, ...] = ()
    pending: tuple[str, ...] = ()


class BackupJob:
    """What a job is given. `method` and `full` may override the subclient's for this job alone."""

    def __init__(
        self,
        job_id: str,
        *,
        subclient: Subclient,
        connection: AzureConnection,
        media: Media,
        proxies: Sequence[Proxy],
        scratch: Path,
        method: Method | None = None,
        full: bool = False,
        progress: Progress = SILENT,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.id = job_id
        self.subclient = subclient
        self.connection = connection
        self.media = media
        self.proxies = tuple(proxies)
        self.scratch = scratch
        self.method = method or Method(subclient.method)
        self.full = full
        self.progress = progress
        self.stop = Stop()
        self._last = Stop("the time for cleaning up is over")
        self.now = now
        self.random = random
        self.started_at = now()
        self.signs = SignsOfLife(media, now=now)
        self._listed_disks: ListedDisks | None = None
        self._began = Beginning.now(media)
        self._awaited = Awaited()
        slots = {proxy.name: min(proxy.streams, subclient.streams_per_proxy) for proxy in self.proxies}
        self._slots = {name: BoundedSemaphore(count) for name, count in slots.items()}
        self._memory = Memory(subclient.memory_mib * MIB, streams=max(1, sum(slots.values())))
        self._rate = Rate(subclient.most_mib_per_second * MIB)
        self._sharing = media.sharing(Offer(subclient.deduplication), memory=self._memory.caches)

    @property
    def _environment(self) -> RunEnvironment:
        return RunEnvironment(
            self.connection, self.media, self.stop, self.now, self._began, self._last, self._awaited
        )

    def end_within(self, seconds: float) -> None:
        """Stop, and clean up for so long: what is left then is pending, for the next job or a sweep."""
        self.stop.set()
        self._last.set_in(seconds)

    def _working(self) -> AbstractContextManager[None]:
        """Inside, what waits for the media or for Azure hears the stop."""
        return waiting(self.stop.wait)

    def _cleaning_up(self) -> AbstractContextManager[None]:
        """Inside, it hears the end of the time for cleaning up alone."""
        return waiting(self._last.wait)

    def preview(self) -> str:
        """What the subclient selects now and why, VM by VM and disk by disk, without touching anything."""
        return preview(self.subclient, list_vms(self.connection, self.stop))

    # Stage 1

    def discover(self) -> Discovery:
        """List the subscription's VMs and apply the subclient's rules and filters."""
        vms = list_vms(self.connection, self.stop)
        selection = select_vms(self.subclient, vms)
        return Discovery(listed=vms, selected=selection.targets, excluded=selection.exclusions)

    def open_runs(self) -> tuple[Intent, ...]:
        """The runs of the media that the log knows no end of, whoever began them."""
        return tuple(open_intents(self.media))

    def release_dead_runs(self, earlier: EarlierRuns) -> tuple[str, ...]:
        """Clean up after the dead of these runs; returns what is pending. RunStopped between two of them."""
        pending: list[str] = []
        for run in earlier.dead:
            self.stop.check()
            intent = run.intent
            _log.warning("run %s of VM %s is dead: %s", intent.run, intent.vm_name, run.reason)
            with self._cleaning_up():
                pending += release(
                    intent.run, intent.disks, run.reason, self._environment, in_use=earlier.in_use
                )
        return tuple(pending)

    # Stage 2

    def record_clients(self, discovery: Discovery) -> int:
        """Write a client computer entry for each VM discovered; returns how many were written."""
        entries = list(
            client_entries(
                self.media.view().clients,
                discovery.selected,
                discovery.listed,
                subscription_id=self.connection.subscription_id,
                now=self.now(),
            )
        )
        for entry in entries:
            if entry.state is ClientState.GONE:
                _log.warning("client %s is gone from the subscription", entry.vm.name)
            self.media.append(entry)
        return len(entries)

    # Stage 3

    def identify_targets(self, discovery: Discovery) -> Targets:
        """Which selected VMs can be backed up now and by which proxies; each refusal has its reason.

        BadRequest if the subclient selects none. Not before: when the last VM has gone, clients are still
        marked so and bases released.
        """
        if not discovery.selected:
            raise BadRequest(
                f"subclient {self.subclient.name} selects no VM of subscription "
                f"{self.connection.subscription_id}.\n{explain(select_vms(self.subclient, discovery.listed))}"
            )
        proxies, unusable = usable_proxies(self.subclient, self.proxies)
        vms, refused = split_targets(discovery.selected, proxies, unusable)
        wanted, listed = _managed_disks(vms), _managed_disks(discovery.listed)
        if wanted >= max(MANY_DISKS, listed / FEW_OF_ALL):
            self._listed_disks = ListedDisks(self.connection)
        return Targets(vms=vms, proxies=proxies, excluded=(*refused, *unusable))

    # Stage 4

    def identify_disks(self, vm: Vm) -> VmDisks:
        """The VM's target disks as their own APIs describe them."""
        wanted, excluded = select_disks(self.subclient, vm.disks)
        disks: list[SourceDisk] = []
        images: dict[str, str] = {}
        refused = list(excluded)
        for attached in wanted:
            try:
                described = self._described(attached)
                found = again(partial(identify_disk, self.connection, attached, described), stop=self.stop)
            except AzureNotFound as error:
                raise AzureNotFound(
                    f"VM {vm.name}: disk {attached.name} disappeared after the VM was listed: {error}",
                    code=error.code,
                ) from error
            if isinstance(found, SourceDisk):
                disks.append(found)
                if image := image_of(described):
                    images[found.key] = image
            else:
                refused.append(found)
        # Once more: what a filter asks of size and SKU, the disk's own API may be the first to know.
        targets, excluded = select_disks(self.subclient, disks)
        refused += excluded
        if not targets:
            reasons = "; ".join(f"{item.name}: {item.reason}" for item in refused)
            return VmDisks(vm=vm, excluded=tuple(refused), error=f"no disk of it is a target: {reasons}")
        images = {disk.key: images[disk.key] for disk in targets if disk.key in images}
        return VmDisks(vm=vm, disks=targets, images=images, excluded=tuple(refused))

    def _described(self, attached: AttachedDisk) -> Any | None:
        """A managed disk as Azure describes it: in a list, where one list is less to ask for than each of the
        disks, or by itself. None for what is no managed disk that can be backed up."""
        if not attached.managed or attached.ephemeral or not attached.source:
            return None
        listed = self._listed_disks.find(attached.source, self.stop) if self._listed_disks else None
        return listed or again(partial(describe_disk, self.connection, attached), stop=self.stop)

    # Stage 5

    def assign_streams(self, disks: Sequence[VmDisks], proxies: Sequence[Proxy]) -> tuple[Assignment, ...]:
        """One stream for each disk of the job, to the proxies in round-robin sequence."""
        self._listed_disks = None
        return assign_round_robin([disk for item in disks for disk in item.disks], proxies)

    def new_run(self, disks: VmDisks) -> runs.Run:
        """One attempt at one VM, under an id that never was and never comes back."""
        return runs.Run(
            id=self.random(8).hex(),
            job=self.id,
            subclient=self.subclient.name,
            vm=disks.vm,
            disks=disks.disks,
            excluded=disks.excluded,
            started_at=self.now(),
        )

    # Stage 7

    def create_snapshots(self, run: runs.Run) -> tuple[SnapshotRef, ...]:
        """Clear what dead runs left on these disks, write the intent and a first sign of life, snapshot all
        disks together."""
        env = self._environment
        with self._working():
            for disk in run.disks:
                make_room(disk, env)
            reached(FaultPoint.ROOM_MADE)
            runs.begin(run, env)
            self.signs.begin(run.id)
            return runs.create_snapshots(run, env)

    def stage(self, run: runs.Run, disk: SourceDisk, snapshot: SnapshotRef) -> str | None:
        """The staging blob that stands in for a premium VHD's snapshot; None where none is needed."""
        with self._working():
            return runs.stage(run, disk, snapshot, self._environment)

    # Stage 6

    def order(
        self, run: runs.Run, disk: SourceDisk, snapshot: SnapshotRef, staging: str | None, proxy: str
    ) -> StreamOrder:
        """What the proxy is told of the disk's stream."""
        return StreamOrder(
            job=self.id,
            run=run.id,
            media=self.media.id,
            client=run.vm.key,
            vm=run.vm.name,
            disk=disk,
            snapshot=snapshot,
            staging=staging,
            proxy=proxy,
            wish=self._wish,
            audit=self._audit,
            sharing=Offer(self.subclient.deduplication),
        )

    def stream(self, order: StreamOrder, progress: Progress | None = None) -> DiskBackup:
        """Carry out an order in this process: download changed extents and write them to the media."""
        surroundings = Streaming(
            connection=self.connection,
            media=self.media,
            stop=self.stop,
            progress=progress or self.progress,
            scratch=self.scratch,
            now=self.now,
            sharing=self._sharing,
            memory=self._memory,
            rate=self._rate,
        )
        with self._slots[order.proxy]:
            self.stop.check()
            return stream(order, surroundings)

    @property
    def _wish(self) -> Wish:
        return Wish(
            method=self.method,
            full=self.full,
            full_every=self.subclient.full_every,
            max_base_age=dt.timedelta(days=self.subclient.max_base_age_days),
        )

    @property
    def _audit(self) -> AuditPolicy:
        settings = self.subclient
        return AuditPolicy(settings.audit_extents, settings.audit_share, settings.audit_cycle_jobs)

    # Stage 7b

    def commit(
        self,
        run: runs.Run,
        backups: Sequence[DiskBackup],
        failed: Sequence[Exclusion] = (),
        *,
        carry: Carry | None = None,
    ) -> int:
        """Make the recovery point exist: all target disks in it, or none of it.

        `failed` names disks that could not be backed up; they are left out only where the subclient
        allows incomplete points. `carry` takes the streams that turn out to be needed once more; without it
        they run in this process.
        """
        if failed and not (self.subclient.allow_incomplete_points and backups):
            reasons = "; ".join(f"disk {item.name}: {item.reason}" for item in failed)
            raise NoPoint(f"VM {run.vm.name} gets no recovery point: {reasons}")
        with self._working():
            return commit_as_it_stands(
                backups,
                commit=partial(self._commit, run, failed),
                read_again=partial(self._read_again, run, carry or self.stream),
                media=self.media,
            )

    def _commit(self, run: runs.Run, failed: Sequence[Exclusion], backups: Sequence[DiskBackup]) -> int:
        keep = self.method is Method.CBT
        return runs.commit(run, backups, failed, keep_bases=keep, media=self.media)

    def _read_again(self, run: runs.Run, carry: Carry, backup: DiskBackup) -> DiskBackup:
        """The same snapshot once more, by way of its staging blob if it has one."""
        disk = next(disk for disk in run.disks if disk.key == backup.disk.key)
        staging = self.stage(run, disk, backup.snapshot)
        return carry(self.order(run, disk, backup.snapshot, staging, backup.proxy))

    def doubts(self) -> tuple[str, ...]:
        """What this job found of earlier points, in words: change lists that had left out changes."""
        return tuple(
            f"point {slot} is doubtful: {doubt.reason} (disk {doubt.disk_key})"
            for slot, doubts in sorted(self.media.view().doubtful.items())
            for doubt in doubts
            if doubt.slot >= self._began.head
        )

    def harms(self, identified: Sequence[VmDisks]) -> tuple[str, ...]:
        """What points of this job's disks have lost to damage of the media that this job could not heal."""
        view = self.media.view()
        told = (harm_to(view, disk) for item in identified for disk in item.disks)
        return tuple(text for text in told if text)

    # Stage 8

    def release(self, run: runs.Run) -> tuple[str, ...]:
        """Remove the run's snapshots, grants and staging blobs but for the bases; returns what is pending."""
        try:
            with self._cleaning_up():
                return release(run.id, run.disks, "the run ended without a recovery point", self._environment)
        finally:
            self.signs.end(run.id)

    def release_all(self) -> ReleasedJob:
        """The same for every run of this job, by their intents: for a job whose own process has ended."""
        with self._cleaning_up():
            return release_job(self.id, self._environment)

    def release_bases(self, discovery: Discovery | None, identified: Sequence[VmDisks]) -> LetGo:
        """Delete the bases that no later job of this subclient will start from: all that Azure lets go.

        The log goes on naming the others, so that the next job tries again. Without a discovery those alone
        go that are too old to start from.
        """
        view = self.media.view()
        released: list[ReleasedBase] = []
        pending: list[str] = []
        items = list(self._to_release(view, discovery, identified))
        bases = [(item.base, base_disk(view, item.base.disk_key)) for item in items]
        with self._cleaning_up():
            refusals = release_bases(bases, self._environment)
        for item, (_, disk), refused in zip(items, bases, refusals, strict=True):
            if refused:
                pending.append(f"{refused}; this base is not needed: {item.reason}")
                _log.error("%s", pending[-1])
            else:
                released.append(item)
                _log.info("base snapshot of disk %s released: %s", disk.name, item.reason)
        return LetGo(released=tuple(released), pending=tuple(pending))

    def _to_release(
        self, view: View, discovery: Discovery | None, identified: Sequence[VmDisks]
    ) -> Iterable[ReleasedBase]:
        subscription, now = self.connection.subscription_id, self.now()
        if discovery is None:
            return old_bases(view, self.subclient, subscription, now=now)
        estate = Estate(
            subscription_id=subscription,
            listed=discovery.listed,
            selected=discovery.selected,
            identified={item.vm.key: item.disks for item in identified if not item.error},
        )
        return bases_to_release(view, self.subclient, estate, now=now)

    def clean_scratch(self) -> None:
        """Remove the job's scratch space on the proxy, the last of its mount point."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def complete(
        self,
        outcomes: Sequence[VmOutcome],
        *,
        excluded: Sequence[Exclusion] = (),
        released: Sequence[ReleasedBase] = (),
        alarms: Sequence[str] = (),
    ) -> JobEntry:
        """Write the job's report into the log; failed jobs have one too."""
        report = JobEntry(
            job=self.id,
            subclient=self.subclient.name,
            method=self.method,
            started_at=self.started_at,
            ended_at=self.now(),
            result=job_result(outcomes, alarms),
            vms=tuple(outcomes),
            excluded=tuple(excluded),
            released=tuple(released),
            alarms=tuple(alarms),
        )
        reached(FaultPoint.JOB_DONE)
        with self._cleaning_up():
            self.media.append(report)
            reached(FaultPoint.JOB_REPORTED)
            self.media.checkpoint_if_due()
        return report

    def report_stopped(
        self, reason: str, released: ReleasedJob, *, started_at: dt.datetime | None = None
    ) -> JobEntry:
        """The report of a job that was cancelled or has crashed; written here if its own process could not.

        `released` is what `release_all` found of it; `started_at` is when it began, by another clock.
        """
        view = self.media.view()
        for reported in view.jobs.values():
            if reported.job.job == self.id:
                return reported.job
        self.started_at = min(started_at or self.started_at, self.started_at)
        outcomes = [
            VmOutcome(
                key=intent.vm_key,
                name=intent.vm_name,
                result=Result.COMPLETED if intent.run in view.committed else Result.FAILED,
                run=intent.run,
                point=view.committed.get(intent.run),
                error="" if intent.run in view.committed else reason,
            )
            for intent in released.intents
        ]
        return self.complete(outcomes, alarms=[reason, *released.pending])


def _managed_disks(vms: Iterable[Vm]) -> int:
    return sum(disk.managed for vm in vms for disk in vm.disks)
