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
    after: str | None = None
    while True:
        page, after = again(partial(_page, items, after, action), stop=stop)
        yield from page
        if after is None:
            return


def _page(items: Any, after: str | None, action: str) -> tuple[list[Any], str | None]:
    """A page and the link to the next one, None if it is the last; `after` is the link to this one.

    Each by an iterator of its own: one that could not read the first page's answer takes the list to be at
    its end (azure.core.paging.PageIterator), and what could not be read would be taken for nothing.
    """
    pages = items.by_page(after)
    with azure_errors(action):
        page = list(next(pages))
    return page, pages.continuation_token
