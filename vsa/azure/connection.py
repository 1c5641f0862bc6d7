"""How to reach one Azure subscription: endpoints, identity, and the SDK clients made from them."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core import PipelineClient
from azure.core.credentials import TokenCredential
from azure.core.pipeline.policies import RequestIdPolicy, UserAgentPolicy
from azure.identity import ClientSecretCredential, DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient

from vsa.azure.budget import Budget, Purpose, current_purpose
from vsa.azure.fresh import Fresh
from vsa.azure.listing import listed
from vsa.azure.marks import by_disk
from vsa.azure.metered import BLOBS_TOO_OFTEN, TOO_OFTEN, MeteredTransport
from vsa.errors import BadRequest
from vsa.secret import Secret
from vsa.stop import Stop

if TYPE_CHECKING:
    from azure.mgmt.storage import StorageManagementClient

# A poll asks for the state of one operation. The SDK's default of 30 s would make every snapshot, grant
# and revocation cost half a minute.
POLLING_SECONDS = 2.0


@dataclass(frozen=True)
class StorageAccount:
    """One storage account of the subscription."""

    name: str
    resource_group: str
    region: str
    sku: str

    @property
    def is_premium(self) -> bool:
        return self.sku.lower().startswith("premium")


@dataclass(frozen=True)
class AzureConnection:
    """One subscription and one identity. Without a client secret the identity comes from the machine.

    The SDK's clients repeat nothing: `vsa.stop.again` does, which hears a stop and honours Retry-After. But
    signing in repeats by itself, deaf to a stop: its errors do not tell what may pass, or when.
    All who share a connection share a budget for each place: the subscription, and each host that has blobs.

    `base_url`, `authority` and `ca_file` are for sovereign clouds, private endpoints and simulations;
    left empty they are those of the public cloud. `clock` is what budgets count seconds by.
    """

    subscription_id: str
    tenant_id: str = ""
    client_id: str = ""
    client_secret: Secret | None = None
    base_url: str = ""
    authority: str = ""
    ca_file: str = ""
    polling_seconds: float = POLLING_SECONDS
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if self.ca_file and not Path(self.ca_file).is_file():
            raise BadRequest(f"CA file {self.ca_file} does not exist; it must hold PEM certificates")
        if self.client_secret and not (self.tenant_id and self.client_id):
            raise BadRequest("a client secret needs a tenant id and a client id beside it")

    @property
    def _tls(self) -> dict[str, Any]:
        return {"connection_verify": self.ca_file} if self.ca_file else {}

    @cached_property
    def credential(self) -> TokenCredential:
        """The identity that signs in; made once, so that its token cache is shared."""
        options = dict(self._tls)
        if self.authority:
            options |= {"authority": self.authority, "disable_instance_discovery": True}
        if self.client_secret is None:
            return DefaultAzureCredential(**options)
        return ClientSecretCredential(self.tenant_id, self.client_id, self.client_secret.reveal(), **options)

    @cached_property
    def compute(self) -> ComputeManagementClient:
        return ComputeManagementClient(self.credential, self.subscription_id, **self._arm_options)

    def snapshots_of_group(self, group: str) -> Fresh[dict[str, list[Any]]]:
        """The snapshots of a resource group that have a name of ours, by their disks' keys.

        The list is shared by those who ask for it at the same time; but what cleans up does not wait for
        those who work.
        """

        def fetch(stop: Stop) -> dict[str, list[Any]]:
            found = self.compute.snapshots.list_by_resource_group(group)
            return by_disk(listed(found, action=f"list snapshots of resource group {group}", stop=stop))

        # Of two threads that come first, both get what one of them has put there.
        return self._listed_groups.setdefault((group.lower(), current_purpose()), Fresh(fetch))

    @cached_property
    def _listed_groups(self) -> dict[tuple[str, Purpose], Fresh[dict[str, list[Any]]]]:
        return {}

    @cached_property
    def _subscription_budget(self) -> Budget:
        return Budget(f"subscription {self.subscription_id}", clock=self.clock)

    @cached_property
    def _blob_budgets(self) -> dict[str, Budget]:
        return {}

    def blob_budget(self, url: str) -> Budget:
        """The budget of the host that a blob's URL names: a storage account, or where a managed disk is."""
        host = urlsplit(url).netloc.lower()
        # Asked for with every read: one is made only where there is none.
        if found := self._blob_budgets.get(host):
            return found
        return self._blob_budgets.setdefault(host, Budget(f"blob service {host}", clock=self.clock))

    @cached_property
    def storage(self) -> StorageManagementClient:
        # Six MiB that a stream of a managed disk has no use for.
        from azure.mgmt.storage import StorageManagementClient  # noqa: PLC0415

        return StorageManagementClient(self.credential, self.subscription_id, **self._arm_options)

    @cached_property
    def storage_accounts(self) -> dict[str, StorageAccount]:
        """Accounts looked up so far by lower-case name; where an account is does not change."""
        return {}

    @property
    def _arm_options(self) -> dict[str, Any]:
        transport = MeteredTransport(lambda _: self._subscription_budget, too_often=TOO_OFTEN, **self._tls)
        options = {
            "polling_interval": self.polling_seconds,
            "retry_total": 0,
            "transport": transport,
        }
        if self.base_url:
            options |= {"base_url": self.base_url, "credential_scopes": [f"{self.base_url}/.default"]}
        return options

    def blob(self, url: str, key: Secret | None = None) -> BlobClient:
        """A client for one blob, by SAS URL or by account key."""
        credential = key.reveal() if key else None
        return BlobClient.from_blob_url(url, credential=credential, **self._blob_options)

    @cached_property
    def blob_requests(self) -> PipelineClient[Any, Any]:
        """For requests to the blob service that the SDK does not write, and answers that it does not read.

        They share the transport of its clients; nothing is repeated.
        """
        named = [RequestIdPolicy(), UserAgentPolicy("azure-vsa")]
        return PipelineClient("", policies=named, transport=self._blob_options["transport"])

    def container(self, url: str, key: Secret) -> ContainerClient:
        return ContainerClient.from_container_url(url, credential=key.reveal(), **self._blob_options)

    def blobs(self, account_url: str, key: Secret) -> BlobServiceClient:
        """A client for all containers of an account."""
        return BlobServiceClient(account_url, credential=key.reveal(), **self._blob_options)

    @cached_property
    def _blob_options(self) -> dict[str, Any]:
        # One transport for all clients: each would bring its own, and with it a TLS handshake for every blob.
        transport = MeteredTransport(
            self.blob_budget, too_often=BLOBS_TOO_OFTEN, connection_timeout=20, read_timeout=60, **self._tls
        )
        return {"retry_total": 0, "transport": transport}

    def vault_options(self, vault_url: str) -> dict[str, Any]:
        """How to reach a key vault as this identity.

        A vault tells by a challenge whose tokens it takes, and the SDK checks that the challenge is about the
        vault's own domain. The check is left out only for a vault that is the control plane's own host, which
        no real one is.
        """
        simulated = bool(self.base_url) and urlsplit(vault_url).netloc == urlsplit(self.base_url).netloc
        options = {
            "credential": self.credential,
            "retry_total": 0,
            "verify_challenge_resource": not simulated,
        }
        return self._tls | options

    @cached_property
    def tls_context(self) -> ssl.SSLContext:
        """For connections that the engine opens itself; shared, so that sessions resume."""
        return ssl.create_default_context(cafile=self.ca_file or None)
