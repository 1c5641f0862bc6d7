"""`--witness`: what the log must have, said by somebody who saw it; and `vsa witness`, who says it."""

from __future__ import annotations

import pytest

from tests.cli.test_cli import vsa
from tests.media.making import back_up as backed_up
from tests.media.making import new_media, noise
from tests.media.test_log import seen, slot_path
from vsa.cli.exits import Exit
from vsa.media import layout
from vsa.media.checkpoint import encode


@pytest.fixture
def folder(tmp_path):
    media = new_media(tmp_path / "media")
    media.append(seen("web"))
    backed_up(media, {0: noise(0)}, run="r1", scratch=tmp_path)
    return tmp_path / "media"


def witness_of(folder) -> str:
    ran = vsa("witness", "--media", folder)
    assert ran.code == Exit.DONE
    return ran.out.strip()


def commands(folder, target):
    return [
        ["points"],
        ["clients"],
        ["jobs"],
        ["witness"],
        ["show", "1"],
        ["restore", "1", "--to", target, "--format", "raw"],
    ]


def test_the_printed_witness_is_accepted_by_every_command(folder, tmp_path):
    witness = witness_of(folder)
    assert vsa("witness", "--media", folder, "--json").document["witness"] == witness
    for number, command in enumerate(commands(folder, tmp_path / "out")):
        ran = vsa(*command, "--media", folder, "--witness", witness)
        assert (number, ran.code, ran.err) == (number, Exit.DONE, ran.err)


def test_media_that_was_put_back_is_refused_by_every_command_and_nothing_is_restored(folder, tmp_path):
    witness = witness_of(folder)
    newer = f"2:{'0' * 64}"
    other = f"1:{'0' * 64}"
    for command in commands(folder, tmp_path / "out"):
        for wrong in (newer, other):
            ran = vsa(*command, "--media", folder, "--witness", wrong)
            assert (ran.code, ran.out) == (Exit.DAMAGED, "")
            assert wrong in ran.err
            assert witness in ran.err
    assert not (tmp_path / "out").exists()


def test_what_is_no_witness_is_a_bad_request(folder):
    ran = vsa("points", "--media", folder, "--witness", "yesterday")
    assert (ran.code, "SLOT:SHA256" in ran.err) == (Exit.BAD_REQUEST, True)


def test_an_empty_log_says_so(tmp_path):
    new_media(tmp_path / "media")
    ran = vsa("witness", "--media", tmp_path / "media")
    assert (ran.code, ran.out) == (Exit.DONE, "The log is empty.\n")


def test_with_a_witness_a_lying_checkpoint_is_not_believed(folder):
    """The checkpoint names the right entry, so the witness fits it; only the log itself can tell."""
    from dataclasses import replace

    from vsa.media.media import Media

    media = Media.open(str(folder))
    lie = replace(media.view(), points={})
    (folder / "checkpoints").mkdir()
    (folder / layout.checkpoint(1)).write_bytes(encode(lie, media.id))
    assert vsa("points", "--media", folder).out == "No recovery points.\n"
    witness = f"1:{media.view().head_hash}"
    assert "web" in vsa("points", "--media", folder, "--witness", witness).out
    assert slot_path(folder, 1).exists()
