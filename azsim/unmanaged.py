"""Unmanaged disks: VHD page blobs in a storage account, data first, a 512-byte footer behind it."""

from __future__ import annotations

import uuid

from azsim.simulation import Simulation
from azsim.vhd import FOOTER_BYTES, fixed_footer


def grow_vhd(simulation: Simulation, account: str, container: str, name: str, size: int) -> None:
    """Make the disk in a VHD blob `size` bytes long: the footer moves behind the new end."""
    image = simulation.blobs.blob_ref(account, container, name)
    pages = simulation.pages
    before = pages.size(image) - FOOTER_BYTES
    if size < before:
        raise ValueError(f"{account}/{container}/{name} has {before} bytes: a VHD does not shrink to {size}")
    simulation.blobs.resize_page_blob(account, container, name, size + FOOTER_BYTES)
    pages.clear(image, before, FOOTER_BYTES)
    pages.write(image, size, fixed_footer(size, uuid.uuid4(), simulation.clock.now()))
