"""Azure Blob containers as stores: Put Blob with `If-None-Match: *`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from obstore.store import AzureStore

from vsa.media.access import Identity, StoreAccess, is_plain_http
from vsa.media.cloud import Service
from vsa.media.location import BlobContainer
from vsa.ranges import MIB

if TYPE_CHECKING:
    from obstore.store import AzureCredential, ClientConfig, RetryConfig

LARGEST = 5000 * MIB
"""What one Put Blob takes (service versions since 2019-12-12)."""


def blob_service(place: BlobContainer, access: StoreAccess) -> Service:
    """The container that `place` names, entered with a SAS, a key or an identity."""
    credential = _credential(access)

    def connect(client: ClientConfig, retry: RetryConfig) -> AzureStore:
        # The library fills gaps from variables of its own in the environment: what decides where we go and
        # as whom leaves none.
        return AzureStore(
            place.container,
            prefix=place.prefix or None,
            account_name=place.account,
            endpoint=access.blob_endpoint or f"https://{place.account}.blob.core.windows.net",
            use_emulator=False,
            use_fabric_endpoint=False,
            skip_signature=False,
            client_options=client,
            retry_config=retry,
            credential_provider=credential,
        )

    return Service(
        location=str(place), largest=LARGEST, connect=connect, plain_http=is_plain_http(access.blob_endpoint)
    )


def _credential(access: StoreAccess) -> Identity:
    """A provider, also for a SAS or a key: kept out of the client's settings, it is in no repr of them."""
    if access.blob_sas:
        sas = access.blob_sas

        def with_sas() -> AzureCredential:
            return {"sas_token": sas.reveal().removeprefix("?"), "expires_at": None}

        return with_sas
    if access.blob_key:
        key = access.blob_key

        def with_key() -> AzureCredential:
            return {"access_key": key.reveal(), "expires_at": None}

        return with_key
    return access.identity or _own_identity()


def _own_identity() -> Identity:
    """azure-identity's default chain; half a second of imports that a SAS or a key does not need."""
    from obstore.auth.azure import AzureCredentialProvider  # noqa: PLC0415

    return AzureCredentialProvider()
