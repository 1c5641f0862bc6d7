"""Real traffic of Azure, sent again to the simulation: what it answers must be what Azure answered.

Compared are status, error code, every header but the volatile ones, and the body: bytes of data, page
lists and listings, with the times, ETags and ids of the recording replaced by those of the replay.
"""

from __future__ import annotations

import datetime as dt
import http.client
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from tests.azsim.blob_server import ACCOUNT, PREMIUM, BlobServer, running, with_accounts

_ROOT = Path(__file__).parents[2]
_FOLDER = Path(os.environ.get("AZURE_VSA_RECORDINGS", _ROOT.parent / "shared" / "recordings")) / "blob"
_SESSIONS = sorted(_FOLDER.glob("*.yaml"))
_ACCOUNTS = {"storagename": ACCOUNT, "premiumstoragename": PREMIUM}

_NOT_SENT = {"connection", "user-agent", "x-ms-date", "host", "content-length", "authorization"}
# Transport and identity of one exchange. Vary comes and goes between recordings of the same operation.
_VOLATILE = {
    "connection",
    "content-length",
    "date",
    "transfer-encoding",
    "vary",
    "x-ms-client-request-id",
    "x-ms-request-id",
}
_TIMES = re.compile(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
_SNAPSHOT_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")

pytestmark = [
    pytest.mark.recordings,
    pytest.mark.skipif(not _SESSIONS, reason=f"no recordings in {_FOLDER}; set AZURE_VSA_RECORDINGS"),
]


@dataclass
class Replay:
    """One session against one server; `known` maps ids of the recording to those of the replay."""

    server: BlobServer
    sas: str
    known: dict[str, str] = field(default_factory=dict)

    def send(self, request: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
        url = urlsplit(request["uri"])
        account = _ACCOUNTS[url.netloc.split(".")[0]]
        self._make_container(account, url)
        sent = {name: values[0] for name, values in request["headers"].items()}
        sent_at = parsedate_to_datetime(sent["x-ms-date"])
        headers = {
            name: self._shifted(self._now_named(text), sent_at)
            for name, text in sent.items()
            if name.lower() not in _NOT_SENT
        }
        if "x-ms-copy-source" in headers:
            source = urlsplit(headers["x-ms-copy-source"]).path
            headers["x-ms-copy-source"] = f"{self.server.origin}/{ACCOUNT}{source}?{self.sas}"
        connection = http.client.HTTPConnection(urlsplit(self.server.origin).netloc, timeout=30)
        query = self._now_named(unquote(url.query)).replace(":", "%3A").replace(",", "%2C")
        body = _bytes(request["body"])
        connection.request(
            request["method"],
            f"/{account}{url.path}?{query}{'&' if query else ''}{self._sas_of(account)}",
            body=body,
            headers=headers | {"Content-Length": str(len(body))},
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, content

    def learn(self, recorded: dict[str, str], answered: dict[str, str]) -> None:
        for name in ("x-ms-snapshot", "etag", "x-ms-lease-id", "x-ms-copy-id"):
            if name in recorded and name in answered:
                self.known[recorded[name].strip('"')] = answered[name].strip('"')

    def _now_named(self, text: str) -> str:
        for recorded, answered in self.known.items():
            text = text.replace(recorded, answered)
        return text

    def _shifted(self, text: str, sent_at: dt.datetime) -> str:
        """Dates of conditions keep their distance to the moment of sending."""
        distance = self.server.clock.now().replace(microsecond=0) - sent_at

        def move(found: re.Match[str]) -> str:
            return format_datetime(parsedate_to_datetime(found[0]) + distance, usegmt=True)

        return _TIMES.sub(move, text)

    def expected(self, text: str) -> str:
        return _TIMES.sub("<time>", self._now_named(text))

    def _sas_of(self, account: str) -> str:
        return _account_sas(self.server, account)

    def _make_container(self, account: str, url: Any) -> None:
        name = url.path.strip("/").split("/")[0]
        if not name or url.query == "restype=container":
            return
        container = self.server.client(account).get_container_client(name)
        if not container.exists():
            container.create_container()


def _account_sas(server: BlobServer, account: str) -> str:
    everything = AccountSasPermissions(
        read=True, write=True, delete=True, list=True, add=True, create=True, update=True, process=True
    )
    expiry = server.clock.now() + dt.timedelta(hours=1)
    scope = ResourceTypes(service=True, container=True, object=True)
    return generate_account_sas(account, server.key(account), scope, everything, expiry)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobServer]:
    with running(tmp_path_factory.mktemp("azsim")) as started:
        yield with_accounts(started)


@pytest.mark.parametrize("session", _SESSIONS, ids=lambda path: path.stem.partition(".")[2])
def test_a_recorded_session_is_answered_as_azure_did(session: Path, server: BlobServer) -> None:
    replay = Replay(server, _account_sas(server, ACCOUNT))
    for number, exchange in enumerate(yaml.safe_load(session.read_text())["interactions"]):
        recorded = exchange["response"]
        headers = {name.lower(): values[0] for name, values in recorded["headers"].items()}
        status, answered, body = replay.send(exchange["request"])
        where = f"request {number}: {exchange['request']['method']} {exchange['request']['uri']}"
        assert (status, answered.get("x-ms-error-code")) == (
            recorded["status"]["code"],
            headers.get("x-ms-error-code"),
        ), where
        replay.learn(headers, answered)
        assert _stable(answered, replay) == _stable(headers, replay), where
        assert _comparable(body, replay) == _comparable(_bytes(recorded["body"]), replay), where


def _bytes(body: Any) -> bytes:
    content = body["string"] if isinstance(body, dict) else body
    return content.encode() if isinstance(content, str) else content or b""


def _stable(headers: dict[str, str], replay: Replay) -> dict[str, str]:
    """The headers that two exchanges of one operation share, times and the source's host left out."""
    kept = {name: replay.expected(text) for name, text in headers.items() if name not in _VOLATILE}
    if "x-ms-copy-source" in kept:
        kept["x-ms-copy-source"] = "/".join(kept["x-ms-copy-source"].split("/")[-2:])
    return kept


def _comparable(body: bytes, replay: Replay) -> bytes | str:
    if not body.startswith(b"\xef\xbb\xbf<?xml"):
        return body
    text = replay.expected(body.decode())
    text = re.sub(r'ServiceEndpoint="[^"]*"', 'ServiceEndpoint=""', text)
    text = re.sub(r"<Message>.*?</Message>", "", text, flags=re.DOTALL)
    return _SNAPSHOT_TIME.sub("<snapshot time>", text)
