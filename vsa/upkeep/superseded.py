"""What a prune deletes without a doom entry, since nothing refers to it any more."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from vsa.media import layout, signs
from vsa.media.layout import KEYS
from vsa.media.media import Media
from vsa.media.view import View
from vsa.upkeep import checkpoints

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Superseded:
    """Key documents that a rotation has retired, checkpoints that newer ones stand for or that nobody can
    or should believe, and signs of life of runs that are over, by name."""

    keys: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.checkpoints, *self.keys, *self.signs)


def superseded(media: Media, view: View, beside: Iterable[str]) -> Superseded:
    """What is there of it, as listings show it; `beside` are the names below `runs/` that no entry dooms.

    `view` is what the log itself says.
    """
    return Superseded(
        keys=tuple(sorted(_retired(media, view))),
        checkpoints=tuple(checkpoints.superseded(media, view)),
        signs=tuple(signs.superseded(beside, view)),
    )


def _retired(media: Media, view: View) -> list[str]:
    """The key documents that may go; none as long as of those that replace them no sound one is there."""
    numbers = {name: layout.key_number(name) for name in media.store.names(KEYS)}
    retired = [name for name, number in numbers.items() if number is not None and number < view.key]
    if retired and not any(document.number >= view.key for document in media.key_ring.documents()[0]):
        _log.warning("retired keys stay: key document %d, or a later one, cannot be read", view.key)
        return []
    return retired
