"""A subclient: which VMs are protected, how, by which proxies, and where to."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.saved import load_named
from vsa.subclient import Subclient


class BackupSubclient(Block):
    """Everything a backup job is told; the job itself only names this block.

    Subscription and media are blocks of their own, referred to and not copied. Proxies are not listed here:
    Prefect copies blocks that are in a list, with their secrets in clear, and would not notice that one
    was paused. The settings name those that may serve.
    """

    _block_type_name = "Subclient"
    _block_type_slug = "vsa-subclient"
    _description = "A named selection of VMs and disks, and how to protect them."

    subscription: AzureSubscription = Field(description="Where the VMs are.")
    media: BackupMedia = Field(description="Where their recovery points go.")
    settings: Subclient = Field(description="What is selected, and how it is protected.")

    @classmethod
    def named(cls, name: str) -> BackupSubclient:
        """The block saved under this name; BadRequest with the names there are if it is not among them."""
        return load_named(cls, name, "Subclient")
