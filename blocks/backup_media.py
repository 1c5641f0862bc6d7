"""Where recovery points are kept."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.saved import load_named
from vsa.media.access import StoreAccess
from vsa.media.media import Media
from vsa.secret import Secret


class BackupMedia(Block):
    """Backup media that `vsa init` has made. A block never makes or changes media by itself.

    In a folder the location is all. A container or bucket is entered with what is given here, or else as
    the identity that the proxy has: a managed identity of Azure, a role of AWS.
    """

    _block_type_name = "Backup Media"
    _block_type_slug = "vsa-backup-media"
    _description = "The place where packs, indexes and the log of recovery points are kept."

    location: str = Field(
        description="A folder that every proxy reaches under this path, azure://ACCOUNT/CONTAINER[/PREFIX] "
        "or s3://BUCKET[/PREFIX]. It must not contain a secret."
    )
    blob_sas: SecretStr | None = Field(
        default=None,
        title="Container SAS",
        description="Azure: a SAS of the container, without a URL; needs read, list and create or write.",
    )
    blob_key: SecretStr | None = Field(
        default=None,
        title="Storage account key",
        description="Azure: a key of the account. It may do everything there: prefer an identity or a SAS.",
    )
    blob_endpoint: str = Field(
        default="",
        title="Blob endpoint",
        description="Azure: the account's blob address; empty means the public cloud.",
    )
    s3_key_id: str = Field(default="", title="S3 key id", description="S3: access key id.")
    s3_secret: SecretStr | None = Field(
        default=None, title="S3 secret", description="S3: the secret that belongs to the key id."
    )
    s3_endpoint: str = Field(
        default="",
        title="S3 endpoint",
        description="S3: address of a compatible service; empty means Amazon's.",
    )
    s3_region: str = Field(default="", title="S3 region", description="S3: region of the bucket.")

    @classmethod
    def named(cls, name: str) -> BackupMedia:
        """The block saved under this name; BadRequest with the names there are if it is not among them."""
        return load_named(cls, name, "Backup Media")

    def open(self, *, write: bool = False) -> Media:
        """Open the media; raises NoMedia, MediaUnusable, MediaDamaged or BadRequest."""
        return Media.open(self.location, write=write, access=self.access())

    def access(self) -> StoreAccess:
        """The engine's view of the credentials; nothing is contacted yet."""
        return StoreAccess(
            blob_sas=_secret(self.blob_sas),
            blob_key=_secret(self.blob_key),
            blob_endpoint=self.blob_endpoint.rstrip("/"),
            s3_key_id=self.s3_key_id,
            s3_secret=_secret(self.s3_secret),
            s3_endpoint=self.s3_endpoint.rstrip("/"),
            s3_region=self.s3_region,
        )


def _secret(value: SecretStr | None) -> Secret | None:
    return Secret(value.get_secret_value()) if value and value.get_secret_value() else None
