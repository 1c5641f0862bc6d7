"""The front of the server: tells the planes apart, logs requests, lets fault rules act."""

from __future__ import annotations

import itertools
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import takewhile
from typing import Any
from urllib.parse import parse_qsl, urlencode

from azsim.fault_actions import RUN, App, Message, Receive, Scope, Send
from azsim.faults import Faults, Seen

CONTROL_PREFIX = "/_azsim/"
_SECRET_PARAMETERS = ("sig", "client_secret")
_LOGGED_REQUESTS = 20_000


class RequestLog:
    """The last requests, without their secrets. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._entries: deque[dict[str, Any]] = deque(maxlen=_LOGGED_REQUESTS)
        self._counts: Counter[str] = Counter()

    def add(self, entry: dict[str, Any]) -> None:
        with self._lock:
            self._entries.append({"number": next(self._numbers), **entry})
            self._counts[f"{entry['plane']} {entry['method']} {entry['status']}"] += 1

    def counts(self) -> dict[str, int]:
        """How many there have been in all, by plane, method and status."""
        with self._lock:
            return dict(self._counts)

    def since(self, number: int) -> list[dict[str, Any]]:
        """Entries with a number greater than this one, oldest first."""
        with self._lock:
            newest = takewhile(lambda entry: entry["number"] > number, reversed(self._entries))
            return list(newest)[::-1]


class Front:
    """The ASGI application that the server runs."""

    def __init__(
        self,
        app: App,
        faults: Faults,
        log: RequestLog,
        run_operation: Callable[[str, dict[str, Any]], Awaitable[Any]],
    ) -> None:
        self._app = app
        self._faults = faults
        self._log = log
        self._run_operation = run_operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        query = _without_secrets(scope["query_string"].decode("latin-1"))
        seen = Seen(plane_of(scope["path"]), scope["method"], scope["path"], query, frozenset(headers))
        rules = self._faults.due(seen)
        app = self._app
        for rule in reversed(rules):
            app = partial(rule.interference, app)
        scope.setdefault("extensions", {}).update({RUN: self._run_operation, "azsim.plane": seen.plane})
        entry = {
            "plane": seen.plane,
            "method": seen.method,
            "path": seen.path,
            "query": query,
            "range": headers.get("x-ms-range") or headers.get("range"),
            "faults": [rule.id for rule in rules],
            "status": None,
        }
        try:
            await app(scope, receive, partial(_noting_status, entry, send))
        finally:
            self._log.add(entry)


async def _noting_status(entry: dict[str, Any], send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        entry["status"] = message["status"]
    await send(message)


def plane_of(path: str) -> str:
    """arm, vault, token or blob: everything that is not the others' is the blob service's."""
    parts = path.split("/", 3)
    if parts[1].lower() == "subscriptions":
        return "arm"
    if parts[1] == "keys":
        return "vault"
    if parts[2:] and parts[2] in ("oauth2", "v2.0"):
        return "token"
    return "blob"


def _without_secrets(query: str) -> str:
    pairs = parse_qsl(query, keep_blank_values=True)
    return urlencode([(name, "…" if name in _SECRET_PARAMETERS else value) for name, value in pairs])
