"""A machine that moves data from Azure to the media."""

from __future__ import annotations

from collections import Counter
from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.saved import saved_names
from vsa.errors import BadRequest
from vsa.transfer.proxies import Proxy


class BackupProxy(Block):
    """A proxy: a machine with the engine, reached through a work pool of its own."""

    _block_type_name = "Proxy"
    _block_type_slug = "vsa-proxy"
    _description = "A machine that reads snapshots and writes backup media on behalf of VMs."

    proxy_name: str = Field(description="The proxy's name in reports and in subclients.")
    region: str = Field(default="", description="Azure region the proxy runs in.")
    streams: int = Field(default=4, ge=1, le=64, description="Disks it moves at one time.")
    paused: bool = Field(default=False, description="A paused proxy gets no streams.")
    work_pool: str = Field(
        default="", description="Work pool of its worker; empty: the proxy's name in lower case."
    )
    start_seconds: int = Field(
        default=180, ge=1, le=3600, description="A stream that has not begun after so long goes elsewhere."
    )
    management_certificate: SecretStr | None = Field(
        default=None, description="PEM certificate and key for Azure Classic; empty if it has none."
    )

    @property
    def pool(self) -> str:
        """The work pool that the proxy's worker serves."""
        return self.work_pool or self.proxy_name.lower()

    def proxy(self) -> Proxy:
        """What the engine needs to know of it."""
        return Proxy(
            name=self.proxy_name,
            region=self.region,
            streams=self.streams,
            management_certificate=self.management_certificate is not None,
            refusal="it is paused" if self.paused else "",
        )


def saved_proxies() -> list[Proxy]:
    """Every proxy that was saved, as it is now; BadRequest if two of them share a name."""
    blocks: list[Any] = [BackupProxy.load(name) for name in saved_names(BackupProxy)]
    proxies = [block.proxy() for block in blocks]
    names = Counter(proxy.name.lower() for proxy in proxies)
    shared = sorted(name for name, count in names.items() if count > 1)
    if shared:
        raise BadRequest(
            f"several Proxy blocks are called {', '.join(shared)}: every proxy needs a name of its own"
        )
    return proxies
