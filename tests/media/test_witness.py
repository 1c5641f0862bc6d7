"""A media that was put back as a whole is sound by itself; a witness from elsewhere tells."""

from __future__ import annotations

import shutil

import pytest

from tests.media.making import new_media
from tests.media.test_log import seen
from vsa.errors import BadRequest, MediaDamaged
from vsa.media.media import Media
from vsa.media.witness import Witness


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "media"


@pytest.fixture
def media(folder):
    media = new_media(folder)
    for name in "abc":
        media.append(seen(name))
    return media


def test_a_witness_is_text_and_back(media):
    witness = media.view().witness
    assert witness is not None
    assert Witness.parse(str(witness)) == Witness.parse(f" {witness}\n") == witness
    assert str(witness) == f"2:{media.view().head_hash}"


@pytest.mark.parametrize(
    "text", ["", "7", "7:abc", f"-1:{'0' * 64}", f"1:{'G' * 64}", f"{'9' * 13}:{'0' * 64}"]
)
def test_other_text_is_no_witness(text):
    with pytest.raises(BadRequest, match="no witness"):
        Witness.parse(text)


def test_an_empty_log_has_no_witness(tmp_path):
    assert new_media(tmp_path / "empty").view().witness is None


def test_every_witness_of_a_log_that_only_grew_holds(media, folder):
    for slot in range(3):
        reread = Media.open(str(folder))
        witness = Witness(slot=slot, sha256=reread._log.digest_of(slot))
        media.require_witness(witness)
        reread.require_witness(witness)


def append_and_put_back(media, folder):
    """The witness of an entry more; the media is then again as it was before."""
    kept = folder.parent / "kept"
    shutil.copytree(folder, kept)
    media.append(seen("d"))
    witness = media.view().witness
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)
    return witness


def test_media_that_was_put_back_is_noticed(media, folder):
    witness = append_and_put_back(media, folder)
    again = Media.open(str(folder), write=True)
    with pytest.raises(MediaDamaged, match=rf"{witness}, but has no such slot; it ends with 2:"):
        again.require_witness(witness)


def test_media_that_was_put_back_and_grew_again_is_noticed(media, folder):
    witness = append_and_put_back(media, folder)
    again = Media.open(str(folder), write=True)
    for name in "xyz":
        again.append(seen(name))
    with pytest.raises(MediaDamaged, match=rf"{witness}, but has [0-9a-f]{{64}} there; it ends with 5:"):
        again.require_witness(witness)


def test_an_emptied_log_is_noticed(media, tmp_path):
    with pytest.raises(MediaDamaged, match="ends with nothing"):
        new_media(tmp_path / "empty").require_witness(media.view().witness)
