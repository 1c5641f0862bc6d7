"""What the log means: where frames are, what points need, what may follow."""

from __future__ import annotations

import pytest

from tests.protocol.admission import admits
from tests.protocol.model import (
    Damage,
    Doom,
    Entry,
    Forget,
    Frame,
    Index,
    Point,
    Relocate,
    Rules,
    Table,
    Unforget,
    View,
)

X, Y, Z = Frame("X/p"), Frame("Y/p"), Frame("Z/p")
OLD = Point("0", (Index("0/i", ((0, X),)),), ("a",))


def _view(*entries: Entry, rules: Rules | None = None) -> View:
    return View(entries, rules or Rules())


def _moved(run: str, source: Frame, target: Frame) -> Relocate:
    return Relocate(run, Table(f"{run}/t", ((source, target),)))


def test_a_point_needs_its_indexes_and_the_packs_of_visible_rows() -> None:
    shadowed = Point("1", (*OLD.indexes, Index("1/i", ((0, Y),))), ("b",))
    assert _view(shadowed).needs(shadowed) == {"0/i", "1/i", "Y/p"}


def test_a_point_needs_the_tables_that_lead_to_its_frames_and_not_what_these_left() -> None:
    view = _view(OLD, _moved("F", X, Y), _moved("G", Y, Z))
    assert view.needs(OLD) == {"0/i", "F/t", "G/t", "Z/p"}


def test_a_relocation_also_moves_rows_of_points_that_come_later() -> None:
    late = Point("L", (Index("L/i", ((0, X),)),), ("a",))
    assert _view(_moved("F", X, Y), late).contents(late) == {0: Y}


def test_relocations_apply_once_each_in_the_order_of_their_slots() -> None:
    assert _view(_moved("F", Y, Z), _moved("G", X, Y)).resolve(X) == (Y, ("G/t",))


def test_folding_both_ways_would_bind_a_frame_to_tables_for_ever() -> None:
    """Why sources and targets must be current: no merging of indexes could set such tables free."""
    assert _view(_moved("F", X, Z), _moved("G", Z, X)).resolve(X) == (X, ("F/t", "G/t"))
    assert not admits(_view(_moved("F", X, Z)), _moved("G", Z, X))


def test_a_point_that_resolves_to_something_doomed_is_not_admitted() -> None:
    view = _view(Doom("P", ("X",), ("X/p",)))
    assert not admits(view, OLD)
    assert admits(_view(_moved("F", X, Y), Doom("P", ("X",), ("X/p",))), OLD)


@pytest.mark.parametrize(
    "doom", [Doom("P", objects=("0/i",)), Doom("P", points=("0",)), Doom("P", fenced=("0",))], ids=repr
)
def test_nothing_of_a_point_that_is_not_forgotten_may_be_doomed(doom: Doom) -> None:
    assert not admits(_view(OLD), doom)


def test_a_forgotten_point_keeps_its_objects_until_it_is_given_up() -> None:
    view = _view(OLD, Forget("P", "0"))
    assert not admits(view, Doom("P", objects=("0/i",)))
    assert admits(view, Doom("P", objects=("0/i",), points=("0",)))


def test_what_was_given_up_is_not_called_back() -> None:
    forgotten = (OLD, Forget("P", "0"))
    assert admits(_view(*forgotten), Unforget("U", "0"))
    assert not admits(_view(*forgotten, Doom("P", points=("0",))), Unforget("U", "0"))


def test_nothing_new_refers_to_a_damaged_frame_but_a_child_may_carry_it_on() -> None:
    view = _view(OLD, Damage("E", (X,)))
    child = Point("1", OLD.indexes, ("a",), "0")
    assert not admits(view, child)
    assert admits(view, child, carried=frozenset({X}))
    assert not admits(view, _moved("F", Z, X))
    assert admits(view, _moved("H", X, Y))


def test_a_fold_behind_a_healing_would_lead_back_to_the_damaged_frame() -> None:
    """Why a relocation asks for damage, and for moved targets, when it is put."""
    healed = (OLD, Damage("E", (X,)), _moved("H", X, Y))
    assert not admits(_view(*healed), _moved("F", Z, X))
    assert _view(*healed, _moved("F", Z, X)).resolve(Z) == (X, ("F/t",))
