"""`vsa leftovers` and `vsa sweep` on a machine that has no Prefect."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_cli import Ran, vsa
from tests.engine.canaries import Canaries
from tests.engine.test_leftovers import begun, begun_by_a_process_that_ends
from tests.engine.test_ownership import all_snapshots
from tests.engine.world import MIB, PREMIUM_VHD, STANDARD_VHD, World, random_bytes
from vsa.cli import sweeping
from vsa.cli.azure import CLIENT_SECRET, connection_of
from vsa.media.media import Media


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sweeping,
        "connection_of",
        lambda options: dataclasses.replace(connection_of(options), polling_seconds=0.001),
    )


def swept(world: World, command: str, *more: object, **changes: Any) -> Ran:
    endpoint = world.control.endpoint | changes
    options: list[object] = [command, "--media", world.media.location, "--json", *more]
    for name, key in (
        ("subscription", "subscription"),
        ("tenant-id", "tenant"),
        ("client-id", "client_id"),
        ("client-secret-file", "client_secret_file"),
        ("azure-url", "base_url"),
        ("authority", "base_url"),
        ("ca-file", "ca_file"),
    ):
        options += [f"--{name}", endpoint[key]] if endpoint[key] else []
    return vsa(*options)


def test_leftovers_are_listed_and_swept_and_then_there_are_none(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    assert swept(world, "leftovers").code == 0
    begun_by_a_process_that_ends(world)
    (run,) = world.media.runs()
    intent = world.media.intent(run)
    assert intent
    canaries = Canaries(world, intent.disks[0], run)
    before, head = world.control.inventory(), world.media.view().head
    for command in ("leftovers", "sweep"):
        ran = swept(world, command, "--price", 512)
        assert ran.code == 3, ran.err
        name = f"vsa-{run}-{intent.disks[0].key}"
        (found,) = ran.document["leftovers"]
        assert (found["what"], found["name"], found["run"]) == ("snapshot", name, run)
        assert (found["size"], found["monthly_cost_usd"], ran.document["monthly_cost_usd"]) == (MIB, 0.5, 0.5)
        assert ran.document["dead"][0]["run"] == run
        assert any("no Prefect server was asked" in note for note in ran.document["notes"])
        assert (world.control.inventory(), world.media.view().head) == (before, head)
    ran = swept(world, "sweep", "--yes")
    assert [item["run"] for item in ran.document["removed"]] == [run]
    assert ran.document["remaining"] == []
    assert ran.code == 3, "somebody should look at what pretends to be ours"
    assert all("somebody gave it both" in line for line in ran.document["attention"])
    canaries.require_alone()
    assert Media.open(world.media.location).view().fenced == {run}


@pytest.mark.parametrize("kind", [STANDARD_VHD, PREMIUM_VHD])
def test_what_is_left_of_vhds_is_listed_and_stays(world: World, kind: str) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")}, kind=kind)
    begun_by_a_process_that_ends(world)
    before, head = world.control.inventory(), world.media.view().head
    ran = swept(world, "leftovers")
    whats = {item["what"] for item in ran.document["leftovers"]}
    assert whats == {"snapshot"} | ({"staging blob"} if kind == PREMIUM_VHD else set())
    assert ran.code == 3, ran.err
    assert (world.control.inventory(), world.media.view().head) == (before, head)


def test_a_run_that_may_live_is_left_alone_until_it_is_named(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job())
    ran = swept(world, "sweep", "--yes")
    assert (ran.code, len(all_snapshots(world))) == (0, 1)
    (left,) = ran.document["left_alone"]
    assert left["run"] == run.id and left["reason"].startswith("its last sign of life is ")
    assert swept(world, "leftovers", "--run", "0" * 16).code == 2
    assert swept(world, "sweep", "--run", run.id, "--yes").code == 0
    world.require_no_leftovers()


def test_what_azure_keeps_makes_the_sweep_incomplete_and_says_whose_turn_it_is(world: World) -> None:
    world.add_vm({"os": random_bytes(MIB, "os")})
    run = begun(world.job())
    with world.fault(
        "status", method="DELETE", path="/snapshots/vsa-", status=403, code="AuthorizationFailed", times=None
    ):
        ran = swept(world, "sweep", "--run", run.id, "--yes")
    assert ran.code == 3
    assert [item["what"] for item in ran.document["remaining"]] == ["snapshot"]
    assert "a right is missing, somebody must give it" in ran.document["pending"][0]
    assert any(line.startswith("cleanup pending: 1 thing, the oldest") for line in ran.document["attention"])
    assert swept(world, "sweep", "--yes").code == 0
    world.require_no_leftovers()


def test_the_client_secret_comes_from_a_file_or_from_the_environment(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = Path(world.control.endpoint["client_secret_file"]).read_text().strip()
    monkeypatch.setenv(CLIENT_SECRET, secret)
    ran = swept(world, "leftovers")
    assert ran.code == 2 and "two client secrets are given" in ran.err
    assert swept(world, "leftovers", client_secret_file="").code == 0
    monkeypatch.setenv(CLIENT_SECRET, "wrong")
    ran = swept(world, "leftovers", client_secret_file="")
    assert (ran.code, secret in ran.err) == (3, False)
    monkeypatch.delenv(CLIENT_SECRET)
    empty = tmp_path / "empty"
    empty.touch()
    assert swept(world, "leftovers", client_secret_file=str(empty)).code == 2
