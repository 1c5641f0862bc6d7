"""One Azure subscription and the identity that signs in to it."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.saved import load_named
from blocks.schema import SchemaOnce
from vsa.azure.connection import POLLING_SECONDS, AzureConnection
from vsa.secret import Secret


class AzureSubscription(SchemaOnce, Block):
    """Where the VMs are and who reads them. Without a client secret the proxy's own identity signs in."""

    _block_type_name = "Azure Subscription"
    _block_type_slug = "vsa-azure-subscription"
    _description = "An Azure subscription whose VMs are backed up, and the identity that does it."

    subscription_id: str = Field(description="Id of the subscription.")
    tenant_id: str = Field(default="", description="Id of the Microsoft Entra tenant.")
    client_id: str = Field(default="", description="Application (client) id of the service principal.")
    client_secret: SecretStr | None = Field(
        default=None, description="Leave empty to use the managed identity of the proxy."
    )
    base_url: str = Field(
        default="", description="Azure Resource Manager's address; empty means the public cloud."
    )
    authority: str = Field(default="", description="Sign-in address; empty means the public cloud.")
    ca_file: str = Field(
        default="", description="PEM file of certificate authorities to trust instead of the system's."
    )
    polling_seconds: float = Field(
        default=POLLING_SECONDS, gt=0, le=60, description="Seconds between looks at a running operation."
    )

    @classmethod
    def named(cls, name: str) -> AzureSubscription:
        """The block saved under this name; BadRequest with the names there are if it is not among them."""
        return load_named(cls, name, "Azure Subscription")

    def connection(self) -> AzureConnection:
        """The engine's view of this subscription; nothing is contacted yet."""
        secret = self.client_secret.get_secret_value() if self.client_secret else ""
        return AzureConnection(
            subscription_id=self.subscription_id,
            tenant_id=self.tenant_id,
            client_id=self.client_id,
            client_secret=Secret(secret) if secret else None,
            base_url=self.base_url.rstrip("/"),
            authority=self.authority.rstrip("/"),
            ca_file=self.ca_file,
            polling_seconds=self.polling_seconds,
        )
