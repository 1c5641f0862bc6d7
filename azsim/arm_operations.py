"""Long-running operations: what the client polls after a 202 or 201.

An operation takes effect when it is accepted, and the polls only tell of it; unless a fault rule has made it
late (`azsim/late.py`). Answers carry no `Retry-After`, as in the recordings, so a client polls at its own
pace.
"""

from __future__ import annotations

import uuid

from starlette.responses import JSONResponse, Response

from azsim.arm_protocol import ArmError, Wire, timestamp
from azsim.clock import Clock
from azsim.documents import Documents
from azsim.late import LateEffects

_KIND = "operation"


class Operations:
    """Starts operations and answers the polls. `in_progress_polls` come before each success."""

    def __init__(
        self,
        documents: Documents,
        clock: Clock,
        late: LateEffects,
        *,
        base_url: str,
        in_progress_polls: int,
    ) -> None:
        self._documents = documents
        self._clock = clock
        self._late = late
        self._base_url = base_url
        self._in_progress_polls = in_progress_polls

    def start(
        self,
        subscription: str,
        location: str,
        *,
        api_version: str,
        output: Wire | None = None,
        collection: str = "DiskOperations",
        name: str | None = None,
    ) -> dict[str, str]:
        """Headers of an accepted request; the final poll shows `output`. `name`: the operation's, if it has
        one already."""
        name = name or str(uuid.uuid4())
        self._documents.put(
            _KIND,
            name,
            {
                "started": timestamp(self._clock.now()),
                "ended": None,
                "polls_left": self._in_progress_polls,
                "output": output,
            },
        )
        return self._headers(name, subscription, location, collection, api_version)

    def _headers(
        self, name: str, subscription: str, location: str, collection: str, api_version: str
    ) -> dict[str, str]:
        url = (
            f"{self._base_url}/subscriptions/{subscription}/providers/Microsoft.Compute"
            f"/locations/{location}/{collection}/{name}?p={uuid.uuid4()}"
        )
        return {
            "azure-asyncoperation": f"{url}&api-version={api_version}",
            "location": f"{url}&monitor=true&api-version={api_version}",
        }

    def headers_of(self, name: str, subscription: str, location: str, *, api_version: str) -> dict[str, str]:
        """Headers of a request that asks for what an operation does already."""
        return self._headers(name, subscription, location, "DiskOperations", api_version)

    def succeed_with(self, name: str, output: Wire) -> None:
        """Let the final poll of a late operation show this."""
        self._documents.put(_KIND, name, {**self._need(name), "output": output})

    def fail(self, name: str, code: str, message: str) -> None:
        """Let the operation end as failed."""
        error = {"code": code, "message": message}
        self._documents.put(_KIND, name, {**self._need(name), "error": error})

    def poll(self, name: str) -> Response:
        """The `Azure-AsyncOperation` resource."""
        stored = self._need(name)
        if self._goes_on(name, stored):
            return JSONResponse({"startTime": stored["started"], "status": "InProgress", "name": name})
        return JSONResponse(self._ended(name, stored))

    def monitor(self, name: str, url: str) -> Response:
        """The `Location` resource: 202 until the operation ended, then its result."""
        stored = self._need(name)
        if self._goes_on(name, stored):
            return Response(status_code=202, headers={"location": url})
        if stored["output"] is None:
            return Response(status_code=200)
        return JSONResponse(stored["output"])

    def _goes_on(self, name: str, stored: Wire) -> bool:
        """Whether a poll says so; counts it."""
        if self._late.is_awaited(name):
            return True
        if stored["polls_left"] > 0:
            self._documents.put(_KIND, name, {**stored, "polls_left": stored["polls_left"] - 1})
            return True
        return False

    def _ended(self, name: str, stored: Wire) -> Wire:
        if stored["ended"] is None:
            stored = {**stored, "ended": timestamp(self._clock.now())}
            self._documents.put(_KIND, name, stored)
        body = {
            "startTime": stored["started"],
            "endTime": stored["ended"],
            "status": "Failed" if "error" in stored else "Succeeded",
            "name": name,
        }
        if "error" in stored:
            return {**body, "error": stored["error"]}
        if stored["output"] is not None:
            body["properties"] = {"output": stored["output"]}
        return body

    def _need(self, name: str) -> Wire:
        stored = self._documents.get(_KIND, name)
        if stored is None:
            raise ArmError(404, "NotFound", f"The operation '{name}' was not found.")
        return stored
