"""The protocol with one rule less, and the scenario in which that shows.

`steps` is the length of a shortest way to a loss. A variant without steps loses nothing anywhere: its rule
serves something else, which `because` tells.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.protocol.keepers import Prune
from tests.protocol.model import Rules
from tests.protocol.scenarios import CHILD, ONE_POINT, QUICK, SHARER, meeting
from tests.protocol.world import Scenario


@dataclass(frozen=True)
class Variant:
    title: str
    dropped: tuple[str, ...]
    scenario: Scenario
    steps: int | None
    because: str = ""

    @property
    def rules(self) -> Rules:
        return Rules().without(*self.dropped)


_BY_TITLE = {scenario.title: scenario for scenario in QUICK}
PRUNED_CHILD = _BY_TITLE["a child of a point meets its pruning, every create unclear once"]
TWO_PRUNINGS = _BY_TITLE["a child of a point meets two prunings"]
SHARING = _BY_TITLE["two writers share what is not committed yet, and pruning fences both"]
UNCLEAR_SHARING = _BY_TITLE["two writers share what is not committed yet, and pruning spares live runs"]
CALLED_BACK = _BY_TITLE["a point is called back while it is pruned"]
HELD_FOR_DEAD = _BY_TITLE["a run that is held for dead still commits"]
LEFT_BEHIND = _BY_TITLE["a writer refers to a frame that repacking leaves behind"]
TWO_REPACKINGS = _BY_TITLE["two repack the same pack that a writer refers to"]
PRUNED_REPACKING = _BY_TITLE["a repacking is pruned before it is announced"]
PRUNED_FOLD = _BY_TITLE["duplicates are folded while the copy that stays is pruned"]
BOTH_WAYS = _BY_TITLE["duplicates are folded both ways at once"]
FOLD_AND_HEAL = _BY_TITLE["duplicates are folded onto a frame that decays and is healed"]
DEAD_HEALER = _BY_TITLE["a frame decays, is healed, and the healing run is held for dead"]
DECAY_WHILE_MOVING = _BY_TITLE["a frame decays while its pack moves"]
SHARED_DECAY = _BY_TITLE["a writer refers to a frame that decays"]

RECHECKING = meeting(
    "deletion without doom, the log read again before each",
    ONE_POINT,
    CHILD,
    Prune("P", ("0",), rechecks=True),
)
SLOW_PRUNING = meeting(
    "a slow pruning meets a writer of the same content", ONE_POINT, CHILD, Prune("P"), Prune("Q")
)
SHARED_CHILD = meeting(
    "a shared pack is pruned with the run that stored it", ONE_POINT, CHILD, SHARER, Prune("P")
)

LOSING = (
    Variant("objects are deleted without a doom entry", ("doom_before_delete",), PRUNED_CHILD, 5),
    Variant(
        "the log is read again before each deletion, but nothing is doomed",
        ("doom_before_delete",),
        RECHECKING,
        6,
    ),
    Variant(
        "writers heed neither fences nor dooms", ("points_heed_fences", "points_heed_dooms"), PRUNED_CHILD, 11
    ),
    Variant(
        "writers heed fences, but not dooms of what they inherit", ("points_heed_dooms",), PRUNED_CHILD, 11
    ),
    Variant(
        "writers heed fences, but not dooms of what they share", ("points_heed_dooms",), SHARED_CHILD, 11
    ),
    Variant("names of packs come back", ("names_never_return",), SLOW_PRUNING, 13),
    Variant("a writer deletes its packs after an unclear commit", ("writers_never_delete",), PRUNED_CHILD, 7),
    Variant("slots of the log are freed", ("slots_are_never_freed",), PRUNED_CHILD, 13),
    Variant(
        "a doom is put behind a view that it was not computed on",
        ("dooms_are_computed_where_they_stand",),
        PRUNED_CHILD,
        13,
    ),
    Variant(
        "forgotten points keep nothing, and nobody says that they are given up",
        ("forgotten_points_keep_their_objects",),
        CALLED_BACK,
        6,
    ),
    Variant(
        "unforget does not ask whether the point was given up",
        ("unforget_asks_what_was_given_up",),
        CALLED_BACK,
        8,
    ),
    Variant(
        "packs are referred to though their creation is unclear",
        ("stored_before_referred_to",),
        PRUNED_CHILD,
        5,
    ),
    Variant("packs are shared before they are durable", ("sharing_waits_until_durable",), UNCLEAR_SHARING, 7),
    Variant(
        "tables are doomed while points resolve through them",
        ("tables_in_use_are_needed",),
        TWO_REPACKINGS,
        11,
    ),
    Variant(
        "a relocation's copies are doomed before it is put",
        ("relocations_heed_dooms", "relocations_heed_fences"),
        PRUNED_REPACKING,
        10,
    ),
    Variant("a fold's target is doomed before it is put", ("relocations_heed_dooms",), PRUNED_FOLD, 12),
    Variant(
        "a repacked pack is doomed with its relocation, unasked who needs it",
        ("sources_are_doomed_in_a_later_slot", "dooms_are_exact"),
        LEFT_BEHIND,
        12,
    ),
    Variant(
        "relocations reach only the points before them",
        ("relocations_reach_later_points",),
        FOLD_AND_HEAL,
        11,
    ),
    Variant("duplicates are folded onto a damaged frame", ("relocations_avoid_damage",), FOLD_AND_HEAL, 8),
    Variant("a damaged frame is shared", ("sharing_avoids_damage",), SHARED_DECAY, 8),
    Variant("frames are copied unproven", ("copies_are_proven",), DECAY_WHILE_MOVING, 7),
    Variant(
        "a healing run relocates after its fence and its doom",
        ("relocations_heed_fences", "relocations_heed_dooms"),
        DEAD_HEALER,
        12,
    ),
    Variant(
        "a healed frame counts as whole again, and folds do not ask what has moved",
        ("healed_frames_stay_shunned", "relocated_frames_are_current"),
        FOLD_AND_HEAL,
        13,
    ),
)


NEEDED_FOR_MORE_THAN_DATA = (
    Variant(
        "a healed frame counts as whole again",
        ("healed_frames_stay_shunned",),
        FOLD_AND_HEAL,
        None,
        because="with it, data does not hang on whether folds ask what has moved meanwhile",
    ),
    Variant(
        "fences stop nobody, as dooms name all that they could miss",
        ("points_heed_fences", "relocations_heed_fences"),
        HELD_FOR_DEAD,
        None,
        because="a fence keeps a run from naming snapshots that were deleted when it was held for dead",
    ),
    Variant(
        "dooms name objects of live runs without fencing these",
        ("dooms_fence_uncommitted_runs",),
        SHARING,
        None,
        because="a run learns that it is held for dead, instead of storing again and again",
    ),
    Variant(
        "frames are relocated that have been relocated before",
        ("relocated_frames_are_current",),
        TWO_REPACKINGS,
        None,
        because="relocations form no circles, so that merging indexes sets their tables free",
    ),
    Variant(
        "duplicates are folded both ways",
        ("relocated_frames_are_current",),
        BOTH_WAYS,
        None,
        because="relocations form no circles, so that merging indexes sets their tables free",
    ),
    Variant(
        "a repacked pack is doomed with its relocation, by what is needed after it",
        ("sources_are_doomed_in_a_later_slot",),
        LEFT_BEHIND,
        None,
        because="an entry that dooms is computed and confirmed in one way only",
    ),
)
