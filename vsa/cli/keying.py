"""`vsa key`: what opens sealed media, one key more, and other keys in place of those."""

from __future__ import annotations

import argparse
import datetime as dt
import os
from dataclasses import asdict
from typing import TextIO

from vsa.cli.answers import Answer, complain
from vsa.cli.exits import Exit
from vsa.cli.keys import new_key, open_with_key
from vsa.cli.reading import media_document
from vsa.cli.tables import moment, table
from vsa.errors import BadRequest
from vsa.media.media import Media
from vsa.media.wrapping import WrappingKey
from vsa.text import printable
from vsa.upkeep import rotation
from vsa.upkeep.rotation import KeyState


def key(options: argparse.Namespace, err: TextIO) -> Answer:
    return {"check": _check, "add": _add, "rotate": _rotate}[options.key_command](options, err)


def _check(options: argparse.Namespace, err: TextIO) -> Answer:
    """Opening the media has shown already that the key is right; here is what else there is."""
    media, given = _opened(options, write=False)
    states, damaged = rotation.key_states(media, given)
    for harm in damaged:
        complain(err, harm)
    document = {
        "media": media_document(media),
        "keys": [asdict(state) | {"created": state.created.isoformat()} for state in states],
        "damaged": [str(harm) for harm in damaged],
    }
    return Answer(document, _states_text(states), Exit.DAMAGED if damaged else Exit.DONE)


def _states_text(states: list[KeyState]) -> str:
    rows = [
        [
            f"keys/{state.number}",
            state.way,
            moment(state.created),
            "opens" if state.opens and not state.retired else "",
            "retired" if state.retired else "",
        ]
        for state in states
    ]
    return table(["DOCUMENT", "OPENED BY", "CREATED", "THIS KEY", "REMARK"], rows)


def _add(options: argparse.Namespace, err: TextIO) -> Answer:
    media, given = _opened(options, write=True)
    number = rotation.add_key(media, given, new_key(options), now=dt.datetime.now(dt.UTC), random=os.urandom)
    text = printable(f"The new key opens the media, too (keys/{number}). Try it: vsa key check")
    return Answer({"media": media_document(media), "key": number, "retired": []}, text)


def _rotate(options: argparse.Namespace, err: TextIO) -> Answer:
    media, given = _opened(options, write=True)
    new = new_key(options)
    plan = rotation.plan_rotation(media, given, new)
    number = rotation.rotate_key(
        media,
        given,
        new,
        plan,
        lose_others=options.all,
        reason=options.reason,
        now=dt.datetime.now(dt.UTC),
        random=os.urandom,
    )
    if plan.lost:
        complain(err, f"warning: retired as well: {', '.join(plan.lost)}; `vsa key add` adds a key again")
    text = printable(f"The new key opens the media (keys/{number}); retired: {', '.join(plan.retired)}.")
    return Answer({"media": media_document(media), "key": number, "retired": list(plan.retired)}, text)


def _opened(options: argparse.Namespace, *, write: bool) -> tuple[Media, WrappingKey]:
    media, given = open_with_key(options, write=write)
    if given is None:
        raise BadRequest(f"{media.location}: this media is not sealed, so it has no keys")
    return media, given
