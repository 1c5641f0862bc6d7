"""What people see in the Prefect dashboard, in a real browser on a whole local installation.

AZURE_VSA_SCREENSHOTS=docs/images keeps the pictures that the documentation shows.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from demo.prefect_processes import PrefectApi
from tests.installation.chromium import chromium, leaves_the_machine, missing
from tests.installation.local_installation import DISKS, LocalInstallation, wait_for
from tests.soak import only_in_ci
from vsa.model import name_key
from vsa.stop import DEFAULT_DELAYS

pytestmark = [
    only_in_ci,
    pytest.mark.tools,
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.timeout(1200),
]

_PATIENCE_MS = 60_000
_JOB_SECONDS = 400.0
_SUBMISSIONS = 10
_LOADS = 5
_LOAD_MS = 40_000
_BELOW_THE_GRAPH = (760, 650)
_FAR = 3000
_LARGEST_PICTURE = 200 * 1024
# One request too many for the engine's own patience, so that Prefect repeats the task.
_REFUSALS = 1 + len(DEFAULT_DELAYS)
_STREAM = re.compile(r"^\S+ of \S+ via \S+$")

expect.set_options(timeout=_PATIENCE_MS)


class Seen(NamedTuple):
    """A browser's page, what it asked the network for, and where pictures of it go."""

    page: Page
    asked: list[str]
    pictures: Path
    api: PrefectApi

    @property
    def dashboard(self) -> str:
        return self.api.url.removesuffix("/api")

    def shows(self, address: str, what: Locator, *, tab: str = "", far_below: bool = False) -> None:
        """Load the page until this is in it: a request that a busy server refused leaves a hole in a page.

        What is `far_below` is in it only once somebody scrolls there: long lists keep what is in view.
        """
        for _ in range(_LOADS):
            self.page.goto(self.dashboard + address.removeprefix(self.dashboard))
            with contextlib.suppress(PlaywrightTimeout):
                if tab:
                    self.tab(tab)
                if far_below:
                    self.page.mouse.move(*_BELOW_THE_GRAPH)
                    self.page.mouse.wheel(0, _FAR)
                what.wait_for(timeout=_LOAD_MS)
                return
        self.picture("not-shown")
        raise AssertionError(f"{address} does not show {what}")

    def picture(self, name: str) -> None:
        """Keep what is seen now; the page has time to draw it."""
        self.page.wait_for_timeout(1500)
        path = self.pictures / f"{name}.png"
        self.page.screenshot(path=path)
        assert path.stat().st_size < _LARGEST_PICTURE, path

    def tab(self, name: str) -> None:
        self.page.locator(".p-tab", has_text=re.compile(f"^{name}")).click(timeout=_LOAD_MS)

    def artifact(self, run: str, key: str) -> None:
        """Open an artifact from its flow run's page; while that loads, what was in its list may go again."""
        named = self.page.get_by_text(key, exact=True).first
        for _ in range(_LOADS):
            self.shows(run, named, tab="Artifacts", far_below=True)
            with contextlib.suppress(PlaywrightTimeout):
                named.click(timeout=_LOAD_MS / 4)
                self.page.wait_for_url("**/artifacts/**", timeout=_LOAD_MS)
                return
        raise AssertionError(f"{run} does not open {key}")

    def deployment(self, flow: str, name: str) -> Locator:
        """The row of the list of deployments."""
        rows = self.page.get_by_role("row").filter(has_text=flow)
        return rows.filter(has=self.page.get_by_role("link", name=name, exact=True))


@pytest.fixture
def seen(installation: LocalInstallation, tmp_path: Path) -> Iterator[Seen]:
    pictures = Path(os.environ.get("AZURE_VSA_SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    asked: list[str] = []
    with chromium(asked) as page:
        # A busy server refuses a request now and then, and the page says so, over what lies beneath.
        page.add_locator_handler(
            page.locator(".p-toast").first, lambda toast: toast.get_by_role("button").first.click()
        )
        yield Seen(page, asked, pictures, installation.here.api)


def refuse_a_stream(installation: LocalInstallation, disk: str) -> None:
    """Let Azure fail the first attempts to read the disk's snapshot."""
    row = next(row for row in installation.control.inventory()["disks"] if row["name"] == disk)
    path = f"/snapshots/vsa-[0-9a-f]+-{name_key(row['id'])}/beginGetAccess"
    installation.control.add_fault("status", status=503, retry_after=0, path=path, times=_REFUSALS)


def test_people_find_the_schedule_start_a_job_and_watch_it(
    installation: LocalInstallation, seen: Seen
) -> None:
    the_schedule_is_listed_and_on(seen)
    refuse_a_stream(installation, "shop-01-data")
    job = a_job_is_started_from_the_form(seen)
    its_streams_run_on_both_proxies(seen, job)
    its_report_is_there(seen, job)
    the_repeated_task_says_why(seen, job)
    assert seen.asked
    assert [address for address in seen.asked if leaves_the_machine(address)] == []


def test_people_cancel_a_job_and_its_streams_with_a_click(
    installation: LocalInstallation, seen: Seen
) -> None:
    # Other tests may have started jobs, and their bases stay.
    wait_for(lambda: not installation.runs_now, seconds=_JOB_SECONDS)
    bases = installation.snapshots
    slow = installation.read_slowly()
    job = f"{seen.dashboard}/runs/flow-run/{installation.start_a_job()}"
    wait_for(lambda: installation.control.fired(slow) > 0, seconds=180)
    assert len(installation.snapshots) == len(bases) + DISKS
    it_is_cancelled_with_all_its_streams(seen, job)
    await_end(seen, job, "CANCELLED")
    wait_for(lambda: not installation.runs_now, seconds=_JOB_SECONDS)
    assert installation.snapshots == bases
    seen.shows(job, seen.page.get_by_text("Cancelled", exact=True).first)
    seen.artifact(job, "backup-production")
    seen.shows(seen.page.url, seen.page.get_by_text(re.compile("the job was told to stop")).first)
    seen.picture("cancelled")


def it_is_cancelled_with_all_its_streams(seen: Seen, job: str) -> None:
    page = seen.page
    cancel = page.get_by_role("button", name="Cancel", exact=True)
    seen.shows(job, cancel)
    cancel.click()
    asked = page.get_by_role("dialog")
    expect(asked).to_contain_text("Cancel Flow Run")
    streams_too = asked.get_by_role("checkbox")
    expect(streams_too).not_to_be_checked()
    asked.get_by_text("Cancel all sub flow runs").click()
    expect(streams_too).to_be_checked()
    seen.picture("cancel")
    asked.get_by_role("button", name="Confirm").click()
    expect(asked).to_be_hidden()


def the_schedule_is_listed_and_on(seen: Seen) -> None:
    page = seen.page
    nightly = seen.deployment("backup-subclient", "nightly")
    seen.shows("/deployments", nightly)
    expect(nightly).to_contain_text("Ready")
    seen.picture("deployments")
    nightly.get_by_role("link", name="nightly", exact=True).click()
    page.wait_for_url("**/deployments/deployment/*")
    seen.shows(page.url, page.get_by_text(re.compile("Scheduled for")).first, tab="Upcoming")
    expect(page.get_by_role("switch").first).to_have_attribute("aria-checked", "true")
    seen.picture("schedule")


def a_job_is_started_from_the_form(seen: Seen) -> str:
    """The address of the job's page."""
    page = seen.page
    ad_hoc = seen.deployment("backup-subclient", "ad-hoc")
    seen.shows("/deployments", ad_hoc)
    ad_hoc.get_by_role("link", name="ad-hoc", exact=True).click()
    page.wait_for_url("**/deployments/deployment/*")
    run = page.get_by_role("button", name="Run", exact=True)
    seen.shows(page.url, run)
    run.click()
    page.get_by_text("Custom run").click()
    field(page, "subclient").locator("textarea").fill("production")
    method = field(page, "method")
    method.get_by_role("button", name="str", exact=True).click()
    method.locator(".p-select-button__control").press("ArrowDown")
    page.get_by_role("option", name="cbt").click()
    seen.picture("custom-run")
    job = submit(page)
    return f"{seen.dashboard}/runs/flow-run/{job}"


def submit(page: Page) -> str:
    """The id of the new run; asked for as often as the server says that it is busy, as SQLite lets it be."""
    for _ in range(_SUBMISSIONS):
        with page.expect_response(re.compile("/create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").click()
        if answer.value.ok:
            return str(answer.value.json()["id"])
        assert answer.value.status == HTTPStatus.SERVICE_UNAVAILABLE, answer.value.text()
    raise AssertionError(f"the server was busy {_SUBMISSIONS} times")


def field(page: Page, name: str) -> Locator:
    """The part of the form that asks for one parameter."""
    label = page.locator(".schema-form-property__label", has_text=re.compile(rf"^{name}( |$)"))
    return page.locator(".schema-form-property").filter(has=label).first


def its_streams_run_on_both_proxies(seen: Seen, job: str) -> None:
    page = seen.page
    await_end(seen, job)
    streams = page.get_by_role("link", name=_STREAM)
    seen.shows(job, streams.nth(5), tab="Subflow Runs")
    # Which proxy has which is no matter here: a stream that did not begin in time has moved.
    assert {name.rsplit(maxsplit=1)[-1] for name in streams.all_inner_texts()} == {"proxy-a", "proxy-b"}
    seen.picture("job")


def await_end(seen: Seen, job: str, end: str = "COMPLETED") -> None:
    """Until the job has ended so; the page is left meanwhile, for to draw it takes more than the job does."""
    seen.page.goto("about:blank")
    deadline = time.monotonic() + _JOB_SECONDS
    while (found := seen.api.ask("GET", f"/flow_runs/{job.rsplit('/', 1)[1]}"))["state_type"] != end:
        assert time.monotonic() < deadline, f"not {end}: {found['state']}"
        time.sleep(2)


def its_report_is_there(seen: Seen, job: str) -> None:
    page = seen.page
    seen.shows(job, page.get_by_text(re.compile("submitting flow run")).first)
    seen.artifact(job, "backup-production")
    seen.shows(page.url, page.get_by_text("3 of 3 VMs have a recovery point").first)
    seen.picture("report")
    seen.artifact(job, "backup-production-disks")
    seen.shows(page.url, page.get_by_text("shop-01-data").first)
    expect(page.get_by_text("FULL_FIRST").first).to_be_visible()
    seen.picture("report-disks")


def the_repeated_task_says_why(seen: Seen, job: str) -> None:
    page = seen.page
    stream = page.get_by_role("link", name=re.compile("^shop-01-data of"))
    seen.shows(job, stream, tab="Subflow Runs")
    stream.click()
    page.wait_for_url(lambda address: "/flow-run/" in address and not address.startswith(job))
    transfer = page.get_by_role("link", name=re.compile("^transfer shop-01-data of")).last
    seen.shows(page.url, transfer, tab="Task Runs")
    transfer.click()
    page.wait_for_url("**/task-run/*")
    seen.shows(page.url, page.get_by_text("Retry 1/3 will start").first)
    expect(page.get_by_text("trying again in").first).to_be_visible()
    expect(page.get_by_text("Run Count").first).to_be_visible()
    seen.picture("retry")
    seen.shows(page.url, page.get_by_text(re.compile("^stream-shop-01-data-")).first, tab="Artifacts")
    expect(page.get_by_text(re.compile("^disk shop-01-data: .* MiB in ")).first).to_be_visible()
    seen.picture("progress")
