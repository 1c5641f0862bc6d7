"""Documents carry their own proof, and say whether they are damaged or merely newer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media.making import an_intent
from vsa.errors import BadRequest, MediaDamaged, MediaUnusable
from vsa.media import documents, layout
from vsa.model import Intent


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8")))
def test_any_text_comes_back_as_it_was(words):
    intent = an_intent("r1", vm_name=words)
    assert documents.decode(documents.encode(intent), Intent, "intent") == intent


def test_a_document_is_plain_json_to_everybody_else():
    fields = json.loads(documents.encode(an_intent("r1", vm_name="Straße")))
    assert fields["vm_name"] == "Straße"
    assert set(fields) == {"sha256", *Intent.model_fields}


def test_every_flipped_bit_is_noticed():
    data = documents.encode(an_intent("r1"))
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(MediaDamaged):
            documents.decode(bytes(flipped), Intent, "intent")


@pytest.mark.parametrize("length", range(0, 300, 7))
def test_every_cut_is_noticed(length):
    with pytest.raises(MediaDamaged):
        documents.decode(documents.encode(an_intent("r1"))[:length], Intent, "intent")


def proven(fields: object) -> bytes:
    """A document with the right digest and any fields, as a stranger could write it."""
    body = json.dumps(fields).encode()
    return b'{"sha256":"' + documents.sha256(body).encode() + b'",' + body[1:]


def fields_of(intent: Intent) -> dict[str, object]:
    return intent.model_dump(mode="json")


def test_an_unknown_field_of_an_intact_document_means_a_newer_writer():
    with pytest.raises(MediaUnusable, match="upgrade"):
        documents.decode(proven(fields_of(an_intent("r1")) | {"later": 1}), Intent, "intent")


@pytest.mark.parametrize(
    "change",
    [
        {"run": "../../etc"},
        {"run": 5},
        {"process": "1"},
        {"started_at": "yesterday"},
        {"started_at": "2026-01-01T00:00:00"},
    ],
)
def test_wrong_values_in_an_intact_document_are_damage(change):
    with pytest.raises(MediaDamaged):
        documents.decode(proven(fields_of(an_intent("r1")) | change), Intent, "intent")


@pytest.mark.parametrize("body", [b"{}", b"{null}", b'{"a":' + b"[" * 100_000])
def test_what_is_no_document_is_damage(body):
    data = b'{"sha256":"' + documents.sha256(body).encode() + b'",' + body[1:]
    with pytest.raises(MediaDamaged):
        documents.decode(data, Intent, "intent")


def test_a_document_too_large_to_read_is_not_written():
    with pytest.raises(BadRequest, match="too large"):
        documents.encode(an_intent("r1", snapshots=("x" * layout.MAX_DOCUMENT_SIZE,)))
