"""What a prune deletes without a doom entry, since nothing refers to it any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vsa.media import layout, recall, signs
from vsa.media.layout import CHECKPOINTS, KEYS
from vsa.media.media import Media
from vsa.media.view import View


@dataclass(frozen=True)
class Superseded:
    """Key documents that a rotation has retired, checkpoints that newer ones stand for or that nobody can
    believe, and signs of life of runs that are over, by name."""

    keys: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.checkpoints, *self.keys, *self.signs)


def superseded(media: Media, view: View, beside: Iterable[str]) -> Superseded:
    """What is there of it, as listings show it; `beside` are the names below `runs/` that no entry dooms."""
    store = media.store
    numbers = {name: layout.key_number(name) for name in store.names(KEYS)}
    retired = (name for name, number in numbers.items() if number is not None and number < view.key)

    def is_bad(slot: int) -> bool:
        return bool(recall.misfit(store, slot, media.id))

    return Superseded(
        keys=tuple(sorted(retired)),
        checkpoints=tuple(recall.superseded(store.names(CHECKPOINTS), head=view.head, is_bad=is_bad)),
        signs=tuple(signs.superseded(beside, view)),
    )
