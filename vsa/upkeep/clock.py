"""Whether this machine's clock may be asked how long ago something was."""

from __future__ import annotations

import datetime as dt

from vsa.errors import BadRequest
from vsa.media.view import View

TOLERANCE = dt.timedelta(minutes=5)


def require_clock(view: View, now: dt.datetime, *, trusted: bool) -> None:
    """BadRequest if the log was written later than now: either this clock is wrong or a writer's was.

    `trusted` says that somebody has looked, and that `now` is right.
    """
    latest = latest_time(view)
    if not trusted and latest is not None and latest > now + TOLERANCE:
        raise BadRequest(
            f"the log has an entry of {latest.isoformat(timespec='seconds')}, but it is "
            f"{now.isoformat(timespec='seconds')} here: set the clock; or say that this one is to be trusted"
        )


def latest_time(view: View) -> dt.datetime | None:
    """The latest time that a point, a job or a forgetting was written at, by its writer's clock."""
    times = [*(made.time for made in view.points.values()), *(item.time for item in view.jobs.values())]
    return max([*times, *view.forgotten.values()], default=None)
