"""A recorded session of the real Azure, driven again through the SDK: every answer must look the same."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute import models as m

from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import connect

_ROOT = Path(__file__).parents[2]
_FOLDER = Path(os.environ.get("AZURE_VSA_RECORDINGS", _ROOT.parent / "shared" / "recordings")) / "arm"
_SESSION = "test_mgmt_compute_disks.test_compute_disks.json"
_GROUP, _DISK = "rgname", "disknamex77f61175"
# Compression and connection handling, which differ between servers without a client noticing.
_TRANSPORT_HEADERS = {"content-length", "transfer-encoding", "vary", "content-type"}

pytestmark = [
    pytest.mark.recordings,
    pytest.mark.skipif(not (_FOLDER / _SESSION).exists(), reason=f"no recordings in {_FOLDER}"),
]

Exchange = dict[str, Any]


class Tape(SansIOHTTPPolicy[Any, Any]):
    """Keeps every exchange of a client in the form of the recordings."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        sent, got = request.http_request, response.http_response
        if hasattr(got, "read"):
            got.read()
        text = got.text()
        self.exchanges.append(
            {
                "request": {"method": sent.method, "uri": sent.url},
                "response": {
                    "status": got.status_code,
                    "headers": {name.lower(): [value] for name, value in got.headers.items()},
                    "body": json.loads(text) if text else "",
                },
            }
        )


def recorded() -> list[Exchange]:
    exchanges: list[Exchange] = json.loads((_FOLDER / _SESSION).read_text())
    return exchanges


def the_session(compute: ComputeManagementClient) -> None:
    """What the recorded test did."""
    disks = compute.disks
    creation = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 200}
    disks.begin_create_or_update(_GROUP, _DISK, {"location": "eastus", "properties": creation}).result()
    disks.get(_GROUP, _DISK)
    disks.begin_update(_GROUP, _DISK, {"properties": {"diskSizeGB": 200}}).result()
    access = m.GrantAccessData(access="Read", duration_in_seconds=1800)
    disks.begin_grant_access(_GROUP, _DISK, access).result()
    disks.begin_revoke_access(_GROUP, _DISK).result()
    disks.begin_delete(_GROUP, _DISK).result()


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Exchange]]:
    with AzsimProcess(tmp_path_factory.mktemp("replay"), poll_count=0) as process:
        azure = connect(process)
        seed = {"name": "seed", "resource_group": _GROUP, "size": 512}
        process.control.create_fleet({"disks": [seed]})
        tape = Tape()
        with ComputeManagementClient(
            azure.credential,
            process.endpoint["subscription"],
            base_url=azure.base_url,
            credential_scopes=[f"{azure.base_url}/.default"],
            connection_verify=azure.ca,
            polling_interval=0,
            per_call_policies=[tape],
        ) as compute:
            the_session(compute)
        azure.close()
        yield tape.exchanges


def without_chance(value: Any) -> Any:
    """Replace what is different in every run: identifiers, times, SAS URLs, versions, hosts."""
    if isinstance(value, dict):
        return {name: without_chance(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_chance(each) for each in value]
    if not isinstance(value, str):
        return value
    value = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "GUID", value)
    value = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", "TIME", value)
    return re.sub(r"api-version=[\d-]+", "api-version=ANY", value)


def address(exchange: Exchange) -> tuple[str, str]:
    parts = urlsplit(exchange["request"]["uri"])
    monitored = " monitor" if "monitor=true" in parts.query else ""
    return exchange["request"]["method"], without_chance(parts.path) + monitored


def test_the_same_requests_get_the_same_status(replayed: list[Exchange]) -> None:
    ours = [(*address(each), each["response"]["status"]) for each in replayed]
    real = [(*address(each), each["response"]["status"]) for each in recorded()]
    assert ours == real


@pytest.mark.parametrize("number", range(15))
def test_bodies_are_alike(replayed: list[Exchange], number: int) -> None:
    ours, real = (without_chance(each[number]["response"]["body"]) for each in (replayed, recorded()))
    for body in (ours, real):
        if "accessSAS" in body:
            body["accessSAS"] = "URL"
        output = body.get("properties", {}).get("output", {}) if isinstance(body, dict) else {}
        if "accessSAS" in output:
            output["accessSAS"] = "URL"
    assert ours == real


@pytest.mark.parametrize("number", range(15))
def test_headers_are_alike(replayed: list[Exchange], number: int) -> None:
    ours, real = (each[number]["response"]["headers"] for each in (replayed, recorded()))
    assert set(real) - _TRANSPORT_HEADERS <= set(ours)
    assert "retry-after" not in ours
    for name in ("azure-asyncoperation", "location"):
        if name in real:
            got, want = (urlsplit(without_chance(each[name][0])) for each in (ours, real))
            assert (got.path, got.query) == (want.path, want.query)
        else:
            assert name not in ours
