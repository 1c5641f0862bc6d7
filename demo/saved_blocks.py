"""What an operator enters in the Prefect UI for a simulated Azure, as Prefect blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prefect.blocks.core import Block
from pydantic import SecretStr

from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
from blocks.saved import saved_names
from blocks.subclient import BackupSubclient
from vsa.subclient import Subclient

B = TypeVar("B", bound=Block)


def save_blocks(
    endpoint: Mapping[str, str],
    media: Path,
    *,
    media_name: str,
    proxies: Sequence[str],
    subclients: Sequence[Subclient],
    keep: bool = False,
) -> None:
    """Save the subscription, the media, the proxies and the subclients, these two under their own names.

    `endpoint` is what azsim says of itself. With `keep`, what is saved already stays as somebody may have
    changed it; only the subscription, which says where azsim is, is always saved anew.
    """
    subscription = AzureSubscription(
        subscription_id=endpoint["subscription"],
        tenant_id=endpoint["tenant"],
        client_id=endpoint["client_id"],
        client_secret=SecretStr(Path(endpoint["client_secret_file"]).read_text()),
        base_url=endpoint["base_url"],
        authority=endpoint["base_url"],
        ca_file=endpoint["ca_file"],
        polling_seconds=0.1,
    )
    subscription.save("simulated-azure", overwrite=True)
    place = _saved(BackupMedia(location=str(media)), media_name, keep=keep)
    for name in proxies:
        _saved(BackupProxy(proxy_name=name, region="westeurope"), name, keep=keep)
    for settings in subclients:
        block = BackupSubclient(subscription=subscription, media=place, settings=settings)
        _saved(block, settings.name, keep=keep)


def _saved(block: B, name: str, *, keep: bool) -> B:
    """The block once it is saved, or the one that is there already."""
    kind = type(block)
    if keep and name in saved_names(kind):
        found: Any = kind.load(name)
        assert isinstance(found, kind)
        return found
    block.save(name, overwrite=True)
    return block
