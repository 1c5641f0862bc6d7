"""Where recovery points are kept."""

from __future__ import annotations

from prefect.blocks.core import Block
from pydantic import Field

from vsa.media.media import Media


class BackupMedia(Block):
    """Backup media that `vsa init` has made. A block never makes or changes media by itself."""

    _block_type_name = "Backup Media"
    _block_type_slug = "vsa-backup-media"
    _description = "The place where packs, indexes and the log of recovery points are kept."

    location: str = Field(description="A folder that every proxy reaches under this path.")

    def open(self, *, write: bool = False) -> Media:
        """Open the media; raises NoMedia, MediaUnusable or MediaDamaged."""
        return Media.open(self.location, write=write)
