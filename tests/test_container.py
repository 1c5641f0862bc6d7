"""What an image is made of: what its builder finds in the checkout, but no credentials."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DEPLOYMENTS = ROOT / "deployments"


@pytest.mark.parametrize(
    "kept",
    [
        "deployments/container/worker.env",
        "worker.env",
        ".env",
        "deployments/.env.production",
        ".server/server/prefect.db",
        ".demo/media/media.json",
        ".git/config",
        "media.key",
        "deployments/container/proxy.pem",
    ],
)
def test_no_image_gets_what_is_secret(kept: str) -> None:
    assert _is_ignored(kept), "the Dockerfile copies the whole context"


@pytest.mark.parametrize(
    "needed",
    ["pyproject.toml", "requirements.lock", "deployments/worker.py", "vsa/media/keys.py", "README.md"],
)
def test_an_image_gets_what_it_runs(needed: str) -> None:
    assert not _is_ignored(needed)


def test_builders_look_for_one_file_only_and_the_repository_gets_no_credentials() -> None:
    assert list(ROOT.glob("deployments/**/*.dockerignore")) == [], (
        "BuildKit would take it instead of the root's"
    )
    services = yaml.safe_load((DEPLOYMENTS / "container" / "compose.yaml").read_text())["services"]
    (credentials,) = {service["env_file"] for service in services.values()}
    assert f"/deployments/container/{credentials}" in (ROOT / ".gitignore").read_text().splitlines()
    assert _is_ignored(f"deployments/container/{credentials}")


def _is_ignored(path: str) -> bool:
    """Whether a pattern takes the path or a folder above it out of the context.

    docs.docker.com/build/concepts/context, "Syntax": `*` stays inside of a name, a leading `**/` is any
    number of folders, also none. No pattern of ours says more than that.
    """
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    parts = path.split("/")
    above = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(
        re.fullmatch(_as_expression(line), each)
        for line in lines
        if line and not line.startswith("#")
        for each in above
    )


def _as_expression(pattern: str) -> str:
    inner = pattern.removeprefix("**/")
    assert not set("!?[") & set(pattern) and "**" not in inner, f"{pattern} says more than this test knows"
    return ("(.*/)?" if inner != pattern else "") + re.escape(inner).replace(r"\*", "[^/]*")
