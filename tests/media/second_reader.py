"""Restores a disk from backup media, written from docs/media-format.md alone.

    python second_reader.py MEDIA SLOT DISK_NAME TARGET

Shares no code with the engine. It needs pyarrow and zstandard, and checks everything that the document
says a reader must, but for BLAKE3, which the standard library lacks.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from pathlib import Path

import pyarrow.parquet as pq
import zstandard

SEGMENT = 65_536
PACK_NAME = re.compile(r"runs/[a-z0-9][a-z0-9-]{0,63}/packs/[0-9a-f]{32}\.pack")
INDEX_NAME = re.compile(r"runs/[a-z0-9][a-z0-9-]{0,63}/index/[a-z0-9][a-z0-9-]{0,63}-[0-9a-f]{16}\.parquet")
COLUMNS = ["extent", "pack", "offset", "length", "crc", "digest"]


class BadMedia(Exception):
    """The media is not what the document says."""


def require(condition: object, complaint: str) -> None:
    if not condition:
        raise BadMedia(complaint)


def document(data: bytes) -> dict:
    """Section "Documents": check the digest over the object without its first member."""
    require(data[:11] == b'{"sha256":"' and data[75:77] == b'",', "not a document")
    rest = b"{" + data[77:]
    require(hashlib.sha256(rest).hexdigest().encode() == data[11:75], "a document was altered")
    return json.loads(rest)


def read_log(media: Path, origin: bytes) -> list[dict]:
    entries: list[dict] = []
    previous = hashlib.sha256(origin).hexdigest()
    while (path := media / f"log/{len(entries):012}").exists():
        data = path.read_bytes()
        entry = document(data)
        require(entry["seq"] == len(entries) and entry["prev"] == previous, f"{path} breaks the chain")
        previous = hashlib.sha256(data).hexdigest()
        entries.append(entry)
    require(len(list((media / "log").glob("*"))) == len(entries), "the log has a hole")
    return entries


def recovery_points(entries: list[dict]) -> dict[int, dict]:
    """Section "Meaning of the log", as far as points go."""
    points: dict[int, dict] = {}
    committed: set[str] = set()
    fenced: set[str] = set()
    for slot, entry in enumerate(entries):
        body, run = entry["body"], entry["run"]
        if body["type"] == "doom":
            fenced |= set(body["runs"]) - committed
        elif body["type"] == "point" and run not in committed | fenced:
            committed.add(run)
            points[slot] = body["point"]
        else:
            require(body["type"] in ("client", "job", "point", "doubt"), f"slot {slot} is of a newer version")
    return points


def read_index(media: Path, ref: dict, about_media: dict) -> tuple[dict, list[dict]]:
    """Section "Reading an index": its description and all of its rows."""
    require(INDEX_NAME.fullmatch(ref["name"]), "not the name of an index")
    data = (media / ref["name"]).read_bytes()
    require(
        len(data) == ref["size"] and hashlib.sha256(data).hexdigest() == ref["sha256"], f"{ref} was altered"
    )
    file = pq.ParquetFile(io.BytesIO(data))
    about = json.loads(file.metadata.metadata[b"azure-vsa.index"])
    require(file.schema_arrow.names == COLUMNS and about["format"] == 1, "other columns")
    require(
        (about["media"], about["extent_size"]) == (about_media["id"], about_media["extent_size"]),
        "other media",
    )
    require(all(PACK_NAME.fullmatch(pack["name"]) for pack in about["packs"]), "not the name of a pack")
    require(len(about["segments"]) == file.num_row_groups, "segments and row groups differ")
    rows: list[dict] = []
    for group, segment in enumerate(about["segments"]):
        for row in file.read_row_group(group).to_pylist():
            require(row["extent"] // SEGMENT == segment["number"], "a row is in another segment")
            require(not rows or rows[-1]["extent"] < row["extent"], "extents do not ascend")
            check_place(row, about)
            rows.append(row)
    return about, rows


def check_place(row: dict, about: dict) -> None:
    raw = raw_length(row["extent"], about)
    require(raw > 0 and -1 <= row["pack"] < len(about["packs"]), f"{row} is outside the disk or the packs")
    require(row["pack"] >= 0 or about["kind"] == "delta", "a base has a row for zeros")
    if row["pack"] >= 0:
        end = about["packs"][row["pack"]]["size"] - 28
        require(row["offset"] >= 64 and row["offset"] + row["length"] <= end, f"{row} is outside its pack")
        require(1 <= row["length"] <= raw, f"{row} is too long")


def raw_length(extent: int, about: dict) -> int:
    return min(about["extent_size"], about["disk_size"] - extent * about["extent_size"])


def contents(media: Path, disk: dict, about_media: dict) -> dict[int, tuple[str, dict, int]]:
    """Section "The contents of a disk": pack name, row and raw length of each extent that is not zeros."""
    found: dict[int, tuple[str, dict, int]] = {}
    for number, ref in enumerate(disk["indexes"]):
        about, rows = read_index(media, ref, about_media)
        require(about["kind"] == ("delta" if number else "base"), "a base comes first, then deltas")
        require(about["disk_size"] <= disk["disk"]["size"], "an index is of a larger disk")
        for row in rows:
            found.pop(row["extent"], None)
            if row["pack"] >= 0:
                found[row["extent"]] = (
                    about["packs"][row["pack"]]["name"],
                    row,
                    raw_length(row["extent"], about),
                )
    return found


def read_frame(media: Path, pack: str, row: dict, raw: int) -> bytes:
    with (media / pack).open("rb") as file:
        require(file.read(10) == b"AVSAPACK\x01\x00", f"{pack} is no pack of version 1")
        file.seek(row["offset"])
        stored = file.read(row["length"])
    data = stored
    if len(stored) != raw:
        require(zstandard.get_frame_parameters(stored).content_size == raw, "a frame of another size")
        data = zstandard.ZstdDecompressor().decompress(stored, max_output_size=raw, allow_extra_data=False)
    require(len(data) == raw and crc32c(data) == row["crc"], f"extent {row['extent']} in {pack} was altered")
    return data


def _crc_of_byte(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return value


_CRC = [_crc_of_byte(value) for value in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def restore(media: Path, slot: int, disk_name: str, target: Path) -> None:
    description = (media / "media.json").read_bytes()
    about = document(description)
    require(about["format"] == "azure-vsa media" and about["version"] == 1, "not media of version 1")
    require(about["required_features"] == [], "features that this reader does not know")
    point = recovery_points(read_log(media, description))[slot]
    disk = next(disk for disk in point["disks"] if disk["disk"]["name"] == disk_name)
    with target.open("wb") as file:
        file.truncate(disk["disk"]["size"])
        for extent, (pack, row, raw) in contents(media, disk, about).items():
            file.seek(extent * about["extent_size"])
            file.write(read_frame(media, pack, row, raw))


if __name__ == "__main__":
    restore(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
