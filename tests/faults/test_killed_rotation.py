"""Whoever exchanges the key of sealed media dies in any call to its store, or finds it full or away from one
on: some key opens it. (F27, F62)"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.faults.dying_store import Death
from tests.media.faulty_store import FaultyStore, Moment, fail_from, no_fault
from tests.media.making import NOW, a_key, back_up, media_in, new_media, noise, read_point
from tests.processes import PROCESSES
from tests.soak import chosen, more_in_ci
from vsa.errors import MediaUnusable, WrongKey
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.store import Store
from vsa.upkeep.rotation import plan_rotation, rotate_key

OLD, NEW = "correct horse battery staple", "another passphrase"


def rotate(store: Store) -> None:
    media, old, new = media_in(store, key=a_key(OLD)), a_key(OLD), a_key(NEW)
    rotate_key(media, old, new, plan_rotation(media, old, new), now=NOW, random=os.urandom)


def rotate_and_die(folder: Path, death: Death) -> None:
    rotate(death.store(FolderStore(folder)))


def opens(folder: Path, words: str) -> bool:
    try:
        Media.open(str(folder), wrapping=a_key(words)).view()
    except WrongKey:
        return False
    return True


def calls_of_a_rotation(made: Path) -> int:
    folder = made.with_name("counted")
    shutil.copytree(made, folder)
    store = FaultyStore(FolderStore(folder), no_fault)
    rotate(store)
    return len(store.calls)


def require_a_key_that_opens(folder: Path, case: object) -> None:
    """And that a rotation, undisturbed, leaves the new one alone."""
    working = [words for words in (OLD, NEW) if opens(folder, words)]
    assert working, f"nothing opens the media after {case}"
    for words in working:
        assert read_point(Media.open(str(folder), wrapping=a_key(words)), 0) == {0: noise(0)}
    if OLD in working:
        rotate(FolderStore(folder))
    assert [words for words in (OLD, NEW) if opens(folder, words)] == [NEW]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Sealed media with one point, in slot 0."""
    back_up(new_media(tmp_path / "made", key=a_key(OLD)), {0: noise(0)}, run="r1", scratch=tmp_path)
    return tmp_path / "made"


@more_in_ci
def test_rotation_killed_in_any_call_leaves_a_key_that_opens(made: Path, tmp_path: Path) -> None:
    deaths = [Death(number, moment) for number in range(calls_of_a_rotation(made)) for moment in Moment]
    for number, death in enumerate(chosen("rotation killed", deaths, by_default=4, in_ci=len(deaths))):
        folder = tmp_path / f"media-{number}"
        shutil.copytree(made, folder)
        process = PROCESSES.Process(target=rotate_and_die, args=(folder, death))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, death
        require_a_key_that_opens(folder, death)


@pytest.mark.parametrize("method", ["create", ""], ids=["a disk stays full", "media stays away"])
def test_rotation_that_every_call_fails_from_one_on_leaves_a_key_that_opens(
    made: Path, tmp_path: Path, method: str
) -> None:
    error = MediaUnusable("the file system is full, or away")
    for number in range(calls_of_a_rotation(made)):
        folder = tmp_path / f"media-{number}"
        shutil.copytree(made, folder)
        try:
            rotate(FaultyStore(FolderStore(folder), fail_from(number, error, method=method)))
        except MediaUnusable as failed:
            assert str(error) in str(failed)
        else:
            assert not opens(folder, OLD), number
        require_a_key_that_opens(folder, number)
