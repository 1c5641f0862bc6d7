"""S3 buckets, Amazon's and compatible ones, as stores: PutObject with `If-None-Match: *`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

from vsa.media.access import StoreAccess, is_plain_http
from vsa.media.cloud import Service
from vsa.media.location import Bucket
from vsa.ranges import GIB

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Credential

LARGEST = 5 * GIB
"""What one PutObject takes."""


def s3_service(place: Bucket, access: StoreAccess) -> Service:
    """The bucket that `place` names, entered with a key or as what the machine is known for to AWS."""
    settings = _settings(access)

    def connect(client: ClientConfig, retry: RetryConfig) -> S3Store:
        return S3Store(
            place.bucket,
            prefix=place.prefix or None,
            client_options=client,
            retry_config=retry,
            # A missing key's condition is the whole safety of the media: never left to the environment.
            conditional_put="etag",
            # Single deletes: each answer belongs to one object, and compatible services lack the other kind.
            disable_bulk_delete=True,
            virtual_hosted_style_request=False,
            skip_signature=False,
            **settings,
        )

    return Service(
        location=str(place), largest=LARGEST, connect=connect, plain_http=is_plain_http(access.s3_endpoint)
    )


def _settings(access: StoreAccess) -> dict[str, Any]:
    """What was given; what was not is left to the variables and roles that AWS's tools use."""
    given: dict[str, Any] = {"endpoint": access.s3_endpoint, "region": access.s3_region}
    settings = {name: value for name, value in given.items() if value}
    if access.s3_secret:
        secret = access.s3_secret

        def with_key() -> S3Credential:
            return {
                "access_key_id": access.s3_key_id,
                "secret_access_key": secret.reveal(),
                "token": None,
                "expires_at": None,
            }

        # A provider: so the secret is not in the client's settings, and no session token from the environment
        # is sent with it.
        settings["credential_provider"] = with_key
    return settings
