"""A subclient: which VMs are protected, how, by which proxies, and where to."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from pydantic import Field

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
from vsa.errors import BadRequest
from vsa.subclient import Subclient


class BackupSubclient(Block):
    """Everything a backup job is told; the job itself only names this block."""

    _block_type_name = "Subclient"
    _block_type_slug = "vsa-subclient"
    _description = "A named selection of VMs and disks, and how to protect them."

    subscription: AzureSubscription = Field(description="Where the VMs are.")
    media: BackupMedia = Field(description="Where their recovery points go.")
    proxies: list[BackupProxy] = Field(min_length=1, description="The proxies that exist.")
    settings: Subclient = Field(description="What is selected, and how it is protected.")

    @classmethod
    def named(cls, name: str) -> BackupSubclient:
        """The block saved under this name; BadRequest with the names there are if it is not among them."""
        try:
            found: Any = cls.load(name)
        except ValueError as error:
            if not isinstance(error.__cause__, ObjectNotFound):
                raise
            raise BadRequest(
                f"there is no subclient {name!r}: expected the name of a Subclient block, "
                f"and these are saved: {', '.join(_saved_names()) or 'none'}"
            ) from error
        assert isinstance(found, cls)
        return found


def _saved_names() -> list[str]:
    slug = BackupSubclient.get_block_type_slug()
    try:
        with get_client(sync_client=True) as client:
            documents = client.read_block_documents_by_type(slug, include_secrets=False)
    except ObjectNotFound:
        return []
    return sorted(document.name for document in documents if document.name)
