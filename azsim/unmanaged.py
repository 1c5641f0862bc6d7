"""Unmanaged disks: VHD page blobs in a storage account, data first, a 512-byte footer behind it."""

from __future__ import annotations

import dataclasses
import uuid

from azsim.blob_model import Blob
from azsim.simulation import Simulation
from azsim.vhd import FOOTER_BYTES, fixed_footer


def grow_vhd(simulation: Simulation, account: str, container: str, name: str, size: int) -> None:
    """Make the disk in a VHD blob `size` bytes long: the footer moves behind the new end."""
    image = simulation.blobs.blob_ref(account, container, name)
    pages = simulation.pages
    before = pages.size(image) - FOOTER_BYTES
    if size < before:
        raise ValueError(f"{account}/{container}/{name} has {before} bytes: a VHD does not shrink to {size}")
    pages.resize(image, size + FOOTER_BYTES)
    pages.clear(image, before, FOOTER_BYTES)
    pages.write(image, size, fixed_footer(size, uuid.uuid4(), simulation.clock.now()))
    _set_length(simulation, (account, container, name), size + FOOTER_BYTES)


def _set_length(simulation: Simulation, place: tuple[str, str, str], length: int) -> None:
    account, container, name = place
    for key, body in simulation.documents.items("blob", f"{account}/{container}/{name}\n"):
        blob = Blob.from_document(body)
        if blob.name == name and blob.snapshot is None:
            simulation.documents.put("blob", key, dataclasses.replace(blob, length=length).to_document())
