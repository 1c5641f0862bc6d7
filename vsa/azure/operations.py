"""Waiting for Azure's long-running operations without becoming deaf to a stop."""

from __future__ import annotations

import time
from typing import Any

from azure.core.exceptions import DecodeError, HttpResponseError
from azure.core.polling import LROPoller

from vsa.azure.errors import PASSING
from vsa.errors import TryAgainLater
from vsa.stop import Stop

# Snapshots, grants and deletions end within seconds or a few minutes; one that takes longer hangs.
LONGEST_OPERATION_SECONDS = 1800.0
LOOK_SECONDS = 0.5

NOT_FOUND = 404
NOT_SHOWN = "Azure says that it is made and does not show it yet"


def finished(poller: LROPoller[Any], *, stop: Stop, action: str) -> Any:
    """The result of an operation. Raises RunStopped when a stop is asked for: the operation itself goes on.

    Raises TryAgainLater when the operation does not end: what it was to make or remove is then found by name.
    """
    deadline = time.monotonic() + LONGEST_OPERATION_SECONDS
    while not poller.done():
        stop.check()
        if time.monotonic() > deadline:
            raise TryAgainLater(f"{action}: the operation has not ended in {LONGEST_OPERATION_SECONDS:.0f} s")
        poller.wait(LOOK_SECONDS)
    return poller.result()


class Accepted:
    """An operation that makes a thing and that Azure has accepted, to be polled again when it was too busy to
    say how that goes.

    `token` is what the SDK goes on by; empty if there is nothing to go on with.
    """

    def __init__(self) -> None:
        self.token = ""

    def told(self, poller: LROPoller[Any], *, stop: Stop, action: str) -> Any:
        """What the operation comes to. It is forgotten when Azure says that it failed.

        TryAgainLater when what it makes is not to be found: Azure answers from copies that lag behind what it
        calls done, and none of these answers says that the thing will not come.
        """
        try:
            return finished(poller, stop=stop, action=action)
        except HttpResponseError as error:
            if error.status_code == NOT_FOUND:
                raise TryAgainLater(f"{action}: {NOT_SHOWN}") from error
            says_nothing = isinstance(error, DecodeError) or error.status_code in PASSING
            if not says_nothing:
                self.token = ""
            raise
