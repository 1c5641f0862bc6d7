"""`vsa verify`: look, say what is wrong, and put damage into the media's log where that can be written."""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from pathlib import Path
from typing import TextIO

from vsa.cli.answers import Answer, complain
from vsa.cli.exits import Exit
from vsa.cli.keys import open_media
from vsa.errors import MediaUnusable
from vsa.progress import SILENT, watched_on
from vsa.upkeep.record import record_damage
from vsa.upkeep.report import Depth, VerifyReport
from vsa.upkeep.verify import verify as look


def verify(options: argparse.Namespace, err: TextIO) -> Answer:
    with tempfile.TemporaryDirectory(prefix="vsa-verify-") as scratch:
        report = look(
            open_media(options, from_log=True),
            Depth(options.depth),
            scratch=Path(scratch),
            date=dt.datetime.now(dt.UTC).date(),
            points=options.points or None,
            sample=options.sample,
            threads=options.threads,
            progress=SILENT if options.json else watched_on(err),
        )
    slots = _record(options, report, err) if report.for_the_log and not options.no_record else ()
    document = {
        **report.model_dump(mode="json", exclude={"media", "location"}),
        "media": {"id": report.media, "location": report.location},
        "sound": report.is_sound,
        "recorded": list(slots),
    }
    text = report.text() + "".join(f"\nRecorded in log slot {slot}." for slot in slots)
    return Answer(document, text, _exit(report))


def _exit(report: VerifyReport) -> Exit:
    if report.is_sound:
        return Exit.DONE
    return Exit.INCOMPLETE if report.all_restores else Exit.DAMAGED


def _record(options: argparse.Namespace, report: VerifyReport, err: TextIO) -> tuple[int, ...]:
    """The slots of what was news; none, and a word of warning, where the media cannot be written."""
    try:
        return record_damage(open_media(options, write=True), report)
    except MediaUnusable as error:
        complain(err, f"warning: the damage is not recorded: {error}")
        return ()
