"""What people read while a job runs and when it has ended; no server is needed to write it."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator, Mapping

import pytest
from prefect.client.schemas.actions import ArtifactCreate
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from tasks.artifacts import artifact_key
from tasks.progress import LoggedProgress
from tasks.report import MOST_LINES, summary
from tasks.report_rows import HEADINGS, rows
from tests.engine.world import MIB
from vsa.media.entries import DiskOutcome, JobEntry, Result, VmOutcome
from vsa.model import DiskFigures, Exclusion, Method, Reason

START = dt.datetime(2026, 3, 1, 1, 0, tzinfo=dt.UTC)


def report(*vms: VmOutcome, **fields: object) -> JobEntry:
    given = {
        "result": Result.COMPLETED,
        "method": Method.CBT,
        "job": "j",
        "subclient": "production",
        **fields,
    }
    return JobEntry.model_validate(
        {"started_at": START, "ended_at": START + dt.timedelta(seconds=90), "vms": vms, **given}
    )


def disk(name: str, **figures: float) -> DiskOutcome:
    moved = DiskFigures.model_validate({"size": 64 * MIB, **figures})
    return DiskOutcome(name=name, key=f"key-of-{name}", method=Method.CBT, reason=Reason.CBT, figures=moved)


def vm(*disks: DiskOutcome, point: int | None = 7, error: str = "") -> VmOutcome:
    result = Result.COMPLETED if point is not None else Result.FAILED
    return VmOutcome(key="k", name="web", result=result, point=point, error=error, disks=disks)


def told(entry: JobEntry, proxies: Mapping[str, str] | None = None, **streams: str) -> str:
    """The summary of a report; the streams are flow runs by name of disk."""
    by_key = {f"key-of-{name.replace('_', '-')}": run for name, run in streams.items()}
    return summary(entry, rows(entry, proxies or {}, by_key), location="/backup/media 1")


def cells(text: str) -> list[list[str]]:
    """Cells of the table below its headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(autouse=True)
def dashboard() -> Iterator[None]:
    with temporary_settings({PREFECT_UI_URL: "http://dashboard"}):
        yield


def test_each_disk_has_a_row_with_its_proxy_method_amounts_result_and_stream() -> None:
    moved = disk("web-os", changed=8 * MIB, read=10 * MIB, shared=2 * MIB, stored=4 * MIB, elapsed=2.0)
    text = told(report(vm(moved)), {"key-of-web-os": "proxy-a"}, web_os="a-flow-run")
    amounts = ["64 MiB", "8 MiB", "10 MiB", "2 MiB", "4 MiB", "5 MiB/s"]
    stream = "[run](http://dashboard/runs/flow-run/a-flow-run)"
    assert cells(text) == [["web", "web-os", "proxy-a", "cbt", "CBT", *amounts, "point 7", stream]]


def test_the_summary_begins_with_the_result_and_a_link_to_the_job() -> None:
    moved = disk("web-os", read=10 * MIB, stored=4 * MIB)
    assert told(report(vm(moved))).startswith(
        "# production: completed\n\n1 of 1 VMs have a recovery point, after 1 min 30 s; 10 MiB read, "
        "4 MiB stored. [The job](http://dashboard/runs/flow-run/j)\n\n## Recovery points\n"
    )


def test_each_recovery_point_has_the_command_that_restores_it() -> None:
    text = told(report(vm(disk("web-os"))))
    assert "```\nvsa restore 7 --media '/backup/media 1' --to FOLDER  # web\n```" in text
    assert "## Recovery points" not in told(report(vm(disk("web-os"), point=None, error="gone")))


def test_a_disk_that_was_read_for_nothing_and_one_that_failed_say_so_before_those_that_are_safe() -> None:
    lost = DiskOutcome(name="web-data", key="key-of-web-data")
    bad = vm(disk("web-os"), lost, point=None, error="disk web-data: gone")
    text = told(report(vm(disk("db-os")), bad))
    assert [row[-2] for row in cells(text)] == ["read, but the VM has no point", "failed", "point 7"]
    assert "## Needs attention\n\n- web: disk web-data: gone\n" in text


def test_alarms_and_exclusions_have_their_sections_and_names_are_no_markup() -> None:
    hostile = Exclusion(name="<img src=x>|evil", reason="[click](http://elsewhere)\n# heading")
    text = told(report(excluded=(hostile,), alarms=("cleanup pending",), result=Result.FAILED))
    assert (
        "## Needs attention\n\n- cleanup pending\n\n## Left out\n\n- \\<img src=x\\>\\|evil: \\[click\\]"
        in text
    )
    assert text.count("\n#") == 2


def test_a_vms_name_cannot_end_the_block_of_commands() -> None:
    made = VmOutcome(key="k", name="```\n# web", result=Result.COMPLETED, point=7)
    text = told(report(made))
    assert "````\nvsa restore 7 --media '/backup/media 1' --to FOLDER  # ```\\n# web\n````" in text


def test_rows_of_the_table_artifact_are_plain_text_and_name_their_stream() -> None:
    odd = disk("web_os[x](http://elsewhere)<b>")
    (row,) = rows(report(vm(odd)), {odd.key: "proxy-a"}, {odd.key: "a-flow-run"})
    record = row.as_record()
    assert list(record) == list(HEADINGS)
    assert record["disk"] == "web_os\\[x\\](http://elsewhere)\\<b\\>"
    assert (record["proxy"], record["size"], record["result"]) == ("proxy-a", "64 MiB", "point 7")
    assert record["stream"] == "http://dashboard/runs/flow-run/a-flow-run"


def test_without_a_dashboard_runs_are_named_by_their_ids() -> None:
    moved = disk("web-os")
    with temporary_settings(restore_defaults={PREFECT_UI_URL, PREFECT_API_URL}):
        text = told(report(vm(moved)), web_os="a-flow-run")
    assert "The job j\n" in text
    assert cells(text)[0][-1] == "run a-flow-run"


def test_a_summary_of_many_disks_and_errors_stays_readable_and_says_where_the_rest_is() -> None:
    vms = [vm(disk(f"disk-{n}")) for n in range(500)]
    failed = [vm(point=None, error="x" * 5000) for _ in range(200)]
    text = told(report(*vms, *failed, result=Result.COMPLETED_WITH_ERRORS))
    assert len(cells(text)) == MOST_LINES
    assert len(text) < 100_000
    jobs = "` vsa jobs --media '/backup/media 1' `"
    assert f"and 150 more: see {jobs}" in text
    assert "and 450 more: see ` vsa points --media '/backup/media 1' `" in text
    assert text.endswith(f"and 450 more: see the table ` backup-production-disks ` and {jobs}")


def test_keys_are_what_prefect_takes_and_differ_where_names_do() -> None:
    names = [
        "production",
        "prod uction",
        "prod-uction",
        "prod_uction",
        "Größe",
        "größe 2",
        "日本",
        "-",
        "x" * 300,
    ]
    keys = [artifact_key("backup", name) for name in names]
    assert keys[0] == artifact_key("backup", "PRODUCTION") == "backup-production"
    assert len(set(keys)) == len(names)
    assert max(map(len, keys)) < 120
    for key in keys:
        ArtifactCreate(key=key)


@pytest.mark.parametrize("seconds", [(1.0, 9.9), (9.9,)])
def test_short_work_says_nothing(seconds: tuple[float, ...], caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 0.0, 0.0, *seconds))
    progress = LoggedProgress(logging.getLogger("tests"), clock=lambda: next(times))
    with caplog.at_level(logging.INFO):
        progress.started("web-os", 100 * MIB)
        for _ in seconds:
            progress.advanced(MIB)
        progress.finished()
    assert caplog.messages == []


def test_long_work_says_every_ten_seconds_how_far_it_is(caplog: pytest.LogCaptureFixture) -> None:
    times = iter((0.0, 0.0, 0.0, 4.0, 10.0, 12.0, 20.5))
    progress = LoggedProgress(logging.getLogger("tests"), clock=lambda: next(times))
    with caplog.at_level(logging.INFO):
        progress.started("web-os", 100 * MIB)
        for _ in range(4):
            progress.advanced(10 * MIB)
    assert [message.split("  ")[:2] for message in caplog.messages] == [
        ["disk web-os: 20%", "20 MiB of 100 MiB"],
        ["disk web-os: 40%", "40 MiB of 100 MiB"],
    ]
