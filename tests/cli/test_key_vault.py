"""Media sealed with a key of a key vault, from the command line. The vault is simulated."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from azsim.control import Control
from tests.azsim_process import AzsimProcess
from tests.cli.test_cli import vsa
from tests.media.making import back_up, noise
from vsa.azure import connection
from vsa.azure.connection import AzureConnection
from vsa.azure.key_vault import VaultKey
from vsa.media.media import Media
from vsa.media.wrapping import VaultWrapping

_numbers = count(1)


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AzsimProcess]:
    with AzsimProcess(tmp_path_factory.mktemp("azsim")) as process:
        yield process


@pytest.fixture
def control(process: AzsimProcess, monkeypatch: pytest.MonkeyPatch) -> Control:
    """Where the command goes is changed, and nothing else: it signs in as the environment says who it is."""
    endpoint = process.endpoint
    monkeypatch.setenv("AZURE_TENANT_ID", endpoint["tenant"])
    monkeypatch.setenv("AZURE_CLIENT_ID", endpoint["client_id"])
    monkeypatch.setenv("AZURE_CLIENT_SECRET", process.client_secret)
    monkeypatch.delenv("AZURE_VSA_PASSPHRASE", raising=False)
    here = {
        "base_url": endpoint["base_url"],
        "authority": endpoint["base_url"],
        "ca_file": endpoint["ca_file"],
    }
    monkeypatch.setattr(connection, "AzureConnection", partial(AzureConnection, **here))
    return process.control


@pytest.fixture
def key(control: Control) -> str:
    return a_key(control)


def a_key(control: Control) -> str:
    """The URL of a new key, without a version."""
    return control.create_vault_key(f"cli-{next(_numbers)}").rpartition("/")[0]


def opened(folder: Path, key: str) -> Media:
    wrapping = VaultWrapping(VaultKey(connection.AzureConnection(subscription_id=""), key))
    return Media.open(str(folder), write=True, wrapping=wrapping)


def test_a_point_is_sealed_listed_and_restored_with_a_key_of_a_vault(
    control: Control, key: str, tmp_path: Path
) -> None:
    folder = tmp_path / "media"
    made = vsa("init", "--seal", "--media", folder, "--key-vault", key, "--extent-size", "4KiB")
    assert made.code == 0, made.err
    back_up(opened(folder, key), {0: noise(0)}, run="r1", scratch=tmp_path)
    assert noise(0)[:64] not in b"".join(path.read_bytes() for path in folder.rglob("*.pack"))
    # A newer version of the key wraps from now on; what the older one wrapped, that one unwraps.
    control.create_vault_key(key.rpartition("/")[2])
    given = ("--media", folder, "--key-vault", key)
    assert vsa("points", *given, "--json").document["points"][0]["vm"] == "web"
    assert vsa("restore", 0, *given, "--to", tmp_path / "os.img", "--format", "raw").code == 0
    assert (tmp_path / "os.img").read_bytes()[:4096] == noise(0)


def test_another_key_of_the_vault_takes_the_place_of_the_first(
    control: Control, key: str, tmp_path: Path
) -> None:
    folder, second = tmp_path / "media", a_key(control)
    assert vsa("init", "--seal", "--media", folder, "--key-vault", key).code == 0
    rotated = vsa("key", "rotate", "--media", folder, "--key-vault", key, "--new-key-vault", second)
    assert rotated.code == 0, rotated.err
    assert vsa("points", "--media", folder, "--key-vault", second).code == 0
    refused = vsa("points", "--media", folder, "--key-vault", key)
    assert refused.code == 2 and "was retired" in refused.err


def test_a_key_that_the_vault_refuses_is_told_from_a_wrong_one(
    control: Control, key: str, tmp_path: Path
) -> None:
    folder = tmp_path / "media"
    assert vsa("init", "--seal", "--media", folder, "--key-vault", key).code == 0
    other = vsa("points", "--media", folder, "--key-vault", a_key(control))
    assert other.code == 2 and "was sealed with key" in other.err
    control.set_vault_key(key.rpartition("/")[2], enabled=False)
    disabled = vsa("points", "--media", folder, "--key-vault", key)
    assert disabled.code == 1 and "enable it" in disabled.err
