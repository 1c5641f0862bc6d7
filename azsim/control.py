"""Steer a running simulation from a test, the demonstration or the command line.

Finds the server by its state folder; needs nothing but the standard library.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

Fleet = dict[str, Any]
Result = dict[str, Any]


class ControlError(Exception):
    """The simulation refused; the message says why."""


class Control:
    """Every operation of the control API. `disk` is a managed disk's name or id, or `account/container/blob`.

    Paths are resolved here and read by the server, which runs on the same machine.
    """

    def __init__(self, state: Path | str, *, timeout: float = 600.0) -> None:
        self._connection: http.client.HTTPSConnection | None = None
        self.state = Path(state)
        self._timeout = timeout
        self._lock = threading.Lock()
        self._connected_to: dict[str, str] = {}

    @property
    def endpoint(self) -> dict[str, str]:
        """base_url, ca_file, tenant, client_id, client_secret_file and subscription."""
        path = self.state / "endpoint.json"
        if not path.exists():
            raise ControlError(
                f"no {path}: start the simulation with `python -m azsim serve --state {self.state}`"
            )
        return cast(dict[str, str], json.loads(path.read_text()))

    def create_fleet(self, fleet: Fleet, *, folder: Path | str = ".") -> Result:
        """Create what a fleet describes; image paths in it are relative to `folder`."""
        return self._result("create_fleet", fleet=with_absolute_images(fleet, Path(folder)))

    def create_fleet_file(self, path: Path | str) -> Result:
        path = Path(path)
        return self.create_fleet(json.loads(path.read_text()), folder=path.parent)

    def write_image(self, disk: str, image: Path | str, *, discard: bool = False) -> Result:
        """Make a disk's bytes those of a file, as a guest would; see `azsim.guest.write_image`."""
        return self._result("write_image", disk=disk, image=_absolute(image), discard=discard)

    def write_at(self, disk: str, offset: int, source: Path | str) -> Result:
        return self._result("write_at", disk=disk, offset=offset, source=_absolute(source))

    def clear(self, disk: str, offset: int, length: int) -> Result:
        return self._result("clear", disk=disk, offset=offset, length=length)

    def grow_disk(self, disk: str, size: int) -> Result:
        return self._result("grow_disk", disk=disk, size=size)

    def digest_disk(self, disk: str) -> Result:
        """`size` and `sha256` of a disk's bytes."""
        return self._result("digest_disk", disk=disk)

    def save_disk(self, disk: str, image: Path | str) -> Result:
        return self._result("save_disk", disk=disk, image=_absolute(image))

    def attach_disk(self, vm: str, disk: Result) -> Result:
        """Make a data disk as a fleet describes one, and attach it."""
        if "image" in disk:
            disk = {**disk, "image": _absolute(disk["image"])}
        return self._result("attach_disk", vm=vm, disk=disk)

    def detach_disk(self, vm: str, name: str) -> None:
        self._call("detach_disk", vm=vm, name=name)

    def delete_disk(self, disk: str) -> None:
        self._call("delete_disk", disk=disk)

    def replace_disk(self, disk: str) -> Result:
        """Same name and bytes, another unique id: returns both unique ids."""
        return self._result("replace_disk", disk=disk)

    def set_disk_properties(self, disk: str, **properties: Any) -> None:
        self._call("set_disk_properties", disk=disk, properties=properties)

    def move_disk(self, disk: str, resource_group: str) -> Result:
        """Another resource group: another id and the same unique id. Returns the new id."""
        return self._result("move_disk", disk=disk, resource_group=resource_group)

    def take_snapshots(self, disk: str, count: int, *, resource_group: str) -> list[str]:
        """Leave incremental snapshots of a managed disk, as if taken over days; returns their ids."""
        arguments = {"disk": disk, "count": count, "resource_group": resource_group}
        return cast(list[str], self._call("take_snapshots", **arguments))

    def leave_snapshot(self, disk: str, name: str, tags: dict[str, str]) -> str:
        """Leave an incremental snapshot of a managed disk beside it, by this name and with these tags, as if
        taken long ago; returns its id."""
        return cast(str, self._call("leave_snapshot", disk=disk, name=name, tags=tags))

    def leave_blob_snapshot(self, disk: str, metadata: dict[str, str]) -> str:
        """Leave a snapshot of an unmanaged disk's VHD with this metadata, as if taken long ago: the next one
        may be taken at once, also in a premium account. Returns its moment."""
        return cast(str, self._call("leave_blob_snapshot", disk=disk, metadata=metadata))

    def leave_blob(self, blob: str, metadata: dict[str, str]) -> None:
        """Leave an empty page blob, `account/container/blob`, with this metadata; its container is made if
        there is none."""
        self._call("leave_blob", blob=blob, metadata=metadata)

    def delete_blob(self, blob: str, *, snapshot: str | None = None) -> None:
        """Delete a blob, `account/container/blob`, or one of its snapshots: its moment, or "newest"."""
        self._call("delete_blob", blob=blob, snapshot=snapshot)

    def delete_snapshots(self, *, resource_group: str) -> None:
        """Delete all snapshots of a resource group that nobody reads."""
        self._call("delete_snapshots", resource_group=resource_group)

    def close_account(self, account: str, *, closed: bool = True) -> None:
        """Close a storage account's firewall to everybody, or open it."""
        self._call("close_account", account=account, closed=closed)

    def regenerate_keys(self, account: str) -> None:
        """Replace both keys of a storage account, and with them end every SAS that they signed."""
        self._call("regenerate_keys", account=account)

    def delete_snapshot(self, snapshot: str) -> None:
        self._call("delete_snapshot", snapshot=snapshot)

    def delete_vm(self, vm: str, *, with_disks: bool = False) -> None:
        self._call("delete_vm", vm=vm, with_disks=with_disks)

    def move_vm(self, vm: str, *, resource_group: str | None = None, name: str | None = None) -> Result:
        return self._result("move_vm", vm=vm, resource_group=resource_group, name=name)

    def recreate_vm(self, vm: str, *, name: str) -> Result:
        """Delete a VM and make another of its disks; returns both `vmId`s."""
        return self._result("recreate_vm", vm=vm, name=name)

    def power(self, vm: str, state: str) -> None:
        self._call("power", vm=vm, state=state)

    def tag(self, vm: str, tags: dict[str, str | None]) -> Result:
        """Set tags, or take them away with None; returns all of the VM's tags."""
        return self._result("tag", vm=vm, tags=tags)

    def close_access(self) -> int:
        """End every access grant; returns how many were open."""
        return int(self._result("close_access")["closed"])

    def end_operations(self) -> int:
        """Let everything take effect that was accepted and is late; returns how many operations that ends."""
        return int(self._call("end_operations"))

    def create_vault_key(self, name: str, *, bits: int = 2048) -> str:
        """Make an RSA key in the vault, or the next version of one; returns the URL of the new version."""
        return str(self._result("create_vault_key", name=name, bits=bits)["kid"])

    def set_vault_key(
        self,
        name: str,
        *,
        version: str | None = None,
        enabled: bool | None = None,
        deleted: bool | None = None,
    ) -> None:
        """Enable or disable versions of a vault's key (all, or one); delete the key or recover it."""
        self._call("set_vault_key", name=name, version=version, enabled=enabled, deleted=deleted)

    def clock(self) -> Result:
        """`now` in virtual time, and `ahead_seconds` of real time."""
        return self._result("clock")

    def advance_clock(self, seconds: float) -> Result:
        return self._result("advance_clock", seconds=seconds)

    def inventory(self) -> dict[str, list[Result]]:
        """Rows of vms, disks, snapshots, storage_accounts and blobs."""
        return self._result("inventory")

    def add_fault(
        self,
        action: str,
        *,
        plane: str = "any",
        method: str | None = None,
        path: str | None = None,
        query: str | None = None,
        header: str | None = None,
        skip: int = 0,
        times: int | None = 1,
        chance: float = 1.0,
        seed: int = 0,
        **options: Any,
    ) -> str:
        """Put a fault rule in force and return its id; see `azsim.faults` and `azsim.fault_actions`."""
        match = {"plane": plane, "method": method, "path": path, "query": query, "header": header}
        rule = {"skip": skip, "times": times, "chance": chance, "seed": seed, **options}
        return str(self._result("add_fault", action=action, match=match, **rule)["id"])

    def faults(self) -> list[Result]:
        """The rules in force, each with how often it `matched` and `fired`."""
        return cast(list[Result], self._call("faults"))

    def fired(self, fault_id: str) -> int:
        return next(int(rule["fired"]) for rule in self.faults() if rule["id"] == fault_id)

    def clear_faults(self, *ids: str) -> int:
        """Lift the named rules, or all; returns how many were lifted."""
        return int(self._call("clear_faults", ids=ids))

    def requests(self, *, since: int = 0) -> list[Result]:
        """The log of requests with a number above `since`: plane, method, path, query, range, status."""
        return cast(list[Result], self._call("requests", since=since))

    def request_counts(self) -> dict[str, int]:
        """How many requests there have been since the server began, by `plane method status`."""
        return cast(dict[str, int], self._call("request_counts"))

    def last_request(self) -> int:
        """The number of the last request that was answered; 0 before the first."""
        return sum(self.request_counts().values())

    def _result(self, operation: str, /, **arguments: Any) -> Result:
        return cast(Result, self._call(operation, **arguments))

    def close(self) -> None:
        """End the connection, if one is open; the next call opens another."""
        if self._connection:
            self._connection.close()
        self._connection = None

    def __del__(self) -> None:
        self.close()

    def _call(self, operation: str, /, **arguments: Any) -> Any:
        endpoint = self.endpoint
        headers = {"x-azsim-key": (self.state / "control.key").read_text()}
        body = json.dumps(arguments)
        try:
            with self._lock:
                status, answer = self._ask(endpoint, f"/_azsim/{operation}", body, headers)
        except ConnectionRefusedError as error:
            raise ControlError(f"nothing listens at {endpoint['base_url']}: is the simulation up?") from error
        if status != 200:
            raise ControlError(f"{operation}: {answer['error']}")
        return answer["result"]

    def _ask(
        self, endpoint: dict[str, str], path: str, body: str, headers: dict[str, str]
    ) -> tuple[int, Any]:
        """Status and answer; one connection serves many calls: its handshake costs more than they do."""
        if self._connection and self._connected_to == endpoint:
            try:
                return _answer(self._connection, path, body, headers)
            except (ConnectionError, ssl.SSLEOFError):
                pass  # It was idle for too long, or its server is gone, of which a new one tells.
        self.close()
        self._connection, self._connected_to = _connection(endpoint, self._timeout), endpoint
        try:
            return _answer(self._connection, path, body, headers)
        except BaseException:
            self.close()
            raise


def _connection(endpoint: dict[str, str], timeout: float) -> http.client.HTTPSConnection:
    address = urlsplit(endpoint["base_url"])
    context = ssl.create_default_context(cafile=endpoint["ca_file"])
    return http.client.HTTPSConnection(str(address.hostname), address.port, timeout=timeout, context=context)


def _answer(
    connection: http.client.HTTPSConnection, path: str, body: str, headers: dict[str, str]
) -> tuple[int, Any]:
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def with_absolute_images(fleet: Fleet, folder: Path) -> Fleet:
    """The fleet with every disk's `image` made absolute, relative paths taken from `folder`."""

    def absolute(disk: Result) -> Result:
        return {**disk, "image": str((folder / disk["image"]).resolve())} if "image" in disk else disk

    machines = [
        {**machine, "disks": [absolute(disk) for disk in machine.get("disks", [])]}
        for machine in fleet.get("vms", [])
    ]
    disks = [absolute(disk) for disk in fleet.get("disks", [])]
    return {**fleet, "vms": machines, "disks": disks}


def _absolute(path: Path | str) -> str:
    return str(Path(path).resolve())
