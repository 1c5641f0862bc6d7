"""ARM's token buckets: how often one identity may ask of one subscription.

Source: learn.microsoft.com, "Understand how Azure Resource Manager throttles requests": a bucket of 250
tokens for reads, refilled by 25 a second, and of 200 each for writes and deletes, refilled by 10. Every
request takes a token; an empty bucket answers 429 with `Retry-After`. The limits of the compute provider, per
VM and per minute, are wider for what a backup asks, and left out.
"""

from __future__ import annotations

import datetime as dt
import math
import threading
from dataclasses import dataclass

from azsim.arm_protocol import ArmError
from azsim.clock import Clock


@dataclass(frozen=True, slots=True)
class Limit:
    """The most tokens of a bucket, and how many come back in a second."""

    tokens: float
    per_second: float


LIMITS = {"reads": Limit(250, 25), "writes": Limit(200, 10), "deletes": Limit(200, 10)}


class Throttling:
    """The buckets of the one subscription and identity, in virtual time. Thread-safe."""

    def __init__(self, clock: Clock, scale: float) -> None:
        """`scale` is what all limits are multiplied by; 0: nothing is ever refused."""
        self._clock = clock
        self._limits = {
            kind: Limit(limit.tokens * scale, limit.per_second * scale) for kind, limit in LIMITS.items()
        }
        self._is_on = scale > 0
        self._lock = threading.Lock()
        self._tokens: dict[str, tuple[float, dt.datetime]] = {}

    def take(self, method: str) -> None:
        """Take a token for a request; ARM's 429 where there is none."""
        if not self._is_on:
            return
        kind = _kind(method)
        limit = self._limits[kind]
        with self._lock:
            now = self._clock.now()
            left, at = self._tokens.get(kind, (limit.tokens, now))
            left = min(limit.tokens, left + (now - at).total_seconds() * limit.per_second)
            is_taken = left >= 1
            self._tokens[kind] = (left - 1 if is_taken else left, now)
        if not is_taken:
            seconds = math.ceil((1 - left) / limit.per_second)
            raise ArmError(
                429,
                "SubscriptionRequestsThrottled",
                f"Number of '{kind}' requests for the subscription exceeded the limit. Please try again after"
                f" '{seconds}' seconds.",
                {"retry-after": str(seconds)},
            )


def _kind(method: str) -> str:
    if method in ("GET", "HEAD"):
        return "reads"
    return "deletes" if method == "DELETE" else "writes"
