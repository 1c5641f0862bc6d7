"""Which tests share servers, whose start costs more than most files: one process runs all that share one."""

from __future__ import annotations

PREFECT = ("tests/flows/", "tests/blocks/")
"""Where tests share a Prefect server."""

SQLITE = ("tests/flows/test_pools.py", "tests/flows/test_secrets.py")
"""Where tests look into the database of their Prefect server."""

FLEETS = (
    ("tests/flows/test_proxies", "tests/flows/test_memory_of_a_stream.py"),
    (
        "tests/flows/test_jobs_that_are_stopped.py",
        "tests/flows/test_server_away.py",
        "tests/flows/test_cancelled_by_hand.py",
    ),
)
"""Where tests share a control machine and proxies, and mostly wait: each group beside the others."""

APART = ("tests/flows/test_register.py", "tests/flows/test_deployments.py")
"""Where tests wait, too, for what a server of their own does by itself."""

ALONE = ("tests/faults/test_schedules.py",)
"""Where tests share nothing that takes time, and take long."""
