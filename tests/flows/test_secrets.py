"""No secret leaves the engine: not in logs at DEBUG, nor in Prefect's home, nor on the media."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.azsim_process import AzsimProcess
from tests.flows.job_process import Job
from tests.flows.prefect_server import PrefectServer
from tests.flows.site import Site, managed, unmanaged
from vsa.media.wrapping import Passphrase
from vsa.secret import Secret

EVERYTHING = {
    "PREFECT_LOGGING_LEVEL": "DEBUG",
    "PREFECT_LOGGING_ROOT_LEVEL": "DEBUG",
    # These go to the server as well, so that its database holds what they say.
    "PREFECT_LOGGING_EXTRA_LOGGERS": "azure,msal,urllib3",
}

PASSPHRASE = "canary of a passphrase"

# Every bearer token of the simulation begins with this, the base64 of {"typ": "JWT", "alg": "HS256"}.
TOKEN = "eyJ0eXAiOiAiSldUIiwgImFsZyI6ICJIUzI1NiJ9"
# A signature in a URL, also where the URL is part of another. Masks are none, nor is the word SIGNATURE,
# which an example in the schema of one of Prefect's own blocks has there.
SIGNATURE = re.compile(rb"(?i)\bsig(?:=|%(?:25)*3D)(?!REDACTED|SIGNATURE)[\w%+/-]{8,}")


@pytest.fixture
def finished(
    site: Site, simulation: AzsimProcess, prefect_server: PrefectServer
) -> Iterator[tuple[Job, set[str]]]:
    """A job of many words, and the secrets that went through it.

    Managed and premium disks, so grants and account keys; one grant ended in mid-read, one disk refused.
    """
    account = f"{site.name}premium"
    site.add_account(account, "Premium_LRS")
    site.add_vm("web", [managed("web-os"), managed("web-data")])
    site.add_vm("legacy", [unmanaged("legacy-os", account)])
    site.seal(Passphrase(Secret(PASSPHRASE)))
    site.save_blocks(opened_by={"passphrase": PASSPHRASE})
    control = site.control
    control.add_fault("expire_access", plane="blob", header="x-ms-range")
    control.add_fault(
        "status",
        status=409,
        code="Conflict",
        path=f"{site.snapshots_path('web-data')}/beginGetAccess",
        times=None,
    )
    job = Job(site, prefect_server, with_server=False, **EVERYTHING)
    try:
        assert job.wait() == 3, job.logged[-3000:]
    finally:
        job.end()
    assert job.printed.startswith("Completed with errors: 1 of 2 VMs have a recovery point.\nweb: ")
    yield job, {PASSPHRASE, simulation.client_secret, *_grants_and_keys(simulation.state_dir)}


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


def test_no_secret_is_in_any_output_database_or_media(finished: tuple[Job, set[str]]) -> None:
    job, secrets = finished
    assert "urllib3" in job.logged, "the libraries below were to speak"
    assert "REDACTED" in job.logged, "and to say what had to be masked"
    assert "urllib3.connectionpool" in _logged_to_server(job.home)

    leaks = [
        f"{path.relative_to(job.site.folder)}: {found[:80]!r}"
        for path in _files(job.site)
        for found in _secrets_in(path.read_bytes(), secrets)
    ]

    assert leaks == []


def _logged_to_server(home: Path) -> set[str]:
    with closing(sqlite3.connect(home / "prefect.db")) as database:
        return {name for (name,) in database.execute("SELECT DISTINCT name FROM log")}


def _files(site: Site) -> list[Path]:
    """Media, Prefect's home with its database and that database's journal, scratch space, outputs."""
    found = [path for path in site.folder.rglob("*") if path.is_file() and path.suffix != ".img"]
    names = {path.name for path in found}
    assert {"media.json", "prefect.db", "stdout", "stderr"} <= names
    return found


def _secrets_in(data: bytes, secrets: set[str]) -> Iterator[bytes]:
    once = {quote(secret, safe="") for secret in secrets}
    twice = {quote(form, safe="") for form in once}
    canaries = {form.encode() for form in secrets | once | twice | {TOKEN}}
    yield from (canary for canary in canaries if canary in data)
    yield from (found[0] for found in SIGNATURE.finditer(data))
