"""What a prune deletes without a doom entry, since nothing refers to it any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vsa.media import layout, signs
from vsa.media.layout import KEYS
from vsa.media.media import Media
from vsa.media.view import View
from vsa.upkeep import checkpoints


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
    numbers = {name: layout.key_number(name) for name in media.store.names(KEYS)}
    retired = (name for name, number in numbers.items() if number is not None and number < view.key)
    return Superseded(
        keys=tuple(sorted(retired)),
        checkpoints=tuple(checkpoints.superseded(media, view)),
        signs=tuple(signs.superseded(beside, view)),
    )
