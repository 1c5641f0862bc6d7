"""A connection to the simulated Azure, by what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsa.azure.connection import AzureConnection
from vsa.secret import Secret


def connection_to(endpoint: Mapping[str, str], **changes: Any) -> AzureConnection:
    """A production connection whose addresses are the simulation's; `changes` are its other settings, and
    what is to be another one than `endpoint` says."""
    options: dict[str, Any] = {
        "subscription_id": endpoint["subscription"],
        "tenant_id": endpoint["tenant"],
        "client_id": endpoint["client_id"],
        "client_secret": Secret(Path(endpoint["client_secret_file"]).read_text()),
        "base_url": endpoint["base_url"],
        "authority": endpoint["base_url"],
        "ca_file": endpoint["ca_file"],
    }
    return AzureConnection(**(options | changes))
