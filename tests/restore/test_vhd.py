from __future__ import annotations

import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vsa.errors import BadRequest
from vsa.ranges import GIB, MIB
from vsa.restore.vhd import Geometry, footer, geometry

MADE = dt.datetime(2000, 1, 2, tzinfo=dt.UTC)
IDENTITY = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")


def test_the_footer_is_laid_out_as_the_specification_says() -> None:
    block = footer(1 * GIB, MADE, IDENTITY)
    assert len(block) == 512
    assert block[0:8] == b"conectix"
    assert block[8:12] == bytes([0, 0, 0, 2])
    assert block[12:16] == bytes([0, 1, 0, 0])
    assert block[16:24] == b"\xff" * 8
    assert int.from_bytes(block[24:28], "big") == 86_400
    assert int.from_bytes(block[40:48], "big") == int.from_bytes(block[48:56], "big") == 1 * GIB
    assert block[56:60] == bytes([0x08, 0x20, 16, 63])
    assert int.from_bytes(block[60:64], "big") == 2
    assert block[68:84] == IDENTITY.bytes
    assert block[84:] == bytes(428)


@given(st.integers(1, 2**36), st.uuids())
def test_the_checksum_makes_the_footer_s_sum_come_out(sectors: int, identity: uuid.UUID) -> None:
    block = footer(sectors * 512, MADE, identity)
    stated = int.from_bytes(block[64:68], "big")
    others = sum(block[:64]) + sum(block[68:])
    assert (stated + others) & 0xFFFFFFFF == 0xFFFFFFFF


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (1 * GIB, Geometry(2080, 16, 63)),
        (20 * MIB, Geometry(602, 4, 17)),
        (100 * MIB, Geometry(1003, 12, 17)),
        (127 * GIB, Geometry(65_278, 16, 255)),
        (2**40, Geometry(65_535, 16, 255)),
    ],
)
def test_geometry_of_known_disks(size: int, expected: Geometry) -> None:
    assert geometry(size) == expected


@given(st.integers(68, 65535 * 16 * 255))
def test_a_geometry_fits_its_fields_and_loses_less_than_a_cylinder(sectors: int) -> None:
    cylinders, heads, per_track = geometry(sectors * 512)
    assert 1 <= cylinders <= 65_535 and 4 <= heads <= 16 and per_track in (17, 31, 63, 255)
    assert 0 <= sectors - cylinders * heads * per_track < heads * per_track


@pytest.mark.parametrize("size", [0, 511, 513, GIB + 1])
def test_what_is_no_whole_number_of_sectors_is_refused(size: int) -> None:
    with pytest.raises(BadRequest, match="whole sectors"):
        footer(size, MADE, IDENTITY)
