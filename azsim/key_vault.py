"""A key vault: RSA keys in versions, get, wrap and unwrap.

Sources: "Key Vault REST API: keys" (get-key, wrap-key, unwrap-key), "Authentication, requests and
responses" (the challenge), "Azure Key Vault REST API error codes". A disabled key wraps but does not
unwrap: Azure/azure-sdk-for-python issue 45342, observed on the real service.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import threading
import uuid
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from azsim.documents import Documents
from azsim.identity import Identity

Wire = dict[str, Any]

AUDIENCE = "https://vault.azure.net"
_KIND = "vault_key"
_OPERATIONS = ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"]
_PADDINGS = {"RSA-OAEP-256": hashes.SHA256, "RSA-OAEP": hashes.SHA1}


class VaultError(Exception):
    """A request that the vault refuses; `inner` is where it tells what "Forbidden" means."""

    def __init__(self, status: int, code: str, message: str, *, inner: str = "") -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.error: Wire = {"code": code, "message": message}
        if inner:
            self.error["innererror"] = {"code": inner}


class KeyVault:
    """The one vault of the simulation. Keys live in real time, in the state folder, in clear."""

    def __init__(self, documents: Documents, identity: Identity, *, base_url: str) -> None:
        self._documents = documents
        self._identity = identity
        self._base_url = base_url
        self._lock = threading.RLock()

    def routes(self) -> list[Route]:
        return [Route("/keys/{path:path}", self._serve, methods=["GET", "POST"])]

    def create_key(self, name: str, bits: int = 2048) -> Wire:
        """A new key or the next version of one; returns its public half."""
        private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        now = int(dt.datetime.now(dt.UTC).timestamp())
        version = {"version": uuid.uuid4().hex, "pem": pem.decode(), "enabled": True, "created": now}
        with self._lock:
            key = self._documents.get(_KIND, name.lower()) or {"name": name, "deleted": False, "versions": []}
            key["versions"].append(version)
            self._documents.put(_KIND, name.lower(), key)
        return self._public(key, version)["key"]  # type: ignore[no-any-return]

    def set_key(
        self,
        name: str,
        version: str | None = None,
        enabled: bool | None = None,
        deleted: bool | None = None,
    ) -> None:
        """What the vault's administrators do to a key, or to one version of it."""
        with self._lock:
            key = self._documents.get(_KIND, name.lower())
            if key is None:
                raise ValueError(f"the vault has no key {name!r}")
            key["deleted"] = key["deleted"] if deleted is None else deleted
            for each in key["versions"]:
                if enabled is not None and version in (None, each["version"]):
                    each["enabled"] = enabled
            self._documents.put(_KIND, name.lower(), key)

    async def _serve(self, request: Request) -> Response:
        body = await request.body()
        try:
            answer = await run_in_threadpool(self._answer, request, body)
        except VaultError as refusal:
            headers = {"WWW-Authenticate": self._challenge} if refusal.status == 401 else {}
            return JSONResponse({"error": refusal.error}, status_code=refusal.status, headers=headers)
        return JSONResponse(answer)

    @property
    def _challenge(self) -> str:
        return f'Bearer authorization="{self._identity.authority}", resource="{AUDIENCE}"'

    def _answer(self, request: Request, body: bytes) -> Wire:
        self._check(request.headers.get("authorization"))
        if "api-version" not in request.query_params:
            raise VaultError(400, "BadParameter", "api-version must be specified")
        name, version, operation = (*request.path_params["path"].split("/"), "", "")[:3]
        key, found = self._version(name, version)
        match request.method, operation.lower():
            case "GET", "":
                return self._public(key, found)
            case "POST", "wrapkey":
                return self._wrapped(key, found, body)
            case "POST", "unwrapkey":
                return self._unwrapped(key, found, body)
        raise VaultError(405, "MethodNotAllowed", f"{request.method} {operation} is not served")

    def _check(self, authorization: str | None) -> None:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise VaultError(401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token.")
        if not self._identity.accepts(token):
            raise VaultError(401, "Unauthorized", "AKV10022: Error validating token.")
        if not self._identity.accepts_for(token, AUDIENCE):
            raise VaultError(401, "Unauthorized", f"AKV10022: Invalid audience. Expected {AUDIENCE}.")

    def _version(self, name: str, version: str) -> tuple[Wire, Wire]:
        key = self._documents.get(_KIND, name.lower())
        found = [each for each in key["versions"] if version in ("", each["version"])] if key else []
        if key is None or key["deleted"] or not found:
            asked = "/".join(filter(None, (name, version)))
            raise VaultError(
                404,
                "KeyNotFound",
                f"A key with (name/id) {asked} was not found in this key vault. If you recently deleted this"
                " key you may be able to recover it using the correct recovery command.",
            )
        return key, found[-1]

    def _public(self, key: Wire, version: Wire) -> Wire:
        numbers = _private(version).public_key().public_numbers()
        return {
            "key": {
                "kid": self._url(key, version),
                "kty": "RSA",
                "key_ops": _OPERATIONS,
                "n": _encoded(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
                "e": _encoded(numbers.e.to_bytes(3)),
            },
            "attributes": {
                "enabled": version["enabled"],
                "created": version["created"],
                "updated": version["created"],
                "recoveryLevel": "Recoverable+Purgeable",
                "recoverableDays": 90,
            },
        }

    def _wrapped(self, key: Wire, version: Wire, body: bytes) -> Wire:
        chosen, value = _asked(body)
        return self._result(key, version, _private(version).public_key().encrypt(value, chosen))

    def _unwrapped(self, key: Wire, version: Wire, body: bytes) -> Wire:
        if not version["enabled"]:
            message = "Operation unwrapKey is not allowed on a disabled key."
            raise VaultError(403, "Forbidden", message, inner="KeyDisabled")
        chosen, value = _asked(body)
        try:
            return self._result(key, version, _private(version).decrypt(value, chosen))
        except ValueError as error:
            raise VaultError(400, "BadParameter", "The parameter is incorrect.") from error

    def _result(self, key: Wire, version: Wire, value: bytes) -> Wire:
        return {"kid": self._url(key, version), "value": _encoded(value)}

    def _url(self, key: Wire, version: Wire) -> str:
        return f"{self._base_url}/keys/{key['name']}/{version['version']}"


def _asked(body: bytes) -> tuple[padding.OAEP, bytes]:
    """Padding and value of a wrap or unwrap request."""
    try:
        asked = json.loads(body)
        algorithm = _PADDINGS[asked["alg"]]
        value = base64.urlsafe_b64decode(asked["value"] + "==")
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise VaultError(400, "BadParameter", f"Property has invalid value: {error}") from error
    return padding.OAEP(padding.MGF1(algorithm()), algorithm(), label=None), value


def _private(version: Wire) -> rsa.RSAPrivateKey:
    key = serialization.load_pem_private_key(version["pem"].encode(), password=None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return key


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
