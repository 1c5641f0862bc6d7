"""What people read while a job runs and when it has ended; no server is needed to write it."""

from __future__ import annotations

import datetime as dt
import logging

import pytest

from tasks.progress import LoggedProgress
from tasks.report import markdown
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


def rows(text: str) -> list[list[str]]:
    """Cells of the table below its headings."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_each_disk_has_a_row_with_its_proxy_method_amounts_and_result() -> None:
    moved = disk("web-os", changed=8 * MIB, read=10 * MIB, shared=2 * MIB, stored=4 * MIB, elapsed=2.0)
    text = markdown(report(vm(moved)), {"key-of-web-os": "proxy-a"})
    assert text.startswith(
        "# production: completed\n\n1 of 1 VMs have a recovery point, after 90 s.\n\n| VM | disk | proxy |"
    )
    assert rows(text) == [
        [
            "web",
            "web-os",
            "proxy-a",
            "cbt",
            "CBT",
            "64 MiB",
            "8 MiB",
            "10 MiB",
            "2 MiB",
            "4 MiB",
            "5 MiB/s",
            "point 7",
        ]
    ]


def test_a_disk_that_was_read_for_nothing_and_one_that_failed_say_so() -> None:
    lost = DiskOutcome(name="web-data", key="key-of-web-data")
    text = markdown(report(vm(disk("web-os"), lost, point=None, error="disk web-data: gone")), {})
    assert [row[-1] for row in rows(text)] == ["read, but the VM has no point", "failed"]
    assert "## Needs attention\n\n- web: disk web-data: gone\n" in text


def test_alarms_and_exclusions_have_their_sections_and_names_are_no_markup() -> None:
    hostile = Exclusion(name="<img src=x>|evil", reason="[click](http://elsewhere)\n# heading")
    text = markdown(report(excluded=(hostile,), alarms=("cleanup pending",), result=Result.FAILED), {})
    assert (
        "## Needs attention\n\n- cleanup pending\n\n## Left out\n\n- \\<img src=x\\>\\|evil: \\[click\\]"
        in text
    )
    assert text.count("\n#") == 2


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
