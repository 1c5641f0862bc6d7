"""What a measure is, how one of its sizes is taken, and how its results are kept and shown.

Each size is taken in a process of its own, so that its memory is its own. Results are added to a JSON file by
size: sizes that one machine has no room for may be taken on another, and say so.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import math
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plots import plot

RESULTS = Path("bench/results/growth")
PICTURES = Path("docs/images/growth")

Row = dict[str, float]
"""Figures of one size by their names. The unit is the last word of a name, but for counts."""


@dataclass(frozen=True)
class Picture:
    """One plot: `lines` are columns, by what the picture calls them; a column may be divided by a unit."""

    name: str
    title: str
    y_label: str
    lines: Mapping[str, str]
    log: bool = False


@dataclass(frozen=True)
class Measure:
    """`take` measures one size, in a folder that is its own and deleted afterwards."""

    name: str
    about: str
    size_label: str
    sizes: Sequence[float]
    take: Callable[[float, Path], Row]
    pictures: Sequence[Picture]


def peak_memory() -> int:
    """Bytes. Not by getrusage, which counts what the parent held before this program was executed (Linux)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if "VmHWM" in line).split()[1]) * 1024


def cpu_of(process: int) -> float:
    """CPU seconds of another process (proc(5))."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def elsewhere(act: Callable[..., None], *arguments: Any) -> None:
    """Do it in another process, whose memory and CPU time are not this one's."""
    process = multiprocessing.get_context("spawn").Process(target=act, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{act.__name__}{arguments} has failed")


def run(measure: Measure, arguments: Sequence[str] | None = None) -> int:
    """The command line of a measure."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.growth.{measure.name}", description=measure.about)
    parser.add_argument(
        "sizes", nargs="*", type=float, default=list(measure.sizes), help=measure.size_label, metavar="SIZE"
    )
    parser.add_argument("--folder", type=Path, help="where to work; needs room for what the sizes say")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where its JSON is, or will be")
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="where its SVG pictures go")
    parser.add_argument("--show", action="store_true", help="measure nothing: the table and pictures again")
    parser.add_argument("--one", nargs=2, metavar=("SIZE", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        size, folder = options.one
        row = measure.take(float(size), Path(folder))
        sys.stdout.write(json.dumps(row | {"peak MiB": round(peak_memory() / 2**20, 1)}) + "\n")
        return 0
    results = Results(options.results / f"{measure.name}.json", measure)
    for size in () if options.show else options.sizes:
        results.add(size, _in_its_own_process(measure, size, options.folder))
        sys.stderr.write(f"{measure.name} {size:g}: {results.rows[size]}\n")
    results.draw(options.pictures)
    sys.stdout.write(results.table() + "\n")
    return 0


def _in_its_own_process(measure: Measure, size: float, folder: Path | None) -> Row:
    with tempfile.TemporaryDirectory(prefix="vsa-growth-", dir=folder) as place:
        module = f"bench.growth.{measure.name}"
        command = [sys.executable, "-m", module, "--one", repr(size), place]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    row: Row = json.loads(answer.splitlines()[-1])
    return row


class Results:
    """The rows of one measure, by size, with where each was taken."""

    def __init__(self, path: Path, measure: Measure) -> None:
        self._path = path
        self._measure = measure
        kept: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
        self.rows: dict[float, Row] = {row["size"]: row["figures"] for row in kept}
        self._where: dict[float, str] = {row["size"]: row["taken"] for row in kept}

    def add(self, size: float, row: Row) -> None:
        self.rows[size] = row
        load = os.getloadavg()[0]
        self._where[size] = (
            f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, {os.cpu_count()} CPUs, load {load:.1f}, "
            f"Python {platform.python_version()}"
        )
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = [
            {"size": size, "taken": self._where[size], "figures": self.rows[size]}
            for size in sorted(self.rows)
        ]
        about = {
            "measure": self._measure.name,
            "about": self._measure.about,
            "size": self._measure.size_label,
        }
        self._path.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")

    def draw(self, folder: Path) -> None:
        """Write the pictures of which there is anything to show."""
        folder.mkdir(parents=True, exist_ok=True)
        for picture in self._measure.pictures:
            lines = {
                name: [(size, row[column]) for size, row in sorted(self.rows.items()) if column in row]
                for name, column in picture.lines.items()
            }
            lines = {name: points for name, points in lines.items() if points}
            if not lines:
                continue
            text = plot(
                picture.title,
                self._measure.size_label,
                picture.y_label,
                lines,
                log_x=picture.log,
                log_y=picture.log,
            )
            (folder / f"{picture.name}.svg").write_text(text)

    def table(self) -> str:
        """Markdown: a row for each figure, and how it grew from the size before the last to the last."""
        sizes = sorted(self.rows)
        columns = list(dict.fromkeys(column for size in sizes for column in self.rows[size]))
        head = [self._measure.size_label, *(f"{size:,g}" for size in sizes), "power of size"]
        lines = [_line(head), "|---" * len(head) + "|"]
        for column in columns:
            values = [self.rows[size].get(column) for size in sizes]
            cells = ["" if value is None else _number(value) for value in values]
            lines.append(_line([column, *cells, growth(sizes, values)]))
        return "\n".join(lines)


def growth(sizes: Sequence[float], values: Sequence[float | None]) -> str:
    """Which power of the size a figure followed at the end: 1 is a straight line, 2 a square, 0 no growth."""
    known = [(size, value) for size, value in zip(sizes, values, strict=True) if value and size]
    if len(known) < 2:
        return ""
    (size, value), (last_size, last) = known[-2:]
    return f"{math.log(last / value) / math.log(last_size / size):.2f}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
