"""A state of the world, and every state that may follow it.

States are tuples of small integers: objects as a bit set, logs and actors' lives by number. What an actor
does next is worked out once for each life that differs, by running its generator again on the answers that it
has had.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple, Protocol

from tests.protocol.calls import (
    Answer,
    Call,
    Create,
    Decay,
    Delete,
    Episode,
    Fetch,
    FreeSlots,
    ListNames,
    LookUp,
    Put,
    ReadLog,
)
from tests.protocol.model import Entry, Frame, Pack, Rules, Stored, View
from tests.protocol.verdicts import disorder, loss


class Role(Protocol):
    def first(self) -> Episode: ...


@dataclass(frozen=True)
class Scenario:
    """Who meets on which media. `unclear` says how many of its creates may end unclear, for each actor by
    position: (slots of the log, other objects); actors beyond its end have none."""

    title: str
    stored: tuple[Stored, ...]
    log: tuple[Entry, ...]
    actors: tuple[Role, ...]
    unclear: tuple[tuple[int, int], ...] = ()


class State(NamedTuple):
    objects: int
    log: int
    rotten: frozenset[Frame]
    flying: frozenset[Any]
    lives: tuple[int, ...]
    budgets: tuple[tuple[int, int], ...]
    freed: int


class Life(NamedTuple):
    """What one actor has come to: the answers that it has had in its present episode."""

    actor: int
    episode: Episode | None
    answers: tuple[Any, ...]


class World:
    """The transitions of one scenario under one set of rules."""

    def __init__(self, scenario: Scenario, rules: Rules) -> None:
        self.scenario = scenario
        self.rules = rules
        self._bits: dict[Stored, int] = {}
        self._values: list[Stored] = []
        self._contents: dict[int, dict[str, Stored]] = {}
        self._logs: dict[tuple[Entry, ...], int] = {}
        self._views: list[View] = []
        self._lives: dict[Life, int] = {}
        self._known: list[Life] = []
        self._calls: list[Call | None] = []
        self._steps: dict[tuple[int, Any], int] = {}
        self._losses: dict[tuple[int, int, frozenset[Frame]], str | None] = {}
        self._disorders: dict[int, str | None] = {}

    def start(self) -> State:
        objects = 0
        for stored in self.scenario.stored:
            objects |= self._bit(stored)
        actors = self.scenario.actors
        lives = tuple(self._life(Life(number, role.first(), ())) for number, role in enumerate(actors))
        budgets = tuple(self.scenario.unclear) + ((0, 0),) * (len(actors) - len(self.scenario.unclear))
        return State(objects, self._log(self.scenario.log), frozenset(), frozenset(), lives, budgets, 0)

    def fault(self, state: State, *, losses_only: bool) -> str | None:
        key = (state.log, state.objects, state.rotten)
        if key not in self._losses:
            self._losses[key] = loss(self._views[state.log], self._stored(state.objects), state.rotten)
        if self._losses[key] or losses_only:
            return self._losses[key]
        if state.log not in self._disorders:
            self._disorders[state.log] = disorder(self._views[state.log])
        return self._disorders[state.log]

    def successors(self, state: State) -> Iterator[tuple[Any, State]]:
        """Each step that may come next: (who, what, how it ended), and where it leads."""
        for actor, life in enumerate(state.lives):
            call = self._calls[life]
            if call is not None:
                yield from self._made(state, actor, call)
        for item in state.flying:
            if (after := self._landed(state, item)) is not None:
                yield ("late", item, Answer.DONE), after

    def describe(self, step: Any) -> str:
        who, what, answer = step
        role = who if who == "late" else self.scenario.actors[who]
        name = getattr(role, "run", None) or getattr(role, "by", role)
        return f"{name}: {what!r}" + (f" -> {answer.value}" if isinstance(answer, Answer) else "")

    def log_of(self, state: State) -> tuple[Entry, ...]:
        return self._views[state.log].entries

    def names_in(self, state: State) -> list[str]:
        return sorted(self._stored(state.objects))

    def orders(self) -> frozenset[tuple[str, str]]:
        """Pairs of "<who> <what>" of which the first stands before the second in a log met so far."""
        before = len(self.scenario.log)
        said = {tuple(f"{e[0]} {type(e).__name__}" for e in view.entries[before:]) for view in self._views}
        return frozenset(pair for deeds in said for pair in combinations(deeds, 2))

    # -- steps

    def _made(self, state: State, actor: int, call: Call) -> Iterator[tuple[Any, State]]:
        match call:
            case Put():
                yield from self._put(state, actor, call)
            case Create():
                yield from self._created(state, actor, call)
            case _:
                changed, answer, key = self._answered(state, call)
                yield (actor, call, None), self._resumed(changed, actor, answer, key)

    def _answered(self, state: State, call: Call) -> tuple[State, Any, Any]:
        """The state after a call that has one outcome, its answer, and what tells answers apart."""
        match call:
            case ReadLog():
                return state, self._views[state.log], state.log
            case Delete() | Decay() | FreeSlots():
                return self._changed(state, call), None, None
            case ListNames():
                answer: Any = frozenset(self._stored(state.objects))
            case LookUp(packs=packs):
                answer = tuple(self._looked_up(state, packs))
            case Fetch(frames=frames):
                answer = tuple(self._fetched(state, frame) for frame in frames)
            case _:
                raise AssertionError(call)
        return state, answer, answer

    def _changed(self, state: State, call: Delete | Decay | FreeSlots) -> State:
        there = self._stored(state.objects)
        match call:
            case Delete(name=name) if name in there:
                return state._replace(objects=state.objects & ~self._bit(there[name]))
            case Decay(frame=frame) if frame.pack in there:
                return state._replace(rotten=state.rotten | {frame})
            case FreeSlots():
                return state._replace(freed=self._views[state.log].head - 1)
        return state

    def _looked_up(self, state: State, packs: tuple[str, ...]) -> Iterator[tuple[str, Frame]]:
        known = list(self._stored(state.objects).values())
        if not self.rules.sharing_waits_until_durable:
            known += [item.stored for item in state.flying if isinstance(item, Create)]
        for pack in known:
            if isinstance(pack, Pack) and pack.name in packs:
                yield from ((content, Frame(pack.name, n)) for n, content in enumerate(pack.contents))

    def _fetched(self, state: State, frame: Frame) -> str | None:
        pack = self._stored(state.objects).get(frame.pack)
        if not isinstance(pack, Pack):
            return None
        if frame in state.rotten:
            return None if self.rules.copies_are_proven else "spoilt"
        return pack.contents[frame.number]

    def _put(self, state: State, actor: int, call: Put) -> Iterator[tuple[Any, State]]:
        if call.slot != self._views[state.log].head:
            yield (actor, call, Answer.REFUSED), self._resumed(state, actor, Answer.REFUSED)
        else:
            grown = self._grown(state, call.entry)
            yield (actor, call, Answer.DONE), self._resumed(grown, actor, Answer.DONE)
        slots, objects = state.budgets[actor]
        if slots:
            flying = state._replace(
                flying=self._in_flight(state, call), budgets=_spent(state, actor, (slots - 1, objects))
            )
            yield (actor, call, Answer.UNCLEAR), self._resumed(flying, actor, Answer.UNCLEAR)

    def _created(self, state: State, actor: int, call: Create) -> Iterator[tuple[Any, State]]:
        if call.stored.name in self._stored(state.objects):
            yield (actor, call, Answer.REFUSED), self._resumed(state, actor, Answer.REFUSED)
            return
        there = state._replace(objects=state.objects | self._bit(call.stored))
        yield (actor, call, Answer.DONE), self._resumed(there, actor, Answer.DONE)
        slots, objects = state.budgets[actor]
        if objects:
            flying = state._replace(
                flying=state.flying | {call}, budgets=_spent(state, actor, (slots, objects - 1))
            )
            yield (actor, call, Answer.UNCLEAR), self._resumed(flying, actor, Answer.UNCLEAR)

    def _landed(self, state: State, item: Put | Create) -> State | None:
        """A create that was on its way arrives; None if nothing can come of it any more."""
        rest = state.flying - {item}
        if isinstance(item, Create):
            return state._replace(objects=state.objects | self._bit(item.stored), flying=rest)
        if item.slot == self._views[state.log].head or item.slot < state.freed:
            return self._grown(state._replace(flying=rest), item.entry)
        return None

    def _grown(self, state: State, entry: Entry) -> State:
        log = self._log((*self._views[state.log].entries, entry))
        return state._replace(log=log, flying=self._alive(state.flying, self._views[log].head))

    def _in_flight(self, state: State, call: Put) -> frozenset[Any]:
        return self._alive(state.flying | {call}, self._views[state.log].head)

    def _alive(self, flying: frozenset[Any], head: int) -> frozenset[Any]:
        """A slot that is taken is never free again, so what is on its way there means nothing any more."""
        if not flying or not self.rules.slots_are_never_freed:
            return flying
        return frozenset(item for item in flying if isinstance(item, Create) or item.slot >= head)

    # -- lives

    def _resumed(self, state: State, actor: int, answer: Any, key: Any = None) -> State:
        life = state.lives[actor]
        step = (life, answer if key is None else key)
        after = self._steps.get(step)
        if after is None:
            known = self._known[life]
            after = self._steps[step] = self._life(known._replace(answers=(*known.answers, answer)))
        lives = (*state.lives[:actor], after, *state.lives[actor + 1 :])
        return state._replace(lives=lives)

    def _life(self, life: Life) -> int:
        """The number of a life that waits for an answer; ended episodes are followed to their successors."""
        call: Call | None = None
        while life.episode is not None:
            call, following = self._replayed(life)
            if call is not None:
                break
            life = Life(life.actor, following, ())
        if life not in self._lives:
            self._lives[life] = len(self._known)
            self._known.append(life)
            self._calls.append(call)
        return self._lives[life]

    def _replayed(self, life: Life) -> tuple[Call | None, Episode | None]:
        assert life.episode is not None
        role = self.scenario.actors[life.actor]
        program = life.episode.body(role, self.rules, *life.episode.memory)
        try:
            call = next(program)
            for answer in life.answers:
                call = program.send(answer)
        except StopIteration as end:
            return None, end.value
        program.close()
        return call, None

    # -- numbers for values

    def _bit(self, stored: Stored) -> int:
        if stored not in self._bits:
            self._bits[stored] = 1 << len(self._values)
            self._values.append(stored)
        return self._bits[stored]

    def _stored(self, objects: int) -> dict[str, Stored]:
        if objects not in self._contents:
            values = (value for number, value in enumerate(self._values) if objects >> number & 1)
            self._contents[objects] = {value.name: value for value in values}
        return self._contents[objects]

    def _log(self, entries: tuple[Entry, ...]) -> int:
        if entries not in self._logs:
            self._logs[entries] = len(self._views)
            self._views.append(View(entries, self.rules))
        return self._logs[entries]


def _spent(state: State, actor: int, left: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return (*state.budgets[:actor], left, *state.budgets[actor + 1 :])
