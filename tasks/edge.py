"""The edge of tasks, where an exception becomes the message of a Prefect state.

Prefect makes the message of the exception's own words, and no filter of logs sees it. Our own errors are
redacted when they are made; those of other people's libraries are seen to here. Flows have no such edge:
Prefect looks for the types of their parameters where their function stands, and what they call are tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import prefect
from prefect.tasks import Task

from vsa.errors import VsaError
from vsa.redact import redact

_P = ParamSpec("_P")
_R = TypeVar("_R")


class HeldSecretError(Exception):
    """Stands for an exception whose words held a secret: its type and its words, redacted."""


def without_secrets(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """The function, out of which no exception comes whose words hold a secret.

    Every other exception leaves as it is, so that whoever tells them apart still can; so do signals and
    cancellation, which are no `Exception`.
    """

    @wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return function(*args, **kwargs)
        except VsaError:
            raise
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            clean = redact(words)
            if clean == words:
                raise
            # The traceback stays, for the log; the exception itself must not hang on the one that is raised.
            raise HeldSecretError(clean).with_traceback(error.__traceback__) from None

    return guarded


def task(**options: Any) -> Callable[[Callable[_P, _R]], Task[_P, _R]]:
    """Prefect's `task`, with this edge around the function."""

    def made(function: Callable[_P, _R]) -> Task[_P, _R]:
        return prefect.task(**options)(without_secrets(function))

    return made
