"""Bases that no job will compare with again, of one subclient or of several: none of them stays unsaid."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.engine.guarded import Guarded
from tests.engine.world import MIB, World, random_bytes
from tests.soak import only_in_ci
from vsa.errors import BadRequest
from vsa.media.entries import JobEntry, Result
from vsa.model import Reason
from vsa.transfer.bases import UNATTENDED
from vsa.transfer.sweep import Sweep


def after(world: World, days: float) -> dt.datetime:
    """So long from now by Azure's clock, which the simulation runs ahead of ours."""
    return dt.datetime.fromisoformat(world.control.clock()["now"]) + dt.timedelta(days=days)


def test_a_job_that_sees_no_vm_at_all_lets_bases_go_when_they_are_too_old(world: World) -> None:
    """Not before: a right that was lost looks the same."""
    guarded = Guarded(world)
    world.delete_vm(guarded.vm)
    with pytest.raises(BadRequest, match="selects no VM"):
        world.back_up()
    young, old = world.job(), world.job(now=lambda: after(world, 31))
    assert young.release_bases(None, ()).released == ()
    let_go = old.release_bases(None, ())
    assert {item.reason for item in let_go.released} == {"it is older than 30 days"}
    assert len(let_go.released) == 2
    old.complete([], released=let_go.released, alarms=let_go.pending)
    assert world.bases == set()
    world.require_sound()
    guarded.require_untouched()


def test_a_lock_on_one_base_keeps_no_other_and_goes_when_the_lock_does(world: World) -> None:
    guarded = Guarded(world)
    _, kept = world.media.view().bases()[guarded.disk("os").key]
    lock = {"plane": "arm", "method": "DELETE", "path": kept.id.rpartition("/")[2], "times": None}
    with world.fault("status", **lock, status=409, code="ScopeLocked"):
        report = world.back_up(method="crc")
    assert report.result is Result.COMPLETED_WITH_ERRORS
    (alarm,) = report.alarms
    assert f"cleanup pending for disk {world.named('os')}: a lock keeps it, somebody must remove" in alarm
    assert "the subclient's method is CRC" in alarm
    assert [item.base.disk_key for item in report.released] == [guarded.disk("data").key]
    assert world.bases == {kept.id.lower()}
    world.require_sound()
    report = guarded.require_good(dict.fromkeys(["os", "data"], Reason.CRC_REQUESTED), method="crc")
    assert [item.base.id for item in report.released] == [kept.id]
    assert world.bases == set()


def test_a_base_whose_subclient_runs_no_more_is_told_by_the_sweep(world: World) -> None:
    guarded = Guarded(world)
    assert told(world, UNATTENDED.days - 1) == []
    found = told(world, UNATTENDED.days + 1)
    assert len(found) == 2
    assert all("no job of subclient tests has ended in 60 days" in text for text in found)
    _, base = world.media.view().bases()[guarded.disk("os").key]
    world.control.delete_snapshot(base.id)
    assert len(told(world, UNATTENDED.days + 1)) == 1
    guarded.require_good({"os": Reason.CRC_BASE_GONE})


def told(world: World, days: float) -> list[str]:
    """What a sweep so many days later says of bases; it must find nothing to remove."""
    now = after(world, days)
    sweep = Sweep(world.connection, world.media, now=lambda: now)
    plan = sweep.plan(sweep.open_runs(), {}, ())
    assert plan.leftovers == ()
    return [text for text in plan.attention if text.startswith("base snapshot")]


class TestTwoSubclients:
    """They share a VM and a media: whichever runs goes on where the last one was, and one base is enough."""

    def test_each_goes_on_from_the_others_base(self, world: World) -> None:
        guarded = Guarded(world)
        for number, name in enumerate(("two", "tests")):
            world.write("data", 0, random_bytes(512, number))
            guarded.require_good(name=name)
            assert len(world.bases) == 2

    def test_what_one_gives_up_the_other_keeps(self, world: World) -> None:
        guarded = Guarded(world)
        stays = world.add_vm({"stays": random_bytes(MIB, "stays")})
        guarded.require_good({"stays": Reason.FULL_FIRST}, name="two")
        left = guarded.require_good(name="tests", vms=(stays,))
        assert left.released == ()
        assert len(world.bases) == 3
        world.write("os", MIB // 2, random_bytes(512, "later"))
        guarded.require_good(name="two")
        # Nobody is left who would: the last to have the disk lets it go.
        assert len(guarded.require_good(name="two", vms=(stays,)).released) == 2
        assert len(world.bases) == 1

    @only_in_ci
    def test_one_by_crc_leaves_the_base_to_the_other(self, world: World) -> None:
        guarded = Guarded(world)
        crc = dict.fromkeys(["os", "data"], Reason.CRC_REQUESTED)
        world.write("data", 0, random_bytes(512, "crc"))
        assert guarded.require_good(crc, name="two", method="crc").released == ()
        assert len(world.bases) == 2
        world.write("os", MIB // 2, random_bytes(512, "later"))
        guarded.require_good(name="tests")

    @only_in_ci
    def test_the_one_that_made_a_base_by_cbt_and_turns_to_crc_leaves_it_to_the_other(
        self, world: World
    ) -> None:
        guarded = Guarded(world)
        guarded.require_good(name="two")
        report: JobEntry = guarded.require_good(name="tests")
        assert report.released == ()
        crc = dict.fromkeys(["os", "data"], Reason.CRC_REQUESTED)
        assert guarded.require_good(crc, name="tests", method="crc").released == ()
        guarded.require_good(name="two")
