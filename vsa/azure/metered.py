"""The SDK's requests, each at its turn: polls of operations and the pages of lists among them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from azure.core.pipeline.transport import RequestsTransport

from vsa.azure.budget import Budget, Purpose, Turn, current_purpose
from vsa.azure.errors import parse_retry_after
from vsa.stop import wait_here

TOO_OFTEN = frozenset({429})
"""How Resource Manager says it. Its 503 is about the one thing that was asked for."""
BLOBS_TOO_OFTEN = frozenset({429, 503})
"""How the blob service says it (ServerBusy)."""
_OPERATIONS = 512


def tell(
    budget: Budget, turn: Turn, status: int, retry_after: str | None, *, too_often: frozenset[int]
) -> None:
    """Tell the budget what came of a request: the answer's status and its Retry-After, as it was written."""
    if status in too_often:
        budget.refused(turn, parse_retry_after(retry_after))
    else:
        budget.answered(turn)


class MeteredTransport(RequestsTransport):  # type: ignore[misc]
    """Sends a request when the budget of its place says so, and tells the budget what came of it.

    Operations are polled by threads of the SDK's, which know nothing of what they poll for: those that a
    request for cleaning up has begun are known by their addresses.
    """

    def __init__(
        self, budget_of: Callable[[str], Budget], *, too_often: frozenset[int], **options: Any
    ) -> None:
        super().__init__(**options)
        self._budget_of = budget_of
        self._too_often = too_often
        self._cleaning: deque[str] = deque(maxlen=_OPERATIONS)

    def send(self, request: Any, **options: Any) -> Any:
        purpose = Purpose.CLEANUP if request.url in self._cleaning else current_purpose()
        budget = self._budget_of(request.url)
        turn = budget.take(purpose, wait=wait_here)
        response: Any = super().send(request, **options)
        headers = response.headers
        tell(budget, turn, response.status_code, headers.get("Retry-After"), too_often=self._too_often)
        if purpose is Purpose.CLEANUP:
            begun = (headers.get("Azure-AsyncOperation"), headers.get("Location"))
            self._cleaning.extend(url for url in begun if url and url not in self._cleaning)
        return response
