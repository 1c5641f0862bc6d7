"""A Prefect server that is away for a while: it is asked again until it answers, or a stop is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import httpx
from prefect.exceptions import PrefectHTTPStatusError

from vsa.stop import Stop

T = TypeVar("T")

ASK_AGAIN_SECONDS = 1.0

_HTTP_SERVER_ERROR = 500
_log = logging.getLogger(__name__)


def answered(ask: Callable[[], T], stop: Stop) -> T:
    """The server's answer, however long it takes: a job outlives an outage of its server.

    RunStopped once a stop is asked for; raises what Prefect's client raises when the server says no. What was
    asked may have been done although no answer came, so it must bear repeating.
    """
    silent = False
    while True:
        try:
            answer = ask()
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not _may_pass(error):
                raise
            if not silent:
                _log.warning("the Prefect server does not answer (%s); asking again", type(error).__name__)
            silent = True
            stop.wait(ASK_AGAIN_SECONDS)
        else:
            if silent:
                _log.info("the Prefect server answers again")
            return answer


def _may_pass(error: Exception) -> bool:
    return not isinstance(error, PrefectHTTPStatusError) or error.response.status_code >= _HTTP_SERVER_ERROR
