"""`vsa leftovers` and `vsa sweep`: what dead runs left in Azure, without Prefect.

Nothing is known here of flow runs: dead is whose process is known to have ended, who gives no sign of life
any more, and whom the operator names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from time import sleep
from typing import TextIO

from vsa.cli.answers import Answer, Command, Document
from vsa.cli.azure import connection_of
from vsa.cli.exits import Exit
from vsa.cli.keys import open_media
from vsa.text import printable
from vsa.transfer.dead_runs import JudgedRun
from vsa.transfer.pending import Leftover, Price, bill
from vsa.transfer.sweep import Sweep
from vsa.transfer.sweep_report import SweepPlan, SweepReport


def _leftovers(options: argparse.Namespace, err: TextIO) -> Answer:
    plan = _plan(options, _sweep(options, write=False))
    return Answer(
        _plan_document(options, plan), _shown(plan.text()), _exit((*plan.leftovers, *plan.doubted), plan)
    )


def _swept(options: argparse.Namespace, err: TextIO) -> Answer:
    """Without --yes the plan alone."""
    sweep = _sweep(options, write=options.yes)
    plan = _plan(options, sweep)
    if not options.yes:
        found = plan.leftovers or plan.dead or plan.silent
        again = "Nothing was done; --yes does it." if found else ""
        text = "\n".join(filter(None, [plan.text(), again]))
        return Answer(
            _plan_document(options, plan), _shown(text), _exit((*plan.leftovers, *plan.doubted), plan)
        )
    if plan.silent:
        minutes = plan.patience_seconds / 60
        err.write(
            f"{len(plan.silent)} runs give no sign of life any more; looking again in {minutes:.0f} min.\n"
        )
    report = sweep.carry_out_twice(plan, lambda _: None, options.run)
    plan = report.plan
    document = _plan_document(options, plan) | {
        "removed": _listed(report.removed, plan.price),
        "remaining": _listed(report.remaining, plan.price),
        "pending": list(report.pending),
        "attention": list(report.attention),
    }
    return Answer(document, _shown(report.text()), _exit(report.remaining, report))


def _sweep(options: argparse.Namespace, *, write: bool) -> Sweep:
    price = Price() if options.price is None else Price(options.price)
    # Who judges what may be deleted believes no checkpoint.
    media = open_media(options, write=write, from_log=True)
    return Sweep(connection_of(options), media, price=price, sleep=sleep)


def _plan(options: argparse.Namespace, sweep: Sweep) -> SweepPlan:
    return sweep.plan(sweep.open_runs(), None, options.run)


def _exit(left: Iterable[Leftover], found: SweepPlan | SweepReport) -> Exit:
    return Exit.INCOMPLETE if any(left) or found.attention else Exit.DONE


def _shown(text: str) -> str:
    """Names of disks and runs are strangers' words."""
    return "\n".join(printable(line) for line in text.splitlines())


def _plan_document(options: argparse.Namespace, plan: SweepPlan) -> Document:
    return {
        "media": {"id": plan.media, "location": options.media},
        "subscription": plan.subscription,
        "planned_at": plan.planned_at.isoformat(),
        "disks": plan.disks,
        "dead": [_run(run) for run in plan.dead],
        "silent": [_run(run) for run in plan.silent],
        "left_alone": [_run(run) for run in plan.left_alone],
        "leftovers": _listed(plan.leftovers, plan.price),
        "doubted": _listed(plan.doubted, plan.price),
        "monthly_cost_usd": round(bill(plan.leftovers, plan.price), 4),
        "price_per_gib_month_usd": plan.price.per_gib_month,
        "attention": list(plan.attention),
        "notes": list(plan.notes),
    }


def _run(run: JudgedRun) -> Document:
    intent = run.intent
    return {
        "run": intent.run,
        "vm": intent.vm_name,
        "job": intent.job,
        "began_at": intent.started_at.isoformat(),
        "reason": run.reason,
    }


def _listed(items: Iterable[Leftover], price: Price) -> list[Document]:
    return [
        {
            "what": str(item.thing),
            "name": item.name,
            "disk": item.disk.name,
            "disk_id": item.disk.source,
            "run": item.run,
            "since": item.since.isoformat() if item.since else None,
            "size": item.size,
            "used": item.used,
            "monthly_cost_usd": round(price.of(item.billed), 4),
        }
        for item in items
    ]


SWEEPING: dict[str, Command] = {"leftovers": _leftovers, "sweep": _swept}
