"""ARM's token buckets: what they hold, what they refuse, and how they fill again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect

SCALE = 0.02
"""5 reads, one in two seconds; 4 writes and 4 deletes, one in five."""


@pytest.fixture(scope="module")
def throttled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azure]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim"), throttle=SCALE, page_size=1000) as process:
        azure = connect(process, retry_total=0)
        azure.control.create_fleet({"disks": [{"name": "one", "size": 1 << 20}]})
        yield azure
        azure.close()


@pytest.fixture
def full(throttled: Azure) -> Azure:
    throttled.control.advance_clock(1000)
    return throttled


def reads_until_refused(azure: Azure) -> tuple[int, HttpResponseError]:
    for count in range(100):
        try:
            azure.compute.disks.get("rg1", "one")
        except HttpResponseError as error:
            return count, error
    raise AssertionError("nothing was refused")


def test_an_empty_bucket_refuses_and_says_when_to_come_again(full: Azure) -> None:
    count, error = reads_until_refused(full)
    assert count in (5, 6)  # One may have come back meanwhile.
    assert error.status_code == 429
    assert error.error is not None
    assert error.error.code == "SubscriptionRequestsThrottled"
    assert error.response is not None
    wished = int(error.response.headers["Retry-After"])
    assert wished == 2
    full.control.advance_clock(wished)
    assert reads_until_refused(full)[0] in (1, 2)


def test_a_bucket_holds_no_more_than_its_limit_however_long_nobody_asks(full: Azure) -> None:
    full.control.advance_clock(1000)
    assert reads_until_refused(full)[0] in (5, 6)


def test_reads_writes_and_deletes_have_buckets_of_their_own(full: Azure) -> None:
    reads_until_refused(full)
    for _ in range(4):
        with pytest.raises(ResourceNotFoundError):
            full.compute.disks.begin_revoke_access("rg1", "none").result()
    full.compute.disks.begin_delete("rg1", "none", polling=False)
    with pytest.raises(HttpResponseError, match="'writes'"):
        full.compute.disks.begin_revoke_access("rg1", "one").result()


def test_requests_are_counted_by_what_came_of_them(full: Azure) -> None:
    before = full.control.request_counts()
    count, _ = reads_until_refused(full)
    after = full.control.request_counts()
    assert after["arm GET 200"] - before["arm GET 200"] == count
    assert after["arm GET 429"] - before.get("arm GET 429", 0) == 1
