"""Every flow hears its signals while it waits; tests/tasks/test_signals.py shows how (tasks/signals.py)."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.prune_media import prune_media
from flows.restore_disks import restore_disks
from flows.sweep_leftovers import sweep_leftovers
from flows.verify_media import verify_media
from tests.flows.site import Site, managed
from tests.soak import only_in_ci

LOOK_SECONDS = 0.002


def hears_at_once(process: int) -> bool:
    """Whether a flow of that process hears now: it catches the signal that wakes it."""
    (caught,) = re.findall(r"^SigCgt:\s+(\w+)", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return bool(int(caught, 16) >> (signal.SIGURG - 1) & 1)


@contextmanager
def required_to_hear() -> Iterator[None]:
    """Inside, some flow of this process must hear for some time."""
    heard, over = threading.Event(), threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            if hears_at_once(os.getpid()):
                heard.set()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    assert heard.is_set(), "it is deaf to a signal that comes as it begins to wait"


@only_in_ci
def test_every_flow_hears_while_it_waits(site: Site) -> None:
    site.add_vm("web", [managed("web-os")])
    site.save_blocks()
    with required_to_hear():
        assert site.back_up().is_completed()
    with required_to_hear():
        assert restore_disks(site.name, str(site.folder / "back"), vm="web", return_state=True).is_completed()
    with required_to_hear():
        assert verify_media(site.name, return_state=True).is_completed()
    with required_to_hear():
        assert prune_media(site.name, return_state=True).is_completed()
    with required_to_hear():
        assert sweep_leftovers(site.name, site.name, return_state=True).is_completed()
    assert not hears_at_once(os.getpid())
