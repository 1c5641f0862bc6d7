"""Copy Blob through the real SDK: what a staging copy meets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobSasPermissions, generate_blob_sas

from azsim.vhd import FOOTER_BYTES, check_fixed_footer
from tests.azsim.blob_server import ACCOUNT, PREMIUM, BlobServer, running, with_accounts

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobServer]:
    with running(tmp_path_factory.mktemp("azsim")) as started:
        yield with_accounts(started)


@pytest.fixture
def source(server: BlobServer, request: pytest.FixtureRequest) -> BlobClient:
    """A premium page blob with its second page written."""
    blob = server.has_page_blob(MIB, name=f"{request.node.name}.vhd", account=PREMIUM)
    blob.upload_page(b"a" * 512, 512, 512)
    return blob


def code(refused: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int, str]:
    response = refused.value.response
    assert response is not None
    return response.status_code, response.headers["x-ms-error-code"]


def staging(server: BlobServer, source: BlobClient, account: str = PREMIUM) -> BlobClient:
    container = server.client(account).get_container_client(source.container_name)
    return container.get_blob_client(f"{source.blob_name}.staging")


def statuses(blob: BlobClient, polls: int) -> list[str | None]:
    return [blob.get_blob_properties().copy.status for _ in range(polls)]


def test_a_copy_of_a_snapshot_is_pending_then_has_its_bytes_and_ranges(
    server: BlobServer, source: BlobClient
) -> None:
    snapshot = source.create_snapshot()["snapshot"]
    source.upload_page(b"b" * 512, 512, 512)
    copied = staging(server, source)
    started = copied.start_copy_from_url(f"{source.url}?snapshot={snapshot}")
    assert started["copy_status"] == "pending"
    assert copied.download_blob(offset=512, length=512).readall() == bytes(512)
    assert statuses(copied, 4) == ["pending", "pending", "success", "success"]
    assert copied.get_blob_properties().copy.progress == f"{MIB}/{MIB}"
    assert copied.download_blob(offset=512, length=512).readall() == b"a" * 512
    assert [(r.start, r.end) for r in copied.list_page_ranges()] == [(512, 1023)]


def test_a_copy_outlives_a_source_deleted_meanwhile(server: BlobServer, source: BlobClient) -> None:
    copied = staging(server, source)
    copied.start_copy_from_url(source.url)
    source.delete_blob()
    assert statuses(copied, 3)[-1] == "success"
    assert copied.download_blob(offset=512, length=512).readall() == b"a" * 512


def test_nothing_is_written_or_started_under_a_pending_copy(server: BlobServer, source: BlobClient) -> None:
    copied = staging(server, source)
    copied.start_copy_from_url(source.url)
    for act in (
        lambda: copied.upload_page(b"b" * 512, 0, 512),
        lambda: copied.start_copy_from_url(source.url),
        copied.create_snapshot,
    ):
        with pytest.raises(HttpResponseError) as refused:
            act()
        assert code(refused) == (409, "PendingCopyOperation")


def test_an_aborted_copy_leaves_an_empty_blob(server: BlobServer, source: BlobClient) -> None:
    copied = staging(server, source)
    copy_id = copied.start_copy_from_url(source.url)["copy_id"]
    with pytest.raises(HttpResponseError) as refused:
        copied.abort_copy("00000000-0000-0000-0000-000000000000")
    assert code(refused) == (409, "CopyIdMismatch")
    copied.abort_copy(copy_id)
    assert copied.get_blob_properties().copy.status == "aborted"
    assert copied.get_blob_properties().size == 0
    with pytest.raises(HttpResponseError) as refused:
        copied.abort_copy(copy_id)
    assert code(refused) == (409, "NoPendingCopyOperation")


def test_a_pending_copy_can_be_deleted(server: BlobServer, source: BlobClient) -> None:
    copied = staging(server, source)
    copied.start_copy_from_url(source.url)
    copied.delete_blob()
    with pytest.raises(ResourceNotFoundError):
        copied.get_blob_properties()


def test_a_premium_destination_with_snapshots_is_refused(server: BlobServer, source: BlobClient) -> None:
    copied = staging(server, source)
    copied.create_page_blob(MIB)
    copied.create_snapshot()
    with pytest.raises(HttpResponseError) as refused:
        copied.start_copy_from_url(source.url)
    assert code(refused) == (409, "SnapshotsPresent")


def test_another_account_copies_only_with_a_sas_of_the_source(server: BlobServer, source: BlobClient) -> None:
    server.has_page_blob(512, name="any.vhd")
    copied = staging(server, source, ACCOUNT)
    with pytest.raises(HttpResponseError) as refused:
        copied.start_copy_from_url(source.url)
    assert code(refused) == (403, "CannotVerifyCopySource")
    sas = generate_blob_sas(
        PREMIUM,
        source.container_name,
        source.blob_name,
        account_key=server.key(PREMIUM),
        permission=BlobSasPermissions(read=True),
        expiry=server.clock.now() + timedelta(hours=1),
    )
    copied.start_copy_from_url(f"{source.url}?{sas}")
    assert statuses(copied, 3)[-1] == "success"
    assert "sig=" not in (copied.get_blob_properties().copy.source or "")


def test_a_source_that_is_not_there_is_refused(server: BlobServer, source: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        staging(server, source).start_copy_from_url(f"{source.url}-gone")
    assert code(refused) == (404, "CannotVerifyCopySource")


def test_a_managed_disk_is_copied_with_its_footer(server: BlobServer) -> None:
    image = server.pages.create(MIB)
    server.pages.write(image, 0, b"d" * 512)
    expiry = server.clock.now() + timedelta(hours=1)
    path = server.service.open_disk_access(image, disk_size=MIB, expires_at=expiry, group="g")
    copied = server.has_page_blob(512, name="from-disk.vhd")
    copied.start_copy_from_url(server.url(path))
    assert statuses(copied, 3)[-1] == "success"
    content = copied.download_blob().readall()
    assert content[:1024] == b"d" * 512 + bytes(512)
    assert check_fixed_footer(content[-FOOTER_BYTES:]) == MIB


def test_pages_are_written_from_another_blob(server: BlobServer, source: BlobClient) -> None:
    target = server.has_page_blob(MIB, name="pages-from.vhd", account=PREMIUM)
    target.upload_pages_from_url(source.url, offset=4096, length=1024, source_offset=0)
    assert target.download_blob(offset=4096, length=1024).readall() == bytes(512) + b"a" * 512
    assert [(r.start, r.end) for r in target.list_page_ranges()] == [(4096, 5119)]
