"""What a sweep sees: all that is or may be this media's in one subscription. Looking touches nothing.

Managed snapshots are listed once for the whole subscription, so that those are found, too, whose disk the
media knows no more: its VM and disk deleted, its intent pruned. The same is done for VHDs, as far as
`vsa/azure/vhds.py` looks. What is whose to remove is decided elsewhere (`vsa/transfer/sweep.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from vsa.azure.budget import cleaning
from vsa.azure.disks import is_of_subscription
from vsa.azure.marks import FoundSnapshot, ours_among
from vsa.azure.snapshots import ManagedSnapshots, snapshots_of
from vsa.azure.staging import FoundStaging
from vsa.azure.vhds import marked_vhds
from vsa.errors import TryAgainLater, VsaError
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import DiskKind, Intent, SourceDisk
from vsa.stop import again
from vsa.transfer.environment import RunEnvironment
from vsa.transfer.owned import is_proven, staging_of
from vsa.transfer.pending import Leftover, Thing

_log = logging.getLogger(__name__)

Disks = Mapping[str, SourceDisk]
"""Disks by their keys."""


@dataclass(frozen=True)
class Sight:
    """What a look found.

    `nameless`: what has a name of ours and nothing else that says so. `unseen`: of which disks, by key, the
    snapshots or the staging blobs could not be looked at, and why. `troubles`: what else could not be looked
    at, and what somebody should look at. `beyond`: what is not looked at.
    """

    disks: dict[str, SourceDisk] = field(default_factory=dict)
    snapshots: list[tuple[SourceDisk, FoundSnapshot]] = field(default_factory=list)
    staged: list[tuple[SourceDisk, FoundStaging]] = field(default_factory=list)
    nameless: list[tuple[SourceDisk, FoundSnapshot]] = field(default_factory=list)
    unseen: dict[tuple[str, Thing], str] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    def is_unseen(self, item: Leftover) -> bool:
        """Whether nobody can tell if the thing is still there."""
        kind = Thing.STAGING_BLOB if item.thing is Thing.STAGING_BLOB else Thing.SNAPSHOT
        return (item.disk.key, kind) in self.unseen

    def disks_of(self, run: str) -> tuple[SourceDisk, ...]:
        """The disks on which something of the run is."""
        marked = [(disk, item.run) for disk, item in self.snapshots]
        marked += [(disk, item.run) for disk, item in self.staged]
        return tuple({disk.key: disk for disk, made_by in marked if made_by == run}.values())


class Look:
    """Looks for what one media has left in one subscription."""

    def __init__(self, env: RunEnvironment) -> None:
        self._env = env
        self._media = env.media

    def everywhere(self, intents: Collection[Intent]) -> Sight:
        """At the whole subscription; `intents` are those of the open runs."""
        sight = Sight()
        with cleaning():
            known = self._here(known_disks(self._media, intents), sight)
            sight.disks.update(known)
            self._at_managed(known, sight)
            self._at_vhds(known, sight)
        return sight

    def at(self, disks: Iterable[SourceDisk]) -> Sight:
        """At these disks alone, as the jobs do."""
        sight = Sight()
        with cleaning():
            self._at(disks, sight)
        return sight

    def _here(self, disks: Disks, sight: Sight) -> Disks:
        """Those of this subscription; of which that could not be found out is said."""
        here: dict[str, SourceDisk] = {}
        for key, disk in disks.items():
            try:
                if again(partial(is_of_subscription, self._env.connection, disk), stop=self._env.stop):
                    here[key] = disk
            except VsaError as error:
                sight.troubles.append(f"disk {disk.name} was not looked at: {error}")
        return here

    def _at_managed(self, known: Disks, sight: Sight) -> None:
        """At all managed snapshots; only at the known disks' resource groups where the list is refused."""
        managed = {key: disk for key, disk in known.items() if disk.kind is DiskKind.MANAGED}
        try:
            listing = ManagedSnapshots(self._env.connection).listed(self._env.stop)
        except VsaError as error:
            sight.troubles.append(
                "managed snapshots were looked for only in resource groups of disks that the media knows: "
                f"{error}"
            )
            self._at(managed.values(), sight)
            return
        ours = ours_among(listing, managed, self._media.id)
        sight.troubles.extend(ours.strange)
        self._sort(ours.found, sight, known)
        sight.disks.update({disk.key: disk for disk, _ in sight.snapshots})

    def _at_vhds(self, known: Disks, sight: Sight) -> None:
        vhds = {key: disk for key, disk in known.items() if disk.kind is not DiskKind.MANAGED}
        marked = marked_vhds(self._env.connection, self._media.id, vhds.values(), self._env.stop)
        sight.troubles.extend(marked.unseen)
        sight.beyond.extend(marked.beyond)
        sight.disks.update({key: disk for key, disk in marked.disks.items() if key not in vhds})
        self._at((marked.disks | vhds).values(), sight)

    def _at(self, disks: Iterable[SourceDisk], sight: Sight) -> None:
        for together in _listed_together(disks):
            for kind, look in ((Thing.SNAPSHOT, self._at_snapshots), (Thing.STAGING_BLOB, self._at_staged)):
                try:
                    again(partial(look, together, sight), stop=self._env.stop)
                except VsaError as error:
                    names = ", ".join(disk.name for disk in together)
                    told = f"not looked at: {kind}s of {names}: {error}"
                    sight.unseen.update(dict.fromkeys(((disk.key, kind) for disk in together), told))

    def _at_snapshots(self, disks: list[SourceDisk], sight: Sight) -> None:
        """Of disks that one request lists."""
        found = snapshots_of(self._env.connection, disks[0].kind).ours_of(
            disks, self._media.id, stop=self._env.stop
        )
        self._sort(found, sight, {disk.key: disk for disk in disks})

    def _at_staged(self, disks: list[SourceDisk], sight: Sight) -> None:
        sight.staged.extend([(disk, item) for disk in disks for item in staging_of(disk, self._env)])

    def _sort(self, found: Iterable[tuple[SourceDisk, FoundSnapshot]], sight: Sight, known: Disks) -> None:
        """What is proven to be ours; of the rest only what is of a known disk is told: a name like ours on
        another one may be of any other media."""
        judged = [(disk, item, is_proven(disk, item, self._media)) for disk, item in found]
        sight.snapshots.extend((disk, item) for disk, item, proven in judged if proven)
        sight.nameless.extend(
            (disk, item) for disk, item, proven in judged if not proven and disk.key in known
        )


def known_disks(media: Media, intents: Collection[Intent]) -> Disks:
    """Every disk of an open or fenced run, or of a recovery point, as it was when last heard of."""
    view = media.view()
    found: dict[str, SourceDisk] = {}
    for disk in (disk for intent in (*intents, *_fenced(media, view)) for disk in intent.disks):
        found.setdefault(disk.key, disk)
    for slot in sorted(view.points, reverse=True):
        made = view.points[slot]
        # A point is unpacked only for a disk that no later one has.
        if not found.keys() >= set(made.disks):
            for backup in made.point.disks:
                found.setdefault(backup.disk.key, backup.disk)
    return found


def _fenced(media: Media, view: View) -> Iterator[Intent]:
    """The intents of fenced runs that are still on the media; a prune removes them."""
    for run in media.runs():
        if run in view.fenced:
            try:
                intent = media.intent(run)
            except TryAgainLater:
                raise
            except VsaError as error:
                _log.warning("what run %s left cannot be found by its intent: %s", run, error)
            else:
                yield from [intent] if intent else []


def _listed_together(disks: Iterable[SourceDisk]) -> Iterable[list[SourceDisk]]:
    """Managed disks by resource group, whose snapshots one request lists; unmanaged ones by themselves."""
    groups: dict[tuple[str, str], list[SourceDisk]] = {}
    for disk in disks:
        place = disk.resource_group.lower() if disk.kind is DiskKind.MANAGED else disk.key
        groups.setdefault((disk.kind, place), []).append(disk)
    return groups.values()
