"""What the commands that keep media say: plans before, reports after, as documents and as text."""

from __future__ import annotations

from collections.abc import Iterator

from vsa.cli.answers import Document
from vsa.cli.tables import fields, moment, table
from vsa.text import printable, size_text
from vsa.upkeep.forgetting import ForgetPlan, Judged
from vsa.upkeep.prune import PrunePlan, PruneReport


def forget_document(plan: ForgetPlan) -> Document:
    decision = plan.decision
    return {
        "token": None if decision.refusals else plan.token,
        "forget": [_judged(item) for item in decision.going],
        "keep": [_judged(item) for item in decision.staying],
        "freed": plan.freed,
        "freed_unknown_of": list(plan.untold),
        "refusals": list(decision.refusals),
        "warnings": list(decision.warnings),
    }


def _judged(item: Judged) -> Document:
    return {
        "point": item.slot,
        "vm": item.vm,
        "vm_key": item.client,
        "taken_at": item.taken_at.isoformat(),
        "reason": item.reason,
    }


def forget_text(plan: ForgetPlan, *, done: bool) -> str:
    decision = plan.decision
    going = {item.slot for item in decision.going}
    points = sorted((*decision.going, *decision.staying), key=lambda item: item.slot)
    rows = [_row("forget" if item.slot in going else "keep", item) for item in points]
    parts = [table(["", ">POINT", "TAKEN", "VM", "REASON"], rows)] if rows else []
    return "\n".join([*parts, *_forget_remarks(plan, done)])


def _row(verb: str, item: Judged) -> list[object]:
    return [verb, item.slot, moment(item.taken_at), item.vm, item.reason]


def _forget_remarks(plan: ForgetPlan, done: bool) -> Iterator[str]:
    decision, count = plan.decision, len(plan.decision.going)
    yield from (f"Warning: {printable(warning)}." for warning in decision.warnings)
    if decision.refusals:
        yield from (f"Refused: {printable(refusal)}." for refusal in decision.refusals)
    elif not count:
        yield "Nothing to forget."
    elif done:
        yield f"{count} forgotten. A prune frees at least {size_text(plan.freed)} once the grace is over."
    else:
        yield f"{count} would be forgotten; at least {size_text(plan.freed)} could be freed."
    if plan.untold:
        points, why = ", ".join(map(str, plan.untold)), printable(plan.obstacles)
        yield f"Of {len(plan.untold)} points it is not known what they need ({points}): {why}."


def prune_document(plan: PrunePlan) -> Document:
    return {
        "token": plan.token,
        "now": plan.now.isoformat(),
        "grace_days": plan.grace.total_seconds() / 86_400,
        "threshold": plan.threshold,
        "give_up": list(plan.points),
        "waiting": list(plan.waiting),
        "objects": plan.objects,
        "bytes": plan.size,
        "doomed_before": plan.doomed,
        "freed": plan.freed,
        "retired_keys": list(plan.superseded.keys),
        "old_checkpoints": list(plan.superseded.checkpoints),
        "old_signs_of_life": len(plan.superseded.signs),
        "indexes_put_back": list(plan.regained),
        "runs_ended": list(plan.dead),
        "runs_left_alone": list(plan.unknown),
        "repack": {
            "packs": len(plan.repack.packs),
            "copied": plan.repack.copied,
            "folded": plan.repack.folded,
            "freed": plan.repack.freed,
        },
    }


def prune_text(plan: PrunePlan) -> str:
    if plan.is_empty:
        return "\n".join(["Nothing to prune.", *_waiting(plan)])
    repack = plan.repack
    facts = fields(
        [
            ("Lost indexes put back", ", ".join(plan.regained)),
            ("Points given up", ", ".join(map(str, plan.points)) or "none"),
            ("Forgotten by", _counted_text(plan) if plan.points else ""),
            ("Objects", f"{plan.objects}, {size_text(plan.size)}"),
            ("Doomed before", plan.doomed or ""),
            ("Retired keys", ", ".join(plan.superseded.keys)),
            ("Old checkpoints", len(plan.superseded.checkpoints) or ""),
            ("Signs of life", len(plan.superseded.signs) or ""),
            ("Runs that ended", ", ".join(plan.dead)),
            ("Packs rewritten", _repack_text(plan) if repack.packs else ""),
            ("Freed in all", f"about {size_text(plan.freed)}" if repack.packs else ""),
        ]
    )
    return "\n".join([facts, *_waiting(plan)])


def apply_text(token: str) -> str:
    return f"Nothing was changed. Do it with: --apply {token}"


def _counted_text(plan: PrunePlan) -> str:
    return f"{moment(plan.before)}, as it is {moment(plan.now)} here"


def _repack_text(plan: PrunePlan) -> str:
    repack = plan.repack
    return (
        f"{len(repack.packs)}, {size_text(repack.copied)} copied, {repack.folded} duplicates folded, "
        f"{size_text(repack.freed)} freed"
    )


def _waiting(plan: PrunePlan) -> Iterator[str]:
    if plan.waiting:
        slots = ", ".join(map(str, plan.waiting))
        yield f"Forgotten, but pinned or within {plan.grace.days} days of grace: {slots}."
    if plan.unknown:
        yield f"Left alone, for they may be at work: {', '.join(plan.unknown)}."


def report_document(report: PruneReport) -> Document:
    return {
        "indexes_put_back": list(report.regained),
        "given_up": list(report.points),
        "entries": report.entries,
        "objects_doomed": report.objects,
        "objects_deleted": report.deleted.objects,
        "bytes_freed": report.deleted.size,
        "deletes_refused": report.deleted.refused,
        "packs_rewritten": report.packs,
        "bytes_copied": report.repacked.copied,
        "frames_folded": report.repacked.folded,
        "frames_damaged": report.repacked.damaged,
        "stopped": report.repacked.stopped,
    }


def report_text(report: PruneReport) -> str:
    repacked = report.repacked
    facts = fields(
        [
            ("Lost indexes put back", ", ".join(report.regained)),
            ("Points given up", ", ".join(map(str, report.points)) or "none"),
            ("Doomed", f"{report.objects} objects"),
            ("Deleted", f"{report.deleted.objects} objects, {size_text(report.deleted.size)}"),
            ("Packs rewritten", report.packs or ""),
            ("Copied", size_text(repacked.copied) if report.packs else ""),
            ("Folded", f"{repacked.folded} frames" if report.packs else ""),
        ]
    )
    return "\n".join([facts, *_report_remarks(report)])


def _report_remarks(report: PruneReport) -> Iterator[str]:
    deleted, repacked = report.deleted, report.repacked
    if deleted.refused:
        yield (
            f"Not yet deleted: {deleted.refused} objects that the store keeps ({printable(deleted.reason)}); "
            "the next prune tries again."
        )
    if repacked.damaged:
        yield f"Damaged: {repacked.damaged} frames fail their check; they were not moved; verify the media."
    if repacked.stopped:
        yield f"Moving stopped early: {printable(repacked.stopped)}."
