from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import (
    HttpResponseError,
    IncompleteReadError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.mgmt.compute import models as m

from azsim.control import ControlError
from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect

MIB = 1 << 20
Raw = tuple[int, dict[str, str], bytes]
CONNECTION_LOST = (ServiceRequestError, ServiceResponseError, IncompleteReadError)


@pytest.fixture
def once(azsim_process: AzsimProcess, azure: Azure) -> Any:
    """Clients that do not retry."""
    impatient = connect(azsim_process, retry_total=0)
    yield impatient
    impatient.close()


@pytest.fixture
def url(has_disk: Callable[..., m.Disk], take: Callable[..., m.Snapshot], grant: Callable[..., str]) -> str:
    """The SAS URL of a fresh snapshot."""
    return grant(take(has_disk(), "read"))


def fetch(azure: Azure, url: str, first: int, last: int) -> Raw:
    """One raw range GET; a cut body raises http.client.IncompleteRead."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=azure.ca)
    connection = http.client.HTTPSConnection(str(parts.hostname), parts.port, context=context)
    try:
        path = f"{parts.path}?{parts.query}"
        headers = {"x-ms-range": f"bytes={first}-{last}", "x-ms-version": "2026-10-06"}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def test_a_status_is_answered_instead_of_the_resource(
    once: Azure, group: str, has_disk: Callable[..., m.Disk]
) -> None:
    disk = has_disk()
    fault = once.control.add_fault(
        "status", plane="arm", method="GET", path="/disks/", status=429, code="TooManyRequests", retry_after=7
    )
    with pytest.raises(HttpResponseError) as caught:
        once.compute.disks.get(group, disk.name)
    assert caught.value.status_code == 429
    assert caught.value.error is not None
    assert caught.value.error.code == "TooManyRequests"
    assert caught.value.response is not None
    assert caught.value.response.headers["retry-after"] == "7"
    assert once.control.fired(fault) == 1
    assert once.compute.disks.get(group, disk.name).name == disk.name


def test_the_sdk_gets_through_a_passing_throttle(
    azure: Azure, group: str, has_disk: Callable[..., m.Disk]
) -> None:
    disk = has_disk()
    fault = azure.control.add_fault(
        "status", path=f"/disks/{disk.name}", times=2, status=429, code="TooManyRequests", retry_after=0
    )
    assert azure.compute.disks.get(group, disk.name).name == disk.name
    assert azure.control.fired(fault) == 2


def test_a_blob_error_is_xml(azure: Azure, url: str) -> None:
    azure.control.add_fault("status", plane="blob", status=503, code="ServerBusy", message="busy & slow")
    status, headers, body = fetch(azure, url, 0, 511)
    assert (status, headers["x-ms-error-code"]) == (503, "ServerBusy")
    assert b"<Code>ServerBusy</Code><Message>busy &amp; slow</Message>" in body


def test_a_cut_before_leaves_no_effect_and_a_cut_after_does(
    once: Azure, group: str, has_disk: Callable[..., m.Disk]
) -> None:
    disk = has_disk()
    for when in ("before", "after"):
        once.control.add_fault("cut", plane="arm", method="DELETE", path=f"/disks/{disk.name}", when=when)
        with pytest.raises(CONNECTION_LOST):
            once.compute.disks.begin_delete(group, disk.name)
        if when == "before":
            assert once.compute.disks.get(group, disk.name).id == disk.id
    with pytest.raises(ResourceNotFoundError):
        once.compute.disks.get(group, disk.name)


def test_an_error_after_the_effect(once: Azure, group: str, has_disk: Callable[..., m.Disk]) -> None:
    disk = has_disk()
    once.control.add_fault("status", method="DELETE", status=500, code="InternalServerError", when="after")
    with pytest.raises(HttpResponseError, match="InternalServerError"):
        once.compute.disks.begin_delete(group, disk.name)
    with pytest.raises(ResourceNotFoundError):
        once.compute.disks.get(group, disk.name)


def test_a_truncated_body_is_shorter_than_its_header_says(azure: Azure, url: str) -> None:
    azure.control.add_fault("truncate", plane="blob", method="GET", bytes=1000)
    with pytest.raises(http.client.IncompleteRead) as caught:
        fetch(azure, url, 0, 65535)
    assert caught.value.partial == b"a" * 1000
    assert caught.value.expected == 65536 - 1000
    assert fetch(azure, url, 0, 65535)[2] == b"a" * 65536


def test_a_body_can_lack_its_last_bytes_alone(azure: Azure, url: str) -> None:
    azure.control.add_fault("truncate", plane="blob", method="GET", bytes=-1)
    with pytest.raises(http.client.IncompleteRead) as caught:
        fetch(azure, url, 0, 65535)
    assert (caught.value.partial, caught.value.expected) == (b"a" * 65535, 1)


def test_an_answer_of_the_control_plane_can_be_torn(
    once: Azure, group: str, has_disk: Callable[..., m.Disk]
) -> None:
    disk = has_disk()
    for count in (0, 40, -1):
        once.control.add_fault("truncate", plane="arm", method="GET", path="/disks/", bytes=count)
        with pytest.raises(CONNECTION_LOST):
            once.compute.disks.get(group, disk.name)
    assert once.compute.disks.get(group, disk.name).name == disk.name


DELETE_AND_WAIT = """
import http.client, ssl, sys
host, path, token, ca = sys.argv[1:]
connection = http.client.HTTPSConnection(host, context=ssl.create_default_context(cafile=ca))
connection.request("DELETE", path, headers={"authorization": f"Bearer {token}"})
connection.getresponse()
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_who_asks_can_be_killed_without_or_with_the_effect(
    azsim_process: AzsimProcess, azure: Azure, group: str, has_disk: Callable[..., m.Disk], when: str
) -> None:
    disk = has_disk()
    base = azsim_process.endpoint["base_url"]
    token = azure.credential.get_token(f"{base}/.default").token
    path = f"{disk.id}?api-version=2024-03-02"
    # It waits for its first line of input, so that the rule can name it before it asks.
    script = f"import sys; sys.stdin.readline()\n{DELETE_AND_WAIT}"
    command = [sys.executable, "-c", script, urlsplit(base).netloc, path, token, azure.ca]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as process:
        azure.control.add_fault(
            "kill", method="DELETE", path=f"/disks/{disk.name}", process=process.pid, when=when
        )
        process.communicate("go\n", timeout=120)
    assert process.returncode == -signal.SIGKILL
    if when == "before":
        assert azure.compute.disks.get(group, disk.name).id == disk.id
    else:
        with pytest.raises(ResourceNotFoundError):
            azure.compute.disks.get(group, disk.name)


def test_a_corrupt_byte_is_just_one(azure: Azure, url: str) -> None:
    azure.control.add_fault("corrupt", plane="blob", method="GET", position=70)
    status, _, body = fetch(azure, url, 0, 511)
    assert status == 206
    assert [number for number, byte in enumerate(body) if byte != ord("a")] == [70]


def test_a_delay_is_real_time(azure: Azure, url: str) -> None:
    azure.control.add_fault("delay", plane="blob", seconds=0.3)
    started = time.monotonic()
    assert fetch(azure, url, 0, 511)[0] == 206
    assert time.monotonic() - started >= 0.3


def test_the_clock_can_advance_under_a_request(azure: Azure, url: str) -> None:
    azure.control.add_fault("advance_clock", plane="blob", seconds=4000)
    assert fetch(azure, url, 0, 511)[0] == 403


def test_access_can_expire_under_a_request(azure: Azure, url: str) -> None:
    fault = azure.control.add_fault("expire_access", plane="blob", skip=1)
    assert [fetch(azure, url, 0, 511)[0] for _ in range(3)] == [206, 403, 403]
    assert azure.control.fired(fault) == 1


def test_another_administrator_can_act_under_a_request(
    azure: Azure, group: str, has_disk: Callable[..., m.Disk], take: Callable[..., m.Snapshot]
) -> None:
    disk = has_disk()
    snapshot = take(disk, "doomed")
    azure.control.add_fault(
        "run",
        plane="arm",
        path="begingetaccess",
        operation="delete_snapshot",
        arguments={"snapshot": snapshot.id},
    )
    access = m.GrantAccessData(access="Read", duration_in_seconds=60)
    with pytest.raises(ResourceNotFoundError):
        azure.compute.snapshots.begin_grant_access(group, "doomed", access)


def test_a_rule_acts_after_it_skipped_and_as_often_as_told(azure: Azure, url: str) -> None:
    fault = azure.control.add_fault(
        "status", plane="blob", query="sr=b", header="x-ms-range", skip=2, times=2, status=500, code="X"
    )
    assert [fetch(azure, url, 0, 511)[0] for _ in range(6)] == [206, 206, 500, 500, 206, 206]
    (rule,) = [rule for rule in azure.control.faults() if rule["id"] == fault]
    assert (rule["matched"], rule["fired"]) == (6, 2)


def test_a_rule_by_chance_repeats_with_its_seed(azure: Azure, url: str) -> None:
    def run() -> list[int]:
        fault = azure.control.add_fault(
            "status", plane="blob", times=None, chance=0.5, seed=4, status=500, code="X"
        )
        seen = [fetch(azure, url, 0, 511)[0] for _ in range(12)]
        azure.control.clear_faults(fault)
        return seen

    first = run()
    assert set(first) == {206, 500}
    assert run() == first


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"action": "explode"}, "action is 'explode'"),
        ({"action": "cut", "plane": "moon"}, "plane is 'moon'"),
        ({"action": "truncate"}, "bytes"),
        ({"action": "kill", "process": -1}, "the id of one process"),
        ({"action": "kill", "process": 1}, "the id of one process"),
        ({"action": "cut", "path": "("}, "fault rule 'cut'"),
    ],
)
def test_a_rule_that_means_nothing_is_refused(azure: Azure, rule: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ControlError, match=complaint):
        azure.control.add_fault(**rule)


def test_the_request_log_hides_signatures(azure: Azure, url: str) -> None:
    since = azure.control.last_request()
    fetch(azure, url, 512, 1023)
    (entry,) = azure.control.requests(since=since)
    assert (entry["plane"], entry["method"], entry["status"]) == ("blob", "GET", 206)
    assert entry["range"] == "bytes=512-1023"
    signature = dict(pair.split("=") for pair in urlsplit(url).query.split("&"))["sig"]
    assert signature not in str(azure.control.requests())


def test_an_operation_can_fail(azure: Azure, group: str, has_disk: Callable[..., m.Disk]) -> None:
    disk = has_disk()
    failure = {"status": "Failed", "error": {"code": "DiskBusy", "message": "scripted"}}
    azure.control.add_fault("status", path="/DiskOperations/", status=200, body=failure)
    with pytest.raises(HttpResponseError, match="DiskBusy"):
        azure.compute.disks.begin_update(group, disk.name, m.DiskUpdate(tags={"a": "b"})).result()
