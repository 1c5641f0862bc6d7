"""What is left in Azure, since when, what it costs about, and why it could not be removed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from vsa.errors import (
    AccessDenied,
    AccessExpired,
    AzureRefused,
    MediaUnusable,
    RunStopped,
    TryAgainLater,
    VsaError,
)
from vsa.model import SourceDisk
from vsa.ranges import GIB
from vsa.text import age_text, size_text

DEFAULT_PRICE = 0.05
"""US dollars for a GiB and month: Azure's list price of snapshots on Standard HDD, where incremental ones are
kept, with local redundancy in its cheaper regions (azure.microsoft.com/pricing/details/managed-disks).
Snapshots and staging blobs of premium page blobs cost more."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a GiB costs in a month, in US dollars."""

    per_gib_month: float = DEFAULT_PRICE

    def of(self, size: int) -> float:
        return size / GIB * self.per_gib_month


class Thing(StrEnum):
    """What a run can leave in Azure."""

    SNAPSHOT = "snapshot"
    GRANT = "access grant"
    STAGING_BLOB = "staging blob"


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing in Azure that nobody needs.

    `name` is the snapshot's (of a VHD: its moment) or the blob's URL; `since` is when it was made, as far as
    that is known. `size` is what it can hold at most, in bytes, `used` what it is known to hold: Azure bills
    that, and says it only in its bills.
    """

    thing: Thing
    name: str
    disk: SourceDisk
    run: str
    since: dt.datetime | None
    size: int = 0
    used: int | None = None

    @property
    def identity(self) -> tuple[str, ...]:
        return self.thing, self.disk.key, self.name.lower()

    @property
    def billed(self) -> int:
        """Bytes to reckon with: those used, or else all that it can hold. A grant costs nothing by itself."""
        if self.thing is Thing.GRANT:
            return 0
        return self.size if self.used is None else self.used

    def text(self, now: dt.datetime, price: Price) -> str:
        of = "to snapshot " if self.thing is Thing.GRANT else ""
        age = f", {age_of(self.since, now)} old" if self.since else ""
        return (
            f"{self.thing} {of}{self.name} of disk {self.disk.name} (run {self.run}{age}{self._cost(price)})"
        )

    def _cost(self, price: Price) -> str:
        return f", {size_text(self.billed)}, {money(price.of(self.billed))} a month" if self.billed else ""


def money(dollars: float) -> str:
    """`about 1.20 USD`"""
    return "below 0.01 USD" if dollars < 0.01 else f"about {dollars:.2f} USD"


def age_of(moment: dt.datetime, now: dt.datetime) -> str:
    """`47 hours`"""
    return age_text((now - moment).total_seconds())


def bill(items: Iterable[Leftover], price: Price) -> float:
    """US dollars a month for all of them, estimated."""
    return sum(price.of(item.billed) for item in items)


def total_text(items: Iterable[Leftover], now: dt.datetime, price: Price) -> str:
    """How much is left, since when, and what it costs; empty if nothing is."""
    left = list(items)
    if not left:
        return ""
    made = [item.since for item in left if item.since]
    oldest = f", the oldest {age_of(min(made), now)} old" if made else ""
    things = f"{len(left)} thing{'' if len(left) == 1 else 's'}"
    return (
        f"{things}{oldest}, {money(bill(left, price))} a month: an estimate at {price.per_gib_month:g} USD "
        "for a GiB, by the size of the disk where nothing tells how much is used"
    )


_ADVICE = {
    "ScopeLocked": "a lock keeps it, somebody must remove the lock",
    "ReadOnlyDisabledSubscription": "the subscription is disabled, somebody must enable it",
    "RequestDisallowedByPolicy": "a policy keeps it, somebody must exempt it",
    "BlobImmutableDueToPolicy": "an immutability policy keeps it until it ends, or somebody ends it",
    "DenyAssignmentAuthorizationFailed": "a deny assignment keeps it, somebody must lift that",
    "LeaseIdMissing": "a lease keeps it, somebody must break the lease",
    "AuthorizationFailure": "the storage account's network rules or the identity's rights forbid it",
}
"""By Azure's error codes: what keeps a thing until somebody does something. Sources:
learn.microsoft.com/azure/azure-resource-manager/troubleshooting/common-deployment-errors and
learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes."""


def pending_text(disk: str, error: VsaError, *more: VsaError) -> str:
    """That a disk is not clear, why, and whose turn it is."""
    others = f" (and {len(more)} more refusals)" if more else ""
    return f"cleanup pending for disk {disk}: {advice_on(error)}: {error}{others}"


def advice_on(error: VsaError) -> str:
    """Why something was not removed, and whose turn it is: a person's, or the next sweep's."""
    if isinstance(error, AzureRefused) and error.code in _ADVICE:
        return _ADVICE[error.code]
    if isinstance(error, AccessDenied):
        return "a right is missing, somebody must give it to this identity"
    if isinstance(error, (TryAgainLater, AccessExpired)):
        return "Azure did not do it now, the next sweep tries again"
    if isinstance(error, RunStopped):
        return "there was no time left for it, the next job or sweep does it"
    if isinstance(error, MediaUnusable):
        return "the media takes no entry"
    return "it was refused, the next sweep tries again"
