"""One row for each disk of a job, as cells of a table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tasks.artifacts import run_link, run_url
from tasks.markup import escaped
from vsa.media.entries import DiskOutcome, JobEntry, VmOutcome
from vsa.text import printable, size_text

HEADINGS = (
    "VM",
    "disk",
    "proxy",
    "method",
    "reason",
    "size",
    "changed",
    "read",
    "shared",
    "stored",
    "rate",
    "result",
    "stream",
)

# Of Prefect's two dashboards one renders the cells of a table artifact as Markdown, the other shows them as
# they are: only what could become a link, a picture or a tag is escaped, so that usual names stay readable.
_LINKING = re.compile(r"([\\`\[\]<>])")


@dataclass(frozen=True)
class Row:
    """What became of one disk: `cells` are plain text in the order of HEADINGS, without the last one."""

    cells: tuple[str, ...]
    sound: bool
    stream: str = ""

    def as_markdown(self) -> list[str]:
        """Cells of a Markdown table; the stream is a link to its flow run."""
        return [*map(escaped, self.cells), run_link(self.stream, "run") if self.stream else ""]

    def as_record(self) -> dict[str, str]:
        """A row of a table artifact; the stream is the address of its flow run."""
        stream = run_url(self.stream) if self.stream else ""
        texts = [_LINKING.sub(r"\\\1", printable(cell)) for cell in self.cells]
        return dict(zip(HEADINGS, [*texts, stream], strict=True))


def rows(report: JobEntry, proxies: Mapping[str, str], streams: Mapping[str, str]) -> list[Row]:
    """All disks of the report, those first whose VM has no point; both mappings are by disk key."""
    found = [
        Row(tuple(_cells(vm, disk, proxies)), sound=_is_sound(vm, disk), stream=streams.get(disk.key, ""))
        for vm in report.vms
        for disk in vm.disks
    ]
    return sorted(found, key=lambda row: row.sound)


def _is_sound(vm: VmOutcome, disk: DiskOutcome) -> bool:
    return vm.point is not None and disk.figures is not None


def _cells(vm: VmOutcome, disk: DiskOutcome, proxies: Mapping[str, str]) -> Iterator[str]:
    yield from (vm.name, disk.name, proxies.get(disk.key, ""))
    figures = disk.figures
    if figures is None or disk.method is None or disk.reason is None:
        yield from [""] * 8
        yield "failed"
        return
    yield from (disk.method.value, disk.reason.value)
    for amount in (figures.size, figures.changed, figures.read, figures.shared, figures.stored):
        yield size_text(amount)
    yield f"{size_text(round(figures.read / figures.elapsed))}/s" if figures.elapsed else ""
    yield f"point {vm.point}" if vm.point is not None else "read, but the VM has no point"
