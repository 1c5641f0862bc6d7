"""The log's head, kept outside the media, so that a media put back to an older state is noticed."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field

from vsa.errors import BadRequest
from vsa.model import Noun, Sha256

_TEXT = re.compile(r"([0-9]{1,12}):([0-9a-f]{64})")


class Witness(Noun):
    """One entry of the log: its slot and the sha256 of its bytes. As text: `SLOT:SHA256`."""

    slot: Annotated[int, Field(ge=0, lt=10**12)]
    sha256: Sha256

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _TEXT.fullmatch(text.strip())
        if match is None:
            raise BadRequest(
                f"{text[:100]!r} is no witness: expected SLOT:SHA256, as `vsa witness` prints it"
            )
        return cls(slot=int(match[1]), sha256=match[2])

    def __str__(self) -> str:
        return f"{self.slot}:{self.sha256}"
