"""VMs of one owner in the simulated Azure, a media of their own, and the Prefect blocks that name them."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from pydantic import SecretStr

from azsim.control import Control
from blocks.azure_subscription import AzureSubscription
from blocks.backup_media import BackupMedia
from blocks.proxy import BackupProxy
from blocks.subclient import BackupSubclient
from flows.backup_subclient import backup_subclient
from tests.engine.standing import Standing
from tests.engine.world import MIB, random_bytes
from tests.media.making import flip_bit
from vsa.azure.connection import AzureConnection
from vsa.media.entries import JobEntry
from vsa.media.layout import SEGMENT
from vsa.media.media import Media
from vsa.media.wrapping import WrappingKey
from vsa.model import DEFAULT_EXTENT_SIZE, name_key
from vsa.restore.disk import Format, restore_disk
from vsa.subclient import Rule, RuleGroup, Subclient, VmField

PROXIES = ("proxy-a", "proxy-b")
_numbers = count(1)


def managed(name: str, *, size: int = 2 * MIB, **options: Any) -> dict[str, Any]:
    """A managed disk of random bytes, as `Site.add_vm` takes it."""
    return {"name": name, "sku": "Standard_LRS", "size": size, **options}


def unmanaged(name: str, account: str, *, size: int = 2 * MIB) -> dict[str, Any]:
    """A page blob VHD in a storage account of the site."""
    return {
        "name": name,
        "managed": False,
        "account": account,
        "container": "vhds",
        "blob": f"{name}.vhd",
        "size": size,
    }


def _write_scattered(image: Path, disk: Mapping[str, Any], extents: int) -> None:
    with image.open("wb") as file:
        for number in range(extents):
            file.seek(disk["size"] // extents * number)
            file.write(random_bytes(DEFAULT_EXTENT_SIZE, f"{disk['name']} {number}"))


def _is_read(request: Mapping[str, Any], paths: Collection[str]) -> bool:
    return request["range"] is not None and request["path"] in paths


def require_no_read_after_a_delete(
    requests: Iterable[Mapping[str, Any]], snapshots: Iterable[Mapping[str, Any]]
) -> None:
    """Of these snapshots, in rows of the inventory while they were read, none was withdrawn under a read."""
    snapshots = list(snapshots)
    names = tuple(f"/snapshots/{row['name']}".lower() for row in snapshots)
    paths = {path for row in snapshots for path in row["read_at"]}
    requests = list(requests)
    withdrawn = [
        request["number"]
        for request in requests
        if (request["method"] == "DELETE" and request["path"].lower().endswith(names))
        or (request["method"] == "POST" and request["path"].lower().endswith(_ended(names)))
    ]
    read = [request["number"] for request in requests if _is_read(request, paths)]
    assert read, "nothing was read"
    assert withdrawn, "nothing was withdrawn"
    assert max(read) < min(withdrawn), "a stream read on while its snapshot was withdrawn"


def _ended(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{name}/endgetaccess" for name in names)


@dataclass
class Site:
    """Everything is named after the site, so that tests share one Azure and one Prefect."""

    control: Control
    folder: Path
    name: str = field(init=False)
    media: Media = field(init=False)
    standing: Standing = field(init=False)
    """What stands beside the first managed disk, and the first VHD of each account, from the beginning."""
    strangers: set[str] = field(init=False, default_factory=set)
    """What others made that looks like ours: ids of snapshots in lower case, moments, names of blobs."""
    _stood_beside: set[str] = field(init=False, default_factory=set)
    _looked: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.name = f"site{next(_numbers)}"
        self.folder = self.folder / self.name
        self.folder.mkdir()
        self.media_folder = self.folder / "media"
        self.media = Media.create(str(self.media_folder), now=dt.datetime.now(dt.UTC))
        self.standing = Standing(self.control)

    def seal(self, wrapping: WrappingKey) -> None:
        """Sealed media in the place of that which nobody used yet."""
        shutil.rmtree(self.media_folder)
        self.media = Media.create(str(self.media_folder), now=dt.datetime.now(dt.UTC), wrapping=wrapping)

    @property
    def number(self) -> str:
        return self.name

    @property
    def group(self) -> str:
        return f"{self.name}-group"

    @property
    def elsewhere(self) -> str:
        """Another resource group, of which nothing is ours."""
        return f"elsewhere-{self.name}"

    @property
    def connection(self) -> AzureConnection:
        """As the site's own block has it."""
        return AzureSubscription.named(self.name).connection()

    def id_of(self, vm: str) -> str:
        return next(row["id"] for row in self.control.inventory()["vms"] if row["name"] == vm)

    def add_account(self, name: str, sku: str) -> None:
        account = {"name": name, "resource_group": self.group, "location": "westeurope", "sku": sku}
        self.control.create_fleet({"storage_accounts": [account]})

    def add_vm(
        self, name: str, disks: Sequence[Mapping[str, Any]], *, fill: int | None = None, scattered: int = 0
    ) -> None:
        """Create a running VM; `fill` bytes of each disk are random, all of it by default.

        With `scattered`, so many extents of each are, far enough from one another for a read each.
        """
        described = []
        for disk in disks:
            image = self.folder / f"{disk['name']}.img"
            if scattered:
                _write_scattered(image, disk, scattered)
            else:
                image.write_bytes(random_bytes(disk["size"] if fill is None else fill, disk["name"]))
            described.append({**disk, "image": str(image)})
        vm = {
            "name": name,
            "resource_group": self.group,
            "location": "westeurope",
            "tags": {"site": self.name},
            "disks": described,
        }
        self.control.create_fleet({"vms": [vm]})
        for disk in described:
            self._stand_beside(disk)

    def _stand_beside(self, disk: Mapping[str, Any]) -> None:
        """Once beside a managed disk, once beside a VHD of each account."""
        account, media = disk.get("account", ""), self.media.id
        if account in self._stood_beside:
            return
        self._stood_beside.add(account)
        if account:
            vhd = f"{account}/{disk['container']}/{disk['blob']}"
            url = f"{self.control.endpoint['base_url']}/{vhd}"
            self.standing.beside_vhd(vhd, url, media)
            if self._is_premium(account):
                self.standing.beside_staging_blobs(account, url, media)
        else:
            self.standing.beside_disk(self.disk_id(disk["name"]), media)
        self.strangers |= self.standing.things

    def _is_premium(self, account: str) -> bool:
        rows = self.control.inventory()["storage_accounts"]
        return any(row["name"] == account and row["sku"].startswith("Premium") for row in rows)

    def require_standing(self) -> None:
        """What only looks like ours is as it was."""
        self.standing.require_untouched()

    def write(self, disk: str, offset: int, data: bytes) -> None:
        source = self.folder / "write.bin"
        source.write_bytes(data)
        self.control.write_at(self.disk_id(disk), offset, source)

    def save_blocks(
        self,
        *,
        location: str | None = None,
        secret: str | None = None,
        opened_by: Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        """Save what an operator would enter in the UI; every block bears the site's name.

        `opened_by` says what opens sealed media, in the fields of its block.
        """
        endpoint = self.control.endpoint
        subscription = AzureSubscription(
            subscription_id=endpoint["subscription"],
            tenant_id=endpoint["tenant"],
            client_id=endpoint["client_id"],
            client_secret=SecretStr(secret or Path(endpoint["client_secret_file"]).read_text()),
            base_url=endpoint["base_url"],
            authority=endpoint["base_url"],
            ca_file=endpoint["ca_file"],
            polling_seconds=0.02,
        )
        subscription.save(self.name, overwrite=True)
        opening = dict(opened_by or {})
        if "key_vault" in opening:
            opening["key_vault_identity"] = subscription
        media = BackupMedia(location=location or str(self.media_folder), **opening)
        media.save(self.name, overwrite=True)
        for name in PROXIES:
            BackupProxy(proxy_name=name, region="westeurope").save(name, overwrite=True)
        block = BackupSubclient(subscription=subscription, media=media, settings=self.settings(**settings))
        block.save(self.name, overwrite=True)

    def settings(self, **changes: Any) -> Subclient:
        rule = Rule(field=VmField.TAG, tag="site", value=self.name)
        return Subclient(**{"name": self.name, "groups": (RuleGroup(rules=(rule,)),), **changes})

    def back_up(self, **options: Any) -> State[Any]:
        """Run the flow and its streams in this process and return its final state."""
        return backup_subclient(self.name, return_state=True, **{"in_process": True, **options})

    @property
    def reports(self) -> list[JobEntry]:
        """The job reports of the media's log, oldest first."""
        return [reported.job for _, reported in sorted(self.media.view().jobs.items())]

    @property
    def bases(self) -> set[str]:
        """Ids of the snapshots that the latest points of the log name as bases, in lower case."""
        view = self.media.view()
        disks = {backup.disk.key for made in view.points.values() for backup in made.point.disks}
        found = (view.base_of(key) for key in disks)
        return {base[1].id.lower() for base in found if base}

    @property
    def snapshots(self) -> list[dict[str, Any]]:
        """The managed snapshots of the site's resource group, those of strangers left out."""
        rows = self.control.inventory()["snapshots"]
        mine = (row for row in rows if f"/{self.group}/".lower() in row["id"].lower())
        return [row for row in mine if row["id"].lower() not in self.strangers]

    def is_being_read(self, disk: str) -> bool:
        """Whether somebody has read a snapshot of the disk since the last look at any, and still may."""
        paths = {path for row in self.snapshots_of(disk) for path in row["read_at"]}
        requests = self.control.requests(since=self._looked)
        self._looked = max((request["number"] for request in requests), default=self._looked)
        return any(_is_read(request, paths) for request in requests)

    def snapshots_of(self, disk: str) -> list[dict[str, Any]]:
        source = self.disk_id(disk).lower()
        return [row for row in self.snapshots if row["source"].lower() == source]

    def require_only_bases(self) -> None:
        """Nothing of ours is in Azure but the bases, and nobody may read them; what only looks like ours is
        as it was."""
        assert {row["id"].lower() for row in self.snapshots} == self.bases
        assert not [row["id"] for row in self.snapshots if row["grant_open"]]
        self.require_standing()

    def disk_id(self, disk: str) -> str:
        return next(row["id"] for row in self._disks() if row["name"] == disk)

    def _disks(self) -> list[dict[str, Any]]:
        rows = self.control.inventory()["disks"]
        return [row for row in rows if f"/{self.group}/".lower() in row["id"].lower()]

    def _digest(self, disk: str) -> str:
        return str(self.control.digest_disk(self.disk_id(disk))["sha256"])

    def snapshots_path(self, disk: str) -> str:
        """A pattern for requests about any snapshot of the disk, as a fault's `path`."""
        return f"/snapshots/vsa-[0-9a-f]+-{name_key(self.disk_id(disk))}"

    def require_restorable(self, slot: int) -> None:
        """Every managed disk of a recovery point restores to what the disk holds now."""
        for backup in self.media.view().points[slot].point.disks:
            target = self.folder / f"restored-{slot}-{backup.disk.name}.img"
            restored = restore_disk(self.media, backup, target, format=Format.RAW)
            assert restored.sha256 == self._digest(backup.disk.name), backup.disk.name

    def flip_bit_of(self, slot: int, disk: str, extent: int) -> str:
        """Change one bit of what a point keeps of an extent, or change it back; the name of the pack."""
        made = self.media.view().points[slot].point
        (backup,) = (item for item in made.disks if item.disk.name == disk)
        index = self.media.disk_index(backup.indexes, backup.disk.size)
        table = index.segment(extent // SEGMENT)
        assert table is not None
        row = extent - table.first_extent
        pack = index.packs[table.pack[row]]
        flip_bit(self.media_folder / pack, 8 * (int(table.offset[row]) + int(table.length[row]) // 2))
        return pack

    def points_of(self, vm: str) -> list[int]:
        """Slots of the VM's recovery points, oldest first."""
        points = self.media.view().points
        return sorted(slot for slot, made in points.items() if made.point.vm.name == vm)
