"""A job of a world in a process of its own, which may die without harm to the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.engine.world import PROXIES, World, connection_to
from tests.processes import PROCESSES
from vsa.media.folder import FolderStore
from vsa.media.media import Media
from vsa.media.store import Store
from vsa.model import Method
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob


def as_it_is(store: Store) -> Store:
    return store


@dataclass(frozen=True)
class Order:
    """What the process makes its job of: it shares no connection and no open media with the tests."""

    act: Callable[[BackupJob], Any]
    kind_of_job: type[BackupJob]
    id: str
    scratch: Path
    endpoint: dict[str, str]
    media: str
    vms: tuple[str, ...]
    around: Callable[[Store], Store]
    by: Method | None

    def carry_out(self) -> None:
        job = self.kind_of_job(
            self.id,
            subclient=Subclient(name="tests", vms=self.vms),
            connection=connection_to(self.endpoint),
            media=Media(self.around(FolderStore(Path(self.media))), write=True),
            proxies=PROXIES,
            scratch=self.scratch,
            method=self.by,
        )
        self.act(job)


def in_another_process(
    world: World,
    act: Callable[[BackupJob], Any],
    *,
    kind_of_job: type[BackupJob] = BackupJob,
    around: Callable[[Store], Store] = as_it_is,
    by: Method | None = None,
) -> BaseProcess:
    """Start a process that makes the world's next job and acts on it; all types are found by their names.

    `around` wraps the store of the world's media; `by` overrides the subclient's method.
    """
    identity, scratch = world.begin_job()
    order = Order(
        act=act,
        kind_of_job=kind_of_job,
        id=identity,
        scratch=scratch,
        endpoint=world.control.endpoint,
        media=world.media.location,
        vms=tuple(world.vms),
        around=around,
        by=by,
    )
    process = PROCESSES.Process(target=order.carry_out)
    process.start()
    return process
