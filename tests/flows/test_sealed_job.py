"""Backup jobs on sealed media, with the keys that operators enter in the UI."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.system import Secret as SecretBlock
from pydantic import SecretStr

from blocks.backup_media import BackupMedia
from tests.engine.world import connection_to
from tests.flows.prefect_server import flow_run_of
from tests.flows.site import Site, managed
from vsa.azure.key_vault import VaultKey
from vsa.errors import BadRequest, KeyNeeded, WrongKey
from vsa.media.wrapping import KeyFile, Passphrase, VaultWrapping
from vsa.secret import Secret

WORDS = "canary of a passphrase"
_numbers = count(1)


def test_a_job_opens_media_with_a_key_of_a_key_vault(site: Site) -> None:
    """Sealed with the first version of the key, opened when there is a second, by the identity of a block."""
    name = f"media-{next(_numbers)}"
    url = site.control.create_vault_key(name).rpartition("/")[0]
    site.seal(VaultWrapping(VaultKey(connection_to(site.control.endpoint), url)))
    site.control.create_vault_key(name)
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(opened_by={"key_vault": url})
    state = site.back_up()
    assert state.name == "Completed", state.message
    site.require_restorable(site.points_of("web")[0])
    site.require_only_bases()


def test_a_job_opens_media_with_a_saved_secret_which_prefect_never_shows(site: Site) -> None:
    site.seal(Passphrase(Secret(WORDS)))
    site.add_vm("web", [managed("web-os")])
    SecretBlock(value=WORDS).save(site.name, overwrite=True)
    site.save_blocks(opened_by={"passphrase_block": site.name})
    state = site.back_up()
    assert state.name == "Completed", state.message
    site.require_restorable(site.points_of("web")[0])
    assert WORDS not in repr(flow_run_of(state).parameters)
    assert flow_run_of(state).parameters["subclient"] == site.name
    assert WORDS not in repr(BackupMedia.load(site.name))


@pytest.mark.parametrize(
    ("opened_by", "error"),
    [({}, "this media is sealed"), ({"passphrase": "wrong words here"}, "not the one")],
)
def test_a_job_without_the_key_fails_and_makes_nothing_in_azure(
    site: Site, opened_by: dict[str, Any], error: str
) -> None:
    site.seal(Passphrase(Secret(WORDS)))
    site.add_vm("web", [managed("web-os")])
    site.save_blocks(opened_by=opened_by)
    state = site.back_up()
    assert state.name == "Failed"
    assert error in str(state.message)
    assert site.snapshots == []


def test_a_media_block_takes_one_key_of_any_kind(site: Site, tmp_path: Path) -> None:
    key = tmp_path / "media.key"
    key.write_bytes(bytes(range(64, 96)))
    key.chmod(0o600)
    site.seal(KeyFile.read(key))
    location = str(site.media_folder)
    assert BackupMedia(location=location, key_file=str(key)).open().sealed
    with pytest.raises(KeyNeeded, match="in Prefect in the Backup Media block"):
        BackupMedia(location=location).open()
    with pytest.raises(WrongKey):
        BackupMedia(location=location, passphrase=SecretStr(WORDS)).open()
    with pytest.raises(BadRequest, match="several keys"):
        BackupMedia(location=location, passphrase=SecretStr(WORDS), key_file=str(key)).open()
    with pytest.raises(BadRequest, match="there is no Secret block 'absent'"):
        BackupMedia(location=location, passphrase_block="absent").open()
