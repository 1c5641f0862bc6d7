"""Azure Resource Manager refuses, throttles, loses answers and things: what is said, and what is kept."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.azsim_process import AzsimProcess
from tests.engine.waits import virtual_waits
from tests.engine.world import MANAGED, MIB, PREMIUM_VHD, STANDARD_VHD, World, connection_to, random_bytes
from vsa.errors import AccessDenied
from vsa.media.entries import JobEntry, Result
from vsa.model import Reason
from vsa.secret import Secret

SNAPSHOT = r"/snapshots/[^/]+$"


def backed_up_once(world: World, kind: str = MANAGED) -> None:
    world.add_vm({"os": random_bytes(MIB, "os"), "data": random_bytes(MIB, "data")}, kind=kind)
    assert world.back_up().result is Result.COMPLETED
    world.write("data", 0, random_bytes(512, 1))


def require_normal_job(world: World) -> None:
    """The next job is an ordinary CBT job, and everything ever committed restores."""
    report = world.back_up()
    assert report.result is Result.COMPLETED
    assert set(world.reasons(report).values()) == {Reason.CBT}
    world.require_sound()


def error(report: JobEntry) -> str:
    (outcome,) = report.vms
    assert outcome.point is None
    assert outcome.result is Result.FAILED
    return outcome.error


class TestCredentials:
    def test_a_wrong_secret_is_named_and_not_shown(self, world: World) -> None:
        backed_up_once(world)
        wrong = connection_to(world.control.endpoint, client_secret=Secret("not-the-secret"))
        with pytest.raises(AccessDenied) as denied:
            world.back_up(connection=wrong)
        assert "Invalid client secret" in str(denied.value)
        assert "check tenant, client id and secret" in str(denied.value)
        assert "not-the-secret" not in str(denied.value)
        require_normal_job(world)

    def test_an_application_that_does_not_exist_is_denied_too(self, world: World) -> None:
        """The identity platform answers 400 here, where a wrong secret gets 401."""
        stranger = connection_to(world.control.endpoint, client_id="00000000-0000-0000-0000-000000000000")
        with pytest.raises(AccessDenied, match="was not found in the directory"):
            world.back_up(connection=stranger)

    def test_a_right_that_is_lost_between_two_stages_costs_the_point_alone(self, world: World) -> None:
        backed_up_once(world)
        code = "AuthorizationFailed"
        with world.fault("status", plane="arm", path="begingetaccess", status=403, code=code):
            message = error(world.back_up())
        assert "ask for access to snapshot" in message
        assert "AuthorizationFailed" in message
        assert "lacks a right" in message
        require_normal_job(world)

    def test_a_token_that_is_refused_in_the_middle_is_replaced_for_the_next_job(self, world: World) -> None:
        backed_up_once(world)
        with world.fault(
            "status", plane="arm", method="PUT", path=SNAPSHOT, status=401, code="ExpiredAuthenticationToken"
        ):
            assert "credential has expired" in error(world.back_up())
        require_normal_job(world)

    def test_a_token_that_expires_in_the_middle_is_renewed(self, tmp_path: Path) -> None:
        with AzsimProcess(tmp_path / "azsim", token_seconds=3) as azure:
            world = World(azure.control, tmp_path)
            world.add_vm({"os": random_bytes(MIB, "os")})
            with world.fault("delay", plane="blob", method="GET", query="comp=pagelist", seconds=3.1):
                assert world.back_up().result is Result.COMPLETED
            tokens = [row for row in world.control.requests() if row["plane"] == "token"]
            assert sum(row["method"] == "POST" for row in tokens) >= 2
            world.require_sound()


class TestDisappearance:
    def test_a_disk_that_goes_after_discovery_is_named(self, world: World) -> None:
        backed_up_once(world)
        label = world.label("data")
        with world.fault(
            "run",
            plane="arm",
            method="GET",
            path=f"/disks/{world.named('data')}$",
            operation="delete_disk",
            arguments={"disk": label},
        ):
            message = error(world.back_up())
        assert f"disk {world.named('data')} disappeared after the VM was listed" in message
        self.require_the_rest(world)

    def test_a_disk_that_goes_before_its_snapshot_costs_the_point_and_no_base(self, world: World) -> None:
        backed_up_once(world)
        before = world.snapshots
        put: dict[str, Any] = {"plane": "arm", "method": "PUT", "path": SNAPSHOT}
        with (
            world.fault("run", **put, operation="delete_disk", arguments={"disk": world.label("data")}),
            # Both snapshots are asked for together: whichever comes second must come after the deletion.
            world.fault("delay", **put, skip=1, seconds=1),
        ):
            message = error(world.back_up())
        assert f"snapshot disk {world.named('data')}" in message
        assert "ResourceNotFound" in message
        assert world.snapshots == before
        self.require_the_rest(world)

    def require_the_rest(self, world: World) -> None:
        """The VM goes on without the disk, whose points stay good and whose base is released."""
        world.forget_disk("data")
        report = world.back_up()
        assert world.reasons(report) == {"os": Reason.CBT}
        assert [item.reason for item in report.released] == [
            "the disk is no longer a target of the subclient"
        ]
        world.require_sound()

    @pytest.mark.parametrize("kind", [MANAGED, STANDARD_VHD, PREMIUM_VHD])
    def test_a_base_that_is_gone_means_crc(self, world: World, kind: str) -> None:
        backed_up_once(world, kind)
        for disk in world.media.view().points[min(world.points)].point.disks:
            world.delete_snapshot(disk.snapshot, disk.disk.name.removesuffix(f"-{world.number}"))
        assert world.snapshots == set()
        report = world.back_up()
        assert set(world.reasons(report).values()) == {Reason.CRC_BASE_GONE}
        assert world.disks(report)["data"].detail.endswith("is gone")
        assert report.result is Result.COMPLETED
        require_normal_job(world)

    def test_a_base_that_goes_before_it_is_granted_means_crc(self, world: World) -> None:
        world.add_vm({"os": random_bytes(MIB, "os")})
        world.back_up()
        world.write("os", 0, random_bytes(512, 1))
        (base,) = world.snapshots
        with world.fault(
            "run",
            plane="arm",
            method="POST",
            path=f"{base.rsplit('/', 1)[1]}/begingetaccess",
            operation="delete_snapshot",
            arguments={"snapshot": base},
        ):
            assert world.reasons(world.back_up())["os"] is Reason.CRC_BASE_GONE
        require_normal_job(world)


THROTTLED: list[dict[str, Any]] = [
    {"method": "GET", "path": "/virtualMachines$"},
    {"method": "GET", "path": "/instanceView$"},
    {"method": "GET", "path": r"/disks/[^/]+$"},
    {"method": "GET", "path": "/snapshots$"},
    {"method": "GET", "path": SNAPSHOT},
    {"method": "PUT", "path": SNAPSHOT},
    {"method": "POST", "path": "begingetaccess"},
    {"method": "POST", "path": "endgetaccess"},
    {"method": "DELETE", "path": SNAPSHOT},
    {"method": "GET", "path": "Operations/"},
]


class TestThrottling:
    @pytest.mark.parametrize("status", [429, 503])
    def test_every_verb_is_repeated(self, world: World, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
        # Of more VMs, as other tests may have left them, the states are in a list.
        monkeypatch.setattr("vsa.azure.vms.FEW", 10**6)
        # What the SDK waits for in threads of its own is real.
        monkeypatch.setattr("vsa.azure.budget.MOST_SPACING_SECONDS", 0.2)
        backed_up_once(world)
        with ExitStack() as faults:
            for request in THROTTLED:
                fault = world.fault("status", plane="arm", status=status, retry_after=0, **request)
                faults.enter_context(fault)
            # Each refusal makes the budget of all more careful: of so many it becomes slow.
            faults.enter_context(virtual_waits(world.control))
            require_normal_job(world)

    @pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
    def test_account_lists_and_keys_are_repeated_too(self, world: World, kind: str) -> None:
        backed_up_once(world, kind)
        # Where accounts are is looked up once for each connection.
        world.connection = connection_to(world.control.endpoint)
        busy: dict[str, Any] = {"plane": "arm", "status": 429, "retry_after": 0}
        with (
            world.fault("status", method="GET", path="/storageAccounts$", **busy),
            world.fault("status", method="POST", path="/listKeys$", **busy),
        ):
            require_normal_job(world)

    def test_the_wish_of_the_service_is_respected(self, world: World) -> None:
        backed_up_once(world)
        began = time.monotonic()
        with world.fault("status", plane="arm", method="PUT", path=SNAPSHOT, status=429, retry_after=2):
            world.back_up()
        assert time.monotonic() - began >= 2
        world.require_sound()

    @pytest.mark.parametrize("loss", ["cut", "status"])
    def test_a_lost_answer_is_not_a_lost_snapshot(self, world: World, loss: str) -> None:
        backed_up_once(world)
        lost: dict[str, Any] = {"plane": "arm", "when": "after", "times": 2}
        lost |= {"status": 503, "retry_after": 0} if loss == "status" else {"times": 1}
        with (
            world.fault(loss, method="PUT", path=SNAPSHOT, **lost),
            world.fault(loss, method="POST", path="begingetaccess", **lost),
            world.fault(loss, method="DELETE", path=SNAPSHOT, **lost),
        ):
            require_normal_job(world)


class TestGrantsOfOthers:
    """Azure grants access to five snapshots of a disk at a time, and others may hold them."""

    def test_without_any_left_there_is_no_point_and_theirs_stay(self, world: World) -> None:
        backed_up_once(world)
        names = self.granted(world, 5)
        before = world.snapshots
        message = error(world.back_up())
        assert "ask for access to snapshot" in message
        assert "already have an active shared access signature" in message
        assert "end access to one that nobody needs" in message
        assert world.snapshots == before
        self.revoke(world, names)
        require_normal_job(world)

    def test_with_one_left_the_base_cannot_be_compared_with(self, world: World) -> None:
        backed_up_once(world)
        names = self.granted(world, 4)
        report = world.back_up()
        assert world.reasons(report) == {"os": Reason.CBT, "data": Reason.CRC_DIFF_REFUSED}
        assert "already have an active shared access signature" in world.disks(report)["data"].detail
        self.revoke(world, names)
        require_normal_job(world)

    def granted(self, world: World, count: int) -> list[str]:
        """Snapshots of the data disk that somebody else has made and reads."""
        api = world.connection.compute.snapshots
        creation = {"createOption": "Copy", "sourceResourceId": world.label("data")}
        body = {"location": "westeurope", "properties": {"incremental": True, "creationData": creation}}
        names = [f"theirs-{number}" for number in range(count)]
        for name in names:
            api.begin_create_or_update(world.group, name, body).result()
            access = {"access": "Read", "durationInSeconds": 4 * 3600}
            api.begin_grant_access(world.group, name, access).result()
        return names

    def revoke(self, world: World, names: list[str]) -> None:
        api = world.connection.compute.snapshots
        for name in names:
            assert api.get(world.group, name).disk_state == "ActiveSAS"
            api.begin_revoke_access(world.group, name).result()
