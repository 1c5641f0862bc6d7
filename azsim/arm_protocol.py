"""What every Azure Resource Manager answer shares: resource ids, error bodies, headers, paging.

Source of the shapes: recorded traffic of the compute resource provider (2021) and "Azure Resource
Manager: common API details" (errors, `nextLink`).
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import format_datetime
from typing import Any

from starlette.responses import JSONResponse, Response

Wire = dict[str, Any]
"""A JSON object in the casing that goes over the wire."""

VIRTUAL_MACHINE = "Microsoft.Compute/virtualMachines"
DISK = "Microsoft.Compute/disks"
SNAPSHOT = "Microsoft.Compute/snapshots"
STORAGE_ACCOUNT = "Microsoft.Storage/storageAccounts"
RESOURCE_TYPES = (VIRTUAL_MACHINE, DISK, SNAPSHOT, STORAGE_ACCOUNT)
_CANONICAL = {resource_type.lower(): resource_type for resource_type in RESOURCE_TYPES}


class ArmError(Exception):
    """A request that ARM refuses, as `{"error": {"code", "message"}}`."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def response(self) -> Response:
        body = {"error": {"code": self.code, "message": self.message}}
        return JSONResponse(body, status_code=self.status, headers=self.headers)


def bad_request(message: str, code: str = "InvalidParameter") -> ArmError:
    return ArmError(400, code, message)


def conflict(message: str, code: str = "OperationNotAllowed") -> ArmError:
    return ArmError(409, code, message)


@dataclass(frozen=True, slots=True)
class ResourceId:
    """The name of a resource. ARM compares names without regard to case and keeps the first spelling."""

    subscription: str
    group: str
    type: str
    name: str

    def __str__(self) -> str:
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
        return f"{group}/providers/{self.type}/{self.name}"

    @property
    def key(self) -> str:
        """Equal for equal names, in the order in which lists are answered."""
        return f"{self.subscription}/{self.group}/{self.name}".lower()

    def shouted(self) -> str:
        """The id as subscription-wide lists and VM bodies often spell it: the group in capitals."""
        return str(ResourceId(self.subscription, self.group.upper(), self.type, self.name))


def parse_resource_id(text: str) -> ResourceId:
    """Raises a 400 that names the text when it is no id of a simulated type."""
    parts = text.strip("/").split("/")
    if len(parts) == 8 and [parts[i].lower() for i in (0, 2, 4)] == [
        "subscriptions",
        "resourcegroups",
        "providers",
    ]:
        resource_type = _CANONICAL.get(f"{parts[5]}/{parts[6]}".lower())
        if resource_type is not None:
            return ResourceId(parts[1], parts[3], resource_type, parts[7])
    raise bad_request(
        f"'{text}' is not the id of a VM, disk, snapshot or storage account.", "LinkedInvalidPropertyId"
    )


def timestamp(moment: dt.datetime) -> str:
    """ISO 8601 with microseconds and offset, as the compute provider writes it."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds")


def standard_headers(method: str, now: dt.datetime) -> dict[str, str]:
    """What recordings show on every compute answer; the rate-limit counts never run down here."""
    headers = {
        "cache-control": "no-cache",
        "pragma": "no-cache",
        "expires": "-1",
        "strict-transport-security": "max-age=31536000; includeSubDomains",
        "x-content-type-options": "nosniff",
        "server": "Microsoft-HTTPAPI/2.0",
        "x-ms-request-id": str(uuid.uuid4()),
        "x-ms-ratelimit-remaining-resource": "Microsoft.Compute/LowCostGet3Min;14990",
        "date": format_datetime(now.astimezone(dt.UTC), usegmt=True),
    }
    if method == "DELETE":
        headers["x-ms-ratelimit-remaining-subscription-deletes"] = "14999"
    elif method != "GET":
        headers["x-ms-ratelimit-remaining-subscription-writes"] = "1199"
    return headers
