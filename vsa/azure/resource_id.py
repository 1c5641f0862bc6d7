"""The parts of an ARM resource id, which the SDK hands out as an untyped dictionary."""

from __future__ import annotations

from typing import NamedTuple

from azure.mgmt.core.tools import parse_resource_id

from vsa.errors import BadRequest


class ResourceId(NamedTuple):
    """`/subscriptions/{subscription}/resourceGroups/{group}/providers/.../{name}`"""

    subscription: str
    group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> ResourceId:
        parts = parse_resource_id(text)
        try:
            return cls(str(parts["subscription"]), str(parts["resource_group"]), str(parts["name"]))
        except KeyError as error:
            raise BadRequest(f"{text!r} is not the id of an Azure resource: it has no {error}") from None
