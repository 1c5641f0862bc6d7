"""Long lists of Resource Manager, page by page.

A list of thousands has hundreds of pages, and any of them may be refused for coming too often. Only that one
is asked for again: who began anew would ask for as many again, and be refused again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from vsa.azure.errors import azure_errors
from vsa.stop import Stop, again


def listed(items: Any, *, action: str, stop: Stop) -> Iterator[Any]:
    """Every item of a paged list of the SDK; `action` says in errors what was done."""
    pages = items.by_page()
    # An SDK's iterator of pages that has raised stands where it stood.
    while (page := again(partial(_next, pages, action), stop=stop)) is not None:
        yield from page


def _next(pages: Iterator[Any], action: str) -> list[Any] | None:
    with azure_errors(action):
        page = next(pages, None)
    return None if page is None else list(page)
