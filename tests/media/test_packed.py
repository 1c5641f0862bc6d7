"""Nouns that are kept as bytes take the memory that these bytes have."""

from __future__ import annotations

import json
import tracemalloc

from vsa.media.packed import Packer, unpack

COUNT = 2000


def test_what_is_packed_takes_no_more_than_its_bytes() -> None:
    documents = [json.dumps({"number": number, "text": "the same " * 400}) for number in range(COUNT)]
    packer = Packer()
    packer.pack(documents[0])
    tracemalloc.start()
    try:
        packed = [packer.pack(document) for document in documents]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Each bytes object has a head of some 33 bytes, and the list points to it.
    assert taken < sum(map(len, packed)) + COUNT * 64
    assert [unpack(item, json.loads)["number"] for item in packed] == list(range(COUNT))
