"""Things that look like ours in every way but one, which nothing of ours may ever touch."""

from __future__ import annotations

from typing import Any, Protocol

from azure.storage.blob import BlobServiceClient

from azsim.control import Control
from tests.engine.standing import Standing, asked_at
from tests.engine.world import BETWEEN_JOBS, MIB, World
from vsa.azure.blob_address import BlobAddress
from vsa.azure.connection import AzureConnection
from vsa.azure.staging import CONTAINER
from vsa.media.media import Media
from vsa.model import DiskKind, SourceDisk

SECTOR = 512


class Place(Protocol):
    """What canaries ask of where they are placed: a world, or a site."""

    control: Control
    media: Media
    standing: Standing
    strangers: set[str]
    """Where they say that they are others'."""

    @property
    def number(self) -> int | str:
        """What no other place has."""

    @property
    def group(self) -> str: ...

    @property
    def elsewhere(self) -> str:
        """Another resource group, of which nothing is ours."""

    @property
    def connection(self) -> AzureConnection: ...

    def id_of(self, vm: str) -> str: ...


class Canaries:
    """Placed beside a managed disk of a world; some carry the name of a run of ours, where that is free."""

    def __init__(self, world: Place, disk: SourceDisk, run: str) -> None:
        self._world = world
        self._tags = {"vsa-media": world.media.id, "vsa-run": run, "vsa-disk": disk.key}
        self._name = f"vsa-{run}-{disk.key}"
        self._as_placed: dict[str, dict[str, Any]] = {}
        self.ids: set[str] = set()
        self._far: set[str] = set()
        world.control.advance_clock(BETWEEN_JOBS)
        self._source = source = disk.source
        self._bystander = self._add_bystander()
        self._place(f"{self._name}x", source, self._tags)
        self._place(f"x{self._name}", source, self._tags)
        self._place(f"vsa-{'a' * 16}-{disk.key}", source, self._marks(run="a" * 16, media="another-media"))
        self._place(f"vsa-{'b' * 16}-{disk.key}", self._bystander, self._marks(run="b" * 16))
        self._place("before-the-upgrade", source, {})
        elsewhere = world.elsewhere
        world.control.create_fleet({"resource_group": elsewhere, "disks": [{"name": elsewhere, "size": MIB}]})
        self._place(self._name, source, self._tags, group=elsewhere)

    def _marks(self, *, run: str, media: str = "") -> dict[str, str]:
        return self._tags | {"vsa-run": run, "vsa-media": media or self._tags["vsa-media"]}

    def _add_bystander(self) -> str:
        """A disk that no subclient of the world selects."""
        name = f"bystander-{self._world.number}"
        fleet: dict[str, Any] = {
            "resource_group": self._world.group,
            "vms": [{"name": name, "disks": [{"name": name, "size": MIB}]}],
        }
        self._world.control.create_fleet(fleet)
        return f"{self._world.id_of(name).rpartition('/virtualMachines/')[0]}/disks/{name}"

    def add_by_name_alone(self) -> None:
        """The very name that the run gave, once nothing else has it, of what now is the disk."""
        self._place(self._name, self._source, {})

    def add_on_another_disk(self) -> None:
        """Name and marks of the run, of the bystander."""
        self._place(self._name, self._bystander, self._tags)

    def add_of_another_media(self) -> None:
        """The very name that the run gave, once nothing else has it, with the marks of another media."""
        self._place(self._name, self._source, self._marks(run=self._tags["vsa-run"], media="another-media"))

    def open_one(self) -> None:
        """Let others read one of them for as long as Azure allows."""
        self._place("being-read", self._bystander, self._tags)
        access = {"access": "Read", "durationInSeconds": 60 * 24 * 3600}
        api = self._world.connection.compute.snapshots
        api.begin_grant_access(self._world.group, "being-read", access).result()
        self._as_placed |= {item: row for item, row in self._rows().items() if row["name"] == "being-read"}

    def _place(self, name: str, source: str, tags: dict[str, str], *, group: str = "") -> None:
        body = {
            "location": "westeurope",
            "tags": tags,
            "properties": {
                "incremental": True,
                "creationData": {"createOption": "Copy", "sourceResourceId": source},
            },
        }
        api = self._world.connection.compute.snapshots
        made: Any = api.begin_create_or_update(group or self._world.group, name, body).result()
        identity = made.id.lower()
        (self._far if group else self.ids).add(identity)
        self._world.strangers.add(identity)
        self._as_placed[identity] = self._rows()[identity]

    def _rows(self) -> dict[str, dict[str, Any]]:
        return {row["id"].lower(): row for row in self._world.control.inventory()["snapshots"]}

    def require_untouched(self) -> None:
        """All of them are as they were placed: marks, access and all."""
        there = self._rows()
        assert {identity: there.get(identity) for identity in self._as_placed} == self._as_placed

    @property
    def everywhere(self) -> set[str]:
        """All of them, also those in another resource group."""
        return self.ids | self._far

    def require_alone(self, *others: str) -> None:
        """They are untouched and, of snapshots in the world's group, there are `others` and nothing else."""
        self.require_untouched()
        mine = {item for item in self._rows() if f"/{self._world.group}/" in item}
        mine -= self._world.standing.things
        assert mine == self.ids | set(others)


class VhdCanaries:
    """The same beside an unmanaged disk, and beside its staging blobs."""

    def __init__(self, world: World, disk: SourceDisk, run: str) -> None:
        self._world = world
        self._vhd = vhd = BlobAddress.parse(disk.source)
        key = world.connection.storage.storage_accounts.list_keys(world.group, vhd.account).keys_property
        options: dict[str, Any] = {"connection_verify": world.connection.ca_file}
        self._blobs = BlobServiceClient(vhd.account_url, credential=key[0].value, **options)
        marks = {"vsa_media": world.media.id, "vsa_run": run, "vsa_disk": disk.key}
        theirs = marks | {"vsa_media": "another-media"}
        self._snap(vhd.name, {})
        self._snap(vhd.name, theirs)
        self._snap(vhd.name, marks | {"vsa_disk": "another-disk"})
        self._inherit(vhd.name, disk.key)
        self._make(vhd.container, f"{vhd.name}.old", {})
        self._snap(f"{vhd.name}.old", marks)
        if disk.kind is DiskKind.UNMANAGED_PREMIUM:
            self._make(CONTAINER, f"vsa-{run}-{disk.key}x.vhd", marks)
            self._make(CONTAINER, f"xvsa-{run}-{disk.key}.vhd", marks)
            self._make(CONTAINER, f"vsa-{run}-{disk.key}.vhd", theirs)
            self._make(CONTAINER, f"vsa-{'b' * 16}-{disk.key}.vhd", {})
            self._make(CONTAINER, "before-the-upgrade.vhd", {})
        self._as_placed = self._rows()

    def _snap(self, name: str, metadata: dict[str, str]) -> None:
        self._world.control.advance_clock(BETWEEN_JOBS)
        if metadata:
            metadata = metadata | asked_at(self._world.control)
        made = self._blobs.get_blob_client(self._vhd.container, name).create_snapshot(metadata=metadata)
        self._world.strangers.add(made["snapshot"])

    def _inherit(self, name: str, disk: str) -> None:
        """An owner's snapshot of the VHD while that had the marks of a snapshot of ours, as after a copy of
        it; later the VHD loses them."""
        container = self._blobs.get_container_client(self._vhd.container)
        listed = container.list_blobs(name_starts_with=name, include=["snapshots", "metadata"])
        marked = ((item.metadata or {}) for item in listed if item.snapshot)
        own = {"vsa_media": self._world.media.id, "vsa_disk": disk}
        ours = next(marks for marks in marked if own.items() <= marks.items())
        vhd = container.get_blob_client(name)
        before = vhd.get_blob_properties().metadata
        vhd.set_blob_metadata(ours)
        self._world.control.advance_clock(BETWEEN_JOBS)
        self._world.strangers.add(vhd.create_snapshot()["snapshot"])
        vhd.set_blob_metadata(before)

    def _make(self, container: str, name: str, metadata: dict[str, str]) -> None:
        self._blobs.get_blob_client(container, name).create_page_blob(SECTOR, metadata=metadata)
        self._world.strangers.add(name)

    def _rows(self) -> list[dict[str, Any]]:
        theirs = self._world.strangers
        return [
            row
            for row in self._world.control.inventory()["blobs"]
            if row["account"] == self._vhd.account
            and (row["snapshot"] in theirs or (row["name"] in theirs and not row["snapshot"]))
        ]

    def require_untouched(self) -> None:
        """All of them are as they were placed, with their marks."""
        assert self._as_placed
        assert self._rows() == self._as_placed


def place_canaries(world: World) -> Canaries | VhdCanaries:
    """Canaries beside the first disk of the first point, in the name of its run, which is over and has left
    nothing; of a managed disk one that is being read, too."""
    made = world.media.view().points[min(world.points)]
    disk = made.point.disks[0].disk
    if disk.kind is not DiskKind.MANAGED:
        return VhdCanaries(world, disk, made.run)
    canaries = Canaries(world, disk, made.run)
    if f"/snapshots/vsa-{made.run}-{disk.key}" not in "".join(world.standing.things):
        canaries.add_of_another_media()
    canaries.open_one()
    return canaries
