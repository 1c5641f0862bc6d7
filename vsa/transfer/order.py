"""What a proxy is told of one stream: what it cannot read from the media or from its own blocks."""

from __future__ import annotations

from vsa.media.index import Offer
from vsa.model import Noun, SnapshotRef, SourceDisk
from vsa.transfer.audit import AuditPolicy
from vsa.transfer.methods import Wish


class StreamOrder(Noun):
    """One disk's way through one proxy. It travels as a parameter in Prefect, so it holds no secret.

    `client` is the VM's key on the media, `vm` its name for people. `staging` is the blob to read in the
    snapshot's place. `media` is the id of the media that the job writes: a proxy that finds other media at
    that place refuses.
    """

    job: str
    run: str
    media: str
    client: str
    vm: str
    disk: SourceDisk
    snapshot: SnapshotRef
    staging: str | None = None
    proxy: str
    wish: Wish = Wish()
    audit: AuditPolicy = AuditPolicy()
    sharing: Offer = Offer.MEDIA
