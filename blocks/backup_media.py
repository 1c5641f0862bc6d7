"""Where recovery points are kept, and what opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.blocks.system import Secret as SecretBlock
from pydantic import Field, SecretStr

from blocks.azure_subscription import AzureSubscription
from blocks.saved import load_named
from blocks.schema import SchemaOnce
from vsa.errors import BadRequest
from vsa.media.access import StoreAccess
from vsa.media.media import Media
from vsa.media.wrapping import KeyFile, Passphrase, VaultWrapping, WrappingKey
from vsa.secret import Secret


class BackupMedia(SchemaOnce, Block):
    """Backup media that `vsa init` has made. A block never makes or changes media by itself.

    In a folder the location is all. A container or bucket is entered with what is given here, or else as
    the identity that the proxy has: a managed identity of Azure, a role of AWS.

    Sealed media needs one key, from one of four places. Media that is not sealed takes none: a key that is
    given is a claim that what is there is sealed.
    """

    _block_type_name = "Backup Media"
    _block_type_slug = "vsa-backup-media"
    _description = "The place where packs, indexes and the log of recovery points are kept."

    location: str = Field(
        description="A folder that every proxy reaches under this path, azure://ACCOUNT/CONTAINER[/PREFIX] "
        "or s3://BUCKET[/PREFIX]. It must not contain a secret."
    )
    media_id: str = Field(
        default="",
        title="Media id",
        description="The id that `vsa init` said. If it is given, other media at that place is refused.",
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

    passphrase: SecretStr | None = Field(default=None, description="Sealed media: the passphrase.")
    passphrase_block: str = Field(
        default="",
        title="Passphrase block",
        description="Sealed media: the name of a Secret block that holds the passphrase.",
    )
    key_file: str = Field(
        default="",
        title="Key file",
        description="Sealed media: path of a file with the key, the same on every proxy.",
    )
    key_vault: str = Field(
        default="",
        title="Key Vault key",
        description="Sealed media: https://VAULT.vault.azure.net/keys/NAME.",
    )
    key_vault_identity: AzureSubscription | None = Field(
        default=None,
        title="Key Vault identity",
        description="Whose identity signs in to the vault; the proxy's own, if none is chosen.",
    )

    @classmethod
    def named(cls, name: str) -> BackupMedia:
        """The block saved under this name; BadRequest with the names there are if it is not among them."""
        return load_named(cls, name, "Backup Media")

    def open(self, *, write: bool = False) -> Media:
        """Open the media; raises NoMedia, MediaUnusable, MediaDamaged, KeyNeeded, WrongKey or BadRequest."""
        return Media.open(
            self.location,
            write=write,
            access=self.access(),
            wrapping=self.wrapping_key(),
            expected_id=self.media_id,
        )

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

    def wrapping_key(self) -> WrappingKey | None:
        """What opens sealed media; BadRequest if several keys are given. A vault is not contacted yet."""
        typed = _secret(self.passphrase)
        given = [typed, self.passphrase_block, self.key_file, self.key_vault]
        if sum(map(bool, given)) > 1:
            raise BadRequest(
                f"Backup Media {self.location}: several keys are given: leave one, any of them is enough"
            )
        if typed:
            return Passphrase(typed)
        if self.passphrase_block:
            return Passphrase(_saved(self.passphrase_block))
        if self.key_file:
            return KeyFile.read(Path(self.key_file))
        return self._vault() if self.key_vault else None

    def _vault(self) -> WrappingKey:
        # Two MiB that a stream has no use for whose media no vault opens.
        from vsa.azure.key_vault import VaultKey  # noqa: PLC0415

        identity = self.key_vault_identity or AzureSubscription(subscription_id="")
        return VaultWrapping(VaultKey(identity.connection(), self.key_vault))


def _secret(value: SecretStr | None) -> Secret | None:
    return Secret(value.get_secret_value()) if value and value.get_secret_value() else None


def _saved(name: str) -> Secret:
    """The text of a Secret block, read at this moment; BadRequest if there is none of that name."""
    try:
        block: Any = SecretBlock.load(name)
    except ValueError as error:
        raise BadRequest(
            f"there is no Secret block {name!r}: save one with the passphrase of the media"
        ) from error
    value = block.get()
    if not isinstance(value, str):
        raise BadRequest(f"Secret block {name!r} holds no text: expected the passphrase of the media")
    return Secret(value)
