"""A process of the engine that has been told what to measure, up to the first byte that is read.

Everything is as in a job but Prefect: discovery, disks, snapshot, grant, lists, packs, index, log entry. What
a measurement changes of the engine, in its own process and nowhere else, is here as well.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.meter import cpu_seconds
from demo.endpoint import connection_to
from vsa import fault_points
from vsa.azure import grants
from vsa.azure.connection import AzureConnection
from vsa.media.media import Media
from vsa.media.pack import PackBuilder
from vsa.media.wrapping import KeyFile
from vsa.model import DiskBackup, Method, SnapshotRef, SourceDisk
from vsa.secret import Secret
from vsa.subclient import Subclient
from vsa.transfer.backup_job import BackupJob
from vsa.transfer.order import StreamOrder
from vsa.transfer.proxies import Proxy
from vsa.transfer.runs import Run

_PROXY = Proxy(name="bench")
_POLLING_SECONDS = 0.01
"""The engine's own two seconds would say nothing of it in what is reported beside the transfer."""


@dataclass(frozen=True)
class Task:
    """What a process is to do. Paths are absolute; `plain` and `tls` are where bytes are read."""

    azure: str
    """azsim's state folder."""
    media: str
    vm: str
    scratch: str
    servers: list[int]
    method: str = "cbt"
    new_media: bool = False
    key_file: str = ""
    """What seals the media; empty: it is not sealed."""
    tls: str = ""
    plain: str = ""
    """Read there instead of at `tls`, without TLS."""
    unchecked: bool = False
    """Leave out the decode check before a pack is stored."""
    warm_vm: str = ""
    """A small VM that the process backs up twice before it begins, as one that has been running has."""
    most: int = 0
    """Bytes to read, where only reading is measured."""
    ours_first: bool = True

    @classmethod
    def read(cls, path: str) -> Task:
        return cls(**json.loads(Path(path).read_text()))


@dataclass
class Marks:
    """Moments of a process: wall, its CPU seconds, and those of the servers."""

    servers: list[int]
    moments: dict[str, tuple[float, float, float]] = field(default_factory=dict)

    def mark(self, name: str) -> None:
        self.moments[name] = (time.perf_counter(), time.process_time(), cpu_seconds(self.servers))

    def between(self, first: str, last: str) -> dict[str, float]:
        begin, end = self.moments[first], self.moments[last]
        names = ("wall", "cpu", "servers")
        return {name: round(after - before, 4) for name, before, after in zip(names, begin, end, strict=True)}


@dataclass(frozen=True)
class Prepared:
    """A disk with its snapshot, and who may read it."""

    job: BackupJob
    run: Run
    disk: SourceDisk
    snapshot: SnapshotRef

    @property
    def order(self) -> StreamOrder:
        return self.job.order(self.run, self.disk, self.snapshot, None, _PROXY.name)

    def carry(self) -> tuple[DiskBackup, int]:
        """The stream and the commit; what was stored, and the point's slot."""
        backup = self.job.stream(self.order)
        return backup, self.job.commit(self.run, [backup])


def connect(task: Task) -> AzureConnection:
    endpoint: dict[str, Any] = json.loads((Path(task.azure) / "endpoint.json").read_text())
    return connection_to(endpoint, polling_seconds=_POLLING_SECONDS)


def open_media(task: Task) -> Media:
    key = KeyFile.read(Path(task.key_file)) if task.key_file else None
    if task.new_media:
        return Media.create(task.media, now=dt.datetime.now(dt.UTC), wrapping=key)
    return Media.open(task.media, write=True, wrapping=key)


def prepare(
    connection: AzureConnection,
    media: Media,
    vm: str,
    *,
    method: str,
    scratch: Path,
    ready: Callable[[], None],
) -> Prepared:
    """A job of one VM with one disk, up to its snapshot; `ready` is called before that is asked for."""
    scratch.mkdir(parents=True, exist_ok=True)
    job = BackupJob(
        os.urandom(8).hex(),
        subclient=Subclient(name="bench", vms=(vm,)),
        connection=connection,
        media=media,
        proxies=(_PROXY,),
        scratch=scratch,
        method=Method(method),
    )
    discovery = job.discover()
    job.record_clients(discovery)
    disks = job.identify_disks(job.identify_targets(discovery).vms[0])
    ready()
    run = job.new_run(disks)
    return Prepared(job, run, disks.disks[0], job.create_snapshots(run)[0])


def warm_up(connection: AzureConnection, task: Task) -> None:
    """Two backups of a small VM to media of their own: everything is imported, and connections are open."""
    folder = Path(task.scratch) / "warm"
    folder.mkdir(parents=True)
    media = Media.create(str(folder / "media"), now=dt.datetime.now(dt.UTC))
    for _ in range(2):
        prepared = prepare(
            connection, media, task.warm_vm, method="cbt", scratch=folder / "scratch", ready=lambda: None
        )
        prepared.carry()
        prepared.job.release(prepared.run)


def watch(points: dict[fault_points.FaultPoint, str], marks: Marks) -> None:
    """Mark the moments at which the engine passes these points."""

    def passed(point: fault_points.FaultPoint) -> None:
        if point in points and points[point] not in marks.moments:
            marks.mark(points[point])

    fault_points.install(passed)


def watch_revocation(marks: Marks) -> None:
    """Mark when access to a snapshot, which is that to the base, is ended."""
    revoke = grants.revoke

    def revoking(*what: Any) -> None:
        marks.mark("revoking")
        revoke(*what)
        marks.mark("revoked")

    _replace(grants, "revoke", revoking)


def alter(task: Task) -> None:
    """What the task wants otherwise than the engine does it, for this process alone.

    Without TLS the engine reads nothing: its insistence is lifted. It has no switch for the check either.
    """
    if task.plain:
        _replace(grants, "_https", lambda url, _name: Secret(url.replace(task.tls, task.plain, 1)))
    if task.unchecked:
        _replace(PackBuilder, "_prove", lambda _self, _data: None)


def _replace(owner: Any, name: str, by: Callable[..., Any]) -> None:
    if not hasattr(owner, name):
        raise AttributeError(
            f"{owner.__name__} has no {name} any more: tell bench/engine.py how it is done now"
        )
    setattr(owner, name, by)
