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
        world.control.advance_clock(601)
        source = disk.source
        self._place(f"{self._name}x", source, self._tags)
        self._place(f"x{self._name}", source, self._tags)
        self._place(f"vsa-{'a' * 16}-{disk.key}", source, self._marks(run="a" * 16, media="another-media"))
        self._place(f"vsa-{'b' * 16}-{disk.key}", self._bystander(), self._marks(run="b" * 16))
        self._place("before-the-upgrade", source, {})

    def _marks(self, *, run: str, media: str = "") -> dict[str, str]:
        return self._tags | {"vsa-run": run, "vsa-media": media or self._tags["vsa-media"]}

    def _bystander(self) -> str:
        """A disk that no subclient of the world selects."""
        name = f"bystander-{self._world.number}"
        fleet: dict[str, Any] = {
            "resource_group": self._world.group,
            "vms": [{"name": name, "disks": [{"name": name, "size": MIB}]}],
        }
        self._world.control.create_fleet(fleet)
        return f"{self._world.id_of(name).rpartition('/virtualMachines/')[0]}/disks/{name}"

    def by_our_name(self, tags: dict[str, str], *, of_bystander: bool = False, source: str = "") -> None:
        """One with the very name that a run of ours would give, once nothing else has it."""
        other = f"{source.rpartition('/')[0]}/bystander-{self._world.number}"
        self._place(self._name, other if of_bystander else source, tags)

    def with_all_marks(self, source: str) -> None:
        """Name and marks of ours, on another disk."""
        self.by_our_name(self._tags, of_bystander=True, source=source)

    def _place(self, name: str, source: str, tags: dict[str, str]) -> None:
        body = {
            "location": "westeurope",
            "tags": tags,
            "properties": {
                "incremental": True,
                "creationData": {"createOption": "Copy", "sourceResourceId": source},
            },
        }
        api = self._world.connection.compute.snapshots
        made: Any = api.begin_create_or_update(self._world.group, name, body).result()
        self.ids.add(made.id.lower())

    def require_alive(self) -> None:
        there = {row["id"].lower() for row in self._world.control.inventory()["snapshots"]}
        assert self.ids <= there, f"touched: {self.ids - there}"
