"""What operators have saved, by name."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, TypeVar

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from vsa.errors import BadRequest

B = TypeVar("B", bound=Block)

_PAGE = 100


def load_named(block: type[B], name: str, kind: str) -> B:
    """The block saved under this name; BadRequest with the names there are if it is not among them.

    `kind` is what people call it.
    """
    try:
        found: Any = block.load(name)
    except ValueError as error:
        if not isinstance(error.__cause__, ObjectNotFound):
            raise
        raise BadRequest(
            f"there is no {kind.lower()} {name!r}: expected the name of a {kind} block, "
            f"and these are saved: {', '.join(saved_names(block)) or 'none'}"
        ) from error
    assert isinstance(found, block)
    return found


def saved_names(block: type[Block]) -> list[str]:
    """Names of all saved blocks of one type, in order; none if the server does not know the type."""
    try:
        return sorted(_names(block.get_block_type_slug()))
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.NOT_FOUND:
            raise
        return []


def _names(slug: str) -> list[str]:
    names: list[str] = []
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_block_documents_by_type(
                slug, offset=len(names), limit=_PAGE, include_secrets=False
            )
            names += [str(document.name) for document in page]
            if len(page) < _PAGE:
                return names
