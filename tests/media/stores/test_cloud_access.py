"""Who may enter a cloud store, what is said to whoever may not, and that no secret is said to anybody."""

from __future__ import annotations

import base64
import dataclasses
import logging
import pickle
import traceback
from typing import Any

import pytest

from tests.media.making import EXTENT, NOW, back_up, noise, read_point
from tests.media.stores.conftest import HASTY, ONCE, Site
from tests.media.stores.faulty_network import Fault, faulty_network
from tests.servers.azurite import KEY
from vsa.errors import (
    BadRequest,
    DeleteRefused,
    MediaConflict,
    MediaUnusable,
    NoMedia,
    TryAgainLater,
    VsaError,
)
from vsa.media.access import StoreAccess
from vsa.media.azure_blob import blob_service
from vsa.media.cloud import CloudStore, Patience, Service
from vsa.media.location import BlobContainer
from vsa.media.media import Media
from vsa.media.places import make_store
from vsa.media.s3 import s3_service
from vsa.ranges import ByteRange
from vsa.secret import Secret

PACK = f"runs/r1/packs/{'ab' * 16}.pack"
WRONG_KEY = base64.b64encode(b"wrong key, never to be seen".ljust(64, b"!")).decode()


def blob(site: Site, **given: Any) -> StoreAccess:
    """The site's access, with other credentials."""
    return dataclasses.replace(site.access, **{"blob_sas": None, **given})


def test_an_account_key_opens_a_container(container):
    store = container.store(blob(container, blob_key=Secret(KEY)))
    store.create(PACK, [b"by key"])
    assert container.store().read(PACK) == b"by key"
    store.delete(PACK)


def test_an_identity_opens_a_container_and_is_asked_again_when_its_token_ends(container):
    """Any callable in obstore's form; a token of Entra and a SAS take the same way."""
    asked = []
    sas = container.access.blob_sas.reveal()

    def identity():
        asked.append(1)
        return {"sas_token": sas, "expires_at": None}

    store = container.store(blob(container, identity=identity))
    store.create(PACK, [b"by identity"])
    assert store.read(PACK) == b"by identity"
    assert asked


def test_an_identity_that_cannot_sign_in_is_named(container):
    def identity():
        raise RuntimeError("no managed identity here")

    store = container.store(blob(container, identity=identity))
    for call in (lambda: store.read(PACK), lambda: store.create(PACK, [b"x"])):
        with pytest.raises(MediaUnusable, match=r"signing in failed: .*no managed identity here"):
            call()


def test_the_default_identity_is_made_without_asking_anybody():
    service = blob_service(BlobContainer("account", "container"), StoreAccess())
    assert CloudStore(service).location == "azure://account/container"


def test_a_wrong_key_is_refused_with_advice(container):
    store = container.store(blob(container, blob_key=Secret(WRONG_KEY)))
    for call in (
        lambda: store.read(PACK),
        lambda: store.read(PACK, ByteRange(0, 1)),
        lambda: store.size(PACK),
        lambda: store.create(PACK, [b"x"]),
        lambda: list(store.names("")),
        lambda: list(store.folders("runs/")),
        store.prepare_for_writing,
    ):
        with pytest.raises(MediaUnusable, match=r"403.*check that the key or SAS is right"):
            call()


def rights(site: Site, an_azurite, letters: str) -> StoreAccess:
    return (
        blob(site)
        if not letters
        else dataclasses.replace(
            site.access, blob_sas=Secret(an_azurite.sas(site.location.rpartition("/")[2], letters))
        )
    )


def test_a_reader_reads_and_is_told_that_it_may_not_write(container, an_azurite):
    container.make().create(PACK, [b"x"])
    store = container.store(rights(container, an_azurite, "rl"))
    assert (store.read(PACK), list(store.names(""))) == (b"x", [PACK])
    with pytest.raises(MediaUnusable, match=r"AuthorizationPermissionMismatch.*may store objects"):
        store.create("log/000000000000", [b"y"])
    with pytest.raises(MediaConflict):
        store.create(PACK, [b"y"])
    with pytest.raises(MediaUnusable, match="may store objects"):
        store.prepare_for_writing()


def test_a_writer_without_the_right_to_delete_can_do_all_that_a_backup_needs(container, an_azurite, tmp_path):
    """Its probes stay; they are no objects, and new media may still be made beside them."""
    access = rights(container, an_azurite, "rcl")
    Media.create(container.location, extent_size=EXTENT, now=NOW, access=access)
    media = Media.open(container.location, write=True, access=access)
    slot = back_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
    assert read_point(media, slot) == {0: noise(0)}
    store = container.store(access)
    assert not [name for name in store.names("") if "probe" in name]
    with pytest.raises(DeleteRefused, match="missing right"):
        store.delete(next(store.names("runs/")))
    with pytest.raises(MediaConflict, match="exists already"):
        store.create("media.json", [b"{}"])


def test_probes_that_stayed_do_not_make_a_place_full(container, an_azurite):
    access = rights(container, an_azurite, "rcl")
    container.store(access).prepare_for_writing()
    assert make_store(container.location, access, random=bytes)


def test_a_missing_container_or_bucket_is_no_media_and_is_not_made(cloud):
    everywhere = cloud.access if cloud.access.s3_secret else blob(cloud, blob_key=Secret(KEY))
    absent = Site(cloud.location.replace("media-", "absent-"), everywhere)
    for call in (
        lambda: Media.open(absent.location, access=absent.access),
        absent.make,
        lambda: absent.store().create(PACK, [b"x"]),
        lambda: absent.store().read(PACK),
        lambda: list(absent.store().names("")),
    ):
        with pytest.raises(NoMedia, match="make it first"):
            call()


def test_an_empty_place_is_no_media(cloud):
    with pytest.raises(NoMedia, match="it is empty; `vsa init` makes one"):
        Media.open(cloud.location, access=cloud.access)


def test_an_object_larger_than_one_request_takes_is_refused_before_it_is_sent(container):
    whole = blob_service(
        BlobContainer("devstoreaccount1", container.location.rpartition("/")[2]), container.access
    )
    store = CloudStore(dataclasses.replace(whole, largest=1000), patience=ONCE)
    store.create(PACK, [bytes(600), bytes(400)])
    with pytest.raises(MediaUnusable, match="1001 bytes, and the service takes at most 1000"):
        store.create("log/000000000000", [bytes(600), bytes(401)])
    assert list(store.names("log/")) == []


def test_the_bounds_are_those_of_one_put():
    assert _service("azure").largest == 5000 * 2**20
    assert _service("s3").largest == 5 * 2**30


def _service(kind: str) -> Service:
    from vsa.media.location import Bucket

    if kind == "s3":
        return s3_service(Bucket("bucket"), StoreAccess())
    return blob_service(BlobContainer("account", "container"), StoreAccess(blob_key=Secret(KEY)))


def test_the_librarys_own_variables_do_not_decide_where_we_go(container, monkeypatch):
    for name, value in {
        "AZURE_STORAGE_ACCOUNT_KEY": WRONG_KEY,
        "AZURE_STORAGE_USE_EMULATOR": "true",
        "AZURE_STORAGE_ENDPOINT": "https://elsewhere.example",
        "AZURE_CONTAINER_NAME": "elsewhere",
        "AZURE_SKIP_SIGNATURE": "true",
        "AZURE_CREDENTIAL_TYPE": "managed_identity",
        "AWS_CONDITIONAL_PUT": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    container.make().create(PACK, [b"here"])
    with pytest.raises(MediaConflict):
        container.store().create(PACK, [b"again"])
    monkeypatch.undo()
    assert container.store().read(PACK) == b"here"


def test_the_condition_is_not_the_environments_to_switch_off(cloud, monkeypatch):
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    cloud.make()


CANARY = "Y2FuYXJ5LW5ldmVyLXRvLWJlLXNlZW4tYW55d2hlcmU"


def canaries(site: Site) -> list[StoreAccess]:
    """Accesses with the canary as every kind of secret that the site takes."""
    if site.access.s3_secret:
        return [dataclasses.replace(site.access, s3_secret=Secret(CANARY))]
    sas = f"sv=2025-11-05&sr=c&sp=rcwdl&se=2030-01-01T00%3A00%3A00Z&sig={CANARY}%3D"
    return [
        dataclasses.replace(site.access, blob_sas=Secret(sas)),
        blob(site, blob_key=Secret(f"{CANARY}=")),
    ]


def failures_of(store: CloudStore) -> list[str]:
    """Whatever an error may show, from every call that fails."""
    shown = [repr(store), repr(vars(store)), store.location]
    for call in (
        lambda: store.create(PACK, [b"x" * 100_000]),
        lambda: store.read(PACK),
        lambda: store.read(PACK, ByteRange(0, 10)),
        lambda: store.size(PACK),
        lambda: list(store.names("")),
        lambda: list(store.folders("runs/")),
        lambda: store.delete(PACK),
        store.prepare_for_writing,
        store.require_empty,
    ):
        try:
            call()
        except VsaError as error:
            shown += [str(error), repr(error), *traceback.format_exception(error)]
    return shown


def assert_nothing_shows_the_canary(site: Site, patience: Patience) -> None:
    for access in canaries(site):
        shown = failures_of(site.store(access, patience))
        assert len(shown) > 10
        assert not [text for text in shown if CANARY in text]


@pytest.mark.parametrize("fault", [Fault.CUT_REQUEST, Fault.LOSE_ANSWER, Fault.CUT_ANSWER, Fault.STALL])
def test_no_error_shows_a_secret(cloud, fault, caplog):
    caplog.set_level(logging.DEBUG)
    with faulty_network(cloud.origin) as network:
        network.script = lambda _method, _target: fault
        site = cloud.behind(network.origin)
        assert_nothing_shows_the_canary(site, HASTY if fault is Fault.STALL else ONCE)
    assert CANARY not in caplog.text


def test_no_refusal_shows_a_secret(container, caplog):
    caplog.set_level(logging.DEBUG)
    assert_nothing_shows_the_canary(container, ONCE)
    assert CANARY not in caplog.text


def test_access_shows_nothing_of_what_it_holds():
    access = StoreAccess(
        blob_sas=Secret(f"sig={CANARY}"), s3_key_id="id", s3_secret=Secret(CANARY), s3_region="eu-west-1"
    )
    assert CANARY not in f"{access} {access!r}"
    for serialise in (pickle.dumps, dataclasses.asdict):
        with pytest.raises(TypeError, match="not to be serialised"):
            serialise(access)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"blob_sas": Secret("sig=x"), "blob_key": Secret(KEY)}, "give one of them"),
        ({"s3_key_id": "id"}, "belong together"),
        ({"s3_secret": Secret(CANARY)}, "belong together"),
        ({"blob_sas": Secret(f"https://a.example/c?{CANARY}")}, "no `sig`"),
        ({"blob_key": Secret(f"{CANARY}!")}, "not base64"),
        ({"blob_endpoint": "http://blobs.example"}, "plain http is for this machine only"),
        ({"s3_endpoint": "ftp://s3.example"}, "expected https"),
        ({"s3_endpoint": f"https://user:{CANARY}@s3.example"}, "without user"),
        ({"blob_endpoint": f"https://a.example/?sig={CANARY}"}, "without user"),
        ({"s3_endpoint": "s3.example"}, "a store's endpoint is"),
    ],
)
def test_an_access_that_cannot_be_meant_is_refused_without_showing_it(given, complaint):
    with pytest.raises(BadRequest, match=complaint) as caught:
        StoreAccess(**given)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


def test_the_environment_gives_what_it_holds_and_nothing_else():
    assert StoreAccess.from_environment({}) == StoreAccess()
    given = {
        "AZURE_VSA_BLOB_SAS": "?sv=1&sig=x",
        "AZURE_VSA_BLOB_ENDPOINT": "https://a.blob.core.chinacloudapi.cn",
        "AZURE_VSA_S3_KEY_ID": "id",
        "AZURE_VSA_S3_SECRET": "secret",
        "AZURE_VSA_S3_ENDPOINT": "https://s3.example",
        "AZURE_VSA_S3_REGION": "eu-west-1",
        "AZURE_VSA_BLOB_KEY": "",
    }
    assert StoreAccess.from_environment(given) == StoreAccess(
        blob_sas=Secret("?sv=1&sig=x"),
        blob_endpoint="https://a.blob.core.chinacloudapi.cn",
        s3_key_id="id",
        s3_secret=Secret("secret"),
        s3_endpoint="https://s3.example",
        s3_region="eu-west-1",
    )


def test_a_sas_may_be_pasted_with_its_question_mark(container):
    sas = container.access.blob_sas.reveal()
    access = dataclasses.replace(container.access, blob_sas=Secret(f"?{sas}"))
    assert list(container.store(access).names("")) == []


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "NoSuchKey", "ObjectMissing"),
        (404, "NoSuchBucket", "NoMedia"),
        (403, "SignatureDoesNotMatch", "MediaUnusable"),
        (403, "AccessDenied", "MediaUnusable"),
        (400, "AuthorizationHeaderMalformed", "MediaUnusable"),
        (301, "PermanentRedirect", "MediaUnusable"),
        (429, "TooManyRequests", "TryAgainLater"),
        (500, "InternalError", "TryAgainLater"),
        (503, "SlowDown", "TryAgainLater"),
        (507, "", "MediaUnusable"),
    ],
)
def test_what_a_read_is_told_by_a_services_answer(status, code, kind):
    assert type(_said(status, code, "read")).__name__ == kind


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "BlobAlreadyExists", MediaConflict),
        (412, "ConditionNotMet", MediaConflict),
        (412, "PreconditionFailed", MediaConflict),
        (304, "", MediaConflict),
        (409, "ConditionalRequestConflict", TryAgainLater),
        (409, "ContainerBeingDeleted", TryAgainLater),
        (404, "ContainerNotFound", NoMedia),
        (404, "", NoMedia),
        (403, "AccessDenied", MediaUnusable),
        (503, "ServerBusy", TryAgainLater),
    ],
)
def test_what_a_create_is_told_by_a_services_answer(status, code, kind):
    assert type(_said(status, code, "create")) is kind


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (409, "BlobImmutableDueToPolicy"),
        (403, "AccessDenied"),
        (412, "LeaseIdMissing"),
        (409, "SnapshotsPresent"),
    ],
)
def test_a_deletion_that_is_refused_is_not_a_failure_of_the_store(status, code):
    said = _said(status, code, "delete")
    assert type(said) is DeleteRefused
    assert code in str(said)


def _said(status: int, code: str, action: str) -> VsaError:
    """Our error for a text as obstore writes it."""
    from obstore.exceptions import GenericError

    from vsa.media.cloud_errors import Action, meaning

    body = f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>' if code else ""
    text = f"Error performing PUT REDACTED in 1ms - Server returned non-2xx status code: {status} X:{body}"
    return meaning(GenericError(text), Action[action.upper()], "s3://b: cannot do it")
