"""Sealed media from the command line: making it, opening it, and other keys for it."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_cli import vsa
from tests.media.making import back_up, noise
from vsa.media.media import Media
from vsa.media.wrapping import KeyFile

WORDS = "correct horse battery staple"


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_VSA_PASSPHRASE", raising=False)
    monkeypatch.delenv("AZURE_VSA_NEW_PASSPHRASE", raising=False)


def a_file(path: Path, data: bytes = b"") -> Path:
    path.write_bytes(data or os.urandom(32))
    path.chmod(0o600)
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return a_file(tmp_path / "media.key")


@pytest.fixture
def media(tmp_path: Path, key: Path) -> Path:
    """Sealed media with a point in slot 0."""
    folder = tmp_path / "media"
    assert vsa("init", "--seal", "--media", folder, "--key-file", key, "--extent-size", "4KiB").code == 0
    opened = Media.open(str(folder), write=True, wrapping=KeyFile.read(key))
    back_up(opened, {0: noise(0), 3: noise(3)}, run="r1", scratch=tmp_path)
    return folder


def test_a_sealed_point_is_listed_shown_and_restored_with_its_key(
    media: Path, key: Path, tmp_path: Path
) -> None:
    given = ("--media", media, "--key-file", key)
    assert vsa("points", *given, "--json").document["points"][0]["vm"] == "web"
    for command in (("clients",), ("jobs",), ("show", 0)):
        assert vsa(*command, *given).code == 0
    assert vsa("restore", 0, *given, "--to", tmp_path / "os.img", "--format", "raw").code == 0
    assert (tmp_path / "os.img").read_bytes()[:4096] == noise(0)
    assert vsa("rebuild", *given, "--to", tmp_path / "again").code == 0
    assert vsa("points", "--media", tmp_path / "again", "--key-file", key).code == 0


def test_no_key_another_key_and_damage_are_told_apart(media: Path, key: Path, tmp_path: Path) -> None:
    none = vsa("points", "--media", media)
    assert (none.code, none.out) == (2, "")
    assert (
        "this media is sealed; a key file opens it: give it on the command line with --key-file" in none.err
    )
    other = vsa("points", "--media", media, "--key-file", a_file(tmp_path / "other.key"))
    assert other.code == 2
    assert "not the one that it was wrapped with" in other.err and "not damaged" in other.err
    entry = media / "log/000000000000"
    entry.write_bytes(entry.read_bytes()[:-1])
    damaged = vsa("points", "--media", media, "--key-file", key)
    assert damaged.code == 20
    assert "log/000000000000" in damaged.err


def test_a_key_for_media_that_is_not_sealed_is_refused(tmp_path: Path, key: Path) -> None:
    vsa("init", "--media", tmp_path / "plain")
    ran = vsa("points", "--media", tmp_path / "plain", "--key-file", key)
    assert ran.code == 2
    assert "somebody has put another in its place" in ran.err


def test_a_key_without_seal_makes_nothing(tmp_path: Path, key: Path) -> None:
    ran = vsa("init", "--media", tmp_path / "media", "--key-file", key)
    assert ran.code == 2
    assert "not --seal" in ran.err
    assert not (tmp_path / "media").exists()


def test_seal_without_a_key_or_a_terminal_makes_nothing(tmp_path: Path) -> None:
    ran = vsa("init", "--seal", "--media", tmp_path / "media")
    assert ran.code == 2
    assert "--key-vault or AZURE_VSA_PASSPHRASE" in ran.err
    assert not (tmp_path / "media").exists()


def test_one_key_is_given_at_a_time(media: Path, key: Path) -> None:
    ran = vsa("points", "--media", media, "--key-file", key, "--passphrase-file", key)
    assert ran.code == 2
    assert "several keys" in ran.err


def test_a_passphrase_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, place = a_file(tmp_path / "words", f"{WORDS}\n".encode()), tmp_path / "media"
    assert vsa("init", "--seal", "--media", place, "--passphrase-file", words).code == 0
    monkeypatch.setenv("AZURE_VSA_PASSPHRASE", WORDS)
    assert vsa("points", "--media", place).code == 0
    monkeypatch.setenv("AZURE_VSA_PASSPHRASE", "other words entirely")
    assert vsa("points", "--media", place).code == 2
    assert vsa("points", "--media", place, "--passphrase-file", words).code == 0


@pytest.mark.parametrize("data", [b"\xff\xfe" * 20, b"short\n"])
def test_what_is_no_passphrase_is_refused_without_being_shown(tmp_path: Path, data: bytes) -> None:
    words = a_file(tmp_path / "words", data)
    ran = vsa("init", "--seal", "--media", tmp_path / "media", "--passphrase-file", words)
    assert ran.code == 2
    assert "short" not in ran.err.replace("words", "") and "xff" not in ran.err


def test_a_key_vault_is_not_contacted_for_a_url_that_is_none(media: Path) -> None:
    ran = vsa("points", "--media", media, "--key-vault", "http://vault/keys/k")
    assert ran.code == 2
    assert "is no Key Vault key" in ran.err


def test_a_second_key_is_added_checked_and_survives_only_if_it_is_told(
    media: Path, key: Path, tmp_path: Path
) -> None:
    second, third = a_file(tmp_path / "second"), a_file(tmp_path / "third")
    given = ("--media", media, "--key-file", key)
    assert vsa("key", "add", *given, "--new-key-file", second, "--json").document["key"] == 1
    refused = vsa("key", "rotate", *given, "--new-key-file", third)
    assert refused.code == 2
    assert "keys/1 (a key file), too" in refused.err
    rotated = vsa("key", "rotate", *given, "--new-key-file", third, "--all", "--reason", "yearly")
    assert rotated.code == 0
    assert "(keys/2); retired: keys/0 (a key file), keys/1 (a key file)." in rotated.out
    for retired in (key, second):
        ran = vsa("points", "--media", media, "--key-file", retired)
        assert ran.code == 2 and "was retired" in ran.err
    check = vsa("key", "check", "--media", media, "--key-file", third)
    assert [row[-1] for row in check.rows()] == ["REMARK", "retired", "retired", "opens"]


def test_checking_names_damaged_documents(media: Path, key: Path, tmp_path: Path) -> None:
    given = ("--media", media, "--key-file", key)
    vsa("key", "add", *given, "--new-key-file", a_file(tmp_path / "second"))
    (media / "keys/1").write_bytes(b"{}")
    ran = vsa("key", "check", *given, "--json")
    assert ran.code == 20
    assert ran.document["keys"][0]["opens"] is True
    assert "keys/1 does not match its own sha256" in ran.document["damaged"][0]


def test_unsealed_media_has_no_keys_to_check(tmp_path: Path) -> None:
    vsa("init", "--media", tmp_path / "plain")
    ran = vsa("key", "check", "--media", tmp_path / "plain")
    assert ran.code == 2 and "not sealed" in ran.err


def at_a_terminal(typed: list[str], *arguments: object) -> tuple[int, str]:
    """Run `vsa` before a terminal at which somebody types; the exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vsa", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown, left = b"", list(typed)
    try:
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:
                break
            if left and shown.endswith(b": "):
                # getpass discards what was typed before it had turned the echo off.
                time.sleep(0.05)
                os.write(ours, f"{left.pop(0)}\n".encode())
        return process.wait(60), shown.decode()
    finally:
        process.kill()
        os.close(ours)


def test_whoever_sits_at_a_terminal_is_asked_and_not_echoed(tmp_path: Path) -> None:
    place = tmp_path / "media"
    code, shown = at_a_terminal([WORDS, "other words entirely"], "init", "--seal", "--media", place)
    assert code == 2 and "the two passphrases differ" in shown
    assert not place.exists()
    code, shown = at_a_terminal([WORDS, WORDS], "init", "--seal", "--media", place)
    assert code == 0 and "Created sealed backup media" in shown
    code, listed = at_a_terminal([WORDS], "points", "--media", place)
    assert code == 0 and "No recovery points." in listed
    assert WORDS not in shown + listed


def test_retired_keys_are_said_and_deleted_by_a_prune(media: Path, key: Path, tmp_path: Path) -> None:
    other = a_file(tmp_path / "other.key")
    given = ("--media", media, "--key-file")
    rotated = vsa("key", "rotate", *given, key, "--new-key-file", other)
    assert rotated.code == 0, rotated.err
    ran = vsa("prune", *given, other)
    assert "Retired keys     keys/0" in ran.out and "--apply" in ran.out
    plan = vsa("prune", *given, other, "--json").document["plan"]
    assert plan["retired_keys"] == ["keys/0"]
    assert vsa("prune", *given, other, "--apply", plan["token"]).code == 0
    assert not (media / "keys/0").exists() and (media / "keys/1").exists()
    assert not vsa("prune", *given, other, "--json").document["plan"]["retired_keys"]
    assert vsa("points", *given, other).code == 0
