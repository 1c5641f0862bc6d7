"""Page blobs through the real SDK: writing, reading, ranges, snapshots and differences."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobClient

from azsim.blob_model import BlobSettings
from tests.azsim.blob_server import ACCOUNT, PREMIUM, BlobServer, running, with_accounts

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobServer]:
    with running(tmp_path_factory.mktemp("azsim")) as started:
        yield with_accounts(started)


@pytest.fixture
def blob(server: BlobServer, request: pytest.FixtureRequest) -> BlobClient:
    return server.has_page_blob(8 * MIB, name=f"{request.node.name}.vhd")


def write(blob: BlobClient, offset: int, data: bytes) -> None:
    blob.upload_page(data, offset, len(data))


def listed(blob: BlobClient, **which: Any) -> list[tuple[int, int, bool]]:
    """Ranges as (start, end inclusive, cleared)."""
    return [(found.start, found.end, found.cleared) for found in blob.list_page_ranges(**which)]


def at_snapshot(server: BlobServer, blob: BlobClient, snapshot: str, account: str = ACCOUNT) -> BlobClient:
    container = server.client(account).get_container_client(blob.container_name)
    return container.get_blob_client(blob.blob_name, snapshot=snapshot)


def code(refused: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int, str]:
    response = refused.value.response
    assert response is not None
    return response.status_code, response.headers["x-ms-error-code"]


def test_what_was_written_is_read_and_the_rest_is_zero(blob: BlobClient) -> None:
    write(blob, MIB, b"a" * 4 * MIB)
    write(blob, 512, b"b" * 512)
    blob.clear_page(2 * MIB, MIB)
    expected = bytearray(8 * MIB)
    expected[MIB : 5 * MIB] = b"a" * 4 * MIB
    expected[512:1024] = b"b" * 512
    expected[2 * MIB : 3 * MIB] = bytes(MIB)
    assert blob.download_blob().readall() == expected
    assert blob.download_blob(offset=1000, length=100).readall() == expected[1000:1100]
    assert listed(blob) == [(512, 1023, False), (MIB, 2 * MIB - 1, False), (3 * MIB, 5 * MIB - 1, False)]


def test_a_range_is_answered_with_its_digest_up_to_four_mebibytes(blob: BlobClient) -> None:
    write(blob, 0, b"a" * 4 * MIB)
    assert blob.download_blob(offset=0, length=4 * MIB, validate_content=True).readall() == b"a" * 4 * MIB
    with pytest.raises(HttpResponseError) as refused:
        blob._client.blob.download(range=f"bytes=0-{4 * MIB}", range_get_content_md5=True)
    assert refused.value.status_code == 400


def test_a_read_beyond_the_end_is_refused_and_one_across_it_is_cut(blob: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        blob.download_blob(offset=8 * MIB, length=512).readall()
    assert code(refused) == (416, "InvalidRange")
    answer = b"".join(blob._client.blob.download(range=f"bytes={8 * MIB - 512}-{9 * MIB}"))
    assert answer == bytes(512)


@pytest.mark.parametrize("span", ["bytes=0-510", "bytes=1-512", "bytes=8388608-8389119"])
def test_pages_off_their_borders_or_the_blob_are_refused(blob: BlobClient, span: str) -> None:
    with pytest.raises(HttpResponseError) as refused:
        blob._client.page_blob.clear_pages(content_length=0, range=span)
    assert code(refused) == (416, "InvalidPageRange")


def test_a_body_damaged_on_its_way_is_refused(blob: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        blob.upload_page(b"a" * 512, 0, 512, headers={"Content-MD5": "XrY7u+Ae7tCTyyK7j1rNww=="})
    assert code(refused) == (400, "Md5Mismatch")
    assert listed(blob) == []


def test_a_snapshot_keeps_bytes_and_metadata_while_the_blob_changes(
    server: BlobServer, blob: BlobClient
) -> None:
    write(blob, 0, b"a" * 512)
    blob.set_blob_metadata({"owner": "base"})
    taken = blob.create_snapshot(metadata={"run": "r1"})
    write(blob, 0, b"b" * 512)
    snapshot = at_snapshot(server, blob, taken["snapshot"])
    assert snapshot.download_blob(offset=0, length=512).readall() == b"a" * 512
    assert snapshot.get_blob_properties().metadata == {"run": "r1"}
    assert blob.get_blob_properties().metadata == {"owner": "base"}


def test_snapshots_of_one_moment_have_different_ids(blob: BlobClient) -> None:
    ids = [blob.create_snapshot()["snapshot"] for _ in range(5)]
    assert ids == sorted(set(ids))


def test_a_difference_tells_written_and_cleared_pages_in_offset_order(
    server: BlobServer, blob: BlobClient
) -> None:
    write(blob, 0, b"a" * 4096)
    older = blob.create_snapshot()["snapshot"]
    write(blob, 512, b"a" * 512)
    blob.clear_page(1024, 512)
    write(blob, MIB, b"c" * 512)
    blob.clear_page(2 * MIB, 512)
    newer = blob.create_snapshot()["snapshot"]
    write(blob, 4 * MIB, b"d" * 512)
    between = [
        (512, 1023, False),
        (1024, 1535, True),
        (MIB, MIB + 511, False),
        (2 * MIB, 2 * MIB + 511, True),
    ]
    at_newer = at_snapshot(server, blob, newer)
    assert listed(at_newer, previous_snapshot=older) == between
    assert listed(blob, previous_snapshot=older) == [*between, (4 * MIB, 4 * MIB + 511, False)]
    assert listed(at_newer, previous_snapshot=older, offset=1024, length=MIB) == between[1:3]


def test_ranges_come_in_answers_of_the_size_asked_for(blob: BlobClient) -> None:
    older = blob.create_snapshot()["snapshot"]
    for page in range(0, 14, 2):
        write(blob, page * 512, b"a" * 512)
    answers = [list(answer) for answer in blob.list_page_ranges(results_per_page=3).by_page()]
    assert [len(answer) for answer in answers] == [3, 3, 1]
    paged = listed(blob, previous_snapshot=older, results_per_page=2)
    assert paged == listed(blob) == [(p * 512, p * 512 + 511, False) for p in range(0, 14, 2)]


def test_ten_thousand_ranges_are_the_most_in_one_answer_even_unasked(
    server: BlobServer, blob: BlobClient
) -> None:
    blob.resize_blob(16 * MIB)
    image = server.service.blob_ref(ACCOUNT, blob.container_name, blob.blob_name)
    for page in range(0, 32_768, 3):
        server.pages.write(image, page * 512, bytes(512))
    answer = blob._client.page_blob.get_page_ranges()
    assert len(answer.page_range) == 10_000
    assert answer.next_marker
    assert listed(blob) == [(page * 512, page * 512 + 511, False) for page in range(0, 32_768, 3)]


@pytest.mark.parametrize("size", [2 * MIB, 16 * MIB])
def test_a_resized_blob_has_its_new_size_and_zeros_at_its_end(blob: BlobClient, size: int) -> None:
    write(blob, 2 * MIB - 512, b"a" * 1024)
    blob.resize_blob(size)
    blob.resize_blob(16 * MIB)
    assert blob.get_blob_properties().size == 16 * MIB
    kept = b"a" * 1024 if size > 2 * MIB else b"a" * 512 + bytes(512)
    assert blob.download_blob(offset=2 * MIB - 512, length=1024).readall() == kept


@pytest.mark.parametrize("way", ["put", "copy"])
def test_a_blob_overwritten_since_a_snapshot_cannot_be_compared_with_it(
    server: BlobServer, blob: BlobClient, way: str
) -> None:
    older = blob.create_snapshot()["snapshot"]
    if way == "put":
        blob.create_page_blob(8 * MIB)
    else:
        blob.start_copy_from_url(at_snapshot(server, blob, older).url)
    with pytest.raises(HttpResponseError) as refused:
        listed(blob, previous_snapshot=older)
    assert code(refused) == (409, "BlobOverwritten")


def test_a_difference_from_a_newer_or_absent_snapshot_is_refused(
    server: BlobServer, blob: BlobClient
) -> None:
    older, newer = (blob.create_snapshot()["snapshot"] for _ in range(2))
    with pytest.raises(HttpResponseError) as refused:
        listed(at_snapshot(server, blob, older), previous_snapshot=newer)
    assert code(refused) == (400, "PreviousSnapshotCannotBeNewer")
    at_snapshot(server, blob, older).delete_blob()
    with pytest.raises(HttpResponseError) as refused:
        listed(blob, previous_snapshot=older)
    assert code(refused) == (409, "PreviousSnapshotNotFound")


def test_an_ordinary_account_refuses_the_header_for_managed_disks(blob: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        blob.get_page_range_diff_for_managed_disk("https://127.0.0.1/md-1/2/abcd?sig=x")
    assert code(refused) == (400, "UnsupportedHeaderForNonManagedDisksAccount")


def test_a_blob_with_snapshots_is_deleted_only_with_them(server: BlobServer, blob: BlobClient) -> None:
    taken = blob.create_snapshot()["snapshot"]
    with pytest.raises(HttpResponseError) as refused:
        blob.delete_blob()
    assert code(refused) == (409, "SnapshotsPresent")
    blob.delete_blob(delete_snapshots="include")
    with pytest.raises(ResourceNotFoundError):
        at_snapshot(server, blob, taken).get_blob_properties()


def test_an_etag_that_has_passed_stops_a_write(blob: BlobClient) -> None:
    etag = blob.get_blob_properties().etag
    write(blob, 0, b"a" * 512)
    with pytest.raises(HttpResponseError) as refused:
        blob.upload_page(b"b" * 512, 0, 512, etag=etag, match_condition=MatchConditions.IfNotModified)
    assert code(refused) == (412, "ConditionNotMet")


def test_a_lease_guards_writes_and_deletion_but_not_snapshots(blob: BlobClient) -> None:
    lease = blob.acquire_lease()
    with pytest.raises(HttpResponseError) as refused:
        write(blob, 0, b"a" * 512)
    assert code(refused) == (412, "LeaseIdMissing")
    with pytest.raises(HttpResponseError):
        blob.delete_blob()
    assert blob.create_snapshot()["snapshot"]
    blob.upload_page(b"a" * 512, 0, 512, lease=lease)
    lease.release()
    write(blob, 0, b"b" * 512)


def test_a_lease_of_seconds_ends_by_the_clock_of_the_simulation(server: BlobServer, blob: BlobClient) -> None:
    blob.acquire_lease(lease_duration=60)
    with pytest.raises(ResourceExistsError):
        blob.acquire_lease()
    server.clock.advance(61)
    assert blob.acquire_lease().id


def test_a_premium_snapshot_may_be_taken_every_ten_minutes(server: BlobServer) -> None:
    blob = server.has_page_blob(MIB, name="rate.vhd", account=PREMIUM)
    blob.create_snapshot()
    server.clock.advance(540)
    with pytest.raises(HttpResponseError) as refused:
        blob.create_snapshot()
    assert code(refused) == (409, "SnapshotOperationRateExceeded")
    server.clock.advance(60)
    blob.create_snapshot()


def test_a_premium_blob_has_a_hundred_snapshots_at_most(server: BlobServer) -> None:
    blob = server.has_page_blob(MIB, name="count.vhd", account=PREMIUM)
    for _ in range(100):
        blob.create_snapshot()
        server.clock.advance(600)
    with pytest.raises(HttpResponseError) as refused:
        blob.create_snapshot()
    assert code(refused) == (409, "SnapshotCountExceeded")


def test_a_premium_page_blob_account_takes_no_block_blobs(server: BlobServer) -> None:
    blob = server.has_page_blob(MIB, name="type.vhd", account=PREMIUM)
    with pytest.raises(HttpResponseError) as refused:
        blob.upload_blob(b"bytes", overwrite=True)
    assert refused.value.status_code == 409


def test_a_premium_snapshot_is_read_slowly_and_its_ranges_at_once(tmp_path: Path) -> None:
    slow = BlobSettings(premium_snapshot_bytes_per_second=2 * MIB)
    with running(tmp_path, slow) as started:
        server = with_accounts(started)
        blob = server.has_page_blob(2 * MIB, account=PREMIUM)
        write(blob, 0, b"a" * 2 * MIB)
        snapshot = at_snapshot(server, blob, blob.create_snapshot()["snapshot"], PREMIUM)
        began = time.monotonic()
        assert listed(snapshot) == [(0, 2 * MIB - 1, False)]
        listed_at = time.monotonic()
        assert snapshot.download_blob().readall() == b"a" * 2 * MIB
        assert listed_at - began < 0.9
        assert time.monotonic() - listed_at >= 1


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as started:
        blob = with_accounts(started).has_page_blob(MIB)
        write(blob, 0, b"a" * 512)
        older = blob.create_snapshot()["snapshot"]
        key = started.key()
    with running(tmp_path) as restarted:
        blob = restarted.client(credential=key).get_blob_client("vhds", "disk.vhd")
        write(blob, 512, b"b" * 512)
        assert listed(blob, previous_snapshot=older) == [(512, 1023, False)]
        assert blob.download_blob(offset=0, length=1024).readall() == b"a" * 512 + b"b" * 512
