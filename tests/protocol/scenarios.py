"""Who meets whom: small enough to be searched to the end, chosen so that each rule is needed somewhere."""

from __future__ import annotations

from tests.protocol.keepers import CallBack, Fence, Fold, Prune, Repack, Spoil
from tests.protocol.model import Entry, Frame, Index, Pack, Point, Stored
from tests.protocol.world import Role, Scenario
from tests.protocol.writers import Backup

Media = tuple[tuple[Stored, ...], tuple[Entry, ...]]


def _point(run: str, frames: tuple[Frame, ...], disk: tuple[str, ...]) -> Point:
    return Point(run, (Index(f"{run}/i", tuple(enumerate(frames))),), disk)


def _media(packs: tuple[Pack, ...], *entries: Entry) -> Media:
    indexes = {index for entry in entries if isinstance(entry, Point) for index in entry.indexes}
    return (*packs, *sorted(indexes)), entries


OLD = Frame("0/p", 0), Frame("0/p", 1)
ONE_POINT = _media((Pack("0/p", ("a", "b")),), _point("0", OLD, ("a", "b")))
"""Point 0: a disk of two extents in one pack."""

HALF_EMPTY = _media(
    (Pack("0/p", ("a", "d")),),
    _point("0", (Frame("0/p", 0),), ("a",)),
)
"""Point 0 needs the first of two frames; the other is what a point needed that is long gone."""

TWO_COPIES = _media(
    (Pack("0/p", ("a",)), Pack("Z/p", ("a",))),
    _point("0", (Frame("0/p"),), ("a",)),
    _point("Z", (Frame("Z/p"),), ("a",)),
)
"""Points 0 and Z, of different disks, each with its own copy of the same extent."""

TWO_DISKS = _media(
    (Pack("0/p", ("a", "b")), Pack("Z/p", ("c",))),
    _point("0", OLD, ("a", "b")),
    _point("Z", (Frame("Z/p"),), ("c",)),
)
"""Points 0 and Z, of different disks; what Z holds, a child of 0 is going to store as well."""

CHAIN = (
    (
        Pack("0/p", ("a", "b")),
        Pack("1/p", ("c",)),
        base := Index("0/i", ((0, OLD[0]), (1, OLD[1]))),
        delta := Index("1/i", ((1, Frame("1/p")),)),
    ),
    (
        Point("0", (base,), ("a", "b")),
        Point("1", (base, delta), ("a", "c"), "0"),
    ),
)
"""Point 1 is a base and a delta; point 0 is the base alone, and shadowed rows of it are 1's too."""

CHILD = Backup("A", ("a", "c"), "0", frozenset({1}))
"""A CBT pass on point 0 that stores one extent and inherits the other."""

SHARER = Backup("B", ("c", "b"), shares=("A/p0", "0/p"))
"""A first pass on another disk, whose content A is storing now and 0 has stored before."""

MERGER = Backup("M", ("a", "e"), "1", frozenset({1}), absorbs="all")
DELTA_MERGER = Backup("M", ("f", "c"), "1", frozenset({0}), absorbs="deltas")
LATE_SHARER = Backup("A", ("d",), shares=("0/p",))
"""Refers to a frame that no committed point needs."""

BOTH_SHARER = Backup("A", ("d", "a"), shares=("0/p",))
HEALER = Backup("H", ("a",), "0", heals=True)
FIRST_FOLD = ((Frame("Z/p"), Frame("0/p")),)
OPPOSITE_FOLD = ((Frame("0/p"), Frame("Z/p")),)


def meeting(title: str, media: Media, *actors: Role, unclear: tuple[tuple[int, int], ...] = ()) -> Scenario:
    return Scenario(title, media[0], media[1], actors, unclear)


QUICK = (
    meeting(
        "a child of a point meets its pruning, every create unclear once",
        ONE_POINT,
        CHILD,
        Prune("P", ("0",)),
        unclear=((1, 1), (1, 0)),
    ),
    meeting(
        "a child of a point meets two prunings",
        ONE_POINT,
        CHILD,
        Prune("P", ("0",)),
        Prune("Q"),
        unclear=((1, 0), (0, 0), (1, 0)),
    ),
    meeting(
        "two writers share what is not committed yet, and pruning fences both",
        ONE_POINT,
        CHILD,
        SHARER,
        Prune("P", ("0",)),
    ),
    meeting(
        "two writers share what is not committed yet, and pruning spares live runs",
        ONE_POINT,
        CHILD,
        SHARER,
        Prune("P", ("0",), fences=False),
        unclear=((0, 1), (0, 0), (0, 0)),
    ),
    meeting(
        "a point is called back while it is pruned",
        ONE_POINT,
        Prune("P", ("0",)),
        CallBack("U", "0"),
        Prune("Q"),
        unclear=((1, 0), (1, 0), (1, 0)),
    ),
    meeting(
        "a child's parent is called back while it is pruned",
        ONE_POINT,
        CHILD,
        Prune("P", ("0",)),
        CallBack("U", "0"),
        unclear=((0, 0), (0, 0), (1, 0)),
    ),
    meeting(
        "a run that is held for dead still commits",
        ONE_POINT,
        CHILD,
        Fence("W", "A"),
        Prune("P"),
        unclear=((1, 0), (1, 0), (0, 0)),
    ),
    meeting(
        "indexes are merged while their point is pruned",
        CHAIN,
        MERGER,
        Prune("P", ("1",)),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "deltas are merged while a pack moves",
        CHAIN,
        DELTA_MERGER,
        Repack("F", "0/p", prunes=True),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "indexes are merged while a pack moves and points are pruned",
        CHAIN,
        MERGER,
        Repack("F", "0/p"),
        Prune("P", ("0", "1")),
    ),
    meeting(
        "a writer refers to a frame that repacking leaves behind",
        HALF_EMPTY,
        BOTH_SHARER,
        Repack("F", "0/p", prunes=True),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "two repack the same pack",
        HALF_EMPTY,
        Repack("F", "0/p", prunes=True),
        Repack("G", "0/p", prunes=True),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "two repack the same pack that a writer refers to",
        HALF_EMPTY,
        Repack("F", "0/p", prunes=True),
        Repack("G", "0/p"),
        BOTH_SHARER,
    ),
    meeting(
        "a repacking is pruned before it is announced",
        HALF_EMPTY,
        Repack("F", "0/p", prunes=True),
        Prune("P"),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "a pack that moved moves again",
        HALF_EMPTY,
        Repack("F", "0/p"),
        Repack("G", "F/p", prunes=True),
        Prune("P"),
        unclear=((1, 0), (0, 0), (0, 0)),
    ),
    meeting(
        "duplicates are folded while the copy that stays is pruned",
        TWO_COPIES,
        Fold("F", FIRST_FOLD, prunes=True),
        Prune("P", ("0",)),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "duplicates are folded both ways at once",
        TWO_COPIES,
        Fold("F", FIRST_FOLD, prunes=True),
        Fold("G", OPPOSITE_FOLD, prunes=True),
        unclear=((1, 0), (1, 0)),
    ),
    meeting(
        "duplicates are folded onto a pack that moves",
        TWO_COPIES,
        Fold("F", FIRST_FOLD),
        Repack("G", "0/p", prunes=True),
        Prune("P"),
        unclear=((1, 0), (0, 0), (0, 0)),
    ),
    meeting(
        "duplicates are folded onto a frame that decays and is healed",
        TWO_COPIES,
        Fold("F", FIRST_FOLD),
        Spoil("E", Frame("0/p")),
        HEALER,
        unclear=((1, 0), (1, 0), (0, 0)),
    ),
    meeting(
        "a frame decays, is healed, and the healing run is held for dead",
        ONE_POINT,
        Backup("H", ("a", "b"), "0", heals=True),
        Spoil("E", OLD[0]),
        Prune("P"),
    ),
    meeting(
        "a frame decays while its pack moves",
        HALF_EMPTY,
        Repack("F", "0/p", prunes=True),
        Spoil("E", Frame("0/p")),
        HEALER,
    ),
    meeting(
        "a writer refers to a frame that decays",
        HALF_EMPTY,
        LATE_SHARER,
        Spoil("E", Frame("0/p", 1)),
        Prune("P"),
        unclear=((1, 0), (1, 0), (0, 0)),
    ),
    meeting(
        "duplicates are folded onto a pack of a run that has not committed",
        TWO_DISKS,
        CHILD,
        Fold("F", ((Frame("Z/p"), Frame("A/p0")),), prunes=True),
        Prune("P"),
        unclear=((0, 0), (1, 0), (0, 0)),
    ),
    meeting(
        "a pack moves that is shared before its run has committed",
        ONE_POINT,
        CHILD,
        SHARER,
        Repack("F", "A/p0", prunes=True),
    ),
    meeting(
        "deltas are merged while a pack moves and all that came before is pruned",
        CHAIN,
        DELTA_MERGER,
        Repack("F", "0/p", prunes=True),
        Prune("P", ("0", "1")),
    ),
    meeting(
        "two writers share while a point is pruned and called back",
        ONE_POINT,
        CHILD,
        SHARER,
        Prune("P", ("0",)),
        CallBack("U", "0"),
    ),
    meeting(
        "two repack the same pack that a writer refers to, every slot unclear once",
        HALF_EMPTY,
        Repack("F", "0/p", prunes=True),
        Repack("G", "0/p"),
        BOTH_SHARER,
        unclear=((1, 0), (1, 0), (1, 0)),
    ),
    meeting(
        "duplicates are folded both ways at once onto a frame that decays and is healed",
        TWO_COPIES,
        Fold("F", FIRST_FOLD, prunes=True),
        Fold("G", OPPOSITE_FOLD),
        Spoil("E", Frame("0/p")),
        HEALER,
    ),
    meeting(
        "duplicates are folded onto a pack that moves, is pruned and called back",
        TWO_COPIES,
        Fold("F", FIRST_FOLD),
        Repack("G", "0/p", prunes=True),
        Prune("P", ("0",)),
        CallBack("U", "0"),
    ),
)

TAKES_MINUTES = (
    meeting("two writers share, two prune", ONE_POINT, CHILD, SHARER, Prune("P", ("0",)), Prune("Q")),
    meeting(
        "two writers share, one prunes, slots and packs unclear once",
        ONE_POINT,
        CHILD,
        SHARER,
        Prune("P", ("0",)),
        unclear=((1, 1), (0, 0), (1, 0)),
    ),
    meeting(
        "a child, its parent's pack moves, the parent is pruned and called back",
        ONE_POINT,
        CHILD,
        Repack("F", "0/p", prunes=True),
        Prune("P", ("0",)),
        CallBack("U", "0"),
    ),
    meeting(
        "indexes are merged while a pack moves and points are pruned, every slot unclear once",
        CHAIN,
        MERGER,
        Repack("F", "0/p"),
        Prune("P", ("0", "1")),
        unclear=((1, 0), (1, 0), (1, 0)),
    ),
    meeting(
        "two repack the same pack, a writer refers to it, a third prunes",
        HALF_EMPTY,
        Repack("F", "0/p"),
        Repack("G", "0/p"),
        BOTH_SHARER,
        Prune("P", ("0",)),
    ),
    meeting(
        "a frame decays while its pack moves, is healed, and the healing run is held for dead",
        HALF_EMPTY,
        Repack("F", "0/p", prunes=True),
        Spoil("E", Frame("0/p")),
        HEALER,
        Prune("P", ("0",)),
    ),
    meeting(
        "a pack moves that is shared before its run has committed, and all is pruned",
        ONE_POINT,
        CHILD,
        SHARER,
        Repack("F", "A/p0", prunes=True),
        Prune("P", ("0",)),
    ),
    meeting(
        "a child, its parent's pack moves, two prune",
        ONE_POINT,
        CHILD,
        Repack("F", "0/p", prunes=True),
        Prune("P", ("0",)),
        unclear=((1, 0), (1, 0), (1, 0)),
    ),
)
