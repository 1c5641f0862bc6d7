"""How flows end: the name of the state between success and failure, and what a command line makes of each."""

from __future__ import annotations

import sys
from typing import Any

from prefect.client.schemas.objects import State

WITH_ERRORS = "Completed with errors"
"""Name of the state of a run that did its work and says what needs attention. Its type is Completed."""


def tell(state: State[Any]) -> int:
    """Print how the run ended; exit code 0 completed, 3 completed with errors, 1 failed or stopped."""
    sys.stdout.write(f"{state.name}: {state.message}\n")
    if not state.is_completed():
        return 1
    return 3 if state.name == WITH_ERRORS else 0
