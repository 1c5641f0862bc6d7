"""Debian's Chromium without a window, in which nothing but this machine can be reached."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from playwright.sync_api import Page, sync_playwright

HOST = "127.0.0.1"
_FLAGS = (
    "--no-sandbox",  # Chromium refuses to sandbox what root runs, as CI does
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {HOST}",
)
_PATIENCE_MS = 60_000


def missing() -> str:
    """Why no browser can be driven here; empty if one can."""
    return "" if shutil.which("chromium") else "needs a browser: Debian's package chromium"


@contextmanager
def chromium(asked: list[str], *, width: int = 1280, height: int = 800) -> Iterator[Page]:
    """A page of a new browser; the address of each request that leaves it is added to `asked`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_FLAGS))
        context = browser.new_context(viewport={"width": width, "height": height})
        context.set_default_timeout(_PATIENCE_MS)
        context.on("request", lambda request: asked.append(request.url))
        yield context.new_page()
        browser.close()


def leaves_the_machine(address: str) -> bool:
    """Whether a request for it goes anywhere else; what a page makes up for itself goes nowhere."""
    parts = urlsplit(address)
    return parts.scheme not in ("blob", "data") and parts.hostname != HOST
