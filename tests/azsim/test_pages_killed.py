"""A process killed while it writes leaves a page store with every act that it had reported as done."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azsim.documents import Documents
from azsim.pages import PAGE, PageStore, Range

_PAGES = 4096
_WRITER = """
import random, sys
from pathlib import Path
from azsim.documents import Documents
from azsim.pages import PAGE, PageStore
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
store = PageStore(folder / "pages", Documents(folder / "documents.db"))
chance, image = random.Random(seed), store.create(%d * PAGE)
print("image", image, flush=True)
for number in range(10**6):
    page, act = chance.randrange(%d), chance.random()
    if act < 0.02:
        print("version", store.freeze(image), flush=True)
    elif act < 0.2:
        store.clear(image, page * PAGE, PAGE)
        print("clear", page, flush=True)
    else:
        store.write(image, page * PAGE, number.to_bytes(4, "big") * 128)
        print("write", page, number, flush=True)
""" % (_PAGES, _PAGES)  # noqa: UP031


@pytest.mark.parametrize("seed", range(3))
def test_every_reported_act_survives_sigkill(tmp_path: Path, seed: int) -> None:
    acts = _acts_of_a_killed_writer(tmp_path, seed)
    with contextlib.closing(Documents(tmp_path / "documents.db")) as documents:
        store = PageStore(tmp_path / "pages", documents)
        image, version, expected, since = _replayed(acts)
        assert expected, "the writer was killed before it did anything"
        # The act under way at the kill was not reported: it may have happened or not, on one page.
        wrong = [p for p, data in expected.items() if store.read(image, p * PAGE, PAGE) != data]
        assert len(wrong) <= 1
        if version:
            found = _by_page(list(store.diff(version, image, 0, _PAGES * PAGE)))
            assert sum(found.get(page) != act for page, act in since.items()) <= 1
            assert len(found.keys() - since.keys()) <= 1
        store.close()


def _acts_of_a_killed_writer(folder: Path, seed: int) -> list[list[str]]:
    command = [sys.executable, "-c", _WRITER, str(folder), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        first = writer.stdout.readline()
        time.sleep(random.Random(seed).uniform(0.05, 0.3))
        writer.kill()
        lines = (first + writer.stdout.read()).splitlines(keepends=True)
    return [line.split() for line in lines if line.endswith("\n")]


def _replayed(acts: list[list[str]]) -> tuple[str, str | None, dict[int, bytes], dict[int, bool]]:
    """Image, last reported version, bytes of each touched page, and what was cleared since the version."""
    image, version = acts[0][1], None
    expected: dict[int, bytes] = {}
    since: dict[int, bool] = {}
    for act, *details in acts[1:]:
        if act == "version":
            version, since = details[0], {}
        else:
            page = int(details[0])
            expected[page] = int(details[1]).to_bytes(4, "big") * 128 if act == "write" else bytes(PAGE)
            since[page] = act == "clear"
    return image, version, expected, since


def _by_page(ranges: list[Range]) -> dict[int, bool]:
    return {page: r.cleared for r in ranges for page in range(r.start // PAGE, r.end // PAGE)}
