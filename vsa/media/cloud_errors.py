"""What a cloud store's answer means for whoever asked.

obstore raises by kinds that are too coarse (a lost answer and a missing list right are both "generic") and
tells the HTTP status and the service's code in its text alone, so both are read from there. Nothing
else of the text is repeated: it quotes whole answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import NamedTuple

from obstore.exceptions import BaseError, UnauthenticatedError

from vsa.errors import (
    DeleteRefused,
    MediaConflict,
    MediaUnusable,
    NoMedia,
    ObjectMissing,
    TryAgainLater,
    VsaError,
)

FAILURES = (BaseError, FileNotFoundError)
"""All that obstore raises for a request; a missing object is Python's own FileNotFoundError."""

_STATUS = re.compile(r"non-2xx status code: (\d{3})|\(code: \"?(\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_NO_ANSWER = "HTTP error"

_PLACE_MISSING = ("ContainerNotFound", "NoSuchBucket", "ResourceNotFound")
_EXISTS = ("BlobAlreadyExists", "ConditionNotMet", "PreconditionFailed", "UnmodifiedSinceNotMet", "")
_PASSING = (408, 425, 429)
_FULL = 507


class Action(StrEnum):
    CREATE = "store"
    READ = "read"
    LIST = "list"
    DELETE = "delete"


class Answer(NamedTuple):
    """The service's HTTP status, 0 if none came, and its own error code, empty if it sent none."""

    status: int
    code: str

    def __str__(self) -> str:
        return f"{self.code} ({self.status})" if self.code else f"status {self.status}"


def answer_in(error: BaseException) -> Answer:
    text = str(error)
    status, code = _STATUS.search(text), _CODE.search(text)
    return Answer(int(status[1] or status[2]) if status else 0, code[1] if code else "")


@contextmanager
def asking(action: Action, location: str, name: str) -> Iterator[None]:
    """Make one request of a store; raises only our errors, as the protocol `Store` has them."""
    try:
        yield
    except FAILURES as error:
        raise meaning(error, action, f"{location}: cannot {action} {name or 'objects'}") from error


def meaning(error: BaseException, action: Action, failed: str) -> VsaError:
    """Our error for obstore's; `failed` begins its message."""
    answer = answer_in(error)
    if answer.status == 0:
        return _unanswered(error, failed)
    if answer.status == 404:
        return _not_found(answer, action, failed)
    if answer.status in (304, 409, 412) and action is Action.CREATE:
        return _not_created(answer, failed)
    if answer.status in _PASSING or (answer.status >= 500 and answer.status != _FULL):
        return TryAgainLater(f"{failed}: the service answered {answer}; the outcome is unknown")
    if action is Action.DELETE and answer.status in (401, 403, 409, 412):
        return DeleteRefused(
            f"{failed}: refused with {answer}; an immutability policy, a lock or a missing right protects it"
        )
    return MediaUnusable(f"{failed}: {answer}; {_advice(answer, action)}")


def _unanswered(error: BaseException, failed: str) -> VsaError:
    if isinstance(error, UnauthenticatedError):
        return MediaUnusable(f"{failed}: signing in failed: {_first_line(error)}")
    if _NO_ANSWER in str(error):
        return TryAgainLater(
            f"{failed}: no whole answer came, the outcome is unknown; check the account's or bucket's name, "
            "the endpoint and the network"
        )
    return MediaUnusable(f"{failed}: {_first_line(error)}")


def _not_found(answer: Answer, action: Action, failed: str) -> VsaError:
    if answer.code in _PLACE_MISSING or action in (Action.CREATE, Action.LIST):
        return NoMedia(
            f"{failed}: {answer}; there is no such container or bucket. It is never made by this program: "
            "make it first, with the protection that it should have"
        )
    return ObjectMissing(f"{failed}: it is missing")


def _not_created(answer: Answer, failed: str) -> VsaError:
    if answer.code in _EXISTS or answer.status in (304, 412):
        return MediaConflict(f"{failed}: it exists already")
    # S3's ConditionalRequestConflict among them: two creates at once, and neither may have won.
    return TryAgainLater(f"{failed}: {answer}; the outcome is unknown")


def _advice(answer: Answer, action: Action) -> str:
    if answer.status in (401, 403):
        return (
            f"check that the key or SAS is right and has not ended, that it may {action} objects, "
            "and that the service's network rules let this machine in"
        )
    if answer.status == _FULL:
        return "the store is full: free some space"
    return "the service does not take such a request: check location, endpoint and region"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
