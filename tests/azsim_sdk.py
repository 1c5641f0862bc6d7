"""The real SDK's clients, unmodified, connected to a simulated Azure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.storage import StorageManagementClient
from azure.storage.blob import BlobClient

from azsim.control import Control
from tests.azsim_process import AzsimProcess


@dataclass(frozen=True)
class Azure:
    """The real SDK's clients, unmodified, on a simulated subscription."""

    process: AzsimProcess
    credential: ClientSecretCredential
    compute: ComputeManagementClient
    storage: StorageManagementClient

    @property
    def control(self) -> Control:
        return self.process.control

    @property
    def base_url(self) -> str:
        return self.process.endpoint["base_url"]

    @property
    def ca(self) -> str:
        return self.process.endpoint["ca_file"]

    def blob(self, sas_url: str) -> BlobClient:
        return BlobClient.from_blob_url(sas_url, connection_verify=self.ca, retry_total=0)

    def close(self) -> None:
        for client in (self.compute, self.storage, self.credential):
            client.close()


def connect(process: AzsimProcess, *, retry_total: int = 3) -> Azure:
    endpoint = process.endpoint
    base = endpoint["base_url"]
    credential = ClientSecretCredential(
        endpoint["tenant"],
        endpoint["client_id"],
        process.client_secret,
        authority=base,
        disable_instance_discovery=True,
        connection_verify=endpoint["ca_file"],
    )
    options: dict[str, Any] = {
        "base_url": base,
        "credential_scopes": [f"{base}/.default"],
        "connection_verify": endpoint["ca_file"],
        "polling_interval": 0,
        "retry_total": retry_total,
        "retry_backoff_factor": 0,
    }
    subscription = endpoint["subscription"]
    return Azure(
        process,
        credential,
        ComputeManagementClient(credential, subscription, **options),
        StorageManagementClient(credential, subscription, **options),
    )
