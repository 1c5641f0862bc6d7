"""A subclient: which VMs are protected, how, by which proxies, and where to."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
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
