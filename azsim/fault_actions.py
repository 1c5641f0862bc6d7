"""What a fault rule does to a request: each action is an ASGI application around another one.

`when` tells whether the request takes effect: "before" spoils it without, "after" lets it take effect
and loses the answer, the case that retries must survive.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Literal
from xml.sax.saxutils import escape

from azsim.late import Lateness

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Interference = Callable[[App, Scope, Receive, Send], Awaitable[None]]
When = Literal["before", "after"]

ABORT = "azsim.abort"
"""In `scope["extensions"]`: reset the connection at once."""
CLOSE = "azsim.close"
"""In `scope["extensions"]`: end the connection once what was sent has left."""
RUN = "azsim.run"
"""In `scope["extensions"]`: run an operation of the control API by name, as `run(name, arguments)`."""
LATE = "azsim.late"
"""In `scope["extensions"]`: how late what the request asks for takes effect."""


def answer_status(
    *,
    status: int,
    code: str = "",
    message: str = "A scripted failure of azsim.",
    retry_after: int | None = None,
    body: Any = None,
    when: When = "before",
) -> Interference:
    """Answer with this status; `body` replaces the error document with any JSON."""

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        if when == "after":
            await app(scope, receive, _discard)
        content, content_type = _error_document(scope, code, message) if body is None else _json(body)
        headers = [
            (b"content-type", content_type),
            (b"content-length", str(len(content)).encode()),
            (b"x-ms-request-id", str(uuid.uuid4()).encode()),
            (b"x-ms-error-code", code.encode()),
        ]
        if retry_after is not None:
            headers.append((b"retry-after", str(retry_after).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    return interfere


def cut(*, when: When = "before") -> Interference:
    """Reset the connection instead of answering."""

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        if when == "after":
            await app(scope, receive, _discard)
        scope["extensions"][ABORT]()
        await _disconnected(receive)

    return interfere


def kill(*, process: int, when: When = "before") -> Interference:
    """Kill who asks, a process of this machine, by SIGKILL; its request takes effect before that or never.

    One that has ended is killed already. ValueError for a number that means more than one process.
    """
    if type(process) is not int or process < 2:
        raise ValueError(f"process is {process!r}, expected the id of one process")

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        if when == "after":
            await app(scope, receive, _discard)
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        scope["extensions"][ABORT]()
        await _disconnected(receive)

    return interfere


def truncate(*, bytes: int) -> Interference:
    """Send the whole header and `bytes` of the body, then end the connection; below 0, so many of its last
    bytes are missing. An empty body stays whole."""

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        left = bytes

        async def send_part(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start" and bytes < 0:
                left = max(0, _length(message) + bytes)
            if message["type"] == "http.response.body":
                part = message.get("body", b"")[:left]
                left -= len(part)
                message = {"type": "http.response.body", "body": part, "more_body": True}
            await send(message)

        await app(scope, receive, send_part)
        scope["extensions"][CLOSE]()
        await _disconnected(receive)

    return interfere


def corrupt(*, position: int) -> Interference:
    """Invert one byte of the body, counted from its start; a shorter body stays whole."""

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        passed = 0

        async def send_flipped(message: Message) -> None:
            nonlocal passed
            body = message.get("body", b"")
            if passed <= position < passed + len(body):
                flipped = bytearray(body)
                flipped[position - passed] ^= 0xFF
                message = {**message, "body": bytes(flipped)}
            passed += len(body)
            await send(message)

        await app(scope, receive, send_flipped)

    return interfere


def delay(*, seconds: float) -> Interference:
    """Hold the request back for so much real time; then it takes effect, also if nobody waits any more."""

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        # Of a connection that is gone meanwhile the server would hand over no body.
        came = await _whole(receive)
        await asyncio.sleep(seconds)
        await app(scope, _again(came, receive), send)

    return interfere


def late(*, seconds: float | None = None, shown: bool = False, told: bool = True) -> Interference:
    """Accept what is asked of a managed snapshot, and let it take effect later; see `azsim.late.Lateness`."""
    lateness = Lateness(seconds, shown, told)

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        scope["extensions"][LATE] = lateness
        await app(scope, receive, send)

    return interfere


def run(*, operation: str, arguments: dict[str, Any] | None = None, when: When = "before") -> Interference:
    """Run an operation of the control API before or after the request, which is served as usual."""

    async def interfere(app: App, scope: Scope, receive: Receive, send: Send) -> None:
        if when == "before":
            await scope["extensions"][RUN](operation, arguments or {})
        await app(scope, receive, send)
        if when == "after":
            await scope["extensions"][RUN](operation, arguments or {})

    return interfere


def advance_clock(*, seconds: float) -> Interference:
    """Step virtual time forward, then serve the request."""
    return run(operation="advance_clock", arguments={"seconds": seconds})


def expire_access() -> Interference:
    """End every open access grant, then serve the request."""
    return run(operation="close_access")


ACTIONS: dict[str, Callable[..., Interference]] = {
    "status": answer_status,
    "cut": cut,
    "kill": kill,
    "truncate": truncate,
    "corrupt": corrupt,
    "delay": delay,
    "late": late,
    "run": run,
    "advance_clock": advance_clock,
    "expire_access": expire_access,
}


def _length(start: Message) -> int:
    """The length of the body that an answer announces."""
    return next((int(value) for name, value in start["headers"] if name.lower() == b"content-length"), 0)


async def _whole(receive: Receive) -> list[Message]:
    """All messages of a request's body."""
    came = [await receive()]
    while came[-1].get("more_body", False):
        came.append(await receive())
    return came


def _again(came: list[Message], receive: Receive) -> Receive:
    """Hands over what came already, then what comes next."""
    waiting = deque(came)

    async def next_message() -> Message:
        return waiting.popleft() if waiting else await receive()

    return next_message


async def _discard(_message: Message) -> None:
    """Let an answer vanish."""


async def _disconnected(receive: Receive) -> None:
    """Wait until the server knows that the connection is gone; to return earlier would send a 500."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _json(body: Any) -> tuple[bytes, bytes]:
    return json.dumps(body).encode(), b"application/json; charset=utf-8"


def _error_document(scope: Scope, code: str, message: str) -> tuple[bytes, bytes]:
    """The error as the plane of this request writes it."""
    if scope["extensions"]["azsim.plane"] != "blob":
        return _json({"error": {"code": code, "message": message}})
    text = (
        '\ufeff<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    )
    return text.encode(), b"application/xml"
