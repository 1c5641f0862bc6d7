"""Repacking: mostly empty, small and duplicate packs make room, and every point stays what it was."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.media.faulty_store import FaultyStore, Moment
from tests.media.making import EXTENT
from tests.media.second_reader import restore
from tests.soak import examples, more_in_ci, rounds
from tests.upkeep.keeping import DAY, GONE, SELF, TARGET, Keeping
from vsa.errors import TryAgainLater
from vsa.media.entries import Damaged, DamageEntry
from vsa.media.folder import FolderStore
from vsa.restore.disk import Format, restore_disk
from vsa.upkeep import repack_plan
from vsa.upkeep.prune import carry_out

STRIDE = rounds(7, 3, 1)
"""Which calls are tried: every so many."""


@pytest.fixture
def keeping(tmp_path):
    return Keeping(tmp_path)


def mostly_empty(keeping: Keeping) -> int:
    """A pack of sixteen extents of which a later point needs four; returns that point's slot."""
    old = keeping.back_up({at: ("old", at) for at in range(16)})
    new = keeping.back_up({at: ("new", at) for at in range(12)})
    keeping.forget(old)
    return new


def test_a_pack_of_which_a_quarter_is_needed_makes_room(keeping):
    mostly_empty(keeping)
    plan = keeping.plan()
    assert (len(plan.repack.packs), plan.repack.copied, plan.repack.folded) == (1, 4 * EXTENT, 0)
    before = keeping.packs()
    report = carry_out(plan, process=SELF)
    assert (report.repacked.copied, len(report.repacked.slots), report.packs) == (4 * EXTENT, 1, 1)
    after = keeping.packs()
    assert not after.keys() & set(plan.repack.packs)
    assert sum(before.values()) - sum(after.values()) == plan.repack.freed - _overhead(4)
    keeping.require_sound()
    assert keeping.plan().is_empty, "it converges"


@pytest.mark.parametrize("salvage", [False, True])
def test_a_restore_goes_on_where_frames_were_moved_meanwhile(keeping, tmp_path, salvage):
    """The point was never forgotten; what it was read from is deleted between two reads."""
    new = mostly_empty(keeping)
    pruned: list[int] = []

    def prune_once(_number: int, method: str, name: str) -> None:
        if method == "read" and "/packs/" in name and not pruned:
            pruned.append(1)
            assert keeping.prune().deleted.objects > 0

    media = keeping.opened(FaultyStore(FolderStore(keeping.folder), prune_once))
    backup = media.view().points[new].point.disks[0]
    restored = restore_disk(media, backup, tmp_path / "image", format=Format.RAW, threads=1, salvage=salvage)
    assert (pruned, restored.lost) == ([1], ())
    image = (tmp_path / "image").read_bytes()
    for extent, data in keeping.held[new].items():
        assert image[extent * EXTENT :][: len(data)] == data


def _overhead(frames: int) -> int:
    return 64 + 28 + 52 * frames


def test_at_threshold_zero_nothing_is_moved(keeping):
    mostly_empty(keeping)
    assert keeping.prune(threshold=0.0).packs == 0
    keeping.require_sound()


def test_a_pack_above_the_threshold_stays(keeping):
    mostly_empty(keeping)
    assert keeping.plan(threshold=0.2).repack.packs == ()


def test_extents_that_are_stored_twice_are_folded(keeping):
    same = {at: ("same", at) for at in range(16)}
    keeping.back_up(same, disk="os")
    keeping.back_up(same, disk="data")
    plan = keeping.plan()
    assert (len(plan.repack.packs), plan.repack.copied, plan.repack.folded) == (1, 0, 16)
    report = carry_out(plan, process=SELF)
    assert (report.repacked.folded, report.repacked.copied) == (16, 0)
    assert len(keeping.packs()) == 1
    keeping.require_sound()
    assert keeping.plan().is_empty


def test_duplicates_in_two_packs_that_both_go_are_copied_once(keeping):
    common = {at: ("same", at) for at in range(4)}
    for disk in ("os", "data"):
        old = keeping.back_up(common | {at: (disk, at) for at in range(4, 16)}, disk=disk)
        keeping.back_up({at: (disk, "new", at) for at in range(4, 16)}, disk=disk)
        keeping.forget(old)
    report = keeping.prune()
    assert (report.packs, report.repacked.copied, report.repacked.folded) == (2, 4 * EXTENT, 4)
    keeping.require_sound()


def test_small_packs_are_joined_once_they_fill_one(keeping):
    for number in range(15):
        keeping.back_up({number: number})
        assert keeping.plan().repack.packs == ()
    keeping.back_up({15: 15})
    report = keeping.prune()
    assert report.packs == 16
    assert len(keeping.packs()) == 1
    keeping.require_sound()


def test_what_has_moved_can_move_again_and_deltas_follow(keeping):
    mostly_empty(keeping)
    keeping.prune()
    for turn in range(3):
        slot = keeping.media.view().live[-1].slot
        keeping.back_up({at: (turn, at) for at in (1, 5, 9, 13)[: turn + 1]})
        keeping.forget(slot)
        keeping.prune(threshold=1.0)
        keeping.require_sound()
    assert len(keeping.media.view().relocations) >= 3


def test_another_reader_of_the_format_follows_the_moves(keeping):
    new = mostly_empty(keeping)
    keeping.prune()
    target = keeping.scratch / "os.img"
    restore(keeping.folder, new, "os", target)
    data = target.read_bytes()
    read = {at // EXTENT: data[at : at + EXTENT] for at in range(0, len(data), EXTENT)}
    assert {extent: held for extent, held in read.items() if any(held)} == keeping.held[new]


def test_many_frames_are_moved_in_batches_and_duplicates_among_them_once(keeping, monkeypatch):
    monkeypatch.setattr(repack_plan, "BATCH_FRAMES", 8)
    common = {at: ("same", at) for at in range(4)}
    for disk in ("os", "data", "logs"):
        old = keeping.back_up(common | {at: (disk, at) for at in range(4, 16)}, disk=disk)
        keeping.back_up({at: (disk, "new", at) for at in range(4, 13)}, disk=disk)
        keeping.forget(old)
    plan = keeping.plan()
    assert (len(plan.repack.packs), plan.repack.copied, plan.repack.folded) == (3, 13 * EXTENT, 8)
    report = carry_out(plan, process=SELF)
    assert len(report.repacked.slots) == 3
    assert (report.repacked.copied, report.repacked.folded) == (13 * EXTENT, 8)
    keeping.require_sound()
    assert keeping.plan().is_empty


class TestDamage:
    def test_a_copy_that_is_damaged_is_not_led_to(self, keeping):
        same = {at: ("same", at) for at in range(16)}
        for disk in ("os", "data"):
            keeping.back_up(same, disk=disk)
        plan = keeping.plan()
        (target,) = keeping.packs().keys() - set(plan.repack.packs)
        _spoil(keeping.folder / target, 64 + 5 * EXTENT)
        report = carry_out(plan, process=SELF)
        assert (report.repacked.damaged, report.repacked.folded, report.repacked.copied) == (1, 15, EXTENT)
        gone_to = {slot: held for slot, held in keeping.held.items() if _reads(keeping, slot)}
        assert len(gone_to) == 1, "the disk whose pack was sound is as it was"

    def test_a_frame_that_cannot_be_proven_stays_where_it_is(self, keeping):
        slot = mostly_empty(keeping)
        plan = keeping.plan()
        (source,) = plan.repack.packs
        _spoil(keeping.folder / source, 64 + 13 * EXTENT)
        report = carry_out(plan, process=SELF)
        assert (report.repacked.damaged, report.repacked.copied) == (1, 3 * EXTENT)
        assert source in keeping.packs(), "it may be read by somebody better"
        assert not _reads(keeping, slot)

    def test_packs_that_the_log_calls_damaged_are_left_alone(self, keeping):
        same = {at: ("same", at) for at in range(16)}
        for disk in ("os", "data"):
            keeping.back_up(same, disk=disk)
        named, other = sorted(keeping.packs())
        keeping.media.append(DamageEntry(objects=(Damaged(name=named, offsets=(64,)),), reason="test"))
        assert named not in keeping.plan().repack.packs
        keeping.prune()
        assert {named, other} <= keeping.packs().keys()


def _spoil(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _reads(keeping: Keeping, slot: int) -> bool:
    from tests.media.making import read_point
    from vsa.errors import MediaDamaged

    try:
        return read_point(keeping.media, slot) == keeping.held[slot]
    except MediaDamaged:
        return False


def test_two_prunes_that_move_the_same_frames_both_leave_sound_points(keeping):
    mostly_empty(keeping)
    plans = [keeping.plan(folder=name) for name in ("one", "two")]
    for plan in plans:
        carry_out(plan, process=SELF)
        keeping.require_sound()
    keeping.now += 2 * DAY
    keeping.prune()
    keeping.require_sound()
    assert len(keeping.packs()) == 2


def test_what_was_copied_in_vain_goes_with_the_prune_that_copied_it(keeping):
    """Another one has led the same rows elsewhere meanwhile."""
    mostly_empty(keeping)
    packs: list[int] = []

    def interfere(_number: int, method: str, name: str) -> None:
        if method == "create" and "/moves/" in name and not packs:
            keeping.prune(folder="other")
            packs.append(len(keeping.packs()))

    report = keeping.prune(store=FaultyStore(FolderStore(keeping.folder), interfere))
    assert report.repacked.stopped
    assert [*packs, len(keeping.packs())] == [3, 2]
    keeping.require_sound()


@more_in_ci
def test_a_prune_between_anothers_moves_and_dooms_breaks_nothing(keeping):
    """The second runs as a whole at every store call of the first."""
    mostly_empty(keeping)
    for number in range(0, 400, STRIDE):
        trial = Keeping.copied(keeping)
        ran = []

        def interfere(call, _method, _name, trial=trial, number=number, ran=ran):
            if call == number:
                ran.append(trial.prune(folder="other"))

        trial.prune(store=FaultyStore(FolderStore(trial.folder), interfere))
        trial.require_sound()
        if not ran:
            break
    else:
        raise AssertionError("the prune has more calls than were tried")


@more_in_ci
def test_a_prune_that_dies_at_any_call_is_finished_by_the_next(keeping):
    mostly_empty(keeping)
    orphan = keeping.begin(process=GONE)
    keeping.written(orphan, {0: "x"})
    number = 0
    while True:
        for moment in Moment:
            trial = Keeping.copied(keeping)
            store = FaultyStore(
                FolderStore(trial.folder),
                lambda call, _method, _name, moment=moment, number=number: (
                    (moment, Killed()) if call >= number else None
                ),
            )
            died = _dies(trial, store)
            trial.require_sound()
            trial.now += 2 * DAY
            trial.prune()
            trial.require_sound()
            assert len(trial.packs()) == 2
            assert trial.plan().is_empty
        if not died:
            return
        number += STRIDE


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def _dies(keeping: Keeping, store: FaultyStore) -> bool:
    try:
        keeping.prune(store=store)
    except Killed:
        return True
    return False


def test_answers_that_are_lost_are_no_loss(keeping):
    mostly_empty(keeping)
    lost = TryAgainLater("the answer was lost")
    for number in range(0, 200, 11):
        trial = Keeping.copied(keeping)
        script = lambda call, _m, _n, number=number: (Moment.AFTER, lost) if call == number else None  # noqa: E731
        try:
            trial.prune(store=FaultyStore(FolderStore(trial.folder), script))
        except TryAgainLater:
            trial.prune()
        trial.require_sound()


steps = st.one_of(
    st.tuples(
        st.just("back up"),
        st.sampled_from(["os", "data"]),
        st.dictionaries(st.integers(0, 19), st.none() | st.integers(0, 30), min_size=1, max_size=20),
    ),
    st.tuples(st.just("forget"), st.integers(0, 9), st.none()),
    st.tuples(st.just("unforget"), st.integers(0, 9), st.none()),
    st.tuples(st.just("prune"), st.sampled_from([0.0, 0.5, 1.0]), st.none()),
)


@more_in_ci
@examples(15, 60, 200)
@given(st.lists(steps, max_size=10))
def test_after_any_history_every_point_restores_and_the_media_is_bounded(history):
    with tempfile.TemporaryDirectory() as folder:
        keeping = Keeping(Path(folder))
        for what, first, second in history:
            _do(keeping, what, first, second)
        keeping.prune()
        keeping.now += 2 * DAY
        keeping.prune()
        keeping.require_sound()
        needed = {(digest) for slot in keeping.media.view().points for digest in keeping.held[slot].values()}
        # Half-empty packs at most, and small ones up to a full pack.
        assert sum(keeping.packs().values()) <= 2.2 * len(needed) * (EXTENT + 52) + 2 * TARGET


def _do(keeping: Keeping, what: str, first: object, second: object) -> None:
    view = keeping.media.view()
    if what == "back up":
        keeping.back_up(second, disk=first)
    elif what == "prune":
        keeping.prune(threshold=first)
        keeping.require_sound()
    elif what == "forget" and len(view.live) > 1:
        keeping.forget(view.live[first % len(view.live)].slot)
    elif what == "unforget" and view.forgotten:
        keeping.unforget(sorted(view.forgotten)[first % len(view.forgotten)])
