"""The simulated key vault, through the real SDK and through bare requests."""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect

OAEP = KeyWrapAlgorithm.rsa_oaep_256
_numbers = itertools.count(1)


@pytest.fixture
def key(azure: Azure) -> str:
    """The URL of the only version of a new key."""
    return azure.control.create_vault_key(f"key-{next(_numbers)}")


def options(azure: Azure) -> dict[str, Any]:
    return {
        "credential": azure.credential,
        "connection_verify": azure.ca,
        "verify_challenge_resource": False,
        "retry_total": 0,
    }


@pytest.fixture
def keys(azure: Azure) -> Iterator[KeyClient]:
    with KeyClient(azure.base_url, **options(azure)) as client:
        yield client


def crypto(azure: Azure, key: str) -> CryptographyClient:
    return CryptographyClient(key, **options(azure))


def name_of(key: str) -> str:
    return key.split("/")[-2]


def bare(azure: Azure, key: str, token: str | None) -> tuple[int, str | None, dict[str, Any]]:
    """One GET of a key: status, challenge, body."""
    address = urlsplit(key)
    context = ssl.create_default_context(cafile=azure.ca)
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=context)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    connection.request("GET", f"{address.path}?api-version=7.4", headers=headers)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, response.headers["WWW-Authenticate"], body


def test_what_is_wrapped_is_unwrapped(azure: Azure, key: str) -> None:
    with crypto(azure, key) as client:
        wrapped = client.wrap_key(OAEP, b"thirty-two bytes of key material")
        assert wrapped.key_id == key
        assert client.unwrap_key(OAEP, wrapped.encrypted_key).key == b"thirty-two bytes of key material"


def test_the_service_wraps_for_who_has_no_public_half(azure: Azure, key: str) -> None:
    """The SDK wraps by itself once it was given the key; without the right to get it, it asks."""
    azure.control.add_fault("status", plane="vault", method="GET", status=403, code="Forbidden", times=None)
    with crypto(azure, key) as client:
        wrapped = client.wrap_key(OAEP, b"secret").encrypted_key
        assert client.unwrap_key(OAEP, wrapped).key == b"secret"
    paths = [each["path"] for each in azure.control.requests() if each["plane"] == "vault"]
    assert paths[-2].endswith("/wrapkey")


def test_a_request_without_a_token_is_told_whose_tokens_are_taken(azure: Azure, key: str) -> None:
    status, challenge, body = bare(azure, key, token=None)
    tenant = azure.process.endpoint["tenant"]
    assert (status, body["error"]["code"]) == (401, "Unauthorized")
    assert (
        challenge == f'Bearer authorization="{azure.base_url}/{tenant}", resource="https://vault.azure.net"'
    )


def test_a_token_for_another_service_is_refused(azure: Azure, key: str) -> None:
    for_arm = azure.credential.get_token(f"{azure.base_url}/.default").token
    for_vaults = azure.credential.get_token("https://vault.azure.net/.default").token
    assert bare(azure, key, for_arm)[0] == 401
    assert bare(azure, key, for_vaults)[0] == 200


def test_a_disabled_key_wraps_and_does_not_unwrap(azure: Azure, keys: KeyClient, key: str) -> None:
    azure.control.set_vault_key(name_of(key), enabled=False)
    assert keys.get_key(name_of(key)).properties.enabled is False
    with crypto(azure, key) as client:
        wrapped = client.wrap_key(OAEP, b"secret").encrypted_key
        with pytest.raises(HttpResponseError, match="not allowed on a disabled key") as caught:
            client.unwrap_key(OAEP, wrapped)
        assert caught.value.error.innererror["code"] == "KeyDisabled"
        azure.control.set_vault_key(name_of(key), enabled=True)
        assert client.unwrap_key(OAEP, wrapped).key == b"secret"


def test_a_deleted_key_is_not_found_until_it_is_recovered(azure: Azure, keys: KeyClient, key: str) -> None:
    azure.control.set_vault_key(name_of(key), deleted=True)
    with pytest.raises(ResourceNotFoundError, match="KeyNotFound"):
        keys.get_key(name_of(key))
    azure.control.set_vault_key(name_of(key), deleted=False)
    assert keys.get_key(name_of(key)).id == key


def test_versions_are_keys_of_their_own(azure: Azure, keys: KeyClient, key: str) -> None:
    newer = azure.control.create_vault_key(name_of(key))
    assert keys.get_key(name_of(key)).id == newer
    with crypto(azure, key) as old, crypto(azure, newer) as new:
        wrapped = old.wrap_key(OAEP, b"secret").encrypted_key
        assert old.unwrap_key(OAEP, wrapped).key == b"secret"
        with pytest.raises(HttpResponseError, match="BadParameter"):
            new.unwrap_key(OAEP, wrapped)


def test_fault_rules_see_the_vault_as_a_plane_of_its_own(azure: Azure, keys: KeyClient, key: str) -> None:
    azure.control.add_fault("status", plane="arm", status=500, times=None)
    azure.control.add_fault("status", plane="vault", status=401, code="Unauthorized", times=1)
    with pytest.raises(ClientAuthenticationError):
        keys.get_key(name_of(key))
    assert keys.get_key(name_of(key)).id == key


def test_keys_survive_a_restart(tmp_path: Path) -> None:
    process = AzsimProcess(tmp_path)
    with process:
        azure = connect(process)
        key = azure.control.create_vault_key("kept")
        with crypto(azure, key) as client:
            wrapped = client.wrap_key(OAEP, b"secret").encrypted_key
        azure.close()
    with process:
        azure = connect(process)
        with crypto(azure, key) as client:
            assert client.unwrap_key(OAEP, wrapped).key == b"secret"
        azure.close()
