"""`vsa restore`: which disks, to which files, and what became of each."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

from vsa.cli.answers import Answer, Document, complain
from vsa.cli.exits import Exit, exit_of
from vsa.cli.keys import open_media
from vsa.cli.reading import media_document
from vsa.cli.tables import fields
from vsa.errors import VsaError
from vsa.media.media import Media
from vsa.progress import SILENT, Progress, watched_on
from vsa.restore.choosing import Step, find_point, plan_restore
from vsa.restore.copying import Lost
from vsa.restore.disk import Format, RestoredDisk, restore_disk
from vsa.restore.losses import SUFFIX, ContentsLost, summary, told
from vsa.text import size_text

ALL = "all"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step: an image, or the error that prevented it."""

    step: Step
    image: RestoredDisk | None
    error: VsaError | OSError | None

    @property
    def lost(self) -> Sequence[Lost]:
        """What of the disk could not be had."""
        if isinstance(self.error, ContentsLost):
            return self.error.lost
        return self.image.lost if self.image else ()


def _lost_document(lost: Lost) -> Document:
    return {
        "offset": lost.range.offset,
        "end": lost.range.end,
        "object": lost.object,
        "reason": lost.reason,
    }


def restore(options: argparse.Namespace, err: TextIO) -> Answer:
    media = open_media(options)
    view = media.view()
    made = find_point(view, options.point)
    doubtful = made.slot in view.doubtful
    if doubtful:
        complain(err, f"warning: point {made.slot} is doubtful: `vsa show {made.slot}` says why")
    wanted = () if options.disk == ALL else (options.disk,)
    steps = plan_restore(made.point, wanted, options.to, Format(options.format))
    outcomes = []
    for outcome in carry_out(media, steps, options, SILENT if options.json else watched_on(err)):
        outcomes.append(outcome)
        if outcome.error:
            complain(err, outcome.error)
    document = {"media": media_document(media), "point": made.slot, "doubtful": doubtful}
    return Answer(
        document | {"disks": restore_document(outcomes)}, restore_text(outcomes), exit_of_restore(outcomes)
    )


def carry_out(
    media: Media, steps: Sequence[Step], options: argparse.Namespace, progress: Progress
) -> Iterator[Outcome]:
    """Restore one disk after the other; one that fails does not keep the others from being saved."""
    for step in steps:
        try:
            step.target.parent.mkdir(parents=True, exist_ok=True)
            image = restore_disk(
                media,
                step.backup,
                step.target,
                format=Format(options.format),
                threads=options.threads,
                progress=progress,
                checksum=not options.no_checksum,
                salvage=options.salvage,
            )
            yield Outcome(step, image, None)
        except (VsaError, OSError) as error:
            yield Outcome(step, None, error)


def exit_of_restore(outcomes: Sequence[Outcome]) -> Exit:
    errors = [outcome.error for outcome in outcomes if outcome.error]
    if not errors:
        salvaged = any(outcome.image and outcome.image.lost for outcome in outcomes)
        return Exit.INCOMPLETE if salvaged else Exit.DONE
    return exit_of(errors[0]) if len(errors) == len(outcomes) else Exit.INCOMPLETE


def restore_document(outcomes: Iterable[Outcome]) -> list[Document]:
    return [
        {
            "disk": outcome.step.backup.disk.name,
            "disk_key": outcome.step.backup.disk.key,
            "path": str(outcome.step.target),
            "error": str(outcome.error) if outcome.error else None,
            **({} if outcome.image is None else asdict(outcome.image) | {"path": str(outcome.image.path)}),
            "lost": [_lost_document(lost) for lost in outcome.lost],
        }
        for outcome in outcomes
    ]


def restore_text(outcomes: Iterable[Outcome]) -> str:
    return "\n\n".join(_image_text(outcome.step, outcome.image) for outcome in outcomes if outcome.image)


def _image_text(step: Step, image: RestoredDisk) -> str:
    return fields(
        [
            ("Restored", f"{step.backup.disk.name} ({step.backup.disk.place})"),
            ("to", image.path),
            ("size", f"{size_text(image.size)}, {size_text(image.bytes_written)} of it written"),
            ("sha256", image.sha256 or ""),
            *(("warning", warning) for warning in image.warnings),
            ("LOST", f"{summary(image.lost)}: {told(image.lost)}" if image.lost else ""),
            ("listed in", f"{image.path}{SUFFIX}" if image.lost else ""),
        ]
    )
