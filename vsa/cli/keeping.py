"""The commands that decide what stays on media: each says what it would do, and does it when told again."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from vsa.cli import plans, reports
from vsa.cli.answers import Answer, Command
from vsa.cli.exits import Exit
from vsa.cli.keys import open_media
from vsa.cli.reading import media_document
from vsa.errors import BadRequest, MediaConflict
from vsa.media.media import Media
from vsa.media.view import View
from vsa.progress import SILENT, Progress, watched_on
from vsa.retention import Retention
from vsa.transfer.liveness import has_ended, this_process
from vsa.upkeep.forgetting import Limits, Request, by_policy, forget, named, pin, plan_forgetting, unforget
from vsa.upkeep.prune import carry_out, plan_prune


def _forget(options: argparse.Namespace, err: TextIO) -> Answer:
    media = _open(options)
    now = dt.datetime.now(dt.UTC)
    limits = Limits(override_share=options.override_share, trust_clock=options.trust_clock)
    request = _request(options, media.view())
    plan = plan_forgetting(media, request, now=now, limits=limits, progress=_progress(options, err))
    slot = None
    if options.apply:
        _require_token(options.apply, plan.token)
        slot = forget(media, plan, now=dt.datetime.now(dt.UTC))
    document = {"media": media_document(media), **plans.forget_document(plan), "slot": slot}
    code = Exit.BAD_REQUEST if plan.decision.refusals else Exit.DONE
    text = plans.forget_text(plan, done=bool(options.apply))
    if plan.decision.going and not plan.decision.refusals and not options.apply:
        text = f"{text}\n{plans.apply_text(plan.token)}"
    return Answer(document, text, code)


def _unforget(options: argparse.Namespace, err: TextIO) -> Answer:
    media = _open(options)
    return _marked(media, options.points, unforget(media, options.points), "called back")


def _pin(options: argparse.Namespace, err: TextIO) -> Answer:
    media = _open(options)
    slot = pin(media, options.points, pinned=not options.unpin, reason=options.reason)
    return _marked(media, options.points, slot, "left to retention again" if options.unpin else "pinned")


def _prune(options: argparse.Namespace, err: TextIO) -> Answer:
    _require_folder(options.scratch)
    media = _open(options)
    with tempfile.TemporaryDirectory(dir=options.scratch, prefix="vsa-prune-") as scratch:
        plan = plan_prune(
            media,
            now=dt.datetime.now(dt.UTC),
            scratch=Path(scratch),
            grace=dt.timedelta(days=options.grace_days),
            threshold=options.threshold,
            has_ended=has_ended,
            trust_clock=options.trust_clock,
            progress=_progress(options, err),
        )
        document = {"media": media_document(media), "plan": plans.prune_document(plan)}
        if not options.apply:
            how = "" if plan.is_empty else f"\n{plans.apply_text(plan.token)}"
            return Answer(document, f"{plans.prune_text(plan)}{how}")
        _require_token(options.apply, plan.token)
        report = carry_out(plan, process=this_process())
    code = Exit.DONE if report.is_complete else Exit.INCOMPLETE
    return Answer(document | {"done": plans.report_document(report)}, plans.report_text(report), code)


def _open(options: argparse.Namespace) -> Media:
    """For writing only where something will be written: a plan needs the right to read alone."""
    dry = options.command in ("forget", "prune") and not options.apply
    return open_media(options, write=not dry)


def _request(options: argparse.Namespace, view: View) -> Request:
    periods = ("daily", "weekly", "monthly", "yearly")
    rules = {name: getattr(options, f"keep_{name}") for name in periods}
    stated = {name: count for name, count in {**rules, "keep_last": options.keep_last}.items() if count}
    if bool(stated) == bool(options.points):
        raise BadRequest("name points to forget, or say what to keep: `vsa forget 3 4` or `--keep-daily 7`")
    if options.points:
        if options.vm:
            raise BadRequest("--vm says whose points a rule is for: leave it out where points are named")
        return named(options.points)
    clients = {made.client for made in reports.points_of(view, options.vm)}
    retention = Retention(**stated)
    return by_policy(lambda made: retention if made.client in clients else None)


def _require_folder(scratch: str | None) -> None:
    if scratch is not None and not (Path(scratch).is_dir() and os.access(scratch, os.W_OK | os.X_OK)):
        raise BadRequest(
            f"--scratch {scratch}: this is no folder that can be written to; make one, or name another"
        )


def _require_token(given: str, token: str) -> None:
    if given != token:
        raise MediaConflict(
            f"nothing was done: what would be done now has token {token}, not {given}; look at it again first"
        )


def _marked(media: Media, points: Sequence[int], slot: int, what: str) -> Answer:
    text = f"Point{'s' if len(points) > 1 else ''} {', '.join(map(str, points))} {what}."
    return Answer({"media": media_document(media), "points": list(points), "slot": slot}, text)


def _progress(options: argparse.Namespace, err: TextIO) -> Progress:
    return SILENT if options.json else watched_on(err)


KEEPING: dict[str, Command] = {"forget": _forget, "unforget": _unforget, "pin": _pin, "prune": _prune}
