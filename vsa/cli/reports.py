"""What the reading commands say: first as a document, then as text made from the same facts.

Documents are the output of `--json`: their field names are kept, sizes are bytes, times are ISO 8601
in UTC. Everything comes from the media's log alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence

from vsa.cli.answers import Document
from vsa.cli.tables import fields, moment, table
from vsa.media.entries import JobEntry, VmOutcome
from vsa.media.view import CommittedPoint, ReportedJob, View
from vsa.model import DiskBackup, Point
from vsa.restore.choosing import points_called
from vsa.text import printable, ranges_text, size_text


def points_of(view: View, vm: str | None) -> list[CommittedPoint]:
    """Points in log order; of one client if it is named, as `points_called` takes names."""
    return list(view.points.values()) if vm is None else points_called(view, vm)


def points_document(view: View, points: Sequence[CommittedPoint]) -> list[Document]:
    return [_listed_point(view, made, made.point) for made in points]


def _listed_point(view: View, made: CommittedPoint, point: Point) -> Document:
    return {
        "point": made.slot,
        "taken_at": taken_at(point).isoformat(),
        "committed_at": made.time.isoformat(),
        "vm": point.vm.name,
        "vm_key": point.vm.key,
        "subclient": point.subclient,
        "job": point.job,
        "disks": len(point.disks),
        "size": sum(backup.snapshot.size for backup in point.disks),
        "shared": sum(backup.figures.shared for backup in point.disks),
        "stored": sum(backup.figures.stored for backup in point.disks),
        "methods": sorted({backup.method.value for backup in point.disks}),
        "excluded": len(point.excluded),
        "doubtful": made.slot in view.doubtful,
        "damaged": bool(view.harm_of(made.slot)),
        "pinned": made.slot in view.pinned,
        "forgotten_at": view.forgotten[made.slot].isoformat() if made.slot in view.forgotten else None,
    }


def points_text(view: View, points: Sequence[CommittedPoint]) -> str:
    headings = [">POINT", "TAKEN", "VM", "SUBCLIENT", "METHOD", ">DISKS", ">SIZE", ">STORED", "REMARK"]
    rows = [_point_row(view, made, made.point) for made in points]
    shown = table(headings, rows) if rows else "No recovery points."
    given_up = ", ".join(map(str, sorted(view.given_up)))
    return f"{shown}\nForgotten and given up to a prune: {given_up}." if given_up else shown


def _point_row(view: View, made: CommittedPoint, point: Point) -> list[object]:
    disks = point.disks
    return [
        made.slot,
        moment(taken_at(point)),
        point.vm.name,
        point.subclient,
        ", ".join(sorted({backup.method.value for backup in disks})),
        len(disks),
        size_text(sum(backup.snapshot.size for backup in disks)),
        size_text(sum(backup.figures.stored for backup in disks)),
        remark(view, made.slot, point),
    ]


def remark(view: View, slot: int, point: Point) -> str:
    """What somebody must know before they rely on the point."""
    remarks = ["DAMAGED"] if view.harm_of(slot) else []
    remarks += ["DOUBTFUL"] if slot in view.doubtful else []
    if slot in view.forgotten:
        remarks.append(f"forgotten {moment(view.forgotten[slot])}")
    if slot in view.pinned:
        remarks.append("pinned")
    if excluded := len(point.excluded):
        remarks.append(f"{excluded} excluded")
    return ", ".join(remarks)


def taken_at(point: Point) -> dt.datetime:
    """When the first of the point's snapshots was taken: nothing later is sure to be in it."""
    return min(backup.snapshot.taken_at for backup in point.disks)


def clients_document(view: View) -> list[Document]:
    points = _points_by_client(view)
    return [
        {
            "key": key,
            **client.model_dump(mode="json", exclude={"type"}),
            "points": points.get(key, []),
            "damaged": [slot for slot in points.get(key, []) if view.harm_of(slot)],
        }
        for key, client in sorted(view.clients.items(), key=lambda item: item[1].vm.name.casefold())
    ]


def clients_text(view: View) -> str:
    points = _points_by_client(view)
    rows = [
        [
            client.vm.name,
            client.state.value,
            client.vm.resource_group,
            client.vm.region,
            moment(client.last_seen),
            len(points.get(client.vm.key, [])),
            max(points.get(client.vm.key, []), default="-"),
            _damaged_text(view, points.get(client.vm.key, [])),
        ]
        for client in sorted(view.clients.values(), key=lambda client: client.vm.name.casefold())
    ]
    headings = ["CLIENT", "STATE", "RESOURCE GROUP", "REGION", "LAST SEEN", ">POINTS", ">NEWEST", "REMARK"]
    return table(headings, rows) if rows else "No clients."


def _damaged_text(view: View, points: Sequence[int]) -> str:
    damaged = sum(bool(view.harm_of(slot)) for slot in points)
    return f"{damaged} DAMAGED" if damaged else ""


def jobs_of(view: View, limit: int | None) -> list[ReportedJob]:
    """The newest jobs first, no more than `limit`."""
    return sorted(view.jobs.values(), key=lambda reported: -reported.slot)[:limit]


def jobs_document(jobs: Iterable[ReportedJob]) -> list[Document]:
    return [{"slot": item.slot, **item.job.model_dump(mode="json", exclude={"type"})} for item in jobs]


def jobs_text(jobs: Sequence[ReportedJob]) -> str:
    headings = [">SLOT", "STARTED", ">TOOK", "SUBCLIENT", "METHOD", "RESULT", ">VMS", "JOB"]
    if not jobs:
        return "No jobs."
    lines = [table(headings, [_job_row(item.slot, item.job) for item in jobs])]
    lines += [f"{item.slot}: {line}" for item in jobs for line in _job_remarks(item.job)]
    return "\n".join(lines)


def _job_row(slot: int, job: JobEntry) -> list[object]:
    made = sum(outcome.point is not None for outcome in job.vms)
    took = dt.timedelta(seconds=round((job.ended_at - job.started_at).total_seconds()))
    return [
        *(slot, moment(job.started_at), took, job.subclient, job.method.value, job.result.value),
        *(f"{made}/{len(job.vms)}", job.job),
    ]


def _job_remarks(job: JobEntry) -> Iterable[str]:
    for outcome in job.vms:
        if outcome.error:
            yield printable(f"{outcome.name} {outcome.result}: {outcome.error}")
        yield from _fallbacks(outcome)
    for alarm in job.alarms:
        yield printable(f"ALARM: {alarm}")
    for released in job.released:
        yield printable(f"base {released.base.id} released: {released.reason}")


def _fallbacks(outcome: VmOutcome) -> Iterable[str]:
    """Disks that have something to say about how they were backed up."""
    for disk in outcome.disks:
        if disk.detail:
            yield printable(f"{outcome.name}, {disk.name}: {disk.reason or ''} {disk.detail}")


def point_document(view: View, made: CommittedPoint) -> Document:
    """Everything the log says of one point."""
    return {
        "point": made.slot,
        "committed_at": made.time.isoformat(),
        "taken_at": taken_at(made.point).isoformat(),
        "run": made.run,
        "doubts": [
            {"slot": doubt.slot, "disk_key": doubt.disk_key, "reason": doubt.reason}
            for doubt in view.doubtful.get(made.slot, ())
        ],
        "harm": [harm.model_dump(mode="json") for harm in view.harm_of(made.slot)],
        **made.point.model_dump(mode="json"),
    }


def point_text(view: View, made: CommittedPoint) -> str:
    parts = [_point_facts(made), _disks_table(made), *_point_remarks(view, made)]
    return "\n\n".join(part for part in parts if part)


def _point_facts(made: CommittedPoint) -> str:
    point = made.point
    return fields(
        [
            ("Point", made.slot),
            ("VM", point.vm.name),
            ("Resource id", point.vm.resource_id),
            ("OS, size", f"{point.vm.os_type}, {point.vm.size}"),
            ("Region", point.vm.region),
            ("Subclient", point.subclient),
            ("Job, run", f"{point.job}, {made.run}"),
            ("Snapshots", moment(taken_at(point))),
            ("Committed", moment(made.time)),
            ("Consistency", point.consistency),
        ]
    )


def _disks_table(made: CommittedPoint) -> str:
    headings = [
        "DISK",
        "ROLE",
        ">SIZE",
        "METHOD",
        "REASON",
        "SNAPSHOT",
        ">READ",
        ">SHARED",
        ">STORED",
        ">INDEXES",
        "BASE KEPT",
    ]
    kept = {base.disk_key for base in made.point.bases}
    return table(headings, [_disk_row(backup, backup.disk.key in kept) for backup in made.point.disks])


def _disk_row(backup: DiskBackup, base_kept: bool) -> list[object]:
    return [
        backup.disk.name,
        backup.disk.place,
        size_text(backup.snapshot.size),
        backup.method.value,
        backup.reason.value,
        moment(backup.snapshot.taken_at),
        size_text(backup.figures.read),
        size_text(backup.figures.shared),
        size_text(backup.figures.stored),
        f"{len(backup.indexes)}, {size_text(sum(index.size for index in backup.indexes))}",
        "yes" if base_kept else "no",
    ]


def _point_remarks(view: View, made: CommittedPoint) -> Iterable[str]:
    for backup in made.point.disks:
        if backup.detail:
            yield printable(f"{backup.disk.name}: {backup.detail}")
    for exclusion in made.point.excluded:
        yield printable(f"Not in this point: {exclusion.name}: {exclusion.reason}")
    yield from _harm_lines(view, made)
    for doubt in view.doubtful.get(made.slot, ()):
        yield printable(
            f"DOUBTFUL: {_disk_name(made, doubt.disk_key)}: {doubt.reason} (log slot {doubt.slot})"
        )


def _harm_lines(view: View, made: CommittedPoint) -> Iterable[str]:
    """What is lost of each disk, and what can be done about it."""
    lost: dict[str, list[tuple[int, int]]] = {}
    for harm in view.harm_of(made.slot):
        lost.setdefault(harm.disk_key, []).extend(harm.ranges)
    for key, ranges in lost.items():
        yield printable(f"DAMAGED: {_disk_name(made, key)}: lost {ranges_text(ranges)}")
    if lost:
        yield (
            "The next backup reads these extents again; such as have not changed are healed in all points.\n"
            f"Until then `vsa restore {made.slot} --salvage` restores the rest; other points may have it all."
        )


def _disk_name(made: CommittedPoint, key: str) -> str:
    return next((backup.disk.name for backup in made.point.disks if backup.disk.key == key), key)


def _points_by_client(view: View) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for made in view.points.values():
        found.setdefault(made.client, []).append(made.slot)
    return found
