"""Whether this machine's clock may be asked how long ago something was."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from vsa.errors import BadRequest
from vsa.media import layout
from vsa.media.view import View

TOLERANCE = dt.timedelta(minutes=5)


def require_clock(view: View, now: dt.datetime, *, trusted: bool) -> None:
    """BadRequest if the log was written later than now, unless somebody has looked and it is right."""
    if not trusted and (complaint := clock_complaint(view, now)):
        raise BadRequest(complaint)


def believed_until(now: dt.datetime, *, trusted: bool) -> dt.datetime | None:
    """After when times in the log are wrong, if it is known that `now` is right."""
    return now + TOLERANCE if trusted else None


def clock_complaint(view: View, now: dt.datetime) -> str:
    """Empty, unless an entry says that it was written later than now: then this clock is wrong, or its
    writer's was."""
    latest = view.latest
    if latest is None or latest.time <= now + TOLERANCE:
        return ""
    return _contradicted(latest.slot, "says that it was written at", latest.time, now)


def snapshot_complaint(taken: Iterable[tuple[int, dt.datetime]], now: dt.datetime) -> str:
    """Empty, unless a point's snapshots were taken later than now, by slots and times. Where the clocks of
    writers are behind as well, nothing else in the log shows that this one is."""
    slot, latest = max(taken, key=lambda item: item[1], default=(0, now))
    if latest <= now + TOLERANCE:
        return ""
    return _contradicted(slot, "names a snapshot that was taken at", latest, now)


def _contradicted(slot: int, how: str, said: dt.datetime, now: dt.datetime) -> str:
    return (
        f"{layout.slot(slot)} {how} {said.isoformat(timespec='seconds')}, "
        f"but it is {now.isoformat(timespec='seconds')} here: set the clock of this machine; or, if it is "
        "right, say so with --trust-clock: then times in the log that lie after it count for nothing"
    )
