"""Digests objects: a sample of an index by digest, by which later backups find what is stored already.

A cache (docs/media-format.md, "Digests"): what it says is proven by the index that it leads to, and one that
is missing or unreadable costs nothing but space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import ValidationError

from vsa.errors import MediaDamaged
from vsa.media import layout, parquet, pinned
from vsa.media.index import ZEROS, IndexDescription, IndexFile, Offer
from vsa.media.parquet import Rows
from vsa.media.store import Store
from vsa.model import Identifier, IndexRef, Noun, ObjectRef

METADATA_KEY = b"azure-vsa.digests"
SAMPLE = np.dtype([("digest", np.uint64), ("segment", np.uint32)])
MAX_SAMPLE = 2**26
"""Rows of one object: a sixty-fourth of the extents of the largest disk."""
LEAST_ROW = 4
"""Bytes that a row takes at least: sorted digests compress a little."""
MAX_SEGMENTS = 2**16
"""Segments of the largest disk."""

SAMPLED_BITS = 0x3F
"""Of a digest's first byte; extents in whose digest they are zero are sampled, one of 64."""
FIRST_SAMPLED = 16
"""Of each segment, its first extents are sampled too: a small clone would else be half read before it is
known for one."""


class DigestsDescription(Noun):
    """What a digests object says of itself. `offer` and `client` are those of the index."""

    format: Literal[1] = 1
    media: str
    run: Identifier
    index: IndexRef
    offer: Offer
    client: Identifier


class SampleSpool:
    """The sample of an index that is being written."""

    def __init__(self, about: IndexDescription) -> None:
        self._about = about
        self._found: list[Rows] = []

    def watch(self, groups: Iterable[tuple[int, Rows]]) -> Iterator[tuple[int, Rows]]:
        """The groups as they are; what passes is sampled."""
        for segment, rows in groups:
            self._add(segment, rows)
            yield segment, rows

    def rows(self) -> Rows:
        """The sample so far, ascending."""
        found: Rows = np.concatenate([np.zeros(0, SAMPLE), *self._found])
        found.sort(order="digest", kind="stable")
        return found

    def _add(self, segment: int, rows: Rows) -> None:
        keys = digest_keys(rows)
        chosen = (rows["pack"] != ZEROS) & is_whole(self._about, rows)
        sampled = (keys >> np.uint64(56)) & np.uint64(SAMPLED_BITS) == 0
        chosen &= sampled | (np.cumsum(chosen) <= FIRST_SAMPLED)
        part: Rows = np.zeros(int(np.count_nonzero(chosen)), SAMPLE)
        part["digest"], part["segment"] = keys[chosen], segment
        self._found.append(part)


def digest_keys(rows: Rows) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each digest as a number."""
    data = np.frombuffer(rows["digest"].tobytes(), ">u8").reshape(-1, 4)
    return data[:, 0].astype(np.uint64)


def is_whole(about: IndexDescription, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which rows are of whole extents: the others are offered to nobody."""
    whole = about.disk_size // about.extent_size
    return rows["extent"].astype(np.int64) < whole


def store_digests(store: Store, index: IndexRef, about: IndexDescription, sample: Rows) -> ObjectRef:
    """Store the sample of an index beside it."""
    described = DigestsDescription(
        media=about.media, run=about.run, index=index, offer=about.offer, client=about.client
    )
    sink = pa.BufferOutputStream()
    schema = parquet.schema_of(SAMPLE)
    with parquet.writer(sink, schema) as writer:
        if len(sample):
            writer.write_table(parquet.to_arrow(sample, schema))
        writer.add_key_value_metadata({METADATA_KEY: described.model_dump_json().encode()})
    data: bytes = sink.getvalue().to_pybytes()
    name = layout.digests_of(index.name)
    store.create(name, [data])
    return ObjectRef(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def open_digests(store: Store, ref: ObjectRef, *, media_id: str) -> tuple[DigestsDescription, Rows]:
    """A sample that the log names; MediaDamaged if it is not what was stored, or no sample of this media."""
    if not layout.is_digests(ref.name):
        raise MediaDamaged(f"{ref.name!r} is no name of a digests object")
    text, rows = parquet.read_table(
        pinned.fetch(store, ref),
        ref.name,
        dtype=SAMPLE,
        key=METADATA_KEY,
        max_rows=min(MAX_SAMPLE, ref.size // LEAST_ROW),
    )
    try:
        about = DigestsDescription.model_validate_json(text or b"absent", strict=True)
    except ValidationError as error:
        raise MediaDamaged(f"{ref.name} does not describe itself: {error}") from error
    if about.media != media_id or layout.digests_of(about.index.name) != ref.name:
        raise MediaDamaged(f"{ref.name} is of {about.index.name} of media {about.media}")
    descends = rows["digest"][1:] < rows["digest"][:-1]
    if np.any(descends) or np.any(rows["segment"] >= MAX_SEGMENTS):
        raise MediaDamaged(f"{ref.name}: its rows do not ascend, or name a segment that no disk has")
    return about, rows


def offer_of(offer: Offer, client: str, absorbed: Iterable[IndexFile]) -> Offer:
    """To whom an index may be offered that takes over the rows of others: to nobody whom they were not."""
    offers = [offer]
    for file in absorbed:
        about = file.description
        foreign = about.offer is Offer.CLIENT and about.client != client
        offers.append(Offer.OFF if foreign else about.offer)
    return max(offers, key=list(Offer).index)
