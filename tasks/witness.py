"""The witness of the media's log, kept where the media's keepers cannot reach: in a Prefect Variable.

Media that is put back to an older state, by a restore of its store or by somebody who wants points gone,
looks sound by itself. What Prefect remembers tells.
"""

from __future__ import annotations

import logging
from contextlib import suppress

from prefect.exceptions import ObjectAlreadyExists
from prefect.variables import Variable

from tasks.edge import task
from tasks.policy import STAGE
from vsa.errors import BadRequest, MediaPutBack
from vsa.media.media import Media
from vsa.media.witness import Witness

_log = logging.getLogger(__name__)
_KEEPING = STAGE | {"retries": 2, "retry_delay_seconds": 2}


def variable_of(media: Media) -> str:
    """The name of the variable that holds the media's witness."""
    return f"vsa_witness_{media.id}"


def kept_witness(media: Media) -> Witness | None:
    """What was kept of the media's log; BadRequest if somebody wrote something else there."""
    name = variable_of(media)
    text = Variable.get(name)
    if text is None:
        return None
    try:
        return Witness.parse(str(text))
    except BadRequest as error:
        raise BadRequest(f"Prefect variable {name}: {error}; unset it if nobody knows better") from error


@task(name="check witness", **STAGE)
def check_witness(media: Media) -> None:
    """Refuse media whose log is not the one, or no longer the one, that earlier jobs have written."""
    witness = kept_witness(media)
    if witness is None:
        if media.view().head:
            _log.warning(
                "nothing is remembered of the log of media %s: it may have been put back to an older state",
                media.id,
            )
        return
    try:
        media.require_witness(witness)
    except MediaPutBack as error:
        raise MediaPutBack(
            f"{error}. Nothing was done. If it was put back on purpose, accept that with "
            f"`prefect variable unset {variable_of(media)}`; later points are lost, and snapshots that they "
            "named may be left in Azure"
        ) from error


@task(name="keep witness", **_KEEPING)
def keep_witness(media: Media) -> None:
    """Remember the log's head, whoever else does so at this moment.

    The log is read again after each write. Whoever writes last therefore sees every entry that any witness
    written before could name, so the variable ends at the highest.
    """
    while (witness := media.view().witness) is not None:
        kept = kept_witness(media)
        if kept is not None and kept.slot >= witness.slot:
            return
        # Of two who write the first one, the second is refused, and reads what there is now.
        with suppress(ObjectAlreadyExists):
            Variable.set(variable_of(media), str(witness), overwrite=True)
