"""What operators have saved, by name."""

from __future__ import annotations

from http import HTTPStatus

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError

_PAGE = 100


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
