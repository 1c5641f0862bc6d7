"""`vsa verify` and what other commands say of damage, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_cli import vsa
from tests.restore.backups import EXTENT, NOW, names_in
from tests.upkeep.estate import DATA, OS, SIZE, Estate, a_full_estate
from tests.upkeep.test_verify import flip
from vsa.media.entries import ClientEntry, SeenName


@pytest.fixture
def estate(tmp_path: Path) -> Estate:
    return a_full_estate(tmp_path)


def test_sound_media_is_said_to_be_sound(estate: Estate) -> None:
    for depth in ("log", "objects", "bytes", "restore"):
        ran = vsa("verify", "--media", estate.location, "--depth", depth, "--json")
        assert (ran.code, ran.err) == (0, "")
        assert ran.document["sound"] and ran.document["depth"] == depth
    shown = vsa("verify", "--media", estate.location, "--sample", "10%")
    assert shown.code == 0 and "sound" in shown.out and "a sample of 10.0%" in shown.out


def test_damage_ends_with_20_is_named_and_recorded_once(estate: Estate) -> None:
    frame = flip(estate, estate.packs_of(OS)[0], 7)
    harmed = estate.holding({frame})
    first = vsa("verify", "--media", estate.location)
    assert first.code == 20
    points = ", ".join(map(str, harmed))
    assert (
        f"points {points}, disk os-disk of web: lost 4 KiB: bytes {7 * EXTENT} to {8 * EXTENT}" in first.out
    )
    assert "Recorded in log slot" in first.out
    again = vsa("verify", "--media", estate.location, "--json")
    assert again.code == 20 and again.document["recorded"] == []
    assert again.document["findings"][0]["harm"][0]["points"] == list(harmed)


def test_media_is_left_as_it_is_where_that_is_asked_for(estate: Estate) -> None:
    flip(estate, estate.packs_of(OS)[0], 7)
    before = estate.named("log/*")
    ran = vsa("verify", "--media", estate.location, "--no-record")
    assert ran.code == 20 and estate.named("log/*") == before


def test_a_point_that_does_not_exist_is_a_bad_request(estate: Estate) -> None:
    ran = vsa("verify", "77", "--media", estate.location)
    assert ran.code == 2 and "no recovery point 77" in ran.err


def test_a_log_that_was_altered_is_told_in_the_report(estate: Estate) -> None:
    path = estate.path(estate.named("log/*")[2])
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    ran = vsa("verify", "--media", estate.location)
    assert ran.code == 20 and "LOG DAMAGED" in ran.out and "log/000000000002" in ran.out


def test_damage_is_seen_wherever_a_point_is(estate: Estate) -> None:
    vm = estate.media.view().points[0].point.vm
    seen = SeenName(name=vm.name, resource_id="/vm", first_seen=NOW, last_seen=NOW)
    estate.backups.media.append(ClientEntry(vm=vm, names=(seen,), first_seen=NOW, last_seen=NOW))
    harmed = estate.holding({flip(estate, estate.packs_of(OS)[0], 7)})
    vsa("verify", "--media", estate.location)
    slot = min(harmed)
    points = vsa("points", "--media", estate.location)
    assert points.out.count("DAMAGED") == len(harmed)
    clients = vsa("clients", "--media", estate.location, "--json").document["clients"]
    assert [client["damaged"] for client in clients] == [list(harmed)]
    assert f"{len(harmed)} DAMAGED" in vsa("clients", "--media", estate.location).out
    shown = vsa("show", slot, "--media", estate.location)
    assert f"DAMAGED: os-disk: lost 4 KiB: bytes {7 * EXTENT} to {8 * EXTENT}" in shown.out
    assert f"vsa restore {slot} --salvage" in shown.out
    document = vsa("show", slot, "--media", estate.location, "--json").document
    assert document["point"]["harm"][0]["ranges"] == [[7 * EXTENT, 8 * EXTENT]]


def test_a_damaged_point_is_restored_only_when_told_to(estate: Estate, tmp_path: Path) -> None:
    flip(estate, estate.packs_of(OS)[0], 7)
    target = tmp_path / "image.raw"
    common = ("restore", 0, "--media", estate.location, "--to", target, "--format", "raw")
    refused = vsa(*common)
    assert refused.code == 20 and not target.exists()
    assert f"bytes {7 * EXTENT} to {8 * EXTENT} ({estate.packs_of(OS)[0]})" in refused.err
    listed = vsa(*common, "--json").document["disks"][0]["lost"]
    assert [(item["offset"], item["end"]) for item in listed] == [(7 * EXTENT, 8 * EXTENT)]
    log = estate.named("*")
    salvaged = vsa(*common, "--salvage")
    assert salvaged.code == 3 and "LOST" in salvaged.out
    image = bytearray(estate.images[0])
    image[7 * EXTENT : 8 * EXTENT] = bytes(EXTENT)
    assert target.read_bytes() == bytes(image)
    lost = json.loads((tmp_path / "image.raw.lost").read_text())
    assert (lost["disk"], lost["size"]) == ("os-disk", SIZE)
    assert [(item["offset"], item["end"]) for item in lost["lost"]] == [(7 * EXTENT, 8 * EXTENT)]
    assert estate.named("*") == log


def test_a_salvage_of_a_sound_point_is_a_restore(estate: Estate, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    ran = vsa("restore", 0, "--media", estate.location, "--to", tmp_path / "new", "--salvage")
    assert ran.code == 0 and names_in(tmp_path / "new") == ["os-disk.vhd"]


def test_a_list_of_lost_bytes_that_is_there_is_not_written_over(estate: Estate, tmp_path: Path) -> None:
    flip(estate, estate.packs_of(DATA)[0], 2)
    slot = next(slot for slot, disk in estate.disks.items() if disk is DATA)
    (tmp_path / "image.lost").write_text("mine")
    ran = vsa(
        "restore",
        slot,
        "--media",
        estate.location,
        "--to",
        tmp_path / "image",
        "--salvage",
        "--format",
        "raw",
    )
    assert ran.code == 2 and "image.lost" in ran.err
    assert not (tmp_path / "image").exists() and (tmp_path / "image.lost").read_text() == "mine"
