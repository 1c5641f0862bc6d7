"""Long-running operations: what the client polls after a 202 or 201.

An operation takes effect when it is accepted; the polls only tell of it. Answers carry no
`Retry-After`, as in the recordings, so a client polls at its own pace.
"""

from __future__ import annotations

import uuid

from starlette.responses import JSONResponse, Response

from azsim.arm_protocol import ArmError, Wire, timestamp
from azsim.clock import Clock
from azsim.documents import Documents

_KIND = "operation"


class Operations:
    """Starts operations and answers the polls. `in_progress_polls` come before each success."""

    def __init__(self, documents: Documents, clock: Clock, *, base_url: str, in_progress_polls: int) -> None:
        self._documents = documents
        self._clock = clock
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
    ) -> dict[str, str]:
        """Headers of an accepted request; the final poll shows `output`."""
        name = str(uuid.uuid4())
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
        url = (
            f"{self._base_url}/subscriptions/{subscription}/providers/Microsoft.Compute"
            f"/locations/{location}/{collection}/{name}?p={uuid.uuid4()}"
        )
        return {
            "azure-asyncoperation": f"{url}&api-version={api_version}",
            "location": f"{url}&monitor=true&api-version={api_version}",
        }

    def poll(self, name: str) -> Response:
        """The `Azure-AsyncOperation` resource."""
        stored = self._need(name)
        if stored["polls_left"] > 0:
            self._documents.put(_KIND, name, {**stored, "polls_left": stored["polls_left"] - 1})
            return JSONResponse({"startTime": stored["started"], "status": "InProgress", "name": name})
        return JSONResponse(self._succeeded(name, stored))

    def monitor(self, name: str, url: str) -> Response:
        """The `Location` resource: 202 until the operation ended, then its result."""
        stored = self._need(name)
        if stored["polls_left"] > 0:
            self._documents.put(_KIND, name, {**stored, "polls_left": stored["polls_left"] - 1})
            return Response(status_code=202, headers={"location": url})
        if stored["output"] is None:
            return Response(status_code=200)
        return JSONResponse(stored["output"])

    def _succeeded(self, name: str, stored: Wire) -> Wire:
        if stored["ended"] is None:
            stored = {**stored, "ended": timestamp(self._clock.now())}
            self._documents.put(_KIND, name, stored)
        body = {
            "startTime": stored["started"],
            "endTime": stored["ended"],
            "status": "Succeeded",
            "name": name,
        }
        if stored["output"] is not None:
            body["properties"] = {"output": stored["output"]}
        return body

    def _need(self, name: str) -> Wire:
        stored = self._documents.get(_KIND, name)
        if stored is None:
            raise ArmError(404, "NotFound", f"The operation '{name}' was not found.")
        return stored
