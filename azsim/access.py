"""Access grants on managed disks and snapshots: beginGetAccess, endGetAccess, and the five-grant rule.

Limits: "Create an incremental snapshot for managed disks" (five snapshots of a family may hold a SAS
at a time), `GrantAccessData` (duration). A second grant on the same resource gives a second URL;
endGetAccess ends them all.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from urllib.parse import urlsplit

from azsim.arm_protocol import Wire, bad_request, conflict
from azsim.blob_service import BlobService
from azsim.clock import Clock
from azsim.resources import Resource, Resources

MAX_SECONDS = 5_184_000
MAX_SNAPSHOTS_OF_A_FAMILY = 5


class Access:
    """Opens and closes the SAS URLs of disks and snapshots."""

    def __init__(self, resources: Resources, blobs: BlobService, clock: Clock, *, base_url: str) -> None:
        self._resources = resources
        self._blobs = blobs
        self._clock = clock
        self._base_url = base_url

    def is_open(self, resource: Resource) -> bool:
        """Whether a grant lives; one past its end does not count, though nobody has ended it."""
        return bool(self._live(resource))

    def open_paths(self, resource: Resource) -> list[str]:
        """Where the resource can be read now: the paths of its URLs, without their signatures."""
        return [urlsplit(grant["path"]).path for grant in self._live(resource)]

    def is_open_for_writing(self, resource: Resource) -> bool:
        return any(grant["write"] for grant in self._live(resource))

    def open(
        self, resource: Resource, ref: str, *, size: int, group: str, seconds: int, write: bool = False
    ) -> Wire:
        """Grant access to `size` bytes of page data; returns the body that carries the SAS URL."""
        expires_at = self._clock.now() + dt.timedelta(seconds=seconds)
        path = self._blobs.open_disk_access(
            ref, disk_size=size, expires_at=expires_at, group=group, write=write
        )
        grant = {"path": path, "expires_at": expires_at.isoformat(), "write": write}
        self._resources.put(resource.with_sim(grants=[*self._live(resource), grant]))
        return {"accessSAS": self._base_url + path}

    def close(self, resource: Resource) -> None:
        """End every grant; without one, nothing happens."""
        for grant in _grants(resource):
            self._blobs.close_disk_access(grant["path"])
        self._resources.put(resource.with_sim(grants=[]))

    def require_family_has_room(self, resource: Resource, family: Iterable[Resource]) -> None:
        """Refuse a grant on a sixth snapshot of one family."""
        others = [each.id.name for each in family if each.id.key != resource.id.key and self.is_open(each)]
        if len(others) >= MAX_SNAPSHOTS_OF_A_FAMILY:
            raise conflict(
                f"Access to snapshot {resource.id.name} cannot be granted: {len(others)} snapshots of its"
                f" family already have an active shared access signature ({', '.join(others)})."
                " Call EndGetAccess on one of them before retrying."
            )

    def _live(self, resource: Resource) -> list[Wire]:
        now = self._clock.now()
        return [grant for grant in _grants(resource) if dt.datetime.fromisoformat(grant["expires_at"]) > now]


def _grants(resource: Resource) -> list[Wire]:
    found: list[Wire] = resource.sim.get("grants", [])
    return found


def requested_seconds(body: Wire) -> int:
    """The `durationInSeconds` of a beginGetAccess body."""
    seconds = body.get("durationInSeconds")
    if not isinstance(seconds, int) or not 1 <= seconds <= MAX_SECONDS:
        raise bad_request(
            f"The value '{seconds}' of parameter 'durationInSeconds' is out of range:"
            f" it must be between 1 and {MAX_SECONDS}."
        )
    return seconds


def requires_write(body: Wire) -> bool:
    """Whether a beginGetAccess body asks to write; refuses what is neither Read nor Write."""
    access = body.get("access")
    if access not in ("Read", "Write"):
        raise bad_request(f"The value '{access}' of parameter 'access' is invalid: use Read or Write.")
    if body.get("fileFormat", "VHD") != "VHD":
        raise bad_request("azsim serves disks of 512-byte sectors only, as VHD.")
    return bool(access == "Write")


def require_export_allowed(resource: Resource) -> None:
    if resource.properties.get("networkAccessPolicy") == "DenyAll":
        raise conflict(f"Access to {resource.id.name} cannot be granted: its networkAccessPolicy is DenyAll.")


def require_no_grant(resource: Resource, access: Access, action: str) -> None:
    if access.is_open(resource):
        raise conflict(
            f"Cannot {action} {resource.id.name}: there is an active shared access signature outstanding."
            " Call EndGetAccess before retrying."
        )
