"""Whoever exchanges the key of sealed media dies in any call to its store: some key opens it. (F62)"""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.faults.dying_store import Death
from tests.media.faulty_store import FaultyStore, Moment, no_fault
from tests.media.making import NOW, a_key, back_up, media_in, new_media, noise, read_point
from tests.processes import PROCESSES
from tests.soak import chosen, more_in_ci
from vsa.errors import WrongKey
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


@more_in_ci
def test_rotation_killed_in_any_call_leaves_a_key_that_opens(tmp_path: Path) -> None:
    slot = back_up(new_media(tmp_path / "made", key=a_key(OLD)), {0: noise(0)}, run="r1", scratch=tmp_path)
    shutil.copytree(tmp_path / "made", tmp_path / "counted")
    counted = FaultyStore(FolderStore(tmp_path / "counted"), no_fault)
    rotate(counted)
    deaths = [Death(number, moment) for number in range(len(counted.calls)) for moment in Moment]
    for number, death in enumerate(chosen("rotation killed", deaths, by_default=4, in_ci=100)):
        folder = tmp_path / f"media-{number}"
        shutil.copytree(tmp_path / "made", folder)
        process = PROCESSES.Process(target=rotate_and_die, args=(folder, death))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, death
        working = [words for words in (OLD, NEW) if opens(folder, words)]
        assert working, f"nothing opens the media after {death}"
        for words in working:
            assert read_point(Media.open(str(folder), wrapping=a_key(words)), slot) == {0: noise(0)}
        if OLD in working:
            rotate(FolderStore(folder))
        assert [words for words in (OLD, NEW) if opens(folder, words)] == [NEW]
