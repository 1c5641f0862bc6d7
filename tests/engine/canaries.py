"""Snapshots that look like ours in every way but one, which nothing of ours may ever touch."""

from __future__ import annotations

from typing import Any

from tests.engine.world import MIB, World
from vsa.model import SourceDisk


class Canaries:
    """Placed beside a managed disk of a world; some carry the name of a run of ours, where that is free."""

    def __init__(self, world: World, disk: SourceDisk, run: str) -> None:
        self._world = world
        self._tags = {"vsa-media": world.media.id, "vsa-run": run, "vsa-disk": disk.key}
        self._name = f"vsa-{run}-{disk.key}"
        self.ids: set[str] = set()
        self._far: set[str] = set()
        world.control.advance_clock(601)
        self._source = source = disk.source
        self._bystander = self._add_bystander()
        self._place(f"{self._name}x", source, self._tags)
        self._place(f"x{self._name}", source, self._tags)
        self._place(f"vsa-{'a' * 16}-{disk.key}", source, self._marks(run="a" * 16, media="another-media"))
        self._place(f"vsa-{'b' * 16}-{disk.key}", self._bystander, self._marks(run="b" * 16))
        self._place("before-the-upgrade", source, {})
        elsewhere = f"elsewhere-{world.number}"
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
        (self._far if group else self.ids).add(made.id.lower())

    def require_alone(self, *others: str) -> None:
        """All of them are still there and, of snapshots in the world's group, `others` and nothing else."""
        there = {row["id"].lower() for row in self._world.control.inventory()["snapshots"]}
        mine = {item for item in there if f"/{self._world.group}/" in item}
        assert mine == self.ids | set(others)
        assert self._far <= there
