"""No secret leaves the engine: not in logs at DEBUG, nor in Prefect's database and home, nor on the media."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from prefect.client.orchestration import get_client

from blocks.proxy import saved_proxies
from demo.installation import DATABASE
from demo.postgresql import postgresql, programs
from deployments.register import register
from tasks.pools import seen_by_prefect
from tests.azsim_process import AzsimProcess
from tests.engine.world import BETWEEN_JOBS
from tests.flows.job_process import Job
from tests.flows.prefect_server import ROOT, PrefectServer, wait_for
from tests.flows.site import PROXIES, Site, managed, unmanaged
from tests.flows.worker import ProxyWorker
from tests.soak import DEPTH, SOAK, only_in_ci
from vsa.media.wrapping import Passphrase
from vsa.model import Reason
from vsa.secret import Secret

EVERYTHING = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    # These go to the server as well, so that its database holds what they say.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "azure,msal,urllib3",
    "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG",
}
# What Prefect keeps of a job, and where: each must hold something, or nothing was looked at.
KEPT = {
    "artifact",
    "artifact_collection",
    "block_document",
    "event_resources",
    "events",
    "flow_run",
    "flow_run_state",
    "log",
    "task_run",
    "task_run_state",
    "variable",
}

OTHER_FLOWS = """
import sys
from flows.prune_media import prune_media
from flows.restore_disks import restore_disks
from flows.sweep_leftovers import sweep_leftovers
from flows.verify_media import verify_media
name, folder = sys.argv[1:]
verify_media(name)
restore_disks(name, folder, vm="web")
prune_media(name)
sweep_leftovers(name, name)
"""

PASSPHRASE = "canary of a passphrase"

# Every bearer token of the simulation begins with this, the base64 of {"typ": "JWT", "alg": "HS256"}.
TOKEN = "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJIUzI1NiJ9"
# A signature in a URL, also where the URL is part of another. Masks are none, nor is the word SIGNATURE,
# which an example in the schema of one of Prefect's own blocks has there.
SIGNATURE = re.compile(rb"(?i)\bsig(?:=|%(?:25)*3D)(?!REDACTED|SIGNATURE)[\w%+/-]{8,}")


@dataclass(frozen=True)
class Finished:
    """A job of many words, the secrets that went through it, and each row of each table of its server."""

    job: Job
    secrets: set[str]
    rows: list[tuple[str, str]]


Rows = Callable[[], Iterable[tuple[str, str]]]


@pytest.fixture(
    params=[False, pytest.param(True, marks=[only_in_ci, pytest.mark.timeout(600)])],
    ids=["in-process", "on-proxies"],
)
def finished(site: Site, simulation: AzsimProcess, request: pytest.FixtureRequest) -> Finished:
    """A job that talked to a server of its own: that of other tests is not at DEBUG.

    With a worker beside it the server is on PostgreSQL, if that is installed: so many words at once keep its
    SQLite from noting that the worker lives.
    """
    programs_in = programs() if request.param else None
    with postgresql(programs_in) if programs_in else nullcontext("") as database:
        where = {DATABASE: database} if database else {}
        server = PrefectServer(site.folder / "server", settings=EVERYTHING | where)
        rows_of = partial(_in_postgresql, database) if database else partial(_in_sqlite, server.database)
        job = _finished_job(site, server, rows_of, on_proxies=request.param)
        rows = list(rows_of())
    secrets = {PASSPHRASE, simulation.client_secret, *_grants_and_keys(simulation.state_dir)}
    return Finished(job, secrets, rows)


def _finished_job(site: Site, server: PrefectServer, rows_of: Rows, *, on_proxies: bool) -> Job:
    """When this returns all of its processes have ended, so that nothing is written any more."""
    with ExitStack() as stack:
        stack.callback(server.stop)
        stack.enter_context(server.start().in_use())
        _prepare(site)
        if on_proxies:
            stack.enter_context(_proxy(server, site.folder))
        job = Job(site, server, with_server=True, in_process=not on_proxies, **EVERYTHING)
        stack.callback(job.end)
        assert job.wait(400) == 3, job.logged[-3000:]
        wait_for(
            "events on the server",
            lambda: any("prefect.artifact.created" in text for table, text in rows_of() if table == "events"),
            every=1.0,
        )
        if on_proxies and DEPTH == SOAK:
            _go_on(site, server)
        return job


def _go_on(site: Site, server: PrefectServer) -> None:
    """A job that compares with the bases of the first, then every other flow."""
    site.control.clear_faults()
    site.control.advance_clock(BETWEEN_JOBS)
    _run(site, server, "second-job", "-m", "flows.backup_subclient", site.name)
    _run(site, server, "other-flows", "-c", OTHER_FLOWS, site.name, str(site.folder / "restored"))
    assert {disk.reason for vm in site.reports[-1].vms for disk in vm.disks} >= {Reason.CBT}


def _run(site: Site, server: PrefectServer, name: str, *command: str) -> None:
    with (site.folder / f"{name}.log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, *command],
            env=dict(server.environment(**EVERYTHING)),
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    assert done.returncode == 0, (site.folder / f"{name}.log").read_text()[-3000:]


def _prepare(site: Site) -> None:
    """Managed and premium disks, so grants and account keys; one grant ends in mid-read, one is refused."""
    account = f"{site.name}premium"
    site.add_account(account, "Premium_LRS")
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.add_vm("legacy", [unmanaged("legacy-os", account)])
    site.seal(Passphrase(Secret(PASSPHRASE)))
    site.save_blocks(opened_by={"passphrase": PASSPHRASE})
    site.control.add_fault("expire_access", plane="blob", header="x-ms-range")
    site.control.add_fault(
        "status",
        status=409,
        code="Conflict",
        path=f"{site.snapshots_path('web-data')}/beginGetAccess",
        times=None,
    )


@contextmanager
def _proxy(server: PrefectServer, folder: Path) -> Iterator[None]:
    """A worker for the first of the proxies, which has its child runs say as much as the job does."""
    with get_client(sync_client=True) as client:
        for _ in register(client):
            pass
    worker = ProxyWorker(server, PROXIES[0], folder)
    try:
        wait_for("the worker", _is_usable, seconds=120)
        yield
    finally:
        worker.stop()


def _is_usable() -> bool:
    return any(proxy.name == PROXIES[0] and not proxy.refusal for proxy in seen_by_prefect(saved_proxies()))


def _grants_and_keys(state: Path) -> Iterator[str]:
    with closing(sqlite3.connect(state / "documents.sqlite")) as database:
        rows = database.execute("SELECT kind, body FROM documents").fetchall()
    bodies = [(kind, json.loads(body)) for kind, body in rows]
    grants = [body["signature"] for kind, body in bodies if kind == "disk-access"]
    keys = [key for _, body in bodies if isinstance(body.get("keys"), list) for key in body["keys"]]
    assert grants
    assert keys
    yield from grants
    yield from keys


def test_no_secret_is_in_any_output_table_file_or_media(finished: Finished) -> None:
    job, rows = finished.job, finished.rows
    folder = job.site.folder
    assert job.printed.startswith("Completed with errors: 1 of 2 VMs have a recovery point.\n")
    assert "urllib3" in job.logged, "the libraries below were to speak"
    assert "REDACTED" in job.logged, "and to say what had to be masked"
    assert {table for table, _ in rows} >= KEPT
    assert any("urllib3.connectionpool" in text for table, text in rows if table == "log")

    places = [(str(path.relative_to(folder)), path.read_bytes()) for path in _files(folder)]
    places += [(f"table {table}", text.encode()) for table, text in rows]
    leaks = [
        f"{place}: {found[:80]!r}" for place, data in places for found in _secrets_in(data, finished.secrets)
    ]

    assert not leaks, "\n".join(leaks)


def _in_sqlite(database: Path) -> Iterator[tuple[str, str]]:
    """Every row of every table. The file has long values in pieces, where a secret may be cut in two."""
    with closing(sqlite3.connect(database)) as opened:
        tables = opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            yield from ((table, repr(row)) for row in opened.execute(f'SELECT * FROM "{table}"'))


def _in_postgresql(url: str) -> list[tuple[str, str]]:
    """The same of a server's database on PostgreSQL."""
    return asyncio.run(_rows_of(url.replace("+asyncpg", "")))


async def _rows_of(url: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return [
            (table, repr(tuple(row)))
            for (table,) in tables
            for row in await connection.fetch(f'SELECT * FROM "{table}"')
        ]
    finally:
        await connection.close()


def _files(folder: Path) -> list[Path]:
    """Media, Prefect's homes with databases and journals, stored results, scratch space, outputs, logs."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".img"]
    assert {path.name for path in found} >= {"media.json", "server.log", "stdout", "stderr"}
    return found


def _secrets_in(data: bytes, secrets: set[str]) -> Iterator[bytes]:
    once = {quote(secret, safe="") for secret in secrets}
    twice = {quote(form, safe="") for form in once}
    canaries = {form.encode() for form in secrets | once | twice | {TOKEN}}
    yield from (canary for canary in canaries if canary in data)
    yield from (found[0] for found in SIGNATURE.finditer(data))
