"""The commands that create media or read its log; none of them touches a disk's contents."""

from __future__ import annotations

import argparse
import datetime as dt
import os
from typing import TYPE_CHECKING, TextIO

from vsa.cli import reports
from vsa.cli.answers import Answer, Command, Document
from vsa.cli.keys import PASSPHRASE, chosen_passphrase, given_key, open_media
from vsa.errors import BadRequest
from vsa.media.access import StoreAccess
from vsa.media.media import Media
from vsa.restore.choosing import find_point
from vsa.text import parse_size, printable

if TYPE_CHECKING:
    from vsa.media.wrapping import WrappingKey


def media_document(media: Media) -> Document:
    return {"id": media.id, "location": media.location}


def _init(options: argparse.Namespace, err: TextIO) -> Answer:
    media = Media.create(
        options.media,
        extent_size=parse_size(options.extent_size),
        now=dt.datetime.now(dt.UTC),
        access=StoreAccess.from_environment(os.environ),
        wrapping=_key_of_new(options),
    )
    kind = "sealed backup media" if media.sealed else "backup media"
    text = printable(f"Created {kind} {media.id} at {media.location}.")
    return Answer({"media": media_document(media) | {"sealed": media.sealed}}, text)


def _key_of_new(options: argparse.Namespace) -> WrappingKey | None:
    given = given_key(options)
    if given is not None and not options.seal:
        raise BadRequest("a key was given, but not --seal: nothing was made, for it would be readable")
    if not options.seal:
        return None
    return given or chosen_passphrase(f"--key-file, --passphrase-file, --key-vault or {PASSPHRASE}")


def _points(options: argparse.Namespace, err: TextIO) -> Answer:
    media = open_media(options)
    view = media.view()
    points = reports.points_of(view, options.vm)
    document = {
        "media": media_document(media),
        "points": reports.points_document(view, points),
        "given_up": sorted(view.given_up),
    }
    return Answer(document, reports.points_text(view, points))


def _clients(options: argparse.Namespace, err: TextIO) -> Answer:
    media = open_media(options)
    view = media.view()
    document = {"media": media_document(media), "clients": reports.clients_document(view)}
    return Answer(document, reports.clients_text(view))


def _jobs(options: argparse.Namespace, err: TextIO) -> Answer:
    media = open_media(options)
    jobs = reports.jobs_of(media.view(), options.limit)
    document = {"media": media_document(media), "jobs": reports.jobs_document(jobs)}
    return Answer(document, reports.jobs_text(jobs))


def _show(options: argparse.Namespace, err: TextIO) -> Answer:
    media = open_media(options)
    view = media.view()
    made = find_point(view, options.point)
    document = {"media": media_document(media), "point": reports.point_document(view, made)}
    return Answer(document, reports.point_text(view, made))


def _witness(options: argparse.Namespace, err: TextIO) -> Answer:
    """Of the log itself, so that what is kept outside never rests on a checkpoint."""
    media = open_media(options, from_log=True)
    text = str(media.view().witness or "")
    return Answer({"media": media_document(media), "witness": text or None}, text or "The log is empty.")


COMMANDS: dict[str, Command] = {
    "init": _init,
    "points": _points,
    "clients": _clients,
    "jobs": _jobs,
    "show": _show,
    "witness": _witness,
}
