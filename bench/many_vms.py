"""What Prefect costs for each disk: one job over many small VMs, on one server and two proxies.

    python -m bench.many_vms [--vms 500] [--disk-mib 4] [--sqlite] [--folder FOLDER] [--json FILE]

Everything is real but Azure, and on one machine: a server on a PostgreSQL of its own (Debian's package
postgresql) or on SQLite, a worker for each proxy, the job in a process of its own. Two jobs are run, a full
one and one over the same disks unchanged, which shows what remains when there is nothing to move. Prints the
table of docs/operations.md.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from azsim.control import Control
from bench.meter import looking
from demo.installation import PROXIES, Installation, choose_port
from demo.postgresql import postgresql, programs
from demo.process_tree import family
from demo.served import ServedProcess, stop_together
from vsa.media.entries import Result
from vsa.media.media import Media
from vsa.ranges import MIB
from vsa.subclient import Rule, RuleGroup, Subclient, VmField

NAME = "many"
_START_SECONDS = 300.0
_JOB_SECONDS = 4 * 3600.0
_LOOK_SECONDS = 0.5
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Cost:
    """What one group of processes took: CPU seconds, and its most memory at one time in bytes."""

    cpu: float
    memory: int


@dataclass(frozen=True)
class JobFigures:
    """One job. `child_runs` by proxy; `costs` by what the processes are; `database` in bytes."""

    server: str
    job: str
    vms: int
    points: int
    result: str
    wall: float
    child_runs: Mapping[str, int]
    costs: Mapping[str, Cost]
    database: int
    server_errors: int

    @property
    def is_clean(self) -> bool:
        done = self.points == self.vms and self.result == Result.COMPLETED.value
        return done and not self.server_errors


class Meter:
    """Adds up the CPU time of processes and all that is below them, those that end meanwhile included.

    It looks twice a second, so of a process that ends it may miss the last half.
    """

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = roots
        self._cpu: dict[tuple[str, int], float] = {}
        self._before: dict[tuple[str, int], float] = {}
        self._memory: Counter[str] = Counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        self._look()
        self._before = dict(self._cpu)
        with looking(self._look, every=_LOOK_SECONDS):
            yield
        self._look()

    def costs(self) -> dict[str, Cost]:
        found: Counter[str] = Counter()
        for (name, process), seconds in self._cpu.items():
            found[name] += seconds - self._before.get((name, process), 0.0)  # type: ignore[assignment]
        return {name: Cost(round(found[name], 1), self._memory[name]) for name in self._roots}

    def _look(self) -> None:
        for name, root in self._roots.items():
            memory = 0
            for seen in family([root]):
                used = _usage(seen.id)
                if used is not None:
                    self._cpu[name, seen.id] = used[0]
                    memory += used[1]
            self._memory[name] = max(self._memory[name], memory)


def _usage(process: int) -> tuple[float, int] | None:
    """CPU seconds and resident bytes of a process (proc(5)); None if it has ended."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        resident = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return (int(fields[11]) + int(fields[12])) / _TICKS, resident * _PAGE


def make_fleet(control: Control, folder: Path, *, vms: int, disk_mib: int) -> None:
    """So many VMs with a disk each, whose first 64 KiB say which it is; the rest is zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for number in range(vms):
        image = folder / f"vm{number:04}.img"
        image.write_bytes(f"disk {number} ".encode() * 4096)
        os.truncate(image, disk_mib * MIB)
        disk = {
            "name": f"vm{number:04}-os",
            "sku": "Standard_LRS",
            "size": disk_mib * MIB,
            "image": str(image),
        }
        described.append(
            {
                "name": f"vm{number:04}",
                "resource_group": "many",
                "location": "westeurope",
                "tags": {"backup": NAME},
                "disks": [disk],
            }
        )
    control.create_fleet({"vms": described})


class Bench:
    """One installation for a few jobs."""

    def __init__(self, folder: Path, *, vms: int, disk_mib: int, database: str = "") -> None:
        self._here = Installation(folder, choose_port(folder, 0), database)
        self._vms = vms
        self._disk_mib = disk_mib
        self._served: dict[str, ServedProcess] = {}

    @contextmanager
    def running(self) -> Iterator[None]:
        try:
            self._start()
            yield
        finally:
            stop_together(list(self._served.values()), seconds=60)

    def _start(self) -> None:
        here = self._here
        server = self._serve("Prefect server", here.server())
        azure = self._serve("azsim", here.simulated_azure())
        azure.await_ready(here.azure_ready.exists, seconds=_START_SECONDS)
        control = Control(here.azure)
        make_fleet(control, here.folder / "images", vms=self._vms, disk_mib=self._disk_mib)
        Media.create(str(here.media), now=dt.datetime.now(dt.UTC))
        server.await_ready(here.api.answers, seconds=_START_SECONDS)
        self._do("save", "bench.many_vms", "--save-blocks", str(here.azure), str(here.media))
        self._do("register", "deployments.register")
        began = dt.datetime.now(dt.UTC)
        for proxy in PROXIES:
            self._serve(proxy, here.worker(proxy))
        for proxy in PROXIES:
            self._served[proxy].await_ready(
                lambda proxy=proxy: here.api.worker_is_online(proxy, since=began),  # type: ignore[misc]
                seconds=_START_SECONDS,
            )

    def _serve(self, name: str, process: ServedProcess) -> ServedProcess:
        self._served[name] = process.start()
        return process

    def _do(self, name: str, module: str, *arguments: str) -> None:
        step = self._here.command(name, module, *arguments).start()
        step.await_end(seconds=_START_SECONDS)

    def run_job(self, job: str) -> JobFigures:
        """Run the job in a process of its own and say what it and everything else took."""
        here = self._here
        media = Media.open(str(here.media))
        points_before = len(media.view().points)
        children_before = self._child_runs()
        errors_before = self._server_errors()
        process = here.command(f"job-{job}", "flows.backup_subclient", NAME).start()
        roots = {name: served.id for name, served in self._served.items()} | {"job": process.id}
        meter = Meter({name: root for name, root in roots.items() if root is not None})
        began = time.monotonic()
        with meter.running():
            process.await_end(seconds=_JOB_SECONDS)
        wall = time.monotonic() - began
        view = media.view()
        report = view.jobs[max(view.jobs)].job
        children = {proxy: count - children_before[proxy] for proxy, count in self._child_runs().items()}
        return JobFigures(
            server="PostgreSQL" if here.database else "SQLite",
            job=job,
            vms=self._vms,
            points=len(view.points) - points_before,
            result=report.result.value,
            wall=round(wall, 1),
            child_runs=children,
            costs=meter.costs(),
            database=self._database_size(),
            server_errors=self._server_errors() - errors_before,
        )

    def _database_size(self) -> int:
        if self._here.database:
            return asyncio.run(_size_of(self._here.database))
        return sum(path.stat().st_size for path in (self._here.folder / "prefect").glob("prefect.db*"))

    def _child_runs(self) -> dict[str, int]:
        return {proxy: self._here.api.count_runs(proxy) for proxy in PROXIES}

    def _server_errors(self) -> int:
        return sum(" ERROR " in line for line in self._served["Prefect server"].log.read_text().splitlines())


async def _size_of(database: str) -> int:
    # What Prefect's server itself talks to PostgreSQL with.
    import asyncpg  # noqa: PLC0415

    connection = await asyncpg.connect(database.replace("+asyncpg", ""))
    try:
        return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
    finally:
        await connection.close()


def table(figures: Sequence[JobFigures]) -> str:
    """Markdown: a row for each job, then what each group of processes took for a disk."""
    titles = ["job", "server on", "VMs", "points", "result", "wall", "child runs", "a disk", "database"]
    titles.append("errors of the server")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for job in figures:
        runs = " + ".join(str(count) for count in job.child_runs.values())
        lines.append(
            f"| {job.job} | {job.server} | {job.vms} | {job.points} | {job.result} | {job.wall:.0f} s "
            f"| {runs} | {job.wall / job.vms:.2f} s | {job.database / MIB:.0f} MiB | {job.server_errors} |"
        )
    lines += [
        "",
        "| processes | " + " | ".join(f"{job.job}: CPU for a disk, memory" for job in figures) + " |",
    ]
    lines.append("|---|" + "---|" * len(figures))
    for name in figures[0].costs:
        cells = [
            f"{job.costs[name].cpu / job.vms:.2f} s, {job.costs[name].memory / MIB:.0f} MiB"
            for job in figures
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _save_blocks(azure: Path, media: Path) -> None:
    # Prefect takes seconds to load: only the process that saves blocks needs it.
    from demo.saved_blocks import save_blocks  # noqa: PLC0415

    rule = Rule(field=VmField.TAG, tag="backup", value=NAME)
    save_blocks(
        Control(azure).endpoint,
        media,
        media_name=NAME,
        proxies=PROXIES,
        subclients=[Subclient(name=NAME, groups=(RuleGroup(rules=(rule,)),))],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the jobs and print the table; 1 if a VM has no recovery point or anything told of an error."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_vms", description=__doc__)
    parser.add_argument("--vms", type=int, default=500)
    parser.add_argument("--disk-mib", type=int, default=4)
    parser.add_argument("--sqlite", action="store_true", help="let the Prefect server have an SQLite")
    parser.add_argument("--folder", type=Path, help="keep everything there, logs included")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument(
        "--save-blocks", nargs=2, type=Path, metavar=("AZURE", "MEDIA"), help=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    if options.save_blocks:
        _save_blocks(*options.save_blocks)
        return 0
    with tempfile.TemporaryDirectory(prefix="vsa-many-") as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with _database(sqlite=options.sqlite) as database:
            bench = Bench(folder, vms=options.vms, disk_mib=options.disk_mib, database=database)
            figures: list[JobFigures] = []
            with bench.running():
                for job in ("full", "unchanged"):
                    figures.append(bench.run_job(job))
                    # The next job takes as long again: what is known is not lost if somebody ends it.
                    sys.stdout.write(table(figures) + "\n\n")
                    sys.stdout.flush()
                    if options.json:
                        plain = [_plain(figure) for figure in figures]
                        options.json.write_text(json.dumps(plain, indent=1) + "\n")
    return 0 if all(job.is_clean for job in figures) else 1


@contextmanager
def _database(*, sqlite: bool) -> Iterator[str]:
    """The URL of the server's PostgreSQL; empty for its SQLite."""
    if sqlite:
        yield ""
        return
    folder = programs()
    if folder is None:
        raise SystemExit("PostgreSQL's programs are missing: install them (postgresql), or give --sqlite")
    with postgresql(folder) as database:
        yield database


def _plain(job: JobFigures) -> dict[str, Any]:
    return asdict(job)


if __name__ == "__main__":
    sys.exit(main())
