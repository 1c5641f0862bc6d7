"""The main job from end to end, on disks with real file systems, and the proofs that it did what it says."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from azsim.control import Control
from demo.disks import list_sources, machine_roots, missing_tools, sha256_of
from demo.fleet import Day, FleetDisk, Unmanaged, build_images, disk_entry, live_through, story, write_fleet
from demo.proofs import Proof, Restored, prove_nothing_left, prove_restores, prove_savings, prove_staging
from demo.report import disk_table, heading, rule, work_line
from demo.sources import SourceFile
from vsa.media.entries import JobEntry

# Azure takes one snapshot of a premium page blob in ten minutes; the simulation's clock steps over it.
PREMIUM_WAIT_SECONDS = 601
WORKERS = 2


@dataclass
class JobDone:
    """One backup job and what the disks were like when it took its snapshots."""

    name: str
    report: JobEntry
    digests: dict[str, str]


@dataclass
class Demo:
    """The demonstration in one folder; everything it makes is inside."""

    folder: Path
    out: TextIO
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.story = story(filesystems=not missing_tools())
        self.sources: tuple[SourceFile, ...] = ()
        self.disks: list[FleetDisk] = list(self.story.fleet.disks)
        self.jobs: list[JobDone] = []

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def media(self) -> Path:
        return self.folder / "media"

    @property
    def protected(self) -> list[FleetDisk]:
        """The disks that the subclient selects: all but those of the VM tagged backup=no."""
        excluded = {d.name for vm in self.story.fleet.vms if vm.tags.get("backup") == "no" for d in vm.disks}
        return [disk for disk in self.disks if disk.name not in excluded]

    @property
    def staged(self) -> int:
        """Copies to staging blobs that the jobs need: one for each disk in a premium account and job."""
        premium = {a.name for a in self.story.fleet.accounts if a.sku.startswith("Premium")}
        disks = [d for d in self.protected if isinstance(d.place, Unmanaged) and d.place.account in premium]
        return len(disks) * len(self.jobs)

    def say(self, text: str = "") -> None:
        self.out.write(text + "\n")
        self.out.flush()

    def run(self) -> bool:
        """The whole story; True when every proof holds."""
        self._build()
        with azsim(self.folder / "azure") as control:
            control.create_fleet_file(write_fleet(self.story.fleet, self.images))
            vsa("init", "--media", str(self.media))
            save_blocks(control.endpoint, self.media)
            self._job("First job, CBT", {})
            self._live(control, self.story.days[0])
            self._job("Second job, CBT", {})
            self._live(control, self.story.days[1])
            self._job("Third job, CRC", {"method": "crc"})
            proofs = [*self._restore_and_prove(), prove_savings(self.jobs[0].report, self.jobs[1].report)]
            proofs += prove_nothing_left(control.inventory(), len(self.protected))
            proofs.append(prove_staging(control.requests(), copies=self.staged))
        return self._conclude(proofs)

    def _build(self) -> None:
        self.say(heading("A fleet with real disks"))
        tools = missing_tools()
        if tools:
            self.say(f"Without {', '.join(tools)} the disks hold database pages instead of file systems.")
        self.images.mkdir(parents=True)
        self.sources = list_sources(machine_roots())
        build_images(
            self.story.fleet.disks,
            self.images,
            self.sources,
            workers=WORKERS,
            built=lambda disk: self.say(f"  {disk.name:<18} {disk.recipe.kind.value}"),
        )

    def _job(self, name: str, options: dict[str, Any]) -> None:
        # Imported late: Prefect reads its home folder from the environment when it is imported.
        from flows.backup_subclient import backup_subclient  # noqa: PLC0415

        self.say(heading(name))
        digests = self._digests()
        self.say(f"Running the flow backup-subclient over {len(self.protected)} disks ...")
        state = backup_subclient("demo", return_state=True, in_process=True, **options)
        report = state.result(raise_on_failure=False)
        if not isinstance(report, JobEntry):
            raise RuntimeError(f"{name}: {state.name}: {state.message}")
        self.jobs.append(JobDone(name, report, digests))
        self.say(disk_table(report))
        self.say(f"{state.name}: {state.message}")
        for item in report.excluded:
            self.say(f"Left out: {item.name}: {item.reason}")

    def _digests(self) -> dict[str, str]:
        """SHA-256 of each protected disk as its guest has it now."""
        names = [disk.name for disk in self.protected]
        with ThreadPoolExecutor(WORKERS) as pool:
            return dict(
                zip(names, pool.map(lambda n: sha256_of(self.images / f"{n}.img"), names), strict=True)
            )

    def _live(self, control: Control, day: Day) -> None:
        """Let the guests work on their images, and bring their writes to the simulated Azure."""
        self.say(heading(f"Day {day.number}: the guests work"))
        for name, done in live_through(day, self.images, self.sources, workers=WORKERS).items():
            self.say(f"  {name:<18} {work_line(done)}")
        places = {disk.name: disk_address(disk) for disk in self.disks}
        for name in day.work:
            control.write_image(places[name], self.images / f"{name}.img", discard=True)
        for vm, disk in day.attached.items():
            control.attach_disk(vm, disk_entry(disk, self.images))
            self.disks.append(disk)
            self.say(f"  {disk.name:<18} attached to {vm}")
        control.advance_clock(PREMIUM_WAIT_SECONDS)
        self.say("The simulated clock skips ten minutes: a premium VHD takes one snapshot in that time.")

    def _restore_and_prove(self) -> Iterable[Proof]:
        self.say(heading("Restore the oldest and the newest point of every disk"))
        restored = [item for job in (self.jobs[0], self.jobs[-1]) for item in self._restore(job)]
        return prove_restores(restored)

    def _restore(self, job: JobDone) -> list[Restored]:
        """Every disk of the job's points, by the `vsa` command: the newest as VHDs, else as raw."""
        kind = "vhd" if job is self.jobs[-1] else "raw"
        items: list[Restored] = []
        for vm in job.report.vms:
            target = self.folder / "restored" / f"{vm.name}-{vm.point}"
            answer = vsa(
                "restore", str(vm.point), "--media", str(self.media), "--to", str(target), "--format", kind,
                "--no-checksum", "--json",
            )  # fmt: skip
            items += [
                Restored(
                    disk=row["disk"], point=vm.point or 0, path=Path(row["path"]), vhd=kind == "vhd",
                    expected=job.digests[row["disk"]],
                )
                for row in answer["disks"]
            ]  # fmt: skip
            self.say(f"  point {vm.point:>3} of {vm.name:<12} {len(answer['disks'])} disks as {kind}")
        return items

    def _conclude(self, proofs: list[Proof]) -> bool:
        self.say(heading("Proofs"))
        for proof in proofs:
            mark = {True: "holds", False: "FAILS", None: "skipped"}[proof.holds]
            self.say(f"  {mark:<8} {proof.claim}" + (f": {proof.found}" if proof.found else ""))
        failed = [proof for proof in proofs if proof.holds is False]
        self.say(rule())
        seconds = time.monotonic() - self.began
        verdict = "Every proof holds" if not failed else f"{len(failed)} of {len(proofs)} proofs FAIL"
        self.say(f"{verdict}, after {seconds:.0f} s. Media, images and logs stay in {self.folder}.")
        return not failed


def disk_address(disk: FleetDisk) -> str:
    """How the simulation's commands name a disk."""
    entry = disk_entry(disk, Path())
    if entry["managed"]:
        return disk.name
    return f"{entry['account']}/{entry['container']}/{entry['blob']}"


def vsa(*arguments: str) -> dict[str, Any]:
    """Run the `vsa` command as a person would, and read its JSON answer if it gives one."""
    command = [sys.executable, "-m", "vsa", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"vsa {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
    answer: dict[str, Any] = json.loads(done.stdout) if "--json" in arguments else {}
    return answer


def save_blocks(endpoint: dict[str, str], media: Path) -> None:
    """What an operator would enter in the Prefect UI."""
    from demo import saved_blocks  # noqa: PLC0415
    from vsa.subclient import Operator, Rule, RuleGroup, Subclient, VmField  # noqa: PLC0415

    settings = Subclient(
        name="demo",
        groups=(RuleGroup(rules=(Rule(field=VmField.REGION, operator=Operator.MATCHES, value="*europe"),)),),
        exclude=(Rule(field=VmField.TAG, tag="backup", operator=Operator.EQUALS, value="no"),),
    )
    saved_blocks.save_blocks(
        endpoint, media, media_name="demo-media", proxies=("proxy-a", "proxy-b"), subclients=[settings]
    )


@contextmanager
def azsim(state: Path) -> Iterator[Control]:
    """The simulated Azure as a process of its own, for the length of a block."""
    command = [sys.executable, "-m", "azsim", "serve", "--state", str(state)]
    with (state.parent / "azsim.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"the simulated Azure did not start; see {state.parent / 'azsim.log'}")
        yield Control(state)
    finally:
        process.terminate()
        process.wait()


def prepare(folder: Path) -> None:
    """An empty folder, and Prefect at home in it; must run before anything imports Prefect."""
    if folder.exists():
        marker = folder / "demo.json"
        if not marker.exists() and any(folder.iterdir()):
            raise SystemExit(f"{folder} holds something that is not a demo's; name another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "demo.json").write_text("{}\n")
    os.environ.pop("PREFECT_API_URL", None)
    os.environ.update(
        PREFECT_HOME=str(folder / "prefect"),
        PREFECT_LOGGING_LEVEL="WARNING",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    )
