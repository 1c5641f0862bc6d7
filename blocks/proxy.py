"""A machine that moves data from Azure to the media."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import Any

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.saved import saved_names
from blocks.schema import SchemaOnce
from vsa.azure.management_certificate import certificate_problem
from vsa.errors import BadRequest
from vsa.transfer.proxies import Proxy


class BackupProxy(SchemaOnce, Block):
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
        default=None,
        description="For Azure Classic, in PEM form: the certificate first, and its private key without a "
        "passphrase. This version does not back up Classic VMs, with or without one: leave it empty.",
    )

    @property
    def pool(self) -> str:
        """The work pool that the proxy's worker serves."""
        return self.work_pool or self.proxy_name.lower()

    def proxy(self, now: dt.datetime) -> Proxy:
        """What the engine needs to know of it at that moment."""
        pem = self.management_certificate.get_secret_value().strip() if self.management_certificate else ""
        return Proxy(
            name=self.proxy_name,
            region=self.region,
            pool=self.pool,
            streams=self.streams,
            start_seconds=self.start_seconds,
            management_certificate=bool(pem),
            certificate_problem=certificate_problem(pem, now) if pem else "",
            refusal="it is paused" if self.paused else "",
        )


def saved_proxies(now: dt.datetime | None = None) -> list[Proxy]:
    """Every proxy that was saved, as it is at that moment, by default now.

    Raises BadRequest if two of them share a name.
    """
    moment = now or dt.datetime.now(dt.UTC)
    blocks: list[Any] = [BackupProxy.load(name) for name in saved_names(BackupProxy)]
    proxies = [block.proxy(moment) for block in blocks]
    names = Counter(proxy.name.lower() for proxy in proxies)
    shared = sorted(name for name, count in names.items() if count > 1)
    if shared:
        raise BadRequest(
            f"several Proxy blocks are called {', '.join(shared)}: every proxy needs a name of its own"
        )
    return proxies
