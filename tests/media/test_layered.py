"""Large mappings that never change, and their cheap successors."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vsa.media import layered as module
from vsa.media.layered import Layered, Members, OnDemand, layered, members

KEY = st.integers(0, 12)
CHANGE = st.tuples(st.sampled_from(["put", "drop"]), KEY, st.integers())
ROUNDS = st.lists(st.lists(CHANGE, max_size=6), max_size=6)


@settings(deadline=None)
@given(st.dictionaries(KEY, st.integers()), ROUNDS, st.booleans())
def test_every_round_of_changes_leaves_what_a_dict_would_hold_and_its_predecessor_alone(base, rounds, small):
    module._SMALL, before = (2 if small else 1024), module._SMALL
    try:
        model, mapping = dict(base), Layered(OnDemand(lambda: dict(zip(base, base, strict=True)), base.get))
        for changes in rounds:
            kept, earlier = dict(model), mapping
            draft = mapping.draft()
            for what, key, value in changes:
                if what == "put":
                    draft[key] = model[key] = value
                else:
                    assert (draft.pop(key, None), key in draft) == (model.pop(key, None), False)
                assert (draft == model, len(draft)) == (True, len(model))
            mapping = draft.frozen()
            assert (mapping == model, len(mapping), set(mapping)) == (True, len(model), set(model))
            assert earlier == kept
            assert [key in mapping for key in range(13)] == [key in model for key in range(13)]
    finally:
        module._SMALL = before


def test_new_keys_are_met_in_the_order_in_which_they_came():
    draft = Layered({1: "a", 2: "b"}).draft()
    draft[4], draft[3] = "d", "c"
    del draft[1]
    draft[2] = "B"
    assert list(draft.frozen().items()) == [(2, "B"), (4, "d"), (3, "c")]


def test_what_did_not_change_is_the_same_object():
    mapping = layered({1: "a"})
    assert mapping.draft().frozen() is mapping
    assert layered(mapping) is mapping


def test_members_are_a_set_like_any_other():
    some = members({"a", "b"})
    assert (some == {"a", "b"}, some | {"c"}, {"a", "x"} & some) == (True, {"a", "b", "c"}, {"a"})
    assert (some <= {"a", "b"}, "c" in some, len(some)) == (True, False, 2)
    assert isinstance(Members(some.of), Members)


def test_values_on_demand_are_made_only_when_asked_for():
    made: list[int] = []
    mapping = Layered(
        OnDemand(lambda: {key: key for key in range(1000)}, lambda key: made.append(key) or key)
    )
    draft = mapping.draft()
    draft[5000] = 1
    after = draft.frozen()
    assert (5 in after, len(after), list(after)[-1]) == (True, 1001, 5000)
    assert made == []
    assert after[7] == 7
    assert made == [7]


def test_a_change_of_a_large_mapping_copies_the_changes_alone():
    """The base is copied only when a quarter of it has changed."""
    first = mapping = Layered(dict.fromkeys(range(10_000)))
    for number in range(10_000, 12_500):
        draft = mapping.draft()
        draft[number] = None
        mapping = draft.frozen()
        assert mapping._base is first._base
    draft = mapping.draft()
    draft[12_500] = None
    assert (draft.frozen()._base is first._base, len(draft)) == (False, 12_501)
