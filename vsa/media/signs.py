"""Signs of life: small objects by which a run says now and then that it goes on (docs/media-format.md).

Liveness only: no rule that protects data asks for them, nothing refers to them, and who cannot give or read
one goes on without. Each run numbers its own, so the newest is known by its name.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import AwareDatetime, Field

from vsa.errors import MediaDamaged, TryAgainLater, VsaError
from vsa.media import documents, layout
from vsa.media.media import Media
from vsa.media.view import View
from vsa.model import Noun

LONGEST_SPACING_SECONDS = 3600
"""A sweep that doubts a run waits for twice its spacing: nobody may make it wait for days."""
SILENT_AFTER = dt.timedelta(hours=3)
"""A run is silent when its last sign of life is older: longer than a media is away, or a machine asleep."""
SIGNS_MISSED = 4
"""So many signs must be missing as well, however far apart the run gives them."""
MOST_READ = 20
"""Of a run's signs, beginning with the newest: so many that cannot be read are passed over."""

_log = logging.getLogger(__name__)


class Sign(Noun):
    """That the run was alive at `at`, by its own clock, and would say so again within `every_seconds`."""

    run: str
    number: int = Field(ge=0)
    at: AwareDatetime
    every_seconds: int = Field(ge=1, le=LONGEST_SPACING_SECONDS)


def give(media: Media, sign: Sign) -> None:
    """Store it. MediaConflict if the run has used that number before: take the next one."""
    media.store.create(layout.sign(sign.run, sign.number), [documents.encode(sign)])


@dataclass(frozen=True, slots=True)
class Heard:
    """What a run has said: its last sign that can be read and trusted, None if there is none, and the highest
    number that a listing shows. That one proves by its name that the run went on, whatever is in it."""

    last: Sign | None
    highest: int


def heard(media: Media, run: str) -> Heard | None:
    """What a listing shows of the run; None if it shows no sign. It may miss some: then the run looks more
    silent than it is."""
    names = media.store.names(layout.signs(run))
    numbers = sorted((found[1] for name in names if (found := layout.sign_of(name))), reverse=True)
    readable = (_read(media, run, number) for number in numbers[:MOST_READ])
    return Heard(next(filter(None, readable), None), numbers[0]) if numbers else None


def _read(media: Media, run: str, number: int) -> Sign | None:
    try:
        return read(media, run, number)
    except TryAgainLater:
        raise
    except VsaError as error:
        _log.warning("a sign of life is passed over: %s", error)
        return None


def read(media: Media, run: str, number: int) -> Sign:
    """One of them; MediaDamaged if it was altered, is another one or is not there."""
    name = layout.sign(run, number)
    sign = documents.decode(media.store.read(name, limit=layout.MAX_DOCUMENT_SIZE), Sign, name)
    if (sign.run, sign.number) != (run, number):
        raise MediaDamaged(f"{name} says that it is sign {sign.number} of run {sign.run}")
    return sign


def is_silent(sign: Sign, now: dt.datetime) -> bool:
    """Whether the run should have given another sign long ago, if both clocks are right."""
    missed = dt.timedelta(seconds=SIGNS_MISSED * sign.every_seconds)
    return now - sign.at > max(SILENT_AFTER, missed)


def is_fresh(sign: Sign, now: dt.datetime) -> bool:
    """Whether the run lives by this sign: neither old nor too far ahead of the clock here to tell."""
    return not is_silent(sign, now) and sign.at - now < SILENT_AFTER


def superseded(names: Iterable[str], view: View) -> list[str]:
    """The signs among the names that pruning may delete: those of runs whose end the log knows. That needs no
    doom entry, since nothing refers to them."""
    over = view.committed.keys() | view.fenced
    return [name for name in names if (found := layout.sign_of(name)) and found[0] in over]
