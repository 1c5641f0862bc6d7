from __future__ import annotations

import http.client
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential

from tests.azsim_process import AzsimProcess
from tests.azsim_sdk import Azure, connect


def _arm(azure: Azure, path: str, token: str | None) -> tuple[int, str | None, dict[str, object]]:
    """One raw GET: status, challenge, error."""
    address = urlsplit(azure.base_url)
    context = ssl.create_default_context(cafile=azure.ca)
    connection = http.client.HTTPSConnection(str(address.hostname), address.port, context=context)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, response.headers["WWW-Authenticate"], body["error"]


def _disks(azure: Azure) -> str:
    subscription = azure.process.endpoint["subscription"]
    return f"/subscriptions/{subscription}/providers/Microsoft.Compute/disks?api-version=2026-03-02"


def test_a_request_without_a_token_is_challenged(azure: Azure) -> None:
    status, challenge, error = _arm(azure, _disks(azure), token=None)
    assert (status, error["code"]) == (401, "AuthenticationFailed")
    assert challenge is not None
    assert challenge.startswith("Bearer authorization_uri=")


def test_a_token_of_somebody_else_is_refused(azure: Azure) -> None:
    token = azure.credential.get_token(f"{azure.base_url}/.default").token
    head, body, signature = token.split(".")
    forged = f"{head}.{body}.{signature[::-1]}"
    assert _arm(azure, _disks(azure), forged)[::2] == (
        401,
        {
            "code": "InvalidAuthenticationToken",
            "message": "Authentication failed. The access token is invalid.",
        },
    )


def test_a_token_ends_in_real_time(tmp_path: Path) -> None:
    with AzsimProcess(tmp_path, token_seconds=0) as process:
        azure = connect(process)
        token = azure.credential.get_token(f"{azure.base_url}/.default").token
        status, _, error = _arm(azure, _disks(azure), token)
        azure.close()
    assert (status, error["code"]) == (401, "ExpiredAuthenticationToken")


def test_a_wrong_secret_gets_no_token(azure: Azure) -> None:
    endpoint = azure.process.endpoint
    with (
        ClientSecretCredential(
            endpoint["tenant"],
            endpoint["client_id"],
            "not the secret",
            authority=azure.base_url,
            disable_instance_discovery=True,
            connection_verify=azure.ca,
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        credential.get_token(f"{azure.base_url}/.default")


def test_a_request_names_its_api_version(azure: Azure) -> None:
    token = azure.credential.get_token(f"{azure.base_url}/.default").token
    status, _, error = _arm(azure, _disks(azure).split("?")[0], token)
    assert (status, error["code"]) == (400, "MissingApiVersionParameter")


def test_another_subscription_does_not_exist(azure: Azure) -> None:
    token = azure.credential.get_token(f"{azure.base_url}/.default").token
    path = "/subscriptions/00000000-0000-0000-0000-000000000000/resourcegroups?api-version=2025-04-01"
    status, _, error = _arm(azure, path, token)
    assert (status, error["code"]) == (404, "SubscriptionNotFound")
