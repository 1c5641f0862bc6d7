"""One place of each kind for a test: a folder, a container in Azurite, a bucket in an S3 server."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.servers import azurite as azurite_server
from tests.servers.azurite import Azurite, azurite
from tests.servers.localbucket_server import LocalBucket, localbucket
from vsa.media.access import NO_SECRETS, StoreAccess
from vsa.media.azure_blob import blob_service
from vsa.media.cloud import CloudStore, Patience
from vsa.media.location import BlobContainer, Bucket, place_of
from vsa.media.places import make_store
from vsa.media.s3 import s3_service
from vsa.media.store import Store
from vsa.secret import Secret

_numbers = itertools.count()

ONCE = Patience(answer_seconds=20, retries=0, idle_connections=0)
"""Every request is made once, on a connection of its own."""

HASTY = Patience(connect_seconds=2, answer_seconds=0.1, retries=0, idle_connections=0)
"""For tests in which nobody answers."""


@dataclass(frozen=True)
class Site:
    """An empty place for media and what lets one in."""

    location: str
    access: StoreAccess = NO_SECRETS

    def make(self) -> Store:
        return make_store(self.location, self.access, random=os.urandom)

    def at(self, prefix: str) -> Site:
        return replace(self, location=f"{self.location}/{prefix}")

    def store(self, access: StoreAccess | None = None, patience: Patience = ONCE) -> CloudStore:
        """The cloud store itself, without repetitions, and entered otherwise if `access` says so."""
        place, access = place_of(self.location), access or self.access
        assert isinstance(place, BlobContainer | Bucket)
        service = (
            blob_service(place, access) if isinstance(place, BlobContainer) else s3_service(place, access)
        )
        return CloudStore(service, patience=patience)

    def behind(self, origin: str) -> Site:
        """The same place by way of another address."""
        access = self.access
        if access.blob_endpoint:
            return replace(self, access=replace(access, blob_endpoint=f"{origin}/{azurite_server.ACCOUNT}"))
        return replace(self, access=replace(access, s3_endpoint=origin))

    @property
    def origin(self) -> str:
        return self.access.s3_endpoint or self.access.blob_endpoint.removesuffix(f"/{azurite_server.ACCOUNT}")


@pytest.fixture(scope="session")
def an_azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    if reason := azurite_server.missing():
        pytest.skip(reason)
    with azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def an_s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBucket]:
    pytest.importorskip("localbucket", reason="needs localbucket, an S3 server")
    with localbucket(tmp_path_factory.mktemp("s3")) as server:
        yield server


def folder_site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return Site(str(tmp_path / "media"))


def azurite_site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    """A container whose SAS may do everything."""
    server: Azurite = request.getfixturevalue("an_azurite")
    name = f"media-{next(_numbers)}"
    server.make_container(name)
    access = StoreAccess(blob_sas=Secret(server.sas(name, "rcwdl")), blob_endpoint=server.endpoint)
    return Site(f"azure://{azurite_server.ACCOUNT}/{name}", access)


def s3_site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    server: LocalBucket = request.getfixturevalue("an_s3_server")
    name = f"media-{next(_numbers)}"
    server.make_bucket(name)
    access = StoreAccess(
        s3_key_id="key", s3_secret=Secret("c2VjcmV0LW9mLXRoZS1idWNrZXQ"), s3_endpoint=server.endpoint
    )
    return Site(f"s3://{name}", access)


CLOUDS: dict[str, Callable[[Path, pytest.FixtureRequest], Site]] = {"azurite": azurite_site, "s3": s3_site}


@pytest.fixture(params=["folder", *CLOUDS])
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return {"folder": folder_site, **CLOUDS}[request.param](tmp_path, request)


@pytest.fixture(params=CLOUDS)
def cloud(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return CLOUDS[request.param](tmp_path, request)


@pytest.fixture
def container(tmp_path: Path, request: pytest.FixtureRequest) -> Site:
    return azurite_site(tmp_path, request)


@pytest.fixture
def store(site: Site) -> Store:
    return site.make()
