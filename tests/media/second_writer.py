"""Writes backup media, from docs/media-format.md alone: packs, indexes, records, intents and the log.

Shares no code with the engine. It stores every extent raw and offers none to others, as a writer may.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

Json = dict[str, Any]

NOW = "2026-03-04T05:06:07.89Z"
SEGMENT = 65_536
COLUMNS = ["extent", "pack", "offset", "length"]
SCHEMA = pa.schema(
    [
        pa.field("extent", pa.uint32(), nullable=False),
        pa.field("pack", pa.int32(), nullable=False),
        pa.field("offset", pa.uint32(), nullable=False),
        pa.field("length", pa.uint32(), nullable=False),
        pa.field("crc", pa.uint32(), nullable=False),
        pa.field("digest", pa.binary(32), nullable=False),
    ]
)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _table() -> list[int]:
    """Of the polynomial 0x1EDC6F41, reflected."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


TABLE = _table()


def document(members: Json) -> bytes:
    """Section "Documents"."""
    rest = json.dumps(members).encode()
    return b'{"sha256":"' + sha256(rest).encode() + b'",' + rest[1:]


def key_of(name: str) -> str:
    return sha256(name.lower().encode())[:20]


class Writer:
    """One media and one disk of one VM on it."""

    def __init__(self, folder: Path, *, extent_size: int, disk_size: int) -> None:
        self.folder, self.extent_size, self.disk_size = folder, extent_size, disk_size
        self.id = os.urandom(16)
        self.head, self.indexes, self.points = 0, list[Json](), list[int]()
        folder.mkdir()
        about = {
            "format": "azure-vsa media",
            "version": 1,
            "id": self.id.hex(),
            "created": NOW,
            "extent_size": extent_size,
            "required_features": [],
            "software": "second writer",
        }
        data = document(about)
        self.create("media.json", data)
        self.last = sha256(data)

    def create(self, name: str, data: bytes) -> Json:
        """Section "Folders", and what refers to the object."""
        (temporary := self.folder / ".tmp").mkdir(exist_ok=True)
        (unfinished := temporary / os.urandom(8).hex()).write_bytes(data)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(unfinished, path)
        unfinished.unlink()
        return {"name": name, "size": len(data), "sha256": sha256(data)}

    def append(self, body: Json, *, run: str | None = None) -> int:
        """Section "Commit", without another writer."""
        entry = {
            "seq": self.head,
            "prev": self.last,
            "nonce": os.urandom(16).hex(),
            "time": NOW,
            "run": run,
            "software": "second writer",
            "body": body,
        }
        data = document(entry)
        self.create(f"log/{self.head:012}", data)
        self.last, self.head = sha256(data), self.head + 1
        return self.head - 1

    def back_up(self, run: str, extents: Mapping[int, bytes | None]) -> int:
        """Section "Write order": a base, then deltas; the point's slot."""
        self.create(f"runs/{run}/intent.json", document(self.intent(run)))
        pack, places = self.pack(run, 0, {extent: data for extent, data in extents.items() if data})
        index = self.index(run, pack, {extent: places.get(extent) for extent in sorted(extents)})
        self.indexes.append(index)
        point = self.point(pack)
        head = {"format": 1, "run": run, "set": os.urandom(16).hex(), "piece": 0, "pieces": 1}
        head |= {"indexes": [index], "point": point}
        whole = (self.folder / index["name"]).read_bytes()
        record, _ = self.pack(run, 2, {0: json.dumps(head).encode(), 1: whole})
        slot = self.append({"type": "point", "point": point | {"records": [record]}}, run=run)
        self.points.append(slot)
        return slot

    def pack(
        self, run: str, flags: int, frames: Mapping[int, bytes]
    ) -> tuple[Json, dict[int, tuple[int, int, int, bytes]]]:
        """Section "Packs": all frames raw; a reference, and offset, length, CRC and digest of each frame."""
        pack_id = os.urandom(16)
        header = struct.pack("<8sHHI16s16s16x", b"AVSAPACK", 1, flags, self.extent_size, self.id, pack_id)
        places, table, body = dict[int, tuple[int, int, int, bytes]](), b"", header
        for number, data in frames.items():
            place = (len(body), len(data), crc32c(data), blake3(data).digest())
            places[number] = place
            table += struct.pack("<IIII32s4x", place[0], place[1], place[1], place[2], place[3])
            body += data
        footer = struct.pack(
            "<QIII8s", len(body), len(table), len(frames), crc32c(header + table), b"AVSAPEND"
        )
        return self.create(f"runs/{run}/packs/{pack_id.hex()}.pack", body + table + footer), places

    def index(self, run: str, pack: Json, places: Mapping[int, tuple[int, int, int, bytes] | None]) -> Json:
        """Section "Indexes"; None are zeros."""
        sink, segments, footer = io.BytesIO(), list[Json](), 0
        with pq.ParquetWriter(
            sink,
            SCHEMA,
            compression="zstd",
            use_dictionary=False,
            column_encoding={
                **dict.fromkeys(COLUMNS, "DELTA_BINARY_PACKED"),
                "crc": "PLAIN",
                "digest": "PLAIN",
            },
        ) as writer:
            for number in sorted({extent // SEGMENT for extent in places}):
                rows = [
                    (extent, 0, *place) if place else (extent, -1, 0, 0, 0, bytes(32))
                    for extent, place in places.items()
                    if extent // SEGMENT == number
                ]
                columns = [list(column) for column in zip(*rows, strict=True)]
                begin = sink.tell()
                writer.write_table(pa.table(columns, schema=SCHEMA), row_group_size=SEGMENT)
                data = sink.getvalue()[begin:]
                at = {"number": number, "offset": begin, "length": len(data), "sha256": sha256(data)}
                segments.append(at)
            footer = sink.tell()
            about = {
                "format": 1,
                "media": self.id.hex(),
                "run": run,
                "disk_key": key_of(SOURCE),
                "disk_size": self.disk_size,
                "extent_size": self.extent_size,
                "kind": "delta" if self.indexes else "base",
                "offer": "off",
                "client": key_of(VM["vm_id"]),
                "packs": [pack],
                "segments": segments,
            }
            writer.add_key_value_metadata({"azure-vsa.index": json.dumps(about)})
        whole = sink.getvalue()
        name = f"runs/{run}/index/{key_of(SOURCE)}-{os.urandom(8).hex()}.parquet"
        tail = {"footer": len(whole) - footer, "footer_sha256": sha256(whole[footer:])}
        return self.create(name, whole) | tail

    def intent(self, run: str) -> Json:
        process = {"machine": "m", "host": "h", "boot": "b", "namespace": "n", "id": 7, "started": "99"}
        return {
            "run": run,
            "job": "job-1",
            "vm_key": key_of(VM["vm_id"]),
            "vm_name": VM["name"],
            "subclient": "all",
            "started_at": NOW,
            "process": process,
            "snapshots": [f"group/vsa-{run}-{key_of(SOURCE)}"],
            "blob_snapshots": [],
            "staging_blobs": [],
            "disks": [self.disk()],
        }

    def disk(self) -> Json:
        return {
            "name": "os-disk",
            "role": "os",
            "lun": None,
            "kind": "managed",
            "source": SOURCE,
            "unique_id": "u-1",
            "size": self.disk_size,
            "sku": "Standard_LRS",
            "region": "here",
            "resource_group": "group",
        }

    def point(self, pack: Json) -> Json:
        snapshot = {
            "kind": "managed",
            "id": "/subscriptions/s/snapshots/x",
            "moment": None,
            "disk_key": key_of(SOURCE),
            "family": "f-1",
            "source_unique_id": "u-1",
            "taken_at": "2026-03-04T05:06:00Z",
            "size": self.disk_size,
        }
        backup = {
            "disk": self.disk(),
            "snapshot": snapshot,
            "method": "cbt" if self.points else "full",
            "reason": "CBT" if self.points else "FULL_FIRST",
            "parent": self.points[-1] if self.points else None,
            "turn": len(self.points),
            "since_full": len(self.points),
            "indexes": list(self.indexes),
            "packs": [pack["name"]],
            "figures": {"size": self.disk_size, "elapsed": 0.5},
            "proxy": "second",
        }
        disks = [backup]
        return {
            "vm": VM,
            "subclient": "all",
            "job": "job-1",
            "disks": disks,
            "bases": [snapshot],
            "records": [],
        }

    def client(self) -> Json:
        seen = {"first_seen": NOW, "last_seen": NOW}
        names = [{"name": VM["name"], "resource_id": VM["resource_id"], **seen}]
        return {"type": "client", "vm": VM, "names": names, **seen, "state": "present"}

    def job(self) -> Json:
        outcome = {
            "key": key_of(VM["vm_id"]),
            "name": VM["name"],
            "result": "completed with errors",
            "point": self.points[-1],
            "error": "its data disk was left out",
            "disks": [
                {"name": "os-disk", "key": key_of(SOURCE), "method": "cbt", "reason": "CBT"},
                {"name": "data-disk", "key": key_of("data")},
            ],
        }
        return {
            "type": "job",
            "job": "job-1",
            "subclient": "all",
            "method": "cbt",
            "started_at": NOW,
            "ended_at": NOW,
            "result": "completed with errors",
            "vms": [outcome],
            "excluded": [{"name": "other-vm", "reason": "it is stopped"}],
        }


SOURCE = "/subscriptions/s/resourceGroups/group/providers/Microsoft.Compute/disks/os-disk"
VM: Json = {
    "resource_id": "/subscriptions/s/resourceGroups/group/providers/Microsoft.Compute/virtualMachines/web",
    "vm_id": "11111111-2222-3333-4444-555555555555",
    "name": "web",
    "resource_group": "group",
    "subscription_id": "s",
    "region": "here",
    "size": "Standard_B1s",
    "os_type": "Linux",
    "power_state": "running",
    "tags": {"env": "test"},
    "disks": [{"name": "os-disk", "role": "os", "managed": True, "source": SOURCE}],
}
