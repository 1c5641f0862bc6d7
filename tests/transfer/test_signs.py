"""A job says now and then that its runs go on; that it could not is no reason to stop."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import NOW, media_in, new_media
from tests.media.test_signs import newest
from vsa.errors import TryAgainLater
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.signs import Sign
from vsa.transfer.signs import SignsOfLife


def last(media: Media, run: str) -> int | None:
    sign = newest(media, run)
    return sign.number if sign else None


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "signs of life"]


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_first_sign_comes_with_the_run_and_none_after_its_end(tmp_path: Path) -> None:
    media = new_media(tmp_path / "media")
    signs = SignsOfLife(media, now=lambda: NOW, every_seconds=77)
    signs.begin("one")
    signs.begin("one")
    assert newest(media, "one") == Sign(run="one", number=0, at=NOW, every_seconds=77)
    signs.begin("two")
    signs.give()
    signs.end("one")
    signs.end("one")
    signs.give()
    assert (last(media, "one"), last(media, "two")) == (1, 2)
    signs.end("two")
    signs.give()
    assert (last(media, "one"), last(media, "two")) == (1, 2)


def test_signs_are_given_by_themselves_until_no_run_is_open(tmp_path: Path) -> None:
    media = new_media(tmp_path / "media")
    signs = SignsOfLife(media, now=lambda: NOW, every_seconds=1)
    others = threads()
    for _ in range(2):
        signs.begin("one")
        began = last(media, "one") or 0
        while (last(media, "one") or 0) < began + 1:
            time.sleep(0.05)
        (mine,) = [thread for thread in threads() if thread not in others]
        signs.end("one")
        mine.join(30)
        assert not mine.is_alive()


def first_is_lost(moment: Moment, _number: int, _method: str, name: str) -> tuple[Moment, Exception] | None:
    return (moment, TryAgainLater("no answer")) if name.endswith("/alive/00000000.json") else None


def test_a_sign_that_could_not_be_given_costs_nothing_but_its_number(tmp_path: Path) -> None:
    new_media(tmp_path / "media")
    for moment, kept in ((Moment.BEFORE, [1]), (Moment.AFTER, [0, 1])):
        store = FaultyStore(FolderStore(tmp_path / "media"), partial(first_is_lost, moment))
        signs = SignsOfLife(media_in(store), now=lambda: NOW)
        run = f"run-{moment.value}"
        signs.begin(run)
        signs.give()
        signs.end(run)
        names = sorted((tmp_path / "media" / "runs" / run / "alive").iterdir())
        assert [int(path.stem) for path in names] == kept


def first_fails_twice(_number: int, _method: str, name: str) -> tuple[Moment, Exception] | None:
    return (Moment.BEFORE, MemoryError()) if name.endswith(("/00000000.json", "/00000001.json")) else None


def test_an_error_of_any_kind_ends_no_thread(tmp_path: Path) -> None:
    new_media(tmp_path / "media")
    media = media_in(FaultyStore(FolderStore(tmp_path / "media"), first_fails_twice))
    signs = SignsOfLife(media, now=lambda: NOW, every_seconds=1)
    signs.begin("one")
    wait_for(lambda: last(media, "one") is not None)
    signs.end("one")


def test_a_thread_that_does_not_start_fails_no_job_and_is_started_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    media = new_media(tmp_path / "media")
    signs = SignsOfLife(media, now=lambda: NOW, every_seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        signs.begin("one")
    assert last(media, "one") == 0
    signs.begin("two")
    wait_for(lambda: last(media, "one") == 1 and last(media, "two") == 1)
    signs.end("one")
    signs.end("two")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_has_died_is_started_again_by_the_next_run(tmp_path: Path) -> None:
    dying = [SystemExit()]

    def now() -> dt.datetime:
        if dying and threading.current_thread().name == "signs of life":
            raise dying.pop()
        return NOW

    media = new_media(tmp_path / "media")
    signs = SignsOfLife(media, now=now, every_seconds=1)
    others = threads()
    signs.begin("one")
    wait_for(lambda: not dying and not [thread for thread in threads() if thread not in others])
    signs.begin("two")
    wait_for(lambda: (last(media, "one") or 0) > 1)
    signs.end("one")
    signs.end("two")
