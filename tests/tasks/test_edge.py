"""What leaves a task as an exception, and so becomes the message of a Prefect state."""

from __future__ import annotations

import traceback
from concurrent.futures import CancelledError as FutureCancelled

import pytest
from prefect.exceptions import Abort, Pause, TerminationSignal

from tasks.edge import HeldSecretError, without_secrets
from vsa.errors import RunStopped, TryAgainLater, VsaError

SECRET = "hunter2"


def raising(error: BaseException) -> BaseException:
    """What comes out of the edge when a function raises this."""

    @without_secrets
    def function() -> None:
        raise error

    with pytest.raises(BaseException) as caught:
        function()
    return caught.value


@pytest.mark.parametrize(
    "error",
    [
        TryAgainLater("busy", retry_after=3.0),
        RunStopped("fenced"),
        VsaError("disk web-os: 3 of 4 extents"),
        ValueError("disk web-os: 3 of 4 extents"),
        KeyboardInterrupt(),
        SystemExit(f"password={SECRET}"),
        TerminationSignal(15),
        Abort(f"password={SECRET}"),
        Pause(f"password={SECRET}"),
        FutureCancelled(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_ours_signals_and_what_holds_no_secret_pass_as_they_are(error: BaseException) -> None:
    assert raising(error) is error


def test_a_secret_in_the_words_of_others_is_masked_and_the_place_is_kept() -> None:
    error = OSError(f"cannot reach postgresql://vsa:{SECRET}@db/prefect")
    left = raising(error)
    assert isinstance(left, HeldSecretError)
    assert str(left) == "OSError: cannot reach postgresql://vsa:REDACTED@db/prefect"
    shown = "".join(traceback.format_exception(left))
    assert SECRET not in shown
    assert "raise error" in shown


def test_what_a_function_returns_and_is_called_stays() -> None:
    @without_secrets
    def doubled(number: int) -> int:
        return 2 * number

    assert (doubled(4), doubled.__name__) == (8, "doubled")
