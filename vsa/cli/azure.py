"""How the command line signs in to Azure: by options, the environment, or the machine's own identity.

The Azure SDK is loaded when it is needed.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vsa.errors import BadRequest
from vsa.secret import Secret

if TYPE_CHECKING:
    from vsa.azure.connection import AzureConnection

CLIENT_SECRET = "AZURE_VSA_CLIENT_SECRET"  # noqa: S105
_LONGEST_SECRET = 10_000


def add_azure_options(command: argparse.ArgumentParser) -> None:
    """What says which subscription is meant, and who asks."""
    group = command.add_argument_group(
        "Azure",
        f"the client secret is that of {CLIENT_SECRET} or of a file; without one, the machine's own identity "
        "signs in",
    )
    group.add_argument("--subscription", required=True, metavar="ID", help="id of the Azure subscription")
    group.add_argument("--tenant-id", default="", metavar="ID", help="id of the Microsoft Entra tenant")
    group.add_argument("--client-id", default="", metavar="ID", help="id of the application that signs in")
    group.add_argument("--client-secret-file", type=Path, metavar="PATH", help="its client secret")
    group.add_argument(
        "--azure-url", default="", metavar="URL", help="Azure Resource Manager, if not the public cloud's"
    )
    group.add_argument(
        "--authority", default="", metavar="URL", help="where to sign in, if not at the public cloud"
    )
    group.add_argument(
        "--ca-file", default="", metavar="PATH", help="authorities to trust instead of the system's, in PEM"
    )


def connection_of(
    options: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> AzureConnection:
    """What the options describe; nothing is contacted yet. BadRequest if they do not fit together."""
    from vsa.azure.connection import AzureConnection  # noqa: PLC0415

    return AzureConnection(
        subscription_id=options.subscription,
        tenant_id=options.tenant_id,
        client_id=options.client_id,
        client_secret=_client_secret(options.client_secret_file, environment),
        base_url=options.azure_url.rstrip("/"),
        authority=options.authority.rstrip("/"),
        ca_file=options.ca_file,
    )


def _client_secret(file: Path | None, environment: Mapping[str, str]) -> Secret | None:
    said = environment.get(CLIENT_SECRET, "")
    if file is None:
        return Secret(said) if said else None
    if said:
        raise BadRequest(f"two client secrets are given: by --client-secret-file and by {CLIENT_SECRET}")
    with file.open(encoding="utf-8") as opened:
        text = opened.read(_LONGEST_SECRET).strip()
    if not text:
        raise BadRequest(f"{file} is empty: it must hold the client secret")
    return Secret(text)
