"""Frames in scratch files: nothing is lost, nothing comes twice, and contents stay together."""

from __future__ import annotations

import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa.ranges import MIB
from vsa.upkeep.frame_spool import FrameSpool, group_keys
from vsa.upkeep.scan import FRAME

digests = st.sampled_from([bytes([a, b]) * 16 for a in (0, 7) for b in (0, 255)])
places = st.tuples(digests, st.integers(0, 3), st.integers(64, 70))


@settings(deadline=None, max_examples=40)
@given(st.lists(places, unique=True), st.sampled_from([60, 1000]))
def test_every_place_comes_back_once_beside_those_of_the_same_contents(found, frames_in_memory):
    given_frames = np.zeros(len(found), FRAME)
    for row, (digest, pack, offset) in zip(given_frames, found, strict=True):
        row["digest"], row["crc"], row["pack"], row["offset"] = digest, digest[0], pack, offset
    size = frames_in_memory * FRAME.itemsize
    with tempfile.TemporaryDirectory() as folder:
        spool = FrameSpool(Path(folder) / "spool", bucket_bytes=size, buffer_bytes=size)
        for at in range(0, len(given_frames), 5):
            spool.add(given_frames[at : at + 5])
        spool.add(given_frames)
        for _ in range(2):
            back, keys = [], []
            for number, piece in enumerate(spool.sorted()):
                back += [(row["digest"].tobytes(), int(row["pack"]), int(row["offset"])) for row in piece]
                keys += [(number, int(key)) for key in group_keys(piece)]
            assert sorted(back) == sorted(found)
            assert len({(key, digest) for key, (digest, *_) in zip(keys, back, strict=True)}) == len(
                {digest for digest, *_ in back}
            )


def test_memory_does_not_grow_with_the_frames(tmp_path):
    spool = FrameSpool(tmp_path / "spool", bucket_bytes=MIB, buffer_bytes=MIB)
    rng = np.random.default_rng(7)
    tracemalloc.start()
    for _ in range(60):
        frames = np.zeros(20_000, FRAME)
        frames["digest"] = np.frombuffer(rng.bytes(20_000 * 32), "V32")
        spool.add(frames)
    found = sum(len(piece) for piece in spool.sorted())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 1_200_000
    # Whatever other threads of this process keep is counted as well: hence a bound with room.
    assert peak < 20 * MIB, f"{peak} bytes for {found * FRAME.itemsize} of frames"
