"""The demonstration's tables."""

from __future__ import annotations

from demo.disks import ChangeSummary
from vsa.media.entries import DiskOutcome, JobEntry
from vsa.ranges import total
from vsa.text import printable, size_text

_WIDTH = 128
_HEADS = (
    "disk",
    "method",
    "reason",
    "size",
    "allocated",
    "changed",
    "read",
    "shared",
    "stored",
    "time",
    "read of allocated",
)
_ROW = "  {:<17} {:<6} {:<14} {:>9} {:>10} {:>10} {:>10} {:>9} {:>10} {:>7}  {}"
_BAR = 14


def heading(text: str) -> str:
    return f"\n{text}\n{rule()}"


def rule() -> str:
    return "─" * _WIDTH


def disk_table(report: JobEntry) -> str:
    """One line for each disk of a job: how it was read, why, and what moved."""
    lines = [_ROW.format(*_HEADS)]
    lines += [_line(disk) for vm in report.vms for disk in vm.disks]
    return "\n".join(lines)


def work_line(done: ChangeSummary) -> str:
    """A guest's day on one disk in a few words."""
    files, cleared = done.files, total(done.cleared)
    parts = [
        f"{len(files.added)} files added, {len(files.rewritten)} rewritten, {len(files.deleted)} deleted"
    ]
    parts += [f"{size_text(total(done.written))} written"]
    parts += [f"{size_text(cleared)} cleared"] if cleared else []
    return ", ".join(parts)


def _line(disk: DiskOutcome) -> str:
    figures = disk.figures
    if figures is None or disk.method is None or disk.reason is None:
        return f"  {printable(disk.name):<17} failed"
    return _ROW.format(
        printable(disk.name),
        disk.method.value,
        disk.reason.value,
        size_text(figures.size),
        size_text(figures.allocated),
        size_text(figures.changed),
        size_text(figures.read),
        size_text(figures.shared),
        size_text(figures.stored),
        f"{figures.elapsed:.1f} s",
        _bar(figures.read / max(figures.allocated, 1)),
    )


def _bar(share: float) -> str:
    """A share of one as a bar; anything above nothing shows, and so does an audit on top of a whole read."""
    full = min(_BAR, max(1, round(share * _BAR))) if share > 0 else 0
    return "█" * full + "·" * (_BAR - full)
