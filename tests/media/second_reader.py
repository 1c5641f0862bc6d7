"""Restores a disk from backup media, written from docs/media-format.md alone.

    python second_reader.py MEDIA SLOT DISK_NAME TARGET

Shares no code with the engine. It needs pyarrow and zstandard, and checks everything that the document
says a reader must, but for BLAKE3, which the standard library lacks. Sealed media is read through
second_opener.SealedFolder.
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
MOVES_NAME = re.compile(r"runs/[a-z0-9][a-z0-9-]{0,63}/moves/[0-9a-f]{16}\.parquet")
COLUMNS = ["extent", "pack", "offset", "length", "crc", "digest"]
MOVES_COLUMNS = ["from_pack", "from_offset", "pack", "offset", "length"]


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


class Folder:
    """The objects of media that is not sealed."""

    features: tuple[str, ...] = ()
    overhead = 0
    """Bytes by which sealing makes a frame longer."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def frame(self, pack: str, offset: int, length: int, raw: int) -> bytes:
        with (self.path / pack).open("rb") as file:
            require(file.read(10) == b"AVSAPACK\x01\x00", f"{pack} is no pack of version 1")
            file.seek(offset)
            return file.read(length)


def read_log(media: Folder, origin: bytes) -> list[dict]:
    entries: list[dict] = []
    previous = hashlib.sha256(origin).hexdigest()
    while (media.path / (name := f"log/{len(entries):012}")).exists():
        data = media.read(name)
        entry = document(data)
        require(entry["seq"] == len(entries) and entry["prev"] == previous, f"{name} breaks the chain")
        previous = hashlib.sha256(data).hexdigest()
        entries.append(entry)
    require(len(list((media.path / "log").glob("*"))) == len(entries), "the log has a hole")
    return entries


class Log:
    """Section "Meaning of the log", as far as restoring goes."""

    def __init__(self, entries: list[dict]) -> None:
        self.points: dict[int, dict] = {}
        self.given_up: set[int] = set()
        self.moves: list[tuple[dict, set[str]]] = []
        self.copies: dict[str, dict] = {}
        forgotten: set[int] = set()
        committed: set[str] = set()
        fenced: set[str] = set()
        for slot, entry in enumerate(entries):
            body, run = entry["body"], entry["run"]
            match body["type"]:
                case "doom":
                    fenced |= set(body["runs"]) - committed
                    self.given_up |= set(body["points"]) & forgotten
                case "point" if run not in committed | fenced:
                    committed.add(run)
                    self.points[slot] = body["point"]
                case "forget":
                    forgotten |= set(body["points"])
                case "unforget":
                    forgotten -= set(body["points"]) - self.given_up
                case "relocate" if run not in fenced:
                    self.moves += [(body["table"], set(body["packs"]))] if body["table"] else []
                    self.copies |= {moved["name"]: moved["ref"] for moved in body["indexes"]}
                case "point" | "relocate" | "client" | "job" | "doubt" | "damage" | "pin" | "rotate":
                    pass
                case kind:
                    raise BadMedia(f"slot {slot} holds a {kind}, which a newer version wrote")


def read_index(media: Folder, ref: dict, about_media: dict) -> tuple[dict, list[dict]]:
    """Section "Reading an index": its description and all of its rows."""
    file = pq.ParquetFile(io.BytesIO(pinned(media, ref, INDEX_NAME)))
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
        for row in file.read_row_group(group, use_threads=False).to_pylist():
            require(row["extent"] // SEGMENT == segment["number"], "a row is in another segment")
            require(not rows or rows[-1]["extent"] < row["extent"], "extents do not ascend")
            check_place(row, about, media.overhead)
            rows.append(row)
    return about, rows


def pinned(media: Folder, ref: dict, pattern: re.Pattern[str]) -> bytes:
    """An object that the log names by size and digest."""
    require(pattern.fullmatch(ref["name"]), f"{ref} has a name that it should not have")
    data = media.read(ref["name"])
    altered = len(data) != ref["size"] or hashlib.sha256(data).hexdigest() != ref["sha256"]
    require(not altered, f"{ref} was altered")
    return data


def read_moves(media: Folder, ref: dict, about_media: dict) -> dict[tuple[str, int], tuple[str, int, int]]:
    """Section "Moves": from each old place to pack, offset and length of the new one."""
    file = pq.ParquetFile(io.BytesIO(pinned(media, ref, MOVES_NAME)))
    about = json.loads(file.metadata.metadata[b"azure-vsa.moves"])
    require(file.schema_arrow.names == MOVES_COLUMNS and about["format"] == 1, "other columns")
    require(about["media"] == about_media["id"], "moves of other media")
    names = about["sources"] + [pack["name"] for pack in about["packs"]]
    require(all(PACK_NAME.fullmatch(name) for name in names), "not the name of a pack")
    found: dict[tuple[str, int], tuple[str, int, int]] = {}
    for row in file.read(use_threads=False).to_pylist():
        source = about["sources"][row["from_pack"]], row["from_offset"]
        require(min(row["from_pack"], row["pack"]) >= 0 and source not in found, "a move that cannot be")
        found[source] = about["packs"][row["pack"]]["name"], row["offset"], row["length"]
    return found


def check_place(row: dict, about: dict, overhead: int) -> None:
    raw = raw_length(row["extent"], about)
    require(raw > 0 and -1 <= row["pack"] < len(about["packs"]), f"{row} is outside the disk or the packs")
    require(row["pack"] >= 0 or about["kind"] == "delta", "a base has a row for zeros")
    if row["pack"] >= 0:
        end = about["packs"][row["pack"]]["size"] - 28
        require(row["offset"] >= 64 and row["offset"] + row["length"] <= end, f"{row} is outside its pack")
        require(overhead < row["length"] <= raw + overhead, f"{row} is too long")


def raw_length(extent: int, about: dict) -> int:
    return min(about["extent_size"], about["disk_size"] - extent * about["extent_size"])


def contents(media: Folder, disk: dict, about_media: dict, log: Log) -> dict[int, tuple[str, dict, int]]:
    """Section "The contents of a disk": pack name, row and raw length of each extent that is not zeros."""
    found: dict[int, tuple[str, dict, int]] = {}
    for number, ref in enumerate(disk["indexes"]):
        about, rows = read_index(media, log.copies.get(ref["name"], ref), about_media)
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
    for table, sources in log.moves:
        # Tables that concern no pack of the disk may have been deleted.
        leaves = not sources.isdisjoint(pack for pack, _, _ in found.values())
        moves = read_moves(media, table, about_media) if leaves else {}
        for extent, (pack, row, raw) in found.items():
            if (pack, row["offset"]) in moves:
                name, offset, length = moves[pack, row["offset"]]
                found[extent] = name, row | {"offset": offset, "length": length}, raw
    return found


def read_frame(media: Folder, pack: str, row: dict, raw: int) -> bytes:
    data = stored = media.frame(pack, row["offset"], row["length"], raw)
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


def restore(place: Path | Folder, slot: int, disk_name: str, target: Path) -> None:
    media = Folder(place) if isinstance(place, Path) else place
    description = media.read("media.json")
    about = document(description)
    require(about["format"] == "azure-vsa media" and about["version"] == 1, "not media of version 1")
    require(about["required_features"] == list(media.features), "features that this reader does not know")
    log = Log(read_log(media, description))
    require(slot in log.points and slot not in log.given_up, f"slot {slot} is no recovery point")
    point = log.points[slot]
    disk = next(disk for disk in point["disks"] if disk["disk"]["name"] == disk_name)
    with target.open("wb") as file:
        file.truncate(disk["disk"]["size"])
        for extent, (pack, row, raw) in contents(media, disk, about, log).items():
            file.seek(extent * about["extent_size"])
            file.write(read_frame(media, pack, row, raw))


if __name__ == "__main__":
    restore(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
