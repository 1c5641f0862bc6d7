"""`vsa forget`, `unforget`, `pin` and `prune`: a plan first, and nothing but that plan when it is applied."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tests.cli.test_cli import Ran, vsa
from tests.upkeep.keeping import Keeping
from vsa.cli.plans import prune_document, prune_text, report_text
from vsa.upkeep.deleting import Deleted
from vsa.upkeep.prune import PruneReport
from vsa.upkeep.repack import Repacked


@pytest.fixture
def keeping(tmp_path: Path) -> Keeping:
    keeping = Keeping(tmp_path)
    keeping.now = dt.datetime(2024, 5, 6, 12, 0, tzinfo=dt.UTC)
    return keeping


def three_points(keeping: Keeping) -> None:
    for seed in range(3):
        keeping.back_up({0: seed}, full=True)


def command(keeping: Keeping, *arguments: object) -> Ran:
    name, *rest = arguments
    return vsa(name, "--media", keeping.folder, *rest)


def test_a_forgotten_plan_is_a_table_with_a_token_and_changes_nothing(keeping: Keeping) -> None:
    three_points(keeping)
    head = keeping.media.view().head
    ran = command(keeping, "forget", "--keep-last", 2)
    assert ran.code == 0
    heading, *rows, said, how = ran.rows()
    assert heading == ["POINT", "TAKEN", "VM", "REASON"]
    taken = "2024-05-06 12:00:00Z"
    assert rows == [
        ["forget", "0", taken, "os", "no rule keeps it"],
        ["keep", "1", taken, "os", "one of the last 2"],
        ["keep", "2", taken, "os", "the newest sound point of a disk, one of the last 2"],
    ]
    assert said[0].startswith("1 would be forgotten; ") and said[0].endswith("could be freed.")
    assert how[0].startswith("Nothing was changed. Do it with: --apply ")
    assert keeping.media.view().head == head


def test_a_plan_is_applied_by_its_token_alone(keeping: Keeping) -> None:
    three_points(keeping)
    plan = command(keeping, "forget", "--keep-last", 2, "--json").document
    assert [item["point"] for item in plan["forget"]] == [0]
    assert plan["slot"] is None
    wrong = command(keeping, "forget", "--keep-last", 2, "--apply", "0" * 12)
    assert (wrong.code, wrong.out) == (11, "") and plan["token"] in wrong.err
    keeping.back_up({0: "newer"}, full=True)
    late = command(keeping, "forget", "--keep-last", 2, "--apply", plan["token"])
    assert late.code == 11 and not keeping.media.view().forgotten
    token = command(keeping, "forget", "--keep-last", 2, "--json").document["token"]
    done = command(keeping, "forget", "--keep-last", 2, "--apply", token)
    assert done.code == 0 and "2 forgotten." in done.out
    assert list(keeping.media.view().forgotten) == [0, 1]


def test_a_prune_says_by_which_clock_the_grace_is_over(keeping: Keeping) -> None:
    """F48: of one that is ahead nothing else tells."""
    three_points(keeping)
    keeping.forget(0)
    keeping.now += dt.timedelta(days=3)
    plan = keeping.plan(days=2)
    assert "Forgotten by     2024-05-07 12:00:00Z, as it is 2024-05-09 12:00:00Z here\n" in prune_text(plan)
    assert prune_document(plan)["now"] == "2024-05-09T12:00:00+00:00"
    keeping.now -= dt.timedelta(days=2)
    assert "Forgotten by" not in prune_text(keeping.plan(days=2)), "nothing is given up"


def test_more_than_half_of_a_vm_needs_to_be_said_twice(keeping: Keeping) -> None:
    three_points(keeping)
    ran = command(keeping, "forget", "--keep-daily", 3, "--json")
    assert ran.code == 0, "the first of the day and the newest stay"
    refused = command(keeping, "forget", 0, 1)
    assert refused.code == 2
    assert (
        "Refused: 2 of the 3 points of os would be forgotten" in refused.out and "--apply" not in refused.out
    )
    overridden = command(keeping, "forget", 0, 1, "--override-share", "--json").document
    assert command(keeping, "forget", 0, 1, "--override-share", "--apply", overridden["token"]).code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (0, "--keep-last", 1),
        (99,),
        ("--keep-last", 1, "--vm", "nobody"),
        (0, "--vm", "nobody"),
        (0, "--vm", "os"),
    ],
)
def test_requests_that_make_no_sense_are_refused(keeping: Keeping, arguments: tuple[object, ...]) -> None:
    three_points(keeping)
    assert command(keeping, "forget", *arguments).code == 2


def test_rules_can_be_for_one_vm(keeping: Keeping) -> None:
    three_points(keeping)
    for seed in range(3):
        keeping.back_up({0: seed}, full=True, disk="data")
    plan = command(keeping, "forget", "--keep-last", 2, "--vm", "data", "--json").document
    assert [(item["point"], item["vm"]) for item in plan["forget"]] == [(3, "data")]


def test_points_show_what_is_forgotten_pinned_and_given_up(keeping: Keeping) -> None:
    three_points(keeping)
    keeping.back_up({0: "newer"}, full=True)
    keeping.forget(0)
    keeping.prune()
    keeping.forget(2)
    assert command(keeping, "pin", 1, "--reason", "before the upgrade").out == "Point 1 pinned.\n"
    ran = command(keeping, "points")
    assert [row[-1] for row in ran.rows()][1:3] == ["pinned", "forgotten 2024-05-06 12:00:00Z"]
    assert ran.out.endswith("Forgotten and given up to a prune: 0.\n")
    document = command(keeping, "points", "--json").document
    assert document["given_up"] == [0]
    assert [(item["pinned"], bool(item["forgotten_at"])) for item in document["points"]] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert command(keeping, "unforget", 2).out == "Point 2 called back.\n"
    assert command(keeping, "unforget", 0).code == 11
    assert command(keeping, "pin", 1, "--unpin").out == "Point 1 left to retention again.\n"
    gone = command(keeping, "show", 0)
    assert gone.code == 2 and "a prune has given up its data" in gone.err


def test_a_prune_says_what_it_would_do_and_then_does_it(keeping: Keeping) -> None:
    three_points(keeping)
    keeping.forget(0, 1)
    ran = command(keeping, "prune")
    assert ran.code == 0
    assert "Points given up  0, 1" in ran.out and "Nothing was changed." in ran.out
    plan = command(keeping, "prune", "--json").document["plan"]
    assert (plan["give_up"], plan["objects"]) == ([0, 1], 9), "two points and the intents of all three runs"
    assert command(keeping, "prune", "--apply", "0" * 12).code == 11
    done = command(keeping, "prune", "--apply", plan["token"], "--json")
    assert done.code == 0
    report = done.document["done"]
    assert (report["given_up"], report["objects_deleted"], report["deletes_refused"]) == ([0, 1], 9, 0)
    assert report["bytes_freed"] == plan["bytes"]
    assert command(keeping, "prune").out == "Nothing to prune.\n"
    keeping.require_sound()


def test_a_clock_that_is_right_is_said_to_be(keeping: Keeping) -> None:
    """F48: the second of four days' points claims the year 2099, and takes no day from those after it."""
    for day in range(4):
        right, keeping.now = keeping.now, keeping.now.replace(year=2099) if day == 1 else keeping.now
        keeping.back_up({0: day}, full=True)
        keeping.now = right + dt.timedelta(days=1)
    for name in ("forget", "prune"):
        arguments = (name, *(("--keep-daily", 2, "--override-share") if name == "forget" else ()))
        refused = command(keeping, *arguments)
        said = refused.out + refused.err
        assert (
            refused.code == 2 and "log/000000000001 says that it was written at 2099-05-07T12:00:00" in said
        )
        assert command(keeping, *arguments, "--trust-clock").code == 0
    plan = command(
        keeping, "forget", "--keep-daily", 2, "--override-share", "--trust-clock", "--json"
    ).document
    assert [item["point"] for item in plan["forget"]] == [0, 1]


def test_a_prune_without_a_folder_to_work_in_is_no_good_request(keeping: Keeping, tmp_path: Path) -> None:
    (file := tmp_path / "file").write_text("")
    for scratch in (tmp_path / "absent", file):
        ran = command(keeping, "prune", "--scratch", scratch)
        assert ran.code == 2 and f"--scratch {scratch}: this is no folder that can be written to" in ran.err
    assert command(keeping, "prune", "--scratch", tmp_path).code == 0


def test_a_prune_says_which_lost_indexes_it_puts_back(keeping: Keeping) -> None:
    three_points(keeping)
    (index,) = (keeping.folder / "runs/run-2/index").iterdir()
    index.unlink()
    name = f"runs/run-2/index/{index.name}"
    ran = command(keeping, "prune", "--threshold", 0)
    assert f"Lost indexes put back  {name}" in ran.out and "Nothing was changed." in ran.out
    plan = command(keeping, "prune", "--threshold", 0, "--json").document["plan"]
    assert plan["indexes_put_back"] == [name]
    done = command(keeping, "prune", "--threshold", 0, "--apply", plan["token"])
    assert done.code == 0 and f"Lost indexes put back  {name}" in done.out
    keeping.require_sound()


def test_what_no_record_has_can_be_forgotten_and_pruned_as_the_refusal_says(keeping: Keeping) -> None:
    three_points(keeping)
    (index,) = (keeping.folder / "runs/run-2/index").iterdir()
    index.unlink()
    for ref in keeping.media.view().points[1].point.records:
        (keeping.folder / ref.name).unlink()
    refused = command(keeping, "prune")
    assert refused.code == 20 and "`vsa forget 1`, then `vsa prune`" in refused.err
    plan = command(keeping, "forget", 1, "--json").document
    assert plan["freed_unknown_of"] == [1]
    done = command(keeping, "forget", 1, "--apply", plan["token"])
    assert done.code == 0 and "Of 1 points it is not known what they need (1): " in done.out
    assert command(keeping, "prune").code == 20, "it can still be called back"
    plan = command(keeping, "prune", "--grace-days", 0, "--json").document["plan"]
    done = command(keeping, "prune", "--grace-days", 0, "--apply", plan["token"])
    assert done.code == 0 and "Points given up  1" in done.out
    keeping.require_sound()


def test_old_checkpoints_alone_are_worth_a_prune(keeping: Keeping) -> None:
    keeping.now = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    for seed in range(4):
        keeping.back_up({0: seed}, full=True)
        keeping.media.checkpoint_if_due(every=1)
    ran = command(keeping, "prune")
    assert "Old checkpoints  2" in ran.out and "--apply" in ran.out
    plan = command(keeping, "prune", "--json").document["plan"]
    old = [f"checkpoints/{slot:012}.parquet" for slot in (0, 1)]
    assert plan["old_checkpoints"] == old
    done = command(keeping, "prune", "--apply", plan["token"])
    assert done.code == 0 and "Deleted          2 objects" in done.out
    assert command(keeping, "prune").out == "Nothing to prune.\n"


def test_within_the_grace_nothing_is_given_up(keeping: Keeping) -> None:
    keeping.now = dt.datetime.now(dt.UTC) - dt.timedelta(days=2)
    three_points(keeping)
    keeping.forget(0)
    ran = command(keeping, "prune")
    assert ran.out == ("Nothing to prune.\nForgotten, but pinned or within 14 days of grace: 0.\n")
    assert command(keeping, "prune", "--grace-days", 1, "--json").document["plan"]["give_up"] == [0]


def test_what_a_prune_could_not_do_is_said_and_makes_it_incomplete() -> None:
    kept = Deleted(objects=4, size=5000, refused=2, reason="kept by a policy")
    report = PruneReport((), 1, 6, kept, Repacked(damaged=1, stopped="another prune was first"), packs=1)
    assert not report.is_complete
    said = report_text(report)
    assert "Not yet deleted: 2 objects that the store keeps (kept by a policy)" in said
    assert "Damaged: 1 frames" in said and "stopped early: another prune was first" in said


@pytest.mark.parametrize("token", ["", " "])
@pytest.mark.parametrize("arguments", [("forget", "--keep-last", 1), ("prune",)])
def test_an_empty_token_is_no_dry_run(
    keeping: Keeping, arguments: tuple[object, ...], token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script whose variable is not set would take it for the deed."""
    three_points(keeping)
    with pytest.raises(SystemExit) as ended:
        command(keeping, *arguments, "--apply", token)
    assert ended.value.code == 2 and "the token is empty" in capsys.readouterr().err


@pytest.mark.parametrize("slot", [-1, 10**13, "1" * 5000, "\udcff", "one", ""])
@pytest.mark.parametrize("name", ["pin", "unforget", "forget", "show", "verify", "restore"])
def test_what_can_be_no_point_is_a_bad_request(
    keeping: Keeping, name: str, slot: object, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ("--to", keeping.folder / "image") if name == "restore" else ()
    with pytest.raises(SystemExit) as ended:
        command(keeping, name, slot, *target)
    assert ended.value.code == 2 and "is no number of a point" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [("pin", 0), ("key", "rotate")])
def test_a_reason_that_is_no_text_is_a_bad_request(
    keeping: Keeping, arguments: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The byte 0xff, as Python has it from the command line: it cannot be written into the log."""
    with pytest.raises(SystemExit) as ended:
        vsa(*arguments, "--media", keeping.folder, "--reason", "\udcff")
    assert ended.value.code == 2 and r"'\\udcff' is not in UTF-8" in capsys.readouterr().err


def test_every_answer_names_the_media_in_one_way(keeping: Keeping) -> None:
    three_points(keeping)
    named = {"id": keeping.media.id, "location": str(keeping.folder)}
    pinned = command(keeping, "pin", 0, "--json").document
    assert pinned == {"media": named, "points": [0], "slot": 3}
    keeping.forget(1)
    assert command(keeping, "unforget", 1, "--json").document["media"] == named
    for name in ("points", "clients", "jobs", "verify", "witness", "prune"):
        assert command(keeping, name, "--json").document["media"] == named


@pytest.mark.parametrize("name", ["forget", "prune", "unforget", "pin"])
def test_places_without_media_are_told(tmp_path: Path, name: str) -> None:
    arguments = () if name == "prune" else (0,)
    assert vsa(name, *arguments, "--media", tmp_path / "nowhere").code == 10
