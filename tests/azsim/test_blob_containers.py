"""Containers, listings, block blobs, soft delete and the loading of image files, through the real SDK."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobBlock, BlobClient, BlobPrefix, ContainerClient, RetentionPolicy

from azsim.vhd import FOOTER_BYTES, check_fixed_footer
from tests.azsim.blob_server import ACCOUNT, BlobServer, running, with_accounts

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobServer]:
    with running(tmp_path_factory.mktemp("azsim")) as started:
        yield with_accounts(started)


@pytest.fixture
def container(server: BlobServer, request: pytest.FixtureRequest) -> ContainerClient:
    return server.has_container(request.node.name.replace("_", "-")[-60:].strip("-"))


def names(container: ContainerClient, **which: object) -> list[str]:
    return [found.name for found in container.list_blobs(**which)]


def test_blobs_are_listed_by_name_in_answers_of_any_size(container: ContainerClient) -> None:
    stored = sorted(["a", "a/b", "a/c", "a0", "b c", "z<&>", "ü"])
    for name in stored:
        container.upload_blob(name, name.encode())
    assert names(container) == stored
    assert names(container, name_starts_with="a/") == ["a/b", "a/c"]
    answers = [[b.name for b in answer] for answer in container.list_blobs(results_per_page=3).by_page()]
    assert [len(answer) for answer in answers] == [3, 3, 1]
    assert sum(answers, []) == stored  # noqa: RUF017


def test_names_with_a_delimiter_are_listed_once(container: ContainerClient) -> None:
    for name in ("log/1", "log/2", "media.json", "packs/a/1", "packs/b/1"):
        container.upload_blob(name, b"")
    walked = list(container.walk_blobs(delimiter="/"))
    assert {found.name: isinstance(found, BlobPrefix) for found in walked} == {
        "log/": True,
        "media.json": False,
        "packs/": True,
    }
    assert len(walked) == 3


def test_snapshots_and_metadata_are_listed_when_asked_for(container: ContainerClient) -> None:
    blob = container.get_blob_client("disk.vhd")
    blob.create_page_blob(1024)
    taken = blob.create_snapshot(metadata={"run": "r1"})["snapshot"]
    listed = [
        (found.snapshot, found.metadata) for found in container.list_blobs(include=["snapshots", "metadata"])
    ]
    assert listed == [(taken, {"run": "r1"}), (None, None)]
    assert names(container) == ["disk.vhd"]


def test_a_block_blob_is_created_once_when_told_not_to_overwrite(container: ContainerClient) -> None:
    container.upload_blob("once", b"first")
    with pytest.raises(ResourceExistsError) as refused:
        container.upload_blob("once", b"second")
    assert refused.value.error_code == "BlobAlreadyExists"  # type: ignore[attr-defined]
    assert container.download_blob("once").readall() == b"first"


def test_a_big_block_blob_is_committed_of_its_blocks(container: ContainerClient) -> None:
    blob = container.get_blob_client("blocks")
    for number, content in enumerate((b"one", b"two" * 1000, b"unused")):
        blob.stage_block(f"{number:04}", content)
    assert not blob.exists()
    blob.commit_block_list([BlobBlock("0001"), BlobBlock("0000")])
    assert blob.download_blob().readall() == b"two" * 1000 + b"one"
    with pytest.raises(HttpResponseError) as refused:
        blob.commit_block_list([BlobBlock("0002")])
    assert refused.value.error_code == "InvalidBlockList"  # type: ignore[attr-defined]


def test_a_blob_of_many_chunks_is_uploaded_and_downloaded_by_the_sdk(server: BlobServer) -> None:
    client = server.client()
    client._config.max_single_put_size = 1024
    client._config.max_block_size = 700_000
    content = bytes(range(256)) * 8192
    blob = client.get_container_client("chunks")
    blob.create_container()
    blob.upload_blob("big", content, max_concurrency=3)
    assert blob.download_blob("big", max_concurrency=2).readall() == content


def test_a_container_is_gone_with_its_blobs(server: BlobServer) -> None:
    container = server.has_container("passing")
    container.upload_blob("a", b"a")
    with pytest.raises(ResourceExistsError):
        server.has_container("passing")
    container.delete_container()
    assert not container.exists()
    with pytest.raises(ResourceNotFoundError) as refused:
        container.get_blob_client("a").download_blob()
    assert refused.value.error_code == "ContainerNotFound"  # type: ignore[attr-defined]


def test_a_soft_deleted_blob_can_be_had_back_until_its_days_are_over(server: BlobServer) -> None:
    server.service.create_account("softacct", kind="StorageV2", sku="Standard_LRS")
    client = server.client("softacct")
    client.set_service_properties(delete_retention_policy=RetentionPolicy(enabled=True, days=3))
    assert client.get_service_properties()["delete_retention_policy"].days == 3
    container = client.create_container("soft")
    blob = container.upload_blob("doc", b"text")
    blob.delete_blob()
    assert not blob.exists()
    server.clock.advance(2.5 * 86400)
    (listed,) = container.list_blobs(include=["deleted"])
    assert (listed.deleted, listed.remaining_retention_days) == (True, 0)
    blob.undelete_blob()
    assert blob.download_blob().readall() == b"text"
    blob.delete_blob()
    server.clock.advance(3 * 86400)
    assert list(container.list_blobs(include=["deleted"])) == []
    with pytest.raises(ResourceNotFoundError):
        blob.undelete_blob()


def test_an_image_file_becomes_a_vhd_whose_guest_can_write(server: BlobServer, tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(4 * MIB)
        file.seek(MIB)
        file.write(b"data" * 1024)
    server.service.put_page_blob_from_image(ACCOUNT, "images", "os.vhd", path)
    blob: BlobClient = server.client().get_blob_client("images", "os.vhd")
    content = blob.download_blob().readall()
    assert content[: 4 * MIB] == path.read_bytes()
    assert check_fixed_footer(content[4 * MIB :]) == 4 * MIB
    older = blob.create_snapshot()["snapshot"]
    server.pages.write(server.service.blob_ref(ACCOUNT, "images", "os.vhd"), 0, b"g" * 512)
    assert [(r.start, r.end) for r in blob.list_page_ranges(previous_snapshot=older)] == [(0, 511)]
    assert len(content) == 4 * MIB + FOOTER_BYTES


def test_a_vhd_grown_by_its_owner_has_its_new_size_for_every_caller(server: BlobServer) -> None:
    blob = server.has_page_blob(MIB, name="grown.vhd")
    etag = blob.get_blob_properties().etag
    server.service.resize_page_blob(ACCOUNT, "vhds", "grown.vhd", 2 * MIB)
    after = blob.get_blob_properties()
    assert after.size == 2 * MIB
    assert after.etag != etag
