"""Where the command line has the keys of sealed media from: options, the environment, or who sits before it.

Sealing brings cryptography with it, and key vaults the Azure SDK: both are loaded when they are asked for.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from vsa.errors import BadRequest, KeyNeeded
from vsa.secret import Secret

if TYPE_CHECKING:
    from vsa.media.media import Media
    from vsa.media.wrapping import WrappingKey

PASSPHRASE = "AZURE_VSA_PASSPHRASE"  # noqa: S105
NEW_PASSPHRASE = "AZURE_VSA_NEW_PASSPHRASE"  # noqa: S105


def add_key_options(command: argparse.ArgumentParser) -> None:
    """What says which key opens the media."""
    group = command.add_argument_group(
        "sealed media", f"without an option the passphrase is that of {PASSPHRASE}, or asked for"
    )
    _add_sources(group, "", "the key is in this file", "the passphrase is the text of this file")


def add_new_key_options(command: argparse.ArgumentParser) -> None:
    """What says which key is to open the media, too, or in place of others."""
    group = command.add_argument_group(
        "the new key", f"without an option the passphrase is that of {NEW_PASSPHRASE}, or asked for"
    )
    _add_sources(group, "new-", "a file of 32 random bytes", "a file whose text is the passphrase")


def _add_sources(group: argparse._ArgumentGroup, new: str, key_file: str, passphrase_file: str) -> None:
    group.add_argument(f"--{new}key-file", type=Path, metavar="PATH", help=key_file)
    group.add_argument(f"--{new}passphrase-file", type=Path, metavar="PATH", help=passphrase_file)
    group.add_argument(
        f"--{new}key-vault", metavar="URL", help="https://VAULT.vault.azure.net/keys/NAME, as this identity"
    )


def open_media(options: argparse.Namespace, *, write: bool = False, from_log: bool = False) -> Media:
    """The media that was named, entered with what the environment holds, and with the key that was given
    or, if one is needed, asked for.

    With a witness the log itself is read, and must hold it: a checkpoint proves nothing.
    """
    return open_with_key(options, write=write, from_log=from_log)[0]


def open_with_key(
    options: argparse.Namespace, *, write: bool = False, from_log: bool = False
) -> tuple[Media, WrappingKey | None]:
    """The same, and the key."""
    from vsa.media.witness import Witness

    given = getattr(options, "witness", None)
    witness = None if given is None else Witness.parse(given)
    media, key = _opened(options, write=write, from_log=from_log or witness is not None)
    if witness is not None:
        media.require_witness(witness)
    return media, key


def _opened(options: argparse.Namespace, *, write: bool, from_log: bool) -> tuple[Media, WrappingKey | None]:
    from vsa.media.access import StoreAccess
    from vsa.media.media import Media

    access, key = StoreAccess.from_environment(os.environ), given_key(options)

    def opened_with(wrapping: WrappingKey | None) -> Media:
        return Media.open(options.media, write=write, from_log=from_log, access=access, wrapping=wrapping)

    try:
        return opened_with(key), key
    except KeyNeeded:
        key = asked_key("Passphrase of the media: ")
        if key is None:
            raise
        return opened_with(key), key


def given_key(options: argparse.Namespace) -> WrappingKey | None:
    """The key that options or environment name; BadRequest if there are several."""
    return _source(options.key_file, options.passphrase_file, options.key_vault, PASSPHRASE)


def new_key(options: argparse.Namespace) -> WrappingKey:
    """The key of `--new-...`, or a passphrase that is typed twice."""
    key = _source(options.new_key_file, options.new_passphrase_file, options.new_key_vault, NEW_PASSPHRASE)
    return key or chosen_passphrase(
        f"--new-key-file, --new-passphrase-file, --new-key-vault or {NEW_PASSPHRASE}"
    )


def chosen_passphrase(otherwise: str) -> WrappingKey:
    """A new passphrase from a terminal, typed twice; BadRequest if the two differ or nobody is there."""
    from vsa.media.wrapping import Passphrase

    first = _asked("New passphrase: ")
    if first is None:
        raise BadRequest(
            f"no new key was given, and there is no terminal to ask for one: give it with {otherwise}"
        )
    if first != _asked("The same again: "):
        raise BadRequest("the two passphrases differ: nothing was done")
    return Passphrase(first)


def asked_key(question: str) -> WrappingKey | None:
    """A passphrase from a terminal; None if there is none to ask."""
    from vsa.media.wrapping import Passphrase

    text = _asked(question)
    return Passphrase(text) if text else None


def _asked(question: str) -> Secret | None:
    """What is typed, unseen; None if there is no terminal."""
    return Secret(getpass.getpass(question)) if sys.stdin.isatty() else None


def _source(
    key_file: Path | None, passphrase_file: Path | None, vault: str | None, variable: str
) -> WrappingKey | None:
    """An option goes before the environment, which may hold the key of other media."""
    if sum(option is not None for option in (key_file, passphrase_file, vault)) > 1:
        raise BadRequest("several keys were given: give one, any of those that open the media is enough")
    if (key_file, passphrase_file, vault) == (None, None, None) and not os.environ.get(variable):
        return None
    from vsa.media.wrapping import KeyFile, Passphrase, VaultWrapping

    if key_file is not None:
        return KeyFile.read(key_file)
    if passphrase_file is not None:
        return Passphrase.read(passphrase_file)
    if vault is not None:
        from vsa.azure.connection import AzureConnection
        from vsa.azure.key_vault import VaultKey

        return VaultWrapping(VaultKey(AzureConnection(subscription_id=""), vault))
    return Passphrase(Secret(os.environ[variable]))
