"""The control API, server side: `POST /_azsim/{operation}` with a JSON object of arguments.

Not part of Azure. It needs the key of the state folder, so that nobody who merely reaches the port can
use it.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from azsim import estate, fleet, guest, inventory
from azsim.arm_protocol import ArmError
from azsim.blob_errors import BlobError
from azsim.pages import PageError
from azsim.simulation import Simulation

KEY_HEADER = "x-azsim-key"


def _clock(simulation: Simulation) -> dict[str, Any]:
    clock = simulation.clock
    return {"now": clock.now().isoformat(), "ahead_seconds": clock.offset_seconds}


def _advance_clock(simulation: Simulation, seconds: float) -> dict[str, Any]:
    simulation.clock.advance(seconds)
    return _clock(simulation)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "create_fleet": fleet.create_fleet,
    "inventory": inventory.inventory,
    "clock": _clock,
    "advance_clock": _advance_clock,
    "write_image": guest.write_image,
    "write_at": guest.write_at,
    "clear": guest.clear,
    "grow_disk": guest.grow,
    "digest_disk": guest.digest,
    "save_disk": guest.save,
    "attach_disk": estate.attach_disk,
    "detach_disk": estate.detach_disk,
    "delete_disk": estate.delete_disk,
    "replace_disk": estate.replace_disk,
    "set_disk_properties": estate.set_disk_properties,
    "move_disk": estate.move_disk,
    "take_snapshots": estate.take_snapshots,
    "leave_snapshot": estate.leave_snapshot,
    "leave_blob_snapshot": estate.leave_blob_snapshot,
    "leave_blob": estate.leave_blob,
    "delete_blob": estate.delete_blob,
    "delete_snapshots": estate.delete_snapshots,
    "close_account": estate.close_account,
    "regenerate_keys": estate.regenerate_keys,
    "delete_snapshot": estate.delete_snapshot,
    "delete_vm": estate.delete_vm,
    "move_vm": estate.move_vm,
    "recreate_vm": estate.recreate_vm,
    "power": estate.power,
    "tag": estate.tag,
    "close_access": estate.close_access,
    "end_operations": estate.end_operations,
    "create_vault_key": lambda simulation, **key: simulation.vault.create_key(**key),
    "set_vault_key": lambda simulation, **change: simulation.vault.set_key(**change),
    "add_fault": lambda simulation, **rule: simulation.faults.add(**rule),
    "faults": lambda simulation: simulation.faults.reports(),
    "clear_faults": lambda simulation, ids=(): simulation.faults.clear(ids),
    "request_counts": lambda simulation: simulation.log.counts(),
    "requests": lambda simulation, since=0: simulation.log.since(since),
}


class ControlApi:
    """Runs the operations above for whoever holds the key, and for fault rules."""

    def __init__(self, simulation: Simulation, key: str) -> None:
        self._simulation = simulation
        self._key = key

    def routes(self) -> list[Route]:
        return [Route("/_azsim/{operation}", self._serve, methods=["POST"])]

    async def run(self, operation: str, arguments: dict[str, Any]) -> Any:
        """One operation's result; ValueError when there is no such operation or argument."""
        function = OPERATIONS.get(operation)
        if function is None:
            raise ValueError(f"no operation {operation!r}; there are {', '.join(OPERATIONS)}")
        return await run_in_threadpool(function, self._simulation, **arguments)

    async def _serve(self, request: Request) -> Response:
        given = request.headers.get(KEY_HEADER, "")
        if not hmac.compare_digest(given.encode(), self._key.encode()):
            return _refused(403, f"header {KEY_HEADER} must hold the content of control.key")
        try:
            arguments = json.loads(await request.body() or b"{}")
            return JSONResponse({"result": await self.run(request.path_params["operation"], arguments)})
        except (ValueError, TypeError, KeyError, OSError) as error:
            return _refused(400, f"{type(error).__name__}: {error}")
        except (ArmError, BlobError, PageError) as error:
            return _refused(409, str(error))


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"error": message}, status_code=status)
