"""Writers, prunes and others on one media, in orders that are drawn call by call. (F36, F40-F43, F45.)

What the protocol's model searches to the end (tests/protocol) is played here at random on the real code, with
deaths, lost answers, requests that are sent twice, and requests that land late.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.faults.scheduled_store import Coverage, Schedule
from tests.faults.sharing_cast import Damage, Sharers, excused, require_points
from tests.faults.small_media import (
    GONE,
    LATER,
    Contents,
    forget_points,
    grow,
    grown_media,
    healed_media,
    prune,
)
from tests.media.making import NOW, a_disk, noise, read_disk
from tests.soak import more_in_ci, rounds, seeded
from vsa.errors import MediaConflict, MediaDamaged, TryAgainLater, VsaError
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.store import Store
from vsa.upkeep.forgetting import unforget

Act = Callable[[Store], Any]


class Writer:
    """A backup of one disk on its newest point, tried again under a new run when it was refused.

    A prune holds it for dead if it is `slow`: it began long ago. It builds on `parent` as long as that point
    stands, as a comparison with an older base does. If it `absorbs`, its index takes over older ones.
    """

    def __init__(
        self,
        name: str,
        disk: str,
        held: dict[str, Contents],
        scratch: Path,
        *,
        slow: bool = False,
        parent: int | None = None,
        absorbs: bool = False,
    ) -> None:
        self.parent = parent
        self.absorbs = absorbs
        self.started_at = NOW if slow else LATER
        self.name = name
        self.disk = a_disk(disk)
        self.held = held
        self.scratch = scratch

    def __call__(self, store: Store) -> int:
        for attempt in range(3):
            try:
                return self._attempt(Media(store, write=True), f"{self.name}-{attempt}")
            except (MediaConflict, TryAgainLater, MediaDamaged) as error:
                refused: VsaError = error
        raise refused

    def _attempt(self, media: Media, run: str) -> int:
        view = media.view()
        latest = view.latest_point_of_disk(self.disk.key)
        if self.parent in view.points and self.parent not in view.forgotten:
            latest = self.parent, view.points[self.parent].point.disks[0]
        changes = {at: noise((run, at)) for at in range(2, 7)}
        before: Contents = {}
        parent: int | None = None
        if latest is not None:
            parent = latest[0]
            before = self.held[view.points[parent].run]
        # Said beforehand: a commit whose answer is lost may be one all the same.
        self.held[run] = before | changes
        return grow(
            media,
            run,
            self.disk,
            changes,
            scratch=self.scratch,
            parent=parent,
            started_at=self.started_at,
            absorbs=self.absorbs,
        )


def a_writer(
    name: str,
    disk: str,
    parent: int | None = None,
    *,
    held: dict[str, Contents],
    scratch: Path,
    slow: bool,
    absorbs: bool = False,
) -> Writer:
    return Writer(name, disk, held, scratch, slow=slow, parent=parent, absorbs=absorbs)


def pruner(*slots: int) -> Act:
    def act(store: Store) -> None:
        media = Media(store, write=True)
        forget_points(media, *slots)
        prune(media)

    return act


def repacker(store: Store) -> None:
    prune(Media(store, write=True), threshold=1.0)


def hesitant(slot: int) -> Act:
    """Forgets a point and calls it back."""

    def act(store: Store) -> None:
        media = Media(store, write=True)
        forget_points(media, slot)
        unforget(media, [slot])

    return act


def reader(held: dict[str, Contents]) -> Act:
    """A restore of every point: what it reads is right, or it is told why it cannot be read."""

    def act(store: Store) -> None:
        media = Media(store, write=False)
        for made in media.view().points.values():
            # By what it knew when it began: meanwhile the point may have been given up.
            (backup,) = made.point.disks
            assert read_disk(media, backup.indexes, backup.disk.size) == held[made.run]

    return act


Casting = Callable[[dict[str, Contents], Callable[[str, str], Writer]], dict[str, Act]]
SCENES: dict[str, Casting] = {
    "a writer and a prune": lambda held, writer: {"a": writer("a", "os"), "prune": pruner(0, 1, 2)},
    "two writers of one disk and a prune": lambda held, writer: {
        "a": writer("a", "os"),
        "b": writer("b", "os"),
        "prune": pruner(0, 1),
    },
    "two prunes and a writer": lambda held, writer: {
        "a": writer("a", "os"),
        "prune": pruner(0, 1),
        "other prune": pruner(2),
    },
    "a repacking, a prune and a writer": lambda held, writer: {
        "a": writer("a", "os"),
        "prune": pruner(0),
        "repack": repacker,
    },
    "two repackings and a writer": lambda held, writer: {
        "one": repacker,
        "other": repacker,
        "a": writer("a", "data"),
    },
    "a prune and somebody who calls back": lambda held, writer: {
        "prune": pruner(0, 1),
        "hesitant": hesitant(1),
    },
    "a repacking and a prune of what it leads to": lambda held, writer: {
        "repack": repacker,
        "prune": pruner(3, 2, 1, 0),
    },
    "a prune of everything and a writer": lambda held, writer: {
        "a": writer("a", "os"),
        "prune": pruner(0, 1, 2, 3),
    },
    "a restore, a prune and a writer": lambda held, writer: {
        "a": writer("a", "os"),
        "prune": pruner(0, 1, 2),
        "restore": reader(held),
    },
}


COMPACTING: dict[str, Casting] = {
    "a writer that absorbs indexes, a repacking and a prune": lambda held, writer: {
        "a": writer("a", "os", absorbs=True),
        "repack": repacker,
        "prune": pruner(0, 1),
    },
    "two writers that absorb indexes, a prune of what they absorb, and a restore": lambda held, writer: {
        "a": writer("a", "os", absorbs=True),
        "b": writer("b", "os", absorbs=True),
        "prune": pruner(0, 1, 2, 3),
        "restore": reader(held),
    },
}

Lacking = Callable[[Media], Set[int]]


def nobody(_: Media) -> Set[int]:
    return set()


class SharingCast(Protocol):
    def __call__(self, folder: Path, sharers: Callable[[str, Sequence[str]], Sharers]) -> dict[str, Act]: ...


SHARING: dict[str, SharingCast] = {
    "streams that share, and a prune of what they find": lambda folder, sharers: {
        "share": sharers("share", ["os", "data"]),
        "prune": pruner(GONE, 0, 1),
    },
    "two processes whose streams share, and a repacking": lambda folder, sharers: {
        "share": sharers("share", ["os", "data"]),
        "other": sharers("other", ["new", "newer"]),
        "repack": repacker,
    },
    "two processes whose streams share, a prune of what they find, and a repacking": lambda folder, sharers: {
        "share": sharers("share", ["os", "new"]),
        "other": sharers("other", ["data"]),
        "prune": pruner(GONE, 0, 1, 2),
        "repack": repacker,
    },
}

SPOILING: dict[str, SharingCast] = {
    "a process whose streams share, one that finds damage there, and a repacking": lambda folder, sharers: {
        "share": sharers("share", ["os", "new"]),
        "damage": Damage(folder),
        "repack": repacker,
    },
}

SPOILT: dict[str, SharingCast] = {
    "a process that heals, one that wants the same, a repacking and a prune": lambda folder, sharers: {
        "heal": sharers("heal", ["gone", "data"]),
        "share": sharers("share", ["new"]),
        "repack": repacker,
        "prune": pruner(0, 3),
    },
}

HEALED: dict[str, Casting] = {
    "a writer on an old point that was healed, and a prune": lambda held, writer: {
        "a": writer("a", "os", 0),
        "prune": pruner(0, 3),
    },
    "the same and a repacking": lambda held, writer: {
        "a": writer("a", "os", 0),
        "prune": pruner(3, 0),
        "repack": repacker,
    },
    "a writer that absorbs what was healed, and a prune": lambda held, writer: {
        "a": writer("a", "os", 0, absorbs=True),
        "prune": pruner(0, 3),
    },
}

LOST: dict[str, Casting] = {
    "two prunes that put an index back": lambda held, writer: {
        "prune": pruner(0, 1),
        "other prune": pruner(2),
    },
    "a prune that puts an index back, and writers": lambda held, writer: {
        "prune": pruner(0, 1),
        "a": writer("a", "os"),
        "b": writer("b", "data"),
    },
    "the same, a repacking and a restore": lambda held, writer: {
        "prune": pruner(0, 1),
        "repack": repacker,
        "a": writer("a", "os", absorbs=True),
        "restore": reader(held),
    },
}


@pytest.fixture(scope="module")
def healed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Contents]]:
    folder = tmp_path_factory.mktemp("healed")
    return folder / "media", healed_media(folder / "media", folder)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Contents]]:
    folder = tmp_path_factory.mktemp("grown")
    return folder / "media", grown_media(folder / "media", folder)


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Contents]]:
    """The index that all points of a disk are over is gone; its record is not."""
    folder = tmp_path_factory.mktemp("lost")
    held = grown_media(folder / "media", folder)
    (index,) = (folder / "media/runs/r0/index").iterdir()
    index.unlink()
    return folder / "media", held


@more_in_ci
@pytest.mark.parametrize("scene", SCENES)
def test_no_order_of_calls_loses_a_point(scene: str, grown, tmp_path: Path) -> None:
    play_scene(scene, SCENES[scene], grown, tmp_path)


@more_in_ci
@pytest.mark.parametrize("scene", COMPACTING)
def test_no_order_of_calls_loses_what_an_index_absorbed(scene: str, grown, tmp_path: Path) -> None:
    play_scene(scene, COMPACTING[scene], grown, tmp_path)


@more_in_ci
@pytest.mark.parametrize("scene", HEALED)
def test_no_order_of_calls_loses_what_was_healed(scene: str, healed, tmp_path: Path) -> None:
    play_scene(scene, HEALED[scene], healed, tmp_path)


@more_in_ci
@pytest.mark.parametrize("scene", LOST)
def test_no_order_of_calls_keeps_a_lost_index_from_coming_back(scene: str, lost, tmp_path: Path) -> None:
    play_scene(scene, LOST[scene], lost, tmp_path, harmed=True)


@pytest.fixture(scope="module")
def spoilt(grown, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Contents]]:
    """The grown media after a frame went bad and was found."""
    folder = shutil.copytree(grown[0], tmp_path_factory.mktemp("spoilt") / "media")
    Damage(folder)(FolderStore(folder))
    return folder, grown[1]


@more_in_ci
@pytest.mark.parametrize("scene", SHARING)
def test_no_order_of_calls_loses_what_is_shared(scene: str, grown, tmp_path: Path) -> None:
    play_sharers(scene, SHARING[scene], grown, tmp_path, lacking=nobody)


@more_in_ci
@pytest.mark.parametrize("scene", SPOILING)
def test_no_order_of_calls_lets_damage_spread(scene: str, grown, tmp_path: Path) -> None:
    play_sharers(scene, SPOILING[scene], grown, tmp_path, lacking=excused)


@more_in_ci
@pytest.mark.parametrize("scene", SPOILT)
def test_no_order_of_calls_loses_what_is_healed_and_shared(scene: str, spoilt, tmp_path: Path) -> None:
    played = play_sharers(scene, SPOILT[scene], spoilt, tmp_path, lacking=excused)
    assert sum(item.healed for item in played)


def play_sharers(
    scene: str,
    casting: SharingCast,
    media: tuple[Path, dict[str, Contents]],
    tmp_path: Path,
    *,
    lacking: Lacking,
) -> list[Sharers]:
    sharing: list[Sharers] = []
    folder = tmp_path / "media"

    def cast(held: dict[str, Contents], writer: Callable[..., Writer]) -> dict[str, Act]:
        slow = writer("a", "os").started_at == NOW

        def sharers(name: str, disks: Sequence[str]) -> Sharers:
            sharing.append(Sharers(name, disks, held, tmp_path, slow=slow))
            return sharing[-1]

        return casting(folder, sharers)

    coverage = play_scene(scene, cast, media, tmp_path, lacking=lacking)
    sys.stdout.write(f"{sum(item.shared for item in sharing)} bytes shared\n")
    # A process that never commits, or never finds anything, would prove nothing.
    for name in {item.name for item in sharing}:
        assert coverage.endings[f"{name}: done"]
        assert sum(item.shared for item in sharing if item.name == name)
    return sharing


def play_scene(
    scene: str,
    casting: Casting,
    grown: tuple[Path, dict[str, Contents]],
    tmp_path: Path,
    *,
    harmed: bool = False,
    lacking: Lacking = nobody,
) -> Coverage:
    """`harmed`: no point need restore before one more prune. `lacking`: the points that may lack
    what went bad."""
    choose, coverage = seeded(scene), Coverage()
    for play in range(rounds(4, 20, 300)):
        folder = tmp_path / "media"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(grown[0], folder)
        held = dict(grown[1])
        faults = play % 4
        schedule = Schedule(FolderStore(folder), choose, faults=faults)
        slow = play % 3 == 2
        cast = casting(held, partial(a_writer, held=held, scratch=tmp_path, slow=slow))
        coverage.add(schedule.play(cast))
        if harmed:
            prune(Media(FolderStore(folder), write=True))
        require_whole(folder, held, tmp_path, play, lacking)
    sys.stdout.write(f"{scene}: {coverage}\n")
    # Draws that were always the same would prove little, and so would actors that never get anywhere.
    assert len(coverage.shapes) > coverage.plays * 0.9
    soon = () if harmed else tuple(who for who in cast if "prune" in who)
    wanted = [who for who in cast if who != "restore" and (coverage.plays > 30 or who in soon)]
    assert all(coverage.endings[f"{who}: done"] for who in wanted)
    return coverage


def require_whole(
    folder: Path, held: dict[str, Contents], scratch: Path, play: int, lacking: Lacking
) -> None:
    """All points restore, also after one more prune and one more backup, by people whom nothing disturbs."""
    media = Media(FolderStore(folder), write=True)
    require_points(media, held, lacking=lacking(media))
    prune(media)
    require_points(media, held, lacking=lacking(media))
    writer = Writer(f"next-{play}", "os", held, scratch)
    slot = writer(FolderStore(folder))
    # It may build on a point that lacks what went bad.
    media = Media.open(str(folder))
    assert media.view().points[slot].run == f"next-{play}-0"
    require_points(media, held, lacking=lacking(media))
