"""`vsa rebuild`: media anew, at another place, from what packs say of themselves."""

from __future__ import annotations

import argparse
import datetime as dt
import os
import tempfile
from pathlib import Path
from typing import TextIO

from vsa.cli.answers import Answer, complain
from vsa.cli.exits import Exit
from vsa.cli.keys import asked_key, given_key
from vsa.cli.reading import media_document
from vsa.cli.tables import fields
from vsa.errors import BadRequest
from vsa.media import layout
from vsa.media.access import StoreAccess
from vsa.media.location import are_nested
from vsa.media.places import make_store, open_store
from vsa.progress import SILENT, watched_on
from vsa.text import size_text
from vsa.upkeep.rebuild import Rebuilt
from vsa.upkeep.rebuild import rebuild as rebuild_media


def rebuild(options: argparse.Namespace, err: TextIO) -> Answer:
    # Before anything is made there: not even a folder belongs into media.
    if are_nested(options.media, options.to):
        raise BadRequest(
            f"{options.to}: media is rebuilt at a place of its own, neither inside nor around {options.media}"
        )
    access = StoreAccess.from_environment(os.environ)
    source, key = open_store(options.media, access, random=os.urandom), given_key(options)
    if key is None and any(source.names(layout.KEYS)):
        key = asked_key("Passphrase of the media: ")
    with tempfile.TemporaryDirectory(prefix="vsa-rebuild-") as scratch:
        result = rebuild_media(
            source,
            make_store(options.to, access, random=os.urandom),
            scratch=Path(scratch),
            now=dt.datetime.now(dt.UTC),
            random=os.urandom,
            wrapping=key,
            with_holes=options.with_holes,
            progress=SILENT if options.json else watched_on(err),
        )
    for line in result.lost:
        complain(err, line)
    for line in result.left_out:
        complain(err, f"left out: {line}; --with-holes brings it back")
    document = {
        "media": media_document(result.media),
        "points": list(result.points),
        "packs": result.packs,
        "bytes": result.bytes,
        "moved": result.moved,
        "lost": list(result.lost),
        "left_out": list(result.left_out),
    }
    # Nobody can tell a point that a prune gave up from one whose packs were lost: somebody has to look.
    whole = not (result.lost or result.left_out)
    return Answer(document, _text(result), Exit.DONE if whole else Exit.INCOMPLETE)


def _text(result: Rebuilt) -> str:
    return fields(
        [
            ("Rebuilt", f"{len(result.points)} recovery points"),
            ("at", result.media.location),
            ("packs", f"{result.packs}, {size_text(result.bytes)}"),
            ("found again", f"{result.moved} extents" if result.moved else ""),
            ("left out", f"{len(result.left_out)} recovery points" if result.left_out else ""),
            ("lost", f"{len(result.lost)} remarks above" if result.lost else ""),
        ]
    )
