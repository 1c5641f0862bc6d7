"""Azure Resource Manager: from a request to the function that answers it.

Paths are compared without regard to case and any `api-version` is served: the SDK's operations use
several at once, so nothing is routed by it. Its absence is refused, as ARM does.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from azsim.arm_operations import Operations
from azsim.arm_protocol import (
    RESOURCE_TYPES,
    VIRTUAL_MACHINE,
    ArmError,
    ResourceId,
    Wire,
    bad_request,
    standard_headers,
)
from azsim.clock import Clock
from azsim.fault_actions import LATE
from azsim.identity import Identity
from azsim.late import Lateness
from azsim.resources import Resource, Resources
from azsim.throttling import Throttling

_METHODS = ["GET", "PUT", "PATCH", "POST", "DELETE", "HEAD"]
_CANONICAL = {resource_type.lower(): resource_type for resource_type in RESOURCE_TYPES}


@dataclass(frozen=True, slots=True)
class Call:
    """One authorized request on one resource; `late`: a fault rule has it take effect later."""

    method: str
    id: ResourceId
    body: Wire
    query: Mapping[str, str]
    late: Lateness | None = None

    @property
    def api_version(self) -> str:
        return self.query["api-version"]


Answer = Callable[[Call], Response]
Shown = Callable[[Resource, Mapping[str, str]], Wire]


@dataclass(frozen=True, slots=True)
class ResourceKind:
    """How one resource type is shown, and the answer to each (method, lower-case action) on it."""

    type: str
    shown: Shown
    answers: dict[tuple[str, str], Answer]


class Arm:
    """The control plane. One lock: ARM serialises changes to a resource, we serialise them all."""

    def __init__(
        self,
        resources: Resources,
        operations: Operations,
        identity: Identity,
        clock: Clock,
        *,
        kinds: Iterable[ResourceKind],
        subscription: str,
        base_url: str,
        page_size: int,
        lock: threading.RLock,
        throttling: Throttling,
        settle: Callable[[], None],
    ) -> None:
        """`settle` lets what was accepted before take effect, as far as its time has come."""
        self._resources = resources
        self._operations = operations
        self._identity = identity
        self._clock = clock
        self._kinds = {kind.type: kind for kind in kinds}
        self._subscription = subscription
        self._base_url = base_url
        self._page_size = page_size
        self._lock = lock
        self._throttling = throttling
        self._settle = settle

    def routes(self) -> list[Route]:
        return [
            Route("/subscriptions/{path:path}", self._serve, methods=_METHODS),
            Route("/Subscriptions/{path:path}", self._serve, methods=_METHODS),
        ]

    async def _serve(self, request: Request) -> Response:
        body = await request.body()
        try:
            response = await run_in_threadpool(self._answer, request, body)
        except ArmError as refusal:
            response = refusal.response()
        for name, value in standard_headers(request.method, self._clock.now()).items():
            response.headers.setdefault(name, value)
        return response

    def _answer(self, request: Request, body: bytes) -> Response:
        self._identity.check(request.headers.get("authorization"), dt.datetime.now(dt.UTC))
        if "api-version" not in request.query_params:
            raise bad_request(
                "The api-version query parameter (?api-version=) is required for all requests.",
                "MissingApiVersionParameter",
            )
        self._throttling.take(request.method)
        parts = request.path_params["path"].strip("/").split("/")
        if parts[0].lower() != self._subscription:
            raise ArmError(404, "SubscriptionNotFound", f"The subscription '{parts[0]}' could not be found.")
        with self._lock:
            self._settle()
            return self._dispatch(request, parts[1:], _parsed(body))

    def _dispatch(self, request: Request, parts: list[str], body: Wire) -> Response:
        match [part.lower() for part in parts]:
            case ["providers", _, "locations", _, "diskoperations" | "operations", name]:
                return self._poll(request, name)
            case ["providers", namespace, short_type]:
                return self._list(request, self._kind(namespace, short_type), group=None)
            case ["resourcegroups", *rest] if len(rest) <= 1:
                return self._groups(request, parts[1:], body)
            case ["resourcegroups", _, "providers", namespace, short_type]:
                self._resources.need_group(self._subscription, parts[1])
                return self._list(request, self._kind(namespace, short_type), group=parts[1])
            case ["resourcegroups", _, "providers", namespace, short_type, _, *action] if len(action) <= 1:
                kind = self._kind(namespace, short_type)
                resource_id = ResourceId(self._subscription, parts[1], kind.type, parts[5])
                late = request.scope.get("extensions", {}).get(LATE)
                call = Call(request.method, resource_id, body, request.query_params, late)
                return self._call(kind, call, "".join(action))
        raise ArmError(404, "NotFound", f"azsim serves nothing at '{request.url.path}'.")

    def _kind(self, namespace: str, short_type: str) -> ResourceKind:
        kind = self._kinds.get(_CANONICAL.get(f"{namespace}/{short_type}", ""))
        if kind is None:
            raise ArmError(
                404, "InvalidResourceType", f"azsim knows no resource type '{namespace}/{short_type}'."
            )
        return kind

    def _call(self, kind: ResourceKind, call: Call, action: str) -> Response:
        if call.method == "GET" and not action:
            return JSONResponse(kind.shown(self._resources.need(call.id), call.query))
        answer = kind.answers.get((call.method, action))
        if answer is None:
            raise ArmError(405, "MethodNotAllowed", f"{call.method} {action or kind.type} is not served.")
        return answer(call)

    def _poll(self, request: Request, name: str) -> Response:
        if "monitor" in request.query_params:
            return self._operations.monitor(name, str(request.url))
        return self._operations.poll(name)

    def _groups(self, request: Request, parts: list[str], body: Wire) -> Response:
        if not parts:
            return JSONResponse({"value": self._resources.groups(self._subscription)})
        if request.method == "PUT":
            location = str(body.get("location", "westeurope"))
            return JSONResponse(self._resources.ensure_group(self._subscription, parts[0], location))
        return JSONResponse(self._resources.need_group(self._subscription, parts[0]))

    def _list(self, request: Request, kind: ResourceKind, group: str | None) -> Response:
        """One page, and an absolute `nextLink` while more follow.

        The link names the last resource shown, not a position: pages stay right when resources come
        and go between them.
        """
        after = request.query_params.get("$skiptoken", "")
        size = self._page_size
        rest = list(self._resources.all(kind.type, self._subscription, group, after=after, limit=size + 1))
        page = rest[:size]
        body: Wire = {"value": [self._listed(kind, each, group, request.query_params) for each in page]}
        if len(rest) > len(page):
            query = request.url.include_query_params(**{"$skiptoken": page[-1].id.key}).query
            body["nextLink"] = f"{self._base_url}{request.url.path}?{query}"
        return JSONResponse(body)

    def _listed(
        self, kind: ResourceKind, resource: Resource, group: str | None, query: Mapping[str, str]
    ) -> Wire:
        """Subscription-wide VM lists spell the group in capitals; a client must not mind."""
        shown = kind.shown(resource, query)
        if group is None and kind.type == VIRTUAL_MACHINE:
            shown["id"] = resource.id.shouted()
        return shown


def _parsed(body: bytes) -> Wire:
    if not body.strip():
        return {}
    try:
        parsed: Any = json.loads(body)
    except ValueError as error:
        raise bad_request(
            f"The request content was invalid and could not be deserialized: {error}.",
            "InvalidRequestContent",
        ) from error
    if not isinstance(parsed, dict):
        raise bad_request("The request content must be a JSON object.", "InvalidRequestContent")
    return parsed
