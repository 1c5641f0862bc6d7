"""Bases, snapshots, keys, networks, regions and rights that go while a job needs them; clocks that are wrong.

Whatever goes comes back in the end, as after somebody has done what the error says: the next job is normal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.engine.guarded import Guarded, lost
from tests.engine.test_faults_data_plane import FIVE_HOURS, LIST, READ, SIZE, diff_of
from tests.engine.world import KIB, MANAGED, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from tests.soak import only_in_ci
from vsa.azure.staging import CONTAINER
from vsa.media.entries import JobEntry, Result
from vsa.model import Reason
from vsa.transfer.backup_job import BackupJob, VmDisks
from vsa.transfer.runs import Run

VHDS = [STANDARD_VHD, pytest.param(PREMIUM_VHD, marks=only_in_ci)]
KNOWN_RUN = "d" * 16
SIGNED = {"plane": "blob", "header": "authorization"}
"""Requests that are signed with an account's key."""

TRIGGERS: dict[str, dict[str, Any]] = {
    "snapshot": {"plane": "arm", "method": "PUT", "path": "/snapshots/"},
    "grant": {"plane": "arm", "method": "POST", "path": "begingetaccess"},
    "read": READ,
    "revoke": {"plane": "arm", "method": "POST", "path": "endgetaccess", "skip": 2},
}
WITHOUT_RIGHTS: dict[str, Any] = {"status": 403, "code": "AuthorizationFailed"}


class Known(BackupJob):
    """Its run has an id that tests know beforehand."""

    def new_run(self, disks: VmDisks) -> Run:
        return super().new_run(disks).model_copy(update={"id": KNOWN_RUN})


def staged(world: World, guarded: Guarded) -> str:
    """The staging blob of the OS disk in a job that is `Known`, as azsim calls it."""
    name = f"vsa-{KNOWN_RUN}-{guarded.disk('os').key}.vhd"
    return f"{world.account(PREMIUM_VHD)}/{CONTAINER}/{name}"


@contextmanager
def from_then_on(
    world: World, trigger: dict[str, Any], match: dict[str, Any], **status: Any
) -> Iterator[None]:
    """Once a request of the first kind has come, every one of the second kind that comes later is refused."""
    rule = {"action": "status", "match": match, "times": None, **status}
    with world.fault("run", **trigger, operation="add_fault", arguments=rule):
        yield
    world.control.clear_faults()


def require_pending_or_nothing(report: JobEntry, advice: str) -> None:
    """What could not be cleaned up is said, with what somebody must do."""
    assert all("cleanup pending" in alarm for alarm in report.alarms)
    assert all(advice in alarm for alarm in report.alarms), report.alarms


class TestSnapshotsThatGo:
    def test_a_base_that_goes_while_its_changes_are_asked_for_means_crc(self, world: World) -> None:
        guarded = Guarded(world)
        # The OS disk is the first to be read.
        _, base = world.media.view().bases()[guarded.disk("os").key]
        with world.fault(
            "run", **diff_of(MANAGED), operation="delete_snapshot", arguments={"snapshot": base.id}
        ):
            report = world.back_up()
        assert report.result is Result.COMPLETED
        assert world.reasons(report) == {"os": Reason.CRC_BASE_GONE, "data": Reason.CBT}
        assert "is gone" in world.disks(report)["os"].detail
        guarded.require_good()

    @pytest.mark.parametrize(
        "request_of", [pytest.param(LIST, marks=only_in_ci, id="list"), pytest.param(READ, id="read")]
    )
    def test_a_jobs_own_snapshot_that_goes_while_it_is_read_costs_the_point(
        self, world: World, request_of: dict[str, str]
    ) -> None:
        guarded = Guarded(world)
        bases = world.bases
        name = f"vsa-{KNOWN_RUN}-{guarded.disk('os').key}"
        gone = f"{world.id_of('').rpartition('/virtualMachines/')[0]}/snapshots/{name}"
        with world.fault("run", **request_of, operation="delete_snapshot", arguments={"snapshot": gone}):
            message = lost(world.back_up(kind_of_job=Known), guarded.vm)
        assert f"snapshot {name} is gone, which this run had made" in message
        assert "404" in message
        assert "activity log" in message
        assert world.bases == bases
        guarded.require_untouched()
        guarded.require_good()

    def test_a_snapshot_that_is_there_is_not_called_gone_for_what_else_is_not_found(
        self, world: World
    ) -> None:
        guarded = Guarded(world)
        with world.fault("status", **READ, status=404, code="ResourceNotFound", times=None):
            message = lost(world.back_up(), guarded.vm)
        assert "404 ResourceNotFound" in message
        assert "is gone" not in message and "activity log" not in message
        guarded.require_good()

    @pytest.mark.parametrize("kind", VHDS)
    def test_a_vhds_base_that_goes_while_its_changes_are_asked_for_means_crc(
        self, world: World, kind: str
    ) -> None:
        """Azure says of a VHD's base that is gone what it says of one that it cannot compare with."""
        guarded = Guarded(world, kind)
        _, base = world.media.view().bases()[guarded.disk("os").key]
        gone = {"blob": world.label("os"), "snapshot": base.moment}
        with world.fault("run", **diff_of(kind), operation="delete_blob", arguments=gone):
            report = world.back_up()
        assert (report.result, report.alarms) == (Result.COMPLETED, ()), report
        assert world.reasons(report) == {"os": Reason.CRC_DIFF_REFUSED, "data": Reason.CBT}
        assert world.disks(report)["os"].detail.startswith("PreviousSnapshotNotFound: ")
        guarded.require_good()

    @pytest.mark.parametrize(
        ("kind", "request_of", "goes"),
        [
            (STANDARD_VHD, READ, "snapshot"),
            pytest.param(PREMIUM_VHD, LIST, "snapshot", marks=only_in_ci),
            pytest.param(PREMIUM_VHD, READ, "staging blob", marks=only_in_ci),
        ],
    )
    def test_what_is_read_of_a_vhd_and_goes_costs_the_point(
        self, world: World, kind: str, request_of: dict[str, str], goes: str
    ) -> None:
        guarded = Guarded(world, kind)
        bases = world.bases
        gone = {"blob": world.label("os"), "snapshot": "newest"}
        if goes == "staging blob":
            gone = {"blob": staged(world, guarded)}
        with world.fault("run", **request_of, operation="delete_blob", arguments=gone):
            message = lost(world.back_up(kind_of_job=Known), guarded.vm)
        assert f"of {world.named('os')}.vhd" in message
        assert "is gone, which this run had made" in message
        assert "404" in message
        assert "activity log" in message
        assert world.bases == bases
        guarded.require_untouched()
        guarded.require_good()

    @only_in_ci
    def test_a_premium_vhds_snapshot_that_goes_while_its_copy_is_read_costs_the_next_job_its_base(
        self, world: World
    ) -> None:
        guarded = Guarded(world, PREMIUM_VHD)
        gone = {"blob": world.label("os"), "snapshot": "newest"}
        with world.fault("run", **READ, operation="delete_blob", arguments=gone):
            report = world.back_up()
        assert (report.result, report.alarms) == (Result.COMPLETED, ()), report
        guarded.require_good({"os": Reason.CRC_BASE_GONE})


class TestKeysAndClocks:
    @pytest.mark.parametrize("kind", VHDS)
    def test_a_vhd_is_read_on_with_the_new_key_when_the_old_one_is_regenerated(
        self, world: World, kind: str
    ) -> None:
        guarded = Guarded(world, kind)
        world.write("data", 64 * KIB, random_bytes(512 * KIB, "more"))
        change = {"operation": "regenerate_keys", "arguments": {"account": world.account(kind)}}
        with (
            world.fault("run", **SIZE, query="sig=", **change),
            world.fault("run", **LIST, **change),
            world.fault("run", **diff_of(kind), **change),
            world.fault("run", **READ, **change),
        ):
            guarded.require_good()

    @pytest.mark.parametrize("kind", VHDS)
    @only_in_ci
    def test_a_service_whose_clock_is_hours_ahead_of_ours_is_read_at_once(
        self, world: World, kind: str
    ) -> None:
        guarded = Guarded(world, kind)
        world.control.advance_clock(FIVE_HOURS)
        since = world.control.last_request()
        guarded.require_good()
        refused = [row for row in world.control.requests(since=since) if row["status"] == 403]
        assert refused == []

    @pytest.mark.parametrize("kind", [MANAGED, pytest.param(STANDARD_VHD, marks=only_in_ci)])
    @pytest.mark.parametrize("hours", [5, pytest.param(-5, marks=only_in_ci)])
    def test_a_machine_whose_clock_is_hours_from_azures_backs_up_as_usual(
        self, world: World, hours: int, kind: str
    ) -> None:
        """What it writes of times is wrong; whose a run is and from which base it goes on are not."""
        guarded = Guarded(world, kind)

        def wrong() -> dt.datetime:
            azures = dt.datetime.fromisoformat(world.control.clock()["now"])
            return azures + dt.timedelta(hours=hours)

        for number in range(2):
            world.write("os", 0, random_bytes(512, number))
            report = guarded.require_good(now=wrong)
            assert report.alarms == ()
        guarded.require_good()

    def test_a_machine_whose_clock_is_wrong_is_told_so(self, world: World) -> None:
        """The blob service takes no request that was signed more than fifteen minutes ago (REST "Authorize
        with Shared Key")."""
        guarded = Guarded(world, STANDARD_VHD)
        with world.fault("status", **SIGNED, times=None, status=403, code="AuthenticationFailed"):
            message = world.back_up().vms[0].error
        assert "AuthenticationFailed" in message
        assert "clock" in message
        guarded.require_good()


class TestNetworks:
    @pytest.mark.parametrize("kind", VHDS)
    @pytest.mark.parametrize("moment", [pytest.param("snapshot", marks=only_in_ci), "read"])
    def test_a_firewall_that_closes_in_mid_job_is_named_and_all_is_cleared_once_it_is_open(
        self, world: World, kind: str, moment: str
    ) -> None:
        guarded = Guarded(world, kind)
        account = world.account(kind)
        trigger = {"snapshot": {"plane": "blob", "method": "PUT", "query": "comp=snapshot"}, "read": READ}[
            moment
        ]
        close = {"operation": "close_account", "arguments": {"account": account, "closed": True}}
        with world.fault("run", **trigger, **close):
            report = world.back_up()
        message = lost(report, guarded.vm)
        assert "AuthorizationFailure" in message
        assert "network rules" in message
        assert report.alarms
        require_pending_or_nothing(report, "network rules")
        assert "network rules" in world.back_up().vms[0].error, "a job that finds it closed says the same"
        world.control.close_account(account, closed=False)
        guarded.require_good()

    @pytest.mark.parametrize("moment", [pytest.param("snapshot", marks=only_in_ci), "read"])
    def test_a_region_that_is_away_for_the_rest_of_a_job(self, world: World, moment: str) -> None:
        guarded = Guarded(world)
        trigger = {"snapshot": {"plane": "arm", "method": "PUT", "path": "/snapshots/"}, "read": READ}[moment]
        away = {"status": 503, "code": "ServerBusy", "retry_after": 0}
        with from_then_on(world, trigger, {"plane": "any"}, **away):
            report = world.back_up()
        message = lost(report, guarded.vm)
        assert "503" in message
        assert "asked 7 times in vain: it was busy all the time" in message
        require_pending_or_nothing(report, "the next sweep tries again")
        guarded.require_good()


class TestRights:
    @pytest.mark.parametrize(
        "moment",
        [*(pytest.param(moment, marks=only_in_ci) for moment in ("snapshot", "grant")), "read", "revoke"],
    )
    def test_all_rights_are_gone_from_one_request_on(self, world: World, moment: str) -> None:
        guarded = Guarded(world)
        with from_then_on(world, TRIGGERS[moment], {"plane": "arm"}, **WITHOUT_RIGHTS):
            report = world.back_up()
            if moment == "revoke":
                assert report.vms[0].point is not None
                assert report.result is Result.COMPLETED_WITH_ERRORS
            else:
                assert "lacks a right" in lost(report, guarded.vm)
            assert report.alarms
            require_pending_or_nothing(report, "somebody must give it to this identity")
        guarded.require_good()

    @pytest.mark.parametrize("kind", VHDS)
    @only_in_ci
    def test_the_right_to_list_an_accounts_keys_goes_in_mid_job(self, world: World, kind: str) -> None:
        guarded = Guarded(world, kind)
        trigger = {"plane": "blob", "method": "PUT", "query": "comp=snapshot"}
        with from_then_on(world, trigger, {"plane": "arm", "path": "/listKeys$"}, **WITHOUT_RIGHTS):
            report = world.back_up()
            message = lost(report, guarded.vm)
            assert f"list keys of storage account {world.account(kind)}" in message
            assert "lacks a right" in message
            require_pending_or_nothing(report, "somebody must give it to this identity")
        guarded.require_good()
