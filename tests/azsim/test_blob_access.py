"""Who may do what: shared keys, SAS of every scope, and managed disks by opaque URLs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobClient,
    BlobSasPermissions,
    BlobServiceClient,
    ContainerSasPermissions,
    ResourceTypes,
    generate_account_sas,
    generate_blob_sas,
    generate_container_sas,
)

from azsim.vhd import FOOTER_BYTES, check_fixed_footer
from tests.azsim.blob_server import ACCOUNT, PREMIUM, BlobServer, running, with_accounts

MIB = 1024 * 1024
HOUR = dt.timedelta(hours=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobServer]:
    with running(tmp_path_factory.mktemp("azsim")) as started:
        yield with_accounts(started)


@pytest.fixture
def blob(server: BlobServer, request: pytest.FixtureRequest) -> BlobClient:
    created = server.has_page_blob(MIB, name=f"{request.node.name}.vhd")
    created.upload_page(b"a" * 512, 0, 512)
    return created


@pytest.fixture
def image(server: BlobServer) -> str:
    """A disk of one mebibyte, its first page written."""
    made = server.pages.create(MIB)
    server.pages.write(made, 0, b"a" * 512)
    return made


def code(refused: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int, str]:
    response = refused.value.response
    assert response is not None
    return response.status_code, response.headers["x-ms-error-code"]


def with_sas(blob: BlobClient, sas: str) -> BlobClient:
    return BlobClient.from_blob_url(f"{blob.url.partition('?')[0]}?{sas}", retry_total=0)


def blob_sas(server: BlobServer, blob: BlobClient, letters: str = "r", **more: Any) -> str:
    more.setdefault("expiry", server.clock.now() + HOUR)
    return generate_blob_sas(
        ACCOUNT,
        blob.container_name,
        blob.blob_name,
        account_key=server.key(),
        permission=BlobSasPermissions.from_string(letters),
        **more,
    )


def test_a_wrong_key_is_refused(server: BlobServer, blob: BlobClient) -> None:
    stranger = server.client(credential=server.key(PREMIUM))
    with pytest.raises(HttpResponseError) as refused:
        stranger.get_blob_client("vhds", blob.blob_name).get_blob_properties()
    assert refused.value.status_code == 403


def test_both_keys_open_the_account_and_a_regenerated_one_no_more(server: BlobServer) -> None:
    server.service.create_account("rotating", kind="StorageV2", sku="Standard_LRS")
    first, second = server.service.account_keys("rotating")
    server.client("rotating", first).create_container("one")
    server.client("rotating", second).create_container("two")
    assert server.service.regenerate_key("rotating", "key1")[1] == second
    with pytest.raises(HttpResponseError) as refused:
        server.client("rotating", first).create_container("three")
    assert code(refused) == (403, "AuthenticationFailed")
    assert [found.name for found in server.client("rotating", second).list_containers()] == ["one", "two"]


def test_nobody_is_let_in_without_a_word(server: BlobServer, blob: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        BlobClient.from_blob_url(blob.url.partition("?")[0]).download_blob().readall()
    assert code(refused) == (401, "NoAuthenticationInformation")


def test_a_read_sas_reads_and_cannot_write(server: BlobServer, blob: BlobClient) -> None:
    reader = with_sas(blob, blob_sas(server, blob))
    assert reader.download_blob(offset=0, length=512).readall() == b"a" * 512
    with pytest.raises(HttpResponseError) as refused:
        reader.upload_page(b"b" * 512, 0, 512)
    assert code(refused) == (403, "AuthorizationPermissionMismatch")


def test_a_sas_ends_by_the_clock_of_the_simulation(server: BlobServer, blob: BlobClient) -> None:
    reader = with_sas(blob, blob_sas(server, blob))
    server.clock.advance(3500)
    assert reader.exists()
    server.clock.advance(101)
    with pytest.raises(HttpResponseError) as refused:
        reader.download_blob().readall()
    assert code(refused) == (403, "AuthenticationFailed")
    assert "time frame" in str(refused.value)


def test_a_sas_with_a_changed_letter_is_refused(server: BlobServer, blob: BlobClient) -> None:
    forged = blob_sas(server, blob).replace("sp=r", "sp=rw")
    with pytest.raises(HttpResponseError) as refused:
        with_sas(blob, forged).upload_page(b"b" * 512, 0, 512)
    assert code(refused) == (403, "AuthenticationFailed")


def test_a_sas_of_one_blob_opens_no_other_and_no_snapshot(server: BlobServer, blob: BlobClient) -> None:
    other = server.has_page_blob(MIB, name="other.vhd")
    sas = blob_sas(server, blob)
    with pytest.raises(HttpResponseError) as refused:
        with_sas(other, sas).download_blob().readall()
    assert code(refused) == (403, "AuthenticationFailed")
    snapshot = blob.create_snapshot()["snapshot"]
    with pytest.raises(HttpResponseError) as refused:
        BlobClient.from_blob_url(f"{blob.url}?{sas}", snapshot=snapshot).download_blob().readall()
    assert refused.value.status_code == 403


def test_a_sas_of_a_snapshot_opens_that_snapshot(server: BlobServer, blob: BlobClient) -> None:
    snapshot = blob.create_snapshot()["snapshot"]
    blob.upload_page(b"b" * 512, 0, 512)
    sas = blob_sas(server, blob, snapshot=snapshot)
    reader = BlobClient.from_blob_url(f"{blob.url}?{sas}", snapshot=snapshot)
    assert reader.download_blob(offset=0, length=512).readall() == b"a" * 512
    with pytest.raises(HttpResponseError):
        with_sas(blob, sas).download_blob().readall()


def test_a_container_sas_opens_its_blobs_and_listing(server: BlobServer, blob: BlobClient) -> None:
    sas = generate_container_sas(
        ACCOUNT,
        "vhds",
        account_key=server.key(),
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=server.clock.now() + HOUR,
    )
    container = BlobServiceClient(f"{server.origin}/{ACCOUNT}", credential=sas).get_container_client("vhds")
    assert blob.blob_name in [found.name for found in container.list_blobs()]
    opened = container.get_blob_client(blob.blob_name)
    assert opened.download_blob(offset=0, length=512).readall() == b"a" * 512
    with pytest.raises(HttpResponseError) as refused:
        opened.delete_blob()
    assert code(refused) == (403, "AuthorizationPermissionMismatch")


def test_an_account_sas_is_held_to_its_resource_types(server: BlobServer, blob: BlobClient) -> None:
    sas = generate_account_sas(
        ACCOUNT,
        server.key(),
        ResourceTypes(object=True),
        AccountSasPermissions(read=True, list=True, write=True),
        server.clock.now() + HOUR,
    )
    account = BlobServiceClient(f"{server.origin}/{ACCOUNT}", credential=sas, retry_total=0)
    assert account.get_blob_client("vhds", blob.blob_name).get_blob_properties().size == MIB
    with pytest.raises(HttpResponseError) as refused:
        list(account.get_container_client("vhds").list_blobs())
    assert code(refused) == (403, "AuthorizationResourceTypeMismatch")


def test_who_may_only_create_cannot_overwrite(server: BlobServer, blob: BlobClient) -> None:
    sas = blob_sas(server, blob, "c")
    with pytest.raises(HttpResponseError) as refused:
        with_sas(blob, sas).create_page_blob(MIB)
    assert code(refused) == (403, "UnauthorizedBlobOverwrite")
    blob.delete_blob()
    with_sas(blob, sas).create_page_blob(MIB)


def test_a_managed_disk_is_read_with_its_vhd_footer(server: BlobServer, image: str) -> None:
    disk = opened(server, server.pages.freeze(image))
    assert disk.get_blob_properties().size == MIB + FOOTER_BYTES
    content = disk.download_blob().readall()
    assert content[:MIB] == b"a" * 512 + bytes(MIB - 512)
    assert check_fixed_footer(content[MIB:]) == MIB
    across = disk.download_blob(offset=MIB - 100, length=200).readall()
    assert across == content[MIB - 100 : MIB + 100]
    listed = [(found.start, found.end) for found in disk.list_page_ranges()]
    assert listed == [(0, 511), (MIB, MIB + 511)]


def test_two_snapshots_of_a_disk_are_compared_by_their_urls(server: BlobServer, image: str) -> None:
    older = server.pages.freeze(image)
    server.pages.write(image, 4096, b"b" * 512)
    server.pages.clear(image, 0, 512)
    newer = server.pages.freeze(image)
    assert difference(server, access(server, newer), access(server, older)) == [
        (0, 511, True),
        (4096, 4607, False),
    ]


def test_the_deprecated_call_for_managed_disks_gets_the_first_answer(server: BlobServer, image: str) -> None:
    older = server.pages.freeze(image)
    for page in range(0, 10, 2):
        server.pages.write(image, page * 512, b"b" * 512)
    disk = opened(server, image)
    url = server.url(access(server, older))
    first, _ = disk.get_page_range_diff_for_managed_disk(url)
    assert len(first) == 5
    paged = disk.list_page_ranges(
        previous_snapshot={"snapshot": None},  # type: ignore[arg-type]
        prev_snapshot_url=url,
        results_per_page=2,
    )
    assert len(list(paged)) == 5


@pytest.mark.parametrize("end", ["older", "newer"])
def test_a_comparison_needs_both_urls_alive(server: BlobServer, image: str, end: str) -> None:
    older, newer = (access(server, server.pages.freeze(image)) for _ in range(2))
    server.service.close_disk_access(older if end == "older" else newer)
    with pytest.raises(HttpResponseError) as refused:
        difference(server, newer, older)
    assert code(refused) == (403, "AuthenticationFailed")


def test_snapshots_that_azure_does_not_compare_are_refused(server: BlobServer, image: str) -> None:
    older, newer = (server.pages.freeze(image) for _ in range(2))
    other_disk = server.pages.freeze(server.pages.create(MIB))
    with pytest.raises(HttpResponseError) as refused:
        difference(server, access(server, newer, group="after"), access(server, older, group="before"))
    assert code(refused) == (409, "PreviousSnapshotOperationNotSupported")
    with pytest.raises(HttpResponseError) as refused:
        difference(server, access(server, older), access(server, newer))
    assert code(refused) == (400, "PreviousSnapshotCannotBeNewer")
    with pytest.raises(HttpResponseError) as refused:
        difference(server, access(server, newer), access(server, other_disk))
    assert code(refused) == (409, "BlobGenerationMismatch")


def test_a_revoked_or_expired_or_guessed_url_opens_nothing(server: BlobServer, image: str) -> None:
    revoked, expired = access(server, image), access(server, image)
    server.service.close_disk_access(revoked)
    server.service.close_disk_access(revoked)
    guessed = access(server, image).partition("&sig=")[0] + "&sig=AAAA"
    server.clock.advance(3601)
    for path in (revoked, expired, guessed):
        with pytest.raises(HttpResponseError) as refused:
            BlobClient.from_blob_url(server.url(path)).download_blob().readall()
        assert code(refused) == (403, "AuthenticationFailed")


def test_a_snapshot_deleted_under_its_grant_is_not_found(server: BlobServer, image: str) -> None:
    version = server.pages.freeze(image)
    disk = opened(server, version)
    server.pages.delete(version)
    with pytest.raises(HttpResponseError) as refused:
        disk.download_blob(offset=0, length=512).readall()
    assert code(refused) == (404, "BlobNotFound")


def test_a_read_grant_does_not_write_and_a_write_grant_does(server: BlobServer, image: str) -> None:
    with pytest.raises(HttpResponseError) as refused:
        opened(server, image).upload_page(b"b" * 512, 0, 512)
    assert code(refused) == (403, "AuthorizationPermissionMismatch")
    target = server.pages.create(MIB + FOOTER_BYTES)
    upload = opened(server, target, write=True)
    upload.upload_page(b"b" * 512, MIB, 512)
    assert server.pages.read(target, MIB, 512) == b"b" * 512


def access(server: BlobServer, ref: str, *, group: str = "family", write: bool = False) -> str:
    return server.service.open_disk_access(
        ref, disk_size=MIB, expires_at=server.clock.now() + HOUR, group=group, write=write
    )


def opened(server: BlobServer, ref: str, *, write: bool = False) -> BlobClient:
    return BlobClient.from_blob_url(server.url(access(server, ref, write=write)), retry_total=0)


def difference(server: BlobServer, newer: str, older: str) -> list[tuple[int, int, bool]]:
    paged = BlobClient.from_blob_url(server.url(newer), retry_total=0).list_page_ranges(
        previous_snapshot={"snapshot": None},  # type: ignore[arg-type]
        prev_snapshot_url=server.url(older),
        results_per_page=10_000,
    )
    return [(found.start, found.end, found.cleared) for found in paged]
