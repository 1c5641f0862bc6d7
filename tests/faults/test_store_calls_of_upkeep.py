"""Forgetting, pruning, repacking and checkpoints die, fail or hear nothing at any call, or from one on.

After each: every point that is wanted restores, and the next prune finishes what was begun. (F15, F28, F45.)
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.dying_store import Death
from tests.faults.small_media import grown_media, require_all_points, upkeep
from tests.media.faulty_store import FaultyStore, Moment, fail_call, fail_from, no_fault
from tests.media.making import objects
from tests.processes import PROCESSES
from tests.soak import chosen, more_in_ci
from vsa.errors import MediaUnusable, TryAgainLater, VsaError
from vsa.media import documents, layout
from vsa.media.entries import DoomEntry, Entry
from vsa.media.folder import FolderStore
from vsa.media.layout import CHECKPOINTS, LOG
from vsa.media.media import Media
from vsa.media.recall import KEPT

LOST = TryAgainLater("the answer was lost")
FULL = MediaUnusable("the file system is full")


@pytest.fixture(scope="module", params=[False, True], ids=["sound", "an index is lost"])
def grown(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, dict]:
    """The base that all points of a disk are over may be lost; the point that made it goes."""
    folder = tmp_path_factory.mktemp("grown")
    held = grown_media(folder / "media", folder)
    if request.param:
        (index,) = (folder / "media/runs/r0/index").iterdir()
        index.unlink()
    return folder / "media", held


@pytest.fixture
def copied(grown, tmp_path) -> Callable[[], Path]:
    """The same media again and again."""

    def copy() -> Path:
        shutil.rmtree(tmp_path / "media", ignore_errors=True)
        return Path(shutil.copytree(grown[0], tmp_path / "media"))

    return copy


@dataclass(frozen=True)
class Order:
    """Upkeep in a process of its own."""

    folder: Path
    death: Death

    def carry_out(self) -> None:
        upkeep(self.death.store(FolderStore(self.folder)))


def calls_of_upkeep(folder: Path) -> int:
    store = FaultyStore(FolderStore(folder), no_fault)
    upkeep(store)
    return len(store.calls)


def require_that_nothing_was_lost(folder: Path, held: dict, whole: set[str]) -> None:
    """And that another upkeep, undisturbed, leaves no more than one that was never disturbed."""
    media = Media(FolderStore(folder), write=True)
    if is_whole(media):
        require_all_points(media, held)
    upkeep(FolderStore(folder))
    media = Media.open(str(folder))
    require_all_points(media, held)
    assert {made.run for made in media.view().points.values()} == {"r2", "r3", "other"}
    left = objects(folder)
    assert len([name for name in left if not is_of_the_log(name)]) <= len(whole) + 3, sorted(left)
    # One more than a prune leaves: the last is stored after it.
    assert 0 < len([name for name in left if name.startswith(CHECKPOINTS)]) <= KEPT + 1, sorted(left)


def is_whole(media: Media) -> bool:
    """Whether the index that was lost is there again, if one was."""
    view = media.view()
    sound = view.sound_indexes()
    refs = {ref for made in view.points.values() for disk in made.point.disks for ref in disk.indexes}
    names = {sound.get(ref.name, ref).name for ref in refs}
    return names <= objects(Path(media.location))


def is_of_the_log(name: str) -> bool:
    return name.startswith((LOG, CHECKPOINTS))


@pytest.fixture
def whole(copied) -> set[str]:
    """What is left after an upkeep that nothing disturbs, but for the log."""
    folder = copied()
    upkeep(FolderStore(folder))
    return {name for name in objects(folder) if not is_of_the_log(name)}


def dooming_slots(folder: Path) -> dict[str, str]:
    """Which slot of the log dooms an object."""
    found = {}
    for path in sorted(folder.glob(f"{LOG}*")):
        body = documents.decode(path.read_bytes(), Entry, path.name).body
        if isinstance(body, DoomEntry):
            found |= dict.fromkeys(body.objects, f"{LOG}{path.name}")
    return found


def test_nothing_goes_before_the_log_dooms_it(copied) -> None:
    """In the order of the calls themselves; packs and indexes are among what the first entry dooms."""
    folder = copied()
    store = FaultyStore(FolderStore(folder), no_fault)
    upkeep(store)
    doomed_by = dooming_slots(folder)
    deleted: list[str] = []
    entries: set[str] = set()
    for method, name in store.calls:
        if method == "create" and name.startswith(LOG):
            entries.add(name)
        elif method == "delete" and not name.startswith(CHECKPOINTS):
            assert doomed_by[name] in entries, name
            deleted.append(name)
    first = min(doomed_by.values())
    gone = [name for name in deleted if doomed_by[name] == first]
    assert any(map(layout.is_pack, gone)), gone
    assert any(map(layout.is_index, gone)), gone
    assert len(set(doomed_by.values())) > 1
    assert not doomed_by.keys() & objects(folder)


@more_in_ci
def test_killed_in_any_call(grown, copied, whole) -> None:
    calls = calls_of_upkeep(copied())
    assert calls > 50
    deaths = [Death(number, moment) for number in range(calls) for moment in Moment]
    died = 0
    played = chosen("upkeep killed", deaths, by_default=14, in_ci=100)
    for death in played:
        folder = copied()
        process = PROCESSES.Process(target=Order(folder, death).carry_out)
        process.start()
        process.join(60)
        # Names are random, and by their order a prune may need a call less: then it ends before its death.
        assert process.exitcode in (-signal.SIGKILL, 0), death
        died += process.exitcode != 0
        require_that_nothing_was_lost(folder, grown[1], whole)
    assert died > len(played) * 0.8


@more_in_ci
@pytest.mark.parametrize(
    ("error", "moment"), [(LOST, Moment.AFTER), (LOST, Moment.BEFORE), (FULL, Moment.BEFORE)]
)
def test_any_call_fails(grown, copied, whole, error, moment) -> None:
    calls = range(calls_of_upkeep(copied()))
    for number in chosen(f"upkeep {error} {moment}", calls, by_default=4, in_ci=40):
        folder = copied()
        store = FaultyStore(FolderStore(folder), fail_call(number, moment, error))
        try:
            upkeep(store)
        except VsaError as failed:
            assert str(error) in str(failed)
        require_that_nothing_was_lost(folder, grown[1], whole)


@more_in_ci
@pytest.mark.parametrize("method", ["create", ""], ids=["a disk stays full", "media stays away"])
def test_every_call_fails_from_one_on(grown, copied, whole, method) -> None:
    calls = range(calls_of_upkeep(copied()))
    for number in chosen(f"upkeep from one on {method}", calls, by_default=3, in_ci=6):
        folder = copied()
        store = FaultyStore(FolderStore(folder), fail_from(number, FULL, method=method))
        try:
            upkeep(store)
        except VsaError as failed:
            assert str(FULL) in str(failed)
        require_that_nothing_was_lost(folder, grown[1], whole)
