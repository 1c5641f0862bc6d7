"""What an actor asks of the world: the only points at which others may come between.

An actor is a generator of these calls. The explorer answers them from a model of the store; a scheduled store
around a real one can answer the same calls from threads that run the engine itself.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, NamedTuple

from tests.protocol.model import Entry, Frame, Stored


class Answer(Enum):
    """How a create ended for its caller. UNCLEAR: done unheard, lost, or still on its way."""

    DONE = "done"
    REFUSED = "refused"
    UNCLEAR = "unclear"


class ReadLog(NamedTuple):
    """Answered with the view up to the head. Slots never change, so reading them one by one says the same
    as reading all at once at the moment when the head is found free."""


class ListNames(NamedTuple):
    """Answered with the names of all objects that exist, but for the log's."""


class LookUp(NamedTuple):
    """Answered with (content, frame) of every frame in those of the packs that have been stored: what digest
    shards say, and what streams of one process tell each other."""

    packs: tuple[str, ...]


class Fetch(NamedTuple):
    """Answered with the content of each frame; None where it is gone or does not match its digest."""

    frames: tuple[Frame, ...]


class Create(NamedTuple):
    """Create an object if its name is free; answered with an Answer."""

    stored: Stored


class Put(NamedTuple):
    """Create a slot of the log if it is free; answered with an Answer."""

    slot: int
    entry: Entry


class Delete(NamedTuple):
    """Answered with nothing: an object that is gone already is as good."""

    name: str


class Decay(NamedTuple):
    """The environment spoils a stored frame."""

    frame: Frame


class FreeSlots(NamedTuple):
    """Delete the log's slots but the last, as a checkpoint holds them: what rule R1 forbids."""


Call = ReadLog | ListNames | LookUp | Fetch | Create | Put | Delete | Decay | FreeSlots
Program = Generator[Call, Any, "Episode | None"]


class Episode(NamedTuple):
    """A stretch of an actor's life: its body, and all that it remembers from before.

    Bodies end by returning the next episode. Whatever differs in the past of two actors but not in the
    memory of their episodes makes no difference to what they do, and the explorer treats them as one.
    """

    body: Callable[..., Program]
    memory: tuple[Any, ...] = ()
