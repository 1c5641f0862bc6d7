"""A subclient: which VMs are protected, how, by which proxies, and where to."""

from __future__ import annotations

from collections.abc import Mapping

from prefect.blocks.core import Block
from pydantic import Field

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.saved import load_named, saved_names
from blocks.schema import SchemaOnce
from vsa.errors import BadRequest
from vsa.retention import Retention
from vsa.subclient import Subclient


class BackupSubclient(SchemaOnce, Block):
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


def retention_policies(media: BackupMedia) -> Mapping[str, Retention | None]:
    """The retention of every saved subclient whose points go to this media, by its name in their reports.

    BadRequest if two of them share a name but not their retention.
    """
    found: dict[str, Retention | None] = {}
    for name in saved_names(BackupSubclient):
        block = BackupSubclient.named(name)
        if block.media.location != media.location:
            continue
        settings = block.settings
        if found.setdefault(settings.name, settings.retention) != settings.retention:
            raise BadRequest(f"several subclients are called {settings.name!r}, with different retention")
    return found
