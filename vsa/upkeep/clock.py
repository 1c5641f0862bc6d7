"""Whether this machine's clock may be asked how long ago something was."""

from __future__ import annotations

import datetime as dt

from vsa.errors import BadRequest
from vsa.media.view import View

TOLERANCE = dt.timedelta(minutes=5)


def require_clock(view: View, now: dt.datetime, *, trusted: bool) -> None:
    """BadRequest if the log was written later than now, unless somebody has looked and it is right."""
    if not trusted and (complaint := clock_complaint(view, now)):
        raise BadRequest(complaint)


def clock_complaint(view: View, now: dt.datetime) -> str:
    """Empty, unless the log was written later than now: then this clock is wrong, or a writer's was."""
    latest = latest_time(view)
    if latest is None or latest <= now + TOLERANCE:
        return ""
    return (
        f"the log has an entry of {latest.isoformat(timespec='seconds')}, but it is "
        f"{now.isoformat(timespec='seconds')} here: set the clock; or say that this one is to be trusted"
    )


def latest_time(view: View) -> dt.datetime | None:
    """The latest time that a point, a job or a forgetting was written at, by its writer's clock."""
    times = [*(made.time for made in view.points.values()), *(item.time for item in view.jobs.values())]
    return max([*times, *view.forgotten.values()], default=None)
