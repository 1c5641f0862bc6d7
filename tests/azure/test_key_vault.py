"""Wrapping keys in a key vault, against a simulated one: what works, and what each refusal tells to do."""

from __future__ import annotations

import datetime as dt
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from azsim.control import Control
from tests.azsim_process import AzsimProcess
from vsa.azure.connection import AzureConnection
from vsa.azure.key_vault import KeyUrl, VaultKey
from vsa.errors import (
    AccessDenied,
    AzureNotFound,
    AzureRefused,
    BadRequest,
    TryAgainLater,
    VsaError,
    WrongKey,
)
from vsa.media import documents, keys
from vsa.media.cipher import DataKey
from vsa.media.keys import KeyDocument, MediaName, new_key_document, open_data_key, unwrap
from vsa.media.wrapping import VaultWrapping
from vsa.secret import Secret

KEY = bytes(range(32))
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim")) as process:
        yield process


@pytest.fixture(scope="module")
def connection(process: AzsimProcess) -> AzureConnection:
    return connect(process)


@pytest.fixture
def control(process: AzsimProcess) -> Iterator[Control]:
    yield process.control
    process.control.clear_faults()


@pytest.fixture
def url(control: Control) -> str:
    """The only version of a new key."""
    return control.create_vault_key(f"key-{next(_numbers)}")


def connect(process: AzsimProcess, **changes: Any) -> AzureConnection:
    endpoint = process.endpoint
    fields = {
        "subscription_id": endpoint["subscription"],
        "tenant_id": endpoint["tenant"],
        "client_id": endpoint["client_id"],
        "client_secret": Secret(process.client_secret),
        "base_url": endpoint["base_url"],
        "authority": endpoint["base_url"],
        "ca_file": endpoint["ca_file"],
    }
    return AzureConnection(**{**fields, **changes})


def without_version(url: str) -> str:
    return url.rpartition("/")[0]


def name_of(url: str) -> str:
    return url.split("/")[-2]


def test_a_key_comes_back_from_the_version_that_wrapped_it(
    connection: AzureConnection, control: Control, url: str
) -> None:
    vault = VaultKey(connection, without_version(url))
    used, wrapped = vault.wrap(KEY)
    newer = control.create_vault_key(name_of(url))
    assert used == url
    assert vault.unwrap(used, wrapped) == KEY
    assert vault.wrap(KEY)[0] == newer


def test_a_version_in_the_url_is_the_one_that_wraps(
    connection: AzureConnection, control: Control, url: str
) -> None:
    control.create_vault_key(name_of(url))
    assert VaultKey(connection, url).wrap(KEY)[0] == url


def test_a_url_from_the_media_never_leads_to_another_vault(
    connection: AzureConnection, control: Control, url: str
) -> None:
    _, wrapped = VaultKey(connection, url).wrap(KEY)
    before = len(control.requests())
    for foreign in ("https://evil.example/keys/k/" + "0" * 32, url.replace(name_of(url), "other")):
        with pytest.raises(WrongKey, match="was sealed with key"):
            VaultKey(connection, url).unwrap(foreign, wrapped)
    assert len(control.requests()) == before


def test_what_another_key_wrapped_is_called_a_wrong_key(
    connection: AzureConnection, control: Control, url: str
) -> None:
    _, wrapped = VaultKey(connection, control.create_vault_key("another")).wrap(KEY)
    with pytest.raises(WrongKey, match="wrapped by another key"):
        VaultKey(connection, url).unwrap(url, wrapped)


def test_a_disabled_key_wraps_nothing_that_it_would_not_unwrap(
    connection: AzureConnection, control: Control, url: str
) -> None:
    vault = VaultKey(connection, url)
    _, wrapped = vault.wrap(KEY)
    control.set_vault_key(name_of(url), enabled=False)
    for call in (lambda: vault.wrap(KEY), lambda: vault.unwrap(url, wrapped)):
        with pytest.raises(AzureRefused, match=r"disabled.*enable it") as caught:
            call()
        assert caught.value.code == "KeyDisabled"
    control.set_vault_key(name_of(url), enabled=True)
    assert vault.unwrap(url, wrapped) == KEY


def test_a_deleted_key_is_to_be_recovered(connection: AzureConnection, control: Control, url: str) -> None:
    vault = VaultKey(connection, url)
    _, wrapped = vault.wrap(KEY)
    control.set_vault_key(name_of(url), deleted=True)
    for call in (lambda: vault.wrap(KEY), lambda: vault.unwrap(url, wrapped)):
        with pytest.raises(AzureNotFound, match="recover it"):
            call()
    control.set_vault_key(name_of(url), deleted=False)
    assert vault.unwrap(url, wrapped) == KEY


def forbidden(inner: str) -> dict[str, Any]:
    return {"error": {"code": "Forbidden", "message": "No.", "innererror": {"code": inner}}}


@pytest.mark.parametrize(
    ("answer", "ours", "words"),
    [
        ({"status": 403, "body": forbidden("ForbiddenByRbac")}, AccessDenied, "lacks a right"),
        ({"status": 403, "body": forbidden("ForbiddenByPolicy")}, AccessDenied, "lacks a right"),
        ({"status": 403, "body": forbidden("ForbiddenByFirewall")}, AccessDenied, "firewall"),
        ({"status": 429, "code": "Throttled", "retry_after": 7}, TryAgainLater, "429"),
        ({"status": 503, "code": "ServiceUnavailable"}, TryAgainLater, "503"),
    ],
)
@pytest.mark.parametrize("method", ["wrap", "unwrap"])
def test_refusals_tell_what_to_do(
    connection: AzureConnection,
    control: Control,
    url: str,
    method: str,
    answer: dict[str, Any],
    ours: type[VsaError],
    words: str,
) -> None:
    vault = VaultKey(connection, url)
    _, wrapped = vault.wrap(KEY)
    control.add_fault("status", plane="vault", times=None, **answer)
    with pytest.raises(ours, match=words) as caught:
        vault.wrap(KEY) if method == "wrap" else vault.unwrap(url, wrapped)
    assert str(caught.value).startswith(f"{method} with key {url}")
    assert getattr(caught.value, "retry_after", None) == answer.get("retry_after")


def test_a_lost_connection_may_be_tried_again(
    connection: AzureConnection, control: Control, url: str
) -> None:
    vault = VaultKey(connection, url)
    _, wrapped = vault.wrap(KEY)
    control.add_fault("cut", plane="vault", method="POST")
    with pytest.raises(TryAgainLater, match="no whole answer"):
        vault.unwrap(url, wrapped)
    assert vault.unwrap(url, wrapped) == KEY


def test_a_wrong_client_secret_is_no_wrong_key(process: AzsimProcess, url: str) -> None:
    stranger = connect(process, client_secret=Secret("wrong"))
    with pytest.raises(AccessDenied, match="signing in"):
        VaultKey(stranger, url).unwrap(url, bytes(256))


def test_a_vault_that_challenges_for_another_domain_gets_no_token(process: AzsimProcess, url: str) -> None:
    """As a host that is no vault would, to be given a token that it can use elsewhere."""
    elsewhere = connect(process, base_url="https://management.azure.com")
    before = process.control.requests()
    with pytest.raises(BadRequest, match="challenge resource"):
        VaultKey(elsewhere, url).unwrap(url, bytes(256))
    after = process.control.requests()[len(before) :]
    assert not any(each["plane"] == "token" for each in after)


def test_a_weak_key_is_refused(connection: AzureConnection, control: Control) -> None:
    with pytest.raises(BadRequest, match="RSA of 1024 bits, expected RSA of at least 2048"):
        VaultKey(connection, control.create_vault_key("weak", bits=1024)).wrap(KEY)


@pytest.mark.parametrize(
    "text",
    [
        "http://v.vault.azure.net/keys/k",
        "https://v.vault.azure.net/secrets/k",
        "https://v.vault.azure.net/keys/k/newest",
        "https://user@v.vault.azure.net/keys/k",
        "https://v.vault.azure.net/keys/k?x=1",
        "v.vault.azure.net",
    ],
)
def test_what_is_no_key_is_refused_before_anybody_is_asked(connection: AzureConnection, text: str) -> None:
    with pytest.raises(BadRequest, match="is no Key Vault key"):
        VaultKey(connection, text)


def test_names_of_vaults_and_keys_are_compared_as_azure_does() -> None:
    one = KeyUrl.parse("https://V.vault.azure.net/keys/Backup")
    assert one.same_key(KeyUrl.parse("https://v.vault.azure.net/keys/backup/" + "0" * 32))
    assert not one.same_key(KeyUrl.parse("https://w.vault.azure.net/keys/backup"))


def test_nothing_of_a_key_is_in_what_is_logged(
    connection: AzureConnection, url: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("DEBUG")
    vault = VaultKey(connection, url)
    used, wrapped = vault.wrap(KEY)
    assert vault.unwrap(used, wrapped) == KEY
    assert KEY.hex() not in caplog.text and repr(KEY)[2:-1] not in caplog.text


# The data key of sealed media, through a vault

MEDIA = MediaName("0123456789abcdef" * 2, documents.sha256(b"media.json"))
DATA_KEY = DataKey(KEY)
WHEN = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def wrapping(connection: AzureConnection, url: str) -> VaultWrapping:
    return VaultWrapping(VaultKey(connection, url))


def a_document(connection: AzureConnection, url: str) -> KeyDocument:
    return new_key_document(
        DATA_KEY, wrapping(connection, url), media=MEDIA, number=0, now=WHEN, random=os.urandom
    )


def test_sealed_media_is_opened_through_its_vault(connection: AzureConnection, url: str) -> None:
    data = documents.encode(a_document(connection, without_version(url)))
    document = keys.decode(data, 0, MEDIA)
    assert unwrap(document, wrapping(connection, without_version(url))) == DATA_KEY
    assert KEY.hex() not in data.decode()


def test_no_media_is_sealed_with_a_key_that_stops_unwrapping(
    connection: AzureConnection, control: Control, url: str
) -> None:
    """The SDK wraps with the public half alone, so that success of it proves nothing."""
    control.add_fault(
        "status", plane="vault", path="unwrapkey", status=403, body=forbidden("ForbiddenByRbac")
    )
    with pytest.raises(AccessDenied, match="unwrap with key"):
        a_document(connection, url)


def test_another_key_of_the_vault_is_a_wrong_key(
    connection: AzureConnection, control: Control, url: str
) -> None:
    other = control.create_vault_key("other")
    with pytest.raises(WrongKey, match="was sealed with key"):
        open_data_key([a_document(connection, url)], wrapping(connection, other))


def test_a_disabled_key_opens_nothing_until_it_is_enabled_and_is_not_called_wrong(
    connection: AzureConnection, control: Control, url: str
) -> None:
    document = a_document(connection, url)
    control.set_vault_key(name_of(url), enabled=False)
    with pytest.raises(AzureRefused, match="enable it"):
        open_data_key([document], wrapping(connection, url))
    control.set_vault_key(name_of(url), enabled=True)
    assert open_data_key([document], wrapping(connection, url)) == (DATA_KEY, 0)


def test_a_new_version_in_the_vault_is_taken_at_rotation_and_the_old_one_may_go(
    connection: AzureConnection, control: Control, url: str
) -> None:
    vault = wrapping(connection, without_version(url))
    first = a_document(connection, without_version(url))
    newer = control.create_vault_key(name_of(url))
    second = new_key_document(DATA_KEY, vault, media=MEDIA, number=1, now=WHEN, random=os.urandom)
    assert (first.way.key, second.way.key) == (url, newer)
    control.set_vault_key(name_of(url), version=url.rpartition("/")[2], enabled=False)
    assert open_data_key([first, second], vault) == (DATA_KEY, 1)
