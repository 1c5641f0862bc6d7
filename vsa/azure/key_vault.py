"""One RSA key of Azure Key Vault, for wrapping the keys of sealed media.

Facts: https://learn.microsoft.com/rest/api/keyvault/keys (wrap-key, unwrap-key, get-key). Wrapping needs the
right keys/get, unwrapping keys/unwrapKey; the role "Key Vault Crypto Service Encryption User" has both. The
vault wraps with a disabled key and does not unwrap with one
(https://github.com/Azure/azure-sdk-for-python/issues/45342), and the SDK wraps by itself with the public
half: so whoever wraps must unwrap before he believes that he can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from azure.core.exceptions import HttpResponseError
from azure.keyvault.keys import KeyClient, KeyVaultKey
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm

from vsa.azure.connection import AzureConnection
from vsa.azure.errors import azure_errors
from vsa.azure.wire import text
from vsa.errors import AccessDenied, AzureNotFound, AzureRefused, BadRequest, VsaError, WrongKey

ALGORITHM = KeyWrapAlgorithm.rsa_oaep_256
LEAST_BITS = 2048

_URL = re.compile(
    r"(?P<vault>https://[A-Za-z0-9.-]+(?::\d+)?)/keys/(?P<name>[0-9A-Za-z-]{1,127})(?:/(?P<version>[0-9a-f]{32}))?/?"
)


class KeyUrl(NamedTuple):
    """https://<vault>/keys/<name>/<version>; without a version, the newest one is meant."""

    vault: str
    name: str
    version: str | None

    @classmethod
    def parse(cls, url: str) -> Self:
        match = _URL.fullmatch(url)
        if match is None:
            raise BadRequest(
                f"{url!r} is no Key Vault key: expected https://<vault>.vault.azure.net/keys/<name>"
            )
        return cls(match["vault"].lower(), match["name"], match["version"])

    def same_key(self, other: KeyUrl) -> bool:
        """Whether both are versions of one key. Key Vault compares names without regard to case."""
        return (self.vault, self.name.lower()) == (other.vault, other.name.lower())

    def __str__(self) -> str:
        return "/".join(filter(None, (self.vault, "keys", self.name, self.version)))


class VaultKey:
    """A key that the operator chose by its URL; new wrappings take the version in it, or the newest."""

    def __init__(self, connection: AzureConnection, url: str) -> None:
        self._connection = connection
        self._url = KeyUrl.parse(url)

    def wrap(self, key: bytes) -> tuple[str, bytes]:
        """The URL of the version used, and `key` encrypted to it with RSA-OAEP-256."""
        action = f"wrap with key {self._url}"
        with _vault_errors(action):
            with KeyClient(self._url.vault, **self._connection.vault_options(self._url.vault)) as api:
                found = api.get_key(self._url.name, self._url.version)
            _require_useful(found, action)
            with self._cryptography(found) as crypto:
                wrapped = crypto.wrap_key(ALGORITHM, key)
        return str(KeyUrl.parse(str(found.id))), wrapped.encrypted_key

    def unwrap(self, url: str, wrapped: bytes) -> bytes:
        """What was wrapped by the version `url`.

        `url` comes from the media, and whoever writes there must not send us, and our token, to a vault of
        his: WrongKey unless it is the operator's key. WrongKey, too, if this version cannot decrypt it.
        """
        asked = KeyUrl.parse(url)
        if not self._url.same_key(asked):
            raise WrongKey(f"the media was sealed with key {asked}, but {self._url} was given")
        with _vault_errors(f"unwrap with key {asked}"), self._cryptography(str(asked)) as crypto:
            return crypto.unwrap_key(ALGORITHM, wrapped).key

    def _cryptography(self, key: KeyVaultKey | str) -> CryptographyClient:
        return CryptographyClient(key, **self._connection.vault_options(self._url.vault))


def _require_useful(key: KeyVaultKey, action: str) -> None:
    """BadRequest if the key protects badly, AzureRefused if it would not unwrap what it wraps."""
    material: Any = key.key
    kind, bits = text(material.kty), 8 * len(material.n or b"")
    if kind not in ("RSA", "RSA-HSM") or bits < LEAST_BITS:
        raise BadRequest(f"{action}: it is {kind} of {bits} bits, expected RSA of at least {LEAST_BITS} bits")
    if key.properties.enabled is False:
        raise AzureRefused(f"{action}: the key is disabled; enable it", code="KeyDisabled")


@contextmanager
def _vault_errors(action: str) -> Iterator[None]:
    """The border's errors, made more exact by the reasons that a vault puts inside its own."""
    try:
        with azure_errors(action):
            yield
    except AzureRefused as error:
        raise _more_exact(error, action) from error.__cause__
    except ValueError as error:
        # The SDK checks the challenge of a vault, and the dates of a key, before it asks anybody.
        raise BadRequest(f"{action}: {error}") from error


def _more_exact(error: AzureRefused, action: str) -> VsaError:
    inner = _inner_code(error.__cause__)
    if inner == "KeyDisabled":
        return AzureRefused(f"{action}: the key is disabled in the vault; enable it ({error})", code=inner)
    if isinstance(error, AzureNotFound):
        advice = "if it was deleted, recover it (az keyvault key recover)"
        return AzureNotFound(f"{action}: no such key or version; {advice} ({error})", code=error.code)
    if inner == "ForbiddenByFirewall":
        return AccessDenied(f"{action}: the vault's firewall refuses this machine ({error})", code=inner)
    if error.code == "BadParameter":
        return WrongKey(f"{action}: the vault cannot decrypt it, so it was wrapped by another key ({error})")
    return error


def _inner_code(error: BaseException | None) -> str:
    """The code of `innererror`, where Key Vault tells what "Forbidden" means."""
    if not isinstance(error, HttpResponseError):
        return ""
    inner: Any = getattr(error.error, "innererror", None) or {}
    return str(inner.get("code") or "")
