"""What lets us into a cloud store: credentials and addresses, apart from the location that people see."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from vsa.errors import BadRequest
from vsa.secret import Secret

Identity = Callable[[], Any]
"""Signs in and returns a credential in obstore's form; it is called again when that has ended."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """Credentials for stores; what is empty comes from the machine's own identity.

    Azure: a SAS, or an account key, or `identity` (None: azure-identity's default chain). S3: a key id with
    its secret, or else what AWS's environment variables, web identity or instance role give. Endpoints are
    for other clouds, compatible services and emulators. BadRequest if the values contradict each other.
    """

    blob_sas: Secret | None = None
    blob_key: Secret | None = None
    blob_endpoint: str = ""
    identity: Identity | None = None
    s3_key_id: str = ""
    s3_secret: Secret | None = None
    s3_endpoint: str = ""
    s3_region: str = ""

    def __post_init__(self) -> None:
        if self.blob_sas and self.blob_key:
            raise BadRequest("both a SAS and an account key were given for the container: give one of them")
        if bool(self.s3_key_id) != bool(self.s3_secret):
            raise BadRequest("an S3 key id and its secret belong together: give both, or none of them")
        _require_sas(self.blob_sas)
        _require_key(self.blob_key)
        for endpoint in (self.blob_endpoint, self.s3_endpoint):
            _require_endpoint(endpoint)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """From AZURE_VSA_BLOB_SAS, _KEY, _ENDPOINT and AZURE_VSA_S3_KEY_ID, _SECRET, _ENDPOINT, _REGION."""

        def secret(name: str) -> Secret | None:
            return Secret(environment[name]) if environment.get(name) else None

        return cls(
            blob_sas=secret("AZURE_VSA_BLOB_SAS"),
            blob_key=secret("AZURE_VSA_BLOB_KEY"),
            blob_endpoint=environment.get("AZURE_VSA_BLOB_ENDPOINT", ""),
            s3_key_id=environment.get("AZURE_VSA_S3_KEY_ID", ""),
            s3_secret=secret("AZURE_VSA_S3_SECRET"),
            s3_endpoint=environment.get("AZURE_VSA_S3_ENDPOINT", ""),
            s3_region=environment.get("AZURE_VSA_S3_REGION", ""),
        )


def is_plain_http(endpoint: str) -> bool:
    return endpoint.startswith("http://")


def _require_sas(sas: Secret | None) -> None:
    if sas and "sig" not in parse_qs(sas.reveal().removeprefix("?")):
        raise BadRequest("the SAS of the container has no `sig`: expected sv=...&sp=...&sig=..., no URL")


def _require_key(key: Secret | None) -> None:
    try:
        base64.b64decode(key.reveal() if key else "", validate=True)
    except (binascii.Error, ValueError):
        # Without its cause: that would quote the key.
        raise BadRequest("the account key of the container is not base64: copy it anew") from None


def _require_endpoint(endpoint: str) -> None:
    """BadRequest unless empty, https, or http on this machine: no credential crosses a network in clear."""
    if not endpoint:
        return
    url = urlsplit(endpoint)
    if "@" in url.netloc or url.query or url.fragment or not url.hostname:
        raise BadRequest("a store's endpoint is https://HOST[:PORT][/PATH], without user, query or fragment")
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _LOOPBACK):
        raise BadRequest(
            f"endpoint {url.scheme}://{url.hostname}: expected https; plain http is for this machine only"
        )


NO_SECRETS = StoreAccess()
"""The machine's own identity, at the public clouds' addresses."""
