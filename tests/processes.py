"""Processes of their own for tests: forked, but from a server that has the engine loaded and no threads.

A fork of the test process itself would inherit the locks of whatever threads run there: Prefect's, the
SDK's, those of a parallel test run. A spawned process would load the engine anew each time.
"""

from __future__ import annotations

import multiprocessing

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["tests.engine.world", "tests.faults.errands", "tests.media.making", "pytest", "hypothesis"]
)
