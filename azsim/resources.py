"""The resources of the simulated subscription, as ARM would keep them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from azsim.arm_protocol import ArmError, ResourceId, Wire
from azsim.documents import Documents

_GROUP = "Microsoft.Resources/resourceGroups"


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: `wire` is what ARM answers, `sim` what only the simulation knows."""

    id: ResourceId
    wire: Wire
    sim: Wire

    @property
    def properties(self) -> Wire:
        found: Wire = self.wire["properties"]
        return found

    @property
    def location(self) -> str:
        return str(self.wire["location"])

    def with_sim(self, **changes: object) -> Resource:
        return dataclasses.replace(self, sim={**self.sim, **changes})

    def with_wire(self, **changes: object) -> Resource:
        return dataclasses.replace(self, wire={**self.wire, **changes})

    def with_properties(self, **changes: object) -> Resource:
        return self.with_wire(properties={**self.properties, **changes})


class Resources:
    """Finds and keeps resources by id, without regard to case."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def find(self, resource_id: ResourceId) -> Resource | None:
        stored = self._documents.get(resource_id.type, resource_id.key)
        return None if stored is None else _from_document(stored)

    def need(self, resource_id: ResourceId) -> Resource:
        """The resource, or ARM's 404 for a group or a resource that does not exist."""
        self.need_group(resource_id.subscription, resource_id.group)
        found = self.find(resource_id)
        if found is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource '{resource_id.type}/{resource_id.name}' under resource group"
                f" '{resource_id.group}' was not found."
                " For more details please go to https://aka.ms/ARMResourceNotFoundFix",
            )
        return found

    def put(self, resource: Resource) -> None:
        body = {"id": dataclasses.asdict(resource.id), "wire": resource.wire, "sim": resource.sim}
        self._documents.put(resource.id.type, resource.id.key, body)

    def delete(self, resource_id: ResourceId) -> None:
        self._documents.delete(resource_id.type, resource_id.key)

    def all(
        self,
        resource_type: str,
        subscription: str,
        group: str | None = None,
        *,
        after: str = "",
        limit: int | None = None,
    ) -> Iterator[Resource]:
        """Every resource of a type in one group, or in the whole subscription, in key order; only those whose
        key comes `after` another, and no more than `limit`."""
        prefix = f"{subscription}/" if group is None else f"{subscription}/{group}/"
        for _, stored in self._documents.items(resource_type, prefix.lower(), after=after, limit=limit):
            yield _from_document(stored)

    def need_group(self, subscription: str, group: str) -> Wire:
        found = self._documents.get(_GROUP, f"{subscription}/{group}".lower())
        if found is None:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
        return found

    def ensure_group(self, subscription: str, group: str, location: str) -> Wire:
        """The group, made if it does not exist: fleets name groups and never create them."""
        key = f"{subscription}/{group}".lower()
        found = self._documents.get(_GROUP, key)
        if found is None:
            found = {
                "id": f"/subscriptions/{subscription}/resourceGroups/{group}",
                "name": group,
                "type": _GROUP,
                "location": location,
                "properties": {"provisioningState": "Succeeded"},
            }
            self._documents.put(_GROUP, key, found)
        return found

    def groups(self, subscription: str) -> list[Wire]:
        return [stored for _, stored in self._documents.items(_GROUP, f"{subscription}/".lower())]


def _from_document(stored: Wire) -> Resource:
    return Resource(ResourceId(**stored["id"]), stored["wire"], stored["sim"])
