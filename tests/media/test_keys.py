"""Key documents: what opens them, what they refuse, and what a wrong key is told."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import traceback
import unicodedata

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.media import second_opener
from tests.media.making import NOW
from tests.media.test_sealing import flipped, frozen
from vsa.errors import BadRequest, MediaDamaged, MediaUnusable, WrongKey
from vsa.media import documents, keys
from vsa.media.cipher import DataKey
from vsa.media.keys import KeyDocument, MediaName, new_key_document, open_data_key, unwrap
from vsa.media.sealing import Sealer
from vsa.media.wrapping import KeyFile, Passphrase, PassphraseWay, ScryptCost, WrappingKey
from vsa.secret import Secret

MEDIA = MediaName("0123456789abcdef" * 2, documents.sha256(b"media.json"))
DATA_KEY = DataKey(bytes(range(150, 182)))
CHEAP = ScryptCost(log2_n=10)
WORDS = "correct horse battery staple"
FILE = bytes(range(64, 128))


def a_passphrase(words: str = WORDS, cost: ScryptCost = CHEAP) -> Passphrase:
    return Passphrase(Secret(words), cost=cost)


def a_document(wrapping_key: WrappingKey | None = None, *, number: int = 0, random=frozen) -> KeyDocument:
    return new_key_document(
        DATA_KEY, wrapping_key or a_passphrase(), media=MEDIA, number=number, now=NOW, random=random
    )


def forged(document: KeyDocument, **changes: object) -> bytes:
    """The document as somebody would write it who may write to the media: its checksum is right."""
    fields = document.model_dump(mode="json")
    way = {**fields["way"], **changes.pop("way", {})}
    body = json.dumps({**fields, **changes, "way": way}).encode()
    return b'{"sha256":"' + documents.sha256(body).encode() + b'",' + body[1:]


@pytest.mark.parametrize(
    ("wrapping_key", "secret"), [(a_passphrase(), WORDS.encode()), (KeyFile(FILE), FILE)]
)
def test_a_document_gives_back_the_data_key(wrapping_key, secret):
    data = documents.encode(a_document(wrapping_key))
    document = keys.decode(data, 0, MEDIA)
    assert unwrap(document, wrapping_key) == DATA_KEY
    assert second_opener.open_key(data, secret) == DATA_KEY.reveal()


def test_the_standard_cost_is_128_mib_and_one_pass():
    document = a_document(Passphrase(Secret(WORDS)))
    assert isinstance(document.way, PassphraseWay)
    assert (document.way.log2_n, document.way.r, document.way.p) == (17, 8, 1)
    assert unwrap(document, Passphrase(Secret(WORDS))) == DATA_KEY


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (a_passphrase(), a_passphrase("correct horse battery stable")),
        (KeyFile(FILE), KeyFile(FILE[::-1])),
    ],
)
def test_a_wrong_key_is_told_from_damage(right, wrong):
    document = a_document(right)
    with pytest.raises(WrongKey, match=r"keys/0: the key given is not .* so it is not damaged"):
        unwrap(document, wrong)
    data = bytearray(documents.encode(document))
    data[-20] ^= 1
    with pytest.raises(MediaDamaged, match="keys/0 does not match its own sha256"):
        keys.decode(bytes(data), 0, MEDIA)


def test_every_changed_byte_is_found():
    for _, changed in flipped(documents.encode(a_document())):
        with pytest.raises(MediaDamaged):
            keys.decode(changed, 0, MEDIA)


def test_a_document_of_another_media_or_place_is_found():
    data = documents.encode(a_document())
    with pytest.raises(MediaDamaged, match="changed places"):
        keys.decode(data, 1, MEDIA)
    with pytest.raises(MediaDamaged, match="changed places"):
        keys.decode(data, 0, MEDIA._replace(id="f" * 32))


def test_a_media_json_that_was_exchanged_is_found():
    with pytest.raises(MediaDamaged, match=r"media\.json has sha256 .* exchanged"):
        keys.decode(documents.encode(a_document()), 0, MEDIA._replace(descriptor="0" * 64))


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 1},
        {"media": "f" * 32},
        {"descriptor": "f" * 64},
        {"way": {"salt": "0" * 64}},
        {"way": {"log2_n": 11}},
        {"way": {"p": 2}},
        {"wrapped": "0" * 120},
    ],
)
def test_nothing_that_a_document_says_can_be_forged(changes):
    data = forged(a_document(), **changes)
    fields = json.loads(data)
    media = MediaName(fields["media"], fields["descriptor"])
    with pytest.raises(WrongKey):
        unwrap(keys.decode(data, fields["number"], media), a_passphrase())


def test_a_message_with_a_nonce_of_somebodys_choice_is_refused():
    """Else one document could be made to open under many passphrases, and tell which of them is tried."""
    document = a_document()
    material, sealed, context = second_opener.key_message(document.model_dump(), WORDS.encode())
    chosen = bytes(12)
    wrapped = chosen + AESGCM(material[:32]).encrypt(chosen, DATA_KEY.reveal(), context)
    assert AESGCM(material[:32]).decrypt(sealed[:12], sealed[12:], context) == DATA_KEY.reveal()
    with pytest.raises(WrongKey):
        unwrap(document.model_copy(update={"wrapped": wrapped.hex()}), a_passphrase())


@pytest.mark.parametrize(
    "way",
    [{"log2_n": 21}, {"log2_n": 60}, {"log2_n": 9}, {"log2_n": -1}, {"p": 0}, {"p": 1 << 20}, {"r": 1 << 20}],
)
def test_costs_out_of_bounds_are_refused_before_anything_is_allocated(way):
    with pytest.raises((MediaDamaged, MediaUnusable)):
        keys.decode(forged(a_document(), way=way), 0, MEDIA)


def test_a_cost_lowered_on_the_media_is_refused():
    with pytest.raises(MediaUnusable, match=r"N = 2\^10, expected at least 2\^17"):
        unwrap(a_document(), Passphrase(Secret(WORDS)))


def test_the_same_words_are_the_same_passphrase_whoever_typed_them():
    composed, decomposed = (unicodedata.normalize(form, "früh im Bärenwald") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert unwrap(a_document(a_passphrase(composed)), a_passphrase(decomposed)) == DATA_KEY


def test_a_short_passphrase_protects_nothing_new():
    with pytest.raises(BadRequest, match="expected at least 12"):
        a_document(a_passphrase("eleven char"))
    with pytest.raises(BadRequest, match="empty"):
        a_passphrase("")


# Rotation


def test_after_rotation_both_keys_open_and_no_object_changed():
    sealed = Sealer(DATA_KEY, bytes(16)).seal("log/000000000000", b"entry")
    old, new = a_passphrase(), KeyFile(FILE)
    documents = [a_document(old), a_document(new, number=1)]
    for number, key in enumerate((old, new)):
        data_key, opened = open_data_key(documents, key)
        assert opened == number
        assert Sealer(data_key, bytes(16)).open("log/000000000000", sealed) == b"entry"


def test_the_newest_document_that_opens_is_taken():
    same = [a_document(), a_document(number=1), a_document(a_passphrase("another passphrase"), number=2)]
    assert open_data_key(same, a_passphrase()) == (DATA_KEY, 1)
    with pytest.raises(WrongKey, match=r"keys/2.*keys/1.*keys/0"):
        open_data_key(same, a_passphrase("neither of the two"))


def test_the_ways_that_open_are_named_when_another_is_tried():
    with pytest.raises(WrongKey, match="opened by a passphrase, and something else"):
        open_data_key([a_document()], KeyFile(FILE))
    with pytest.raises(WrongKey, match="it has no keys"):
        open_data_key([], KeyFile(FILE))


def test_wrapping_again_on_a_clone_repeats_no_nonce():
    """The clone's random generator repeats the salt, and so the wrapping key."""
    documents = [a_document(number=number) for number in range(3)]
    assert len({document.way.salt for document in documents}) == 1
    assert len({document.wrapped[:24] for document in documents}) == 3


def test_the_number_of_documents_is_bounded():
    with pytest.raises(BadRequest, match="at most 1000"):
        a_document(number=1000)


# Key files


def test_a_key_file_is_random_and_long_enough():
    for data in (b"", FILE[:31], bytes(32), b"0123456789\n" * 10, FILE * 2000):
        with pytest.raises(BadRequest, match="head -c 32 /dev/urandom"):
            KeyFile(data)
    assert all(KeyFile(os.urandom(32)) for _ in range(1000))


def test_a_key_file_that_others_may_read_is_warned_of(tmp_path, caplog):
    path = tmp_path / "media.key"
    path.write_bytes(FILE)
    for mode, warned in ((0o600, False), (0o400, False), (0o644, True), (0o640, True)):
        path.chmod(mode)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert unwrap(a_document(KeyFile(FILE)), KeyFile.read(path)) == DATA_KEY
        assert ("open to other users" in caplog.text) == warned


def test_a_key_file_that_is_not_there_is_a_bad_request(tmp_path):
    with pytest.raises(BadRequest, match=r"media\.key cannot be read: No such file"):
        KeyFile.read(tmp_path / "media.key")
    with pytest.raises(BadRequest, match="cannot be read"):
        KeyFile.read(tmp_path)


# Known answers


def test_known_answers():
    assert a_document(a_passphrase()).wrapped == PASSPHRASE_WRAPPED
    assert a_document(KeyFile(FILE)).wrapped == FILE_WRAPPED


PASSPHRASE_WRAPPED = (
    "faad0b73e073cdb7d8430b71fbb0bd453a4d466ab0d8fb158caac9d4b6735674"
    "db783913aab2f2c6a68e8bb6f438f62b5e36c555ee694ba92e855e16"
)
FILE_WRAPPED = (
    "69bafdb80a7c086a8339a64b2d15ebc1b022fac890fdd69cb2de01474d8d76f1"
    "f42f78f62342b00b64226ca2bc3ba429bb8341b72502cff2b9d48c9b"
)


# What is seen of secrets


@pytest.mark.parametrize("holder", [a_passphrase(), KeyFile(FILE)], ids=["passphrase", "file"])
def test_no_secret_is_shown_or_stored(holder):
    assert not leaked(f"{holder!r} {holder} {[holder]}")
    for store in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="not to be serialised"):
            store(holder)


def test_no_secret_is_in_a_document_or_an_error():
    for key, wrong in (
        (a_passphrase(), a_passphrase("wrong words here")),
        (KeyFile(FILE), KeyFile(FILE[::-1])),
    ):
        document = a_document(key)
        assert not leaked(documents.encode(document).decode())
        with pytest.raises(WrongKey) as caught:
            open_data_key([document], wrong)
        assert not leaked("".join(traceback.format_exception(caught.value)))


def leaked(text: str) -> bool:
    secrets = (DATA_KEY.reveal(), FILE, FILE[::-1])
    forms = [form for secret in secrets for form in (secret.hex(), repr(secret)[2:-1])]
    return any(form in text for form in (*forms, WORDS, "wrong words here"))
