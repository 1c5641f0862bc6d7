"""Real code under a scheduler: who may make its next call to the store is drawn, and so is what it hears.

Each actor is a thread that waits before every call until it is let through; nothing else moves
meanwhile. So an interleaving is a sequence of draws, and a seed repeats it.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeVar

from tests.media.around_store import AroundStore
from vsa.errors import MediaConflict, TryAgainLater, VsaError
from vsa.media.store import Buffer, Store

T = TypeVar("T")


class Fate(Enum):
    """What becomes of one call."""

    DONE = "done"
    DIES = "the actor dies before it"
    LOST = "done, the answer is lost"
    TWICE = "sent twice: done, then refused"
    LATE = "unanswered, done later or never"


ONLY_CREATES = (Fate.TWICE, Fate.LATE)


class Died(BaseException):
    """An actor is dead. Its threads end here, and nothing that they try on the way reaches the store."""


@dataclass
class _Actor:
    name: str
    work: Callable[[Store], Any]
    thread: threading.Thread | None = None
    asks: tuple[str, str] | None = None
    fate: Fate | None = None
    ended: bool = False
    dead: bool = False
    pace: int = 1
    result: Any = None
    error: BaseException | None = None
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Of an actor's own threads one at a time waits to be let through."""


@dataclass
class Played:
    """What happened: the calls in order, and how each actor ended."""

    trace: list[tuple[str, str, str, Fate]] = field(default_factory=list)
    endings: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[tuple[str, str, str, str], ...]:
        """The interleaving without its random names."""
        return tuple((who, method, _kind(name), fate.name) for who, method, name, fate in self.trace)


class Schedule:
    """One play of some actors on one store; at most `faults` calls have another fate than done."""

    def __init__(self, store: Store, choose: random.Random, *, faults: int) -> None:
        self._store = store
        self._choose = choose
        self._faults = faults
        self._changed = threading.Condition()
        self._actors: list[_Actor] = []
        self._late: list[Callable[[], None]] = []
        self.played = Played()

    def play(self, actors: dict[str, Callable[[Store], Any]]) -> Played:
        """Let all actors run to their end, or die; then late calls land, or never do."""
        self._actors = [_Actor(name, work) for name, work in actors.items()]
        self._draw_paces()
        for actor in self._actors:
            actor.thread = threading.Thread(target=self._run, args=(actor,), name=actor.name, daemon=True)
            actor.thread.start()
        while (waiting := self._waiting()) is not None:
            self._step(waiting)
        while self._late:
            self._land()
        for actor in self._actors:
            assert actor.thread is not None
            actor.thread.join(60)
            assert not actor.thread.is_alive(), f"{actor.name} hangs"
            self._note_end(actor)
        return self.played

    def _waiting(self) -> list[_Actor] | None:
        """The actors that wait to be let through, once nobody else moves; None if all have ended."""
        with self._changed:
            settled = self._changed.wait_for(
                lambda: all(actor.ended or (actor.asks and not actor.fate) for actor in self._actors), 60
            )
            assert settled, [actor.name for actor in self._actors if not actor.ended and not actor.asks]
            waiting = [actor for actor in self._actors if not actor.ended]
        return waiting or None

    def _step(self, waiting: list[_Actor]) -> None:
        if self._late and self._choose.random() < 0.2:
            self._land()
            return
        if self._choose.random() < 0.04:
            self._draw_paces()
        (actor,) = self._choose.choices(waiting, [item.pace for item in waiting])
        assert actor.asks is not None
        fate = self._fate(actor.asks[0])
        self.played.trace.append((actor.name, *actor.asks, fate))
        with self._changed:
            actor.fate = fate
            self._changed.notify_all()

    def _draw_paces(self) -> None:
        """Some are slow for a while and others quick: at one pace for all, they would seldom overtake each
        other at the places that matter."""
        for actor in self._actors:
            actor.pace = self._choose.choice([1, 4, 16, 64])

    def _fate(self, method: str) -> Fate:
        if self._faults == 0 or self._choose.random() > 0.06:
            return Fate.DONE
        fate = self._choose.choice([item for item in Fate if item is not Fate.DONE])
        if method not in ("create", "delete") and fate is not Fate.DIES:
            return Fate.DONE
        if method != "create" and fate in ONLY_CREATES:
            return Fate.DONE
        self._faults -= 1
        return fate

    def _land(self) -> None:
        """One of the calls that nobody waits for any more: it has its effect now, or never."""
        action = self._late.pop(self._choose.randrange(len(self._late)))
        if self._choose.random() < 0.7:
            self.played.trace.append(("late", "create", "", Fate.DONE))
            try:
                action()
            except VsaError:
                # Somebody else has taken the name; nobody is there to be told.
                return

    def _run(self, actor: _Actor) -> None:
        try:
            actor.result = actor.work(_Gate(self, actor, self._store))
        except BaseException as error:  # noqa: BLE001 - a death is no error, and any error is judged later
            actor.error = error
        finally:
            with self._changed:
                actor.ended = True
                self._changed.notify_all()

    def _note_end(self, actor: _Actor) -> None:
        if isinstance(actor.error, Exception) and not isinstance(actor.error, VsaError):
            raise actor.error
        error = actor.error
        self.played.endings[actor.name] = "done" if error is None else type(error).__name__
        self.played.results[actor.name] = actor.result

    def pass_through(self, actor: _Actor, method: str, name: str, call: Callable[[], T]) -> T:
        """Wait to be let through, and meet the fate that was drawn."""
        with actor.turn, self._changed:
            if actor.dead:
                raise Died
            actor.asks = method, name
            self._changed.notify_all()
            self._changed.wait_for(lambda: actor.fate is not None)
            fate, actor.fate, actor.asks = actor.fate, None, None
            actor.dead = fate is Fate.DIES
        return self._meet(fate, name, call)

    def _meet(self, fate: Fate | None, name: str, call: Callable[[], T]) -> T:
        match fate:
            case Fate.DIES:
                raise Died
            case Fate.LATE:
                self._late.append(call)
                raise TryAgainLater(f"{name}: no answer")
            case Fate.LOST:
                call()
                raise TryAgainLater(f"{name}: the answer was lost")
            case Fate.TWICE:
                call()
                raise MediaConflict(f"{name} exists already")
        return call()


class _Gate(AroundStore):
    """The store as one actor sees it."""

    def __init__(self, schedule: Schedule, actor: _Actor, store: Store) -> None:
        super().__init__(store)
        self._schedule = schedule
        self._actor = actor

    def create(self, name: str, parts: Sequence[Buffer]) -> None:
        # A late create has its effect when its caller's buffers are long used for something else.
        super().create(name, [bytes(part) for part in parts])

    def prepare_for_writing(self) -> None:
        """Nothing to prove: the folder below has been."""

    def _do(self, method: str, name: str, call: Callable[[], T]) -> T:
        return self._schedule.pass_through(self._actor, method, name, call)


class Coverage:
    """What a number of plays has seen, for people who ask how much was looked at."""

    def __init__(self) -> None:
        self.shapes: set[Any] = set()
        self.plays = self.calls = 0
        self.fates: Counter[str] = Counter()
        self.endings: Counter[str] = Counter()

    def add(self, played: Played) -> None:
        self.plays += 1
        self.calls += len(played.trace)
        self.shapes.add(played.shape)
        self.fates.update(fate.value for *_, fate in played.trace if fate is not Fate.DONE)
        self.endings.update(f"{who}: {how}" for who, how in played.endings.items())

    def __str__(self) -> str:
        lines = [f"{self.plays} plays, {len(self.shapes)} different interleavings, {self.calls} calls"]
        lines += [f"  {count:5} x {what}" for what, count in self.fates.most_common()]
        lines += [f"  {count:5} x {what}" for what, count in sorted(self.endings.items())]
        return "\n".join(lines)


def _kind(name: str) -> str:
    """A name without what is random in it."""
    parts = name.split("/")
    return "/".join(parts[:1] + parts[2:3]) if parts[0] == "runs" else name
