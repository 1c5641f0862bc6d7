"""The Prefect servers that tests share: each starts when first asked for, and ends with the test run."""

from __future__ import annotations

import contextlib

import pytest

from demo.postgresql import postgresql, programs
from tests.flows.prefect_server import PrefectServer
from tests.shared import SQLITE
from tests.soak import DEPTH

_ON_SQLITE, _ON_POSTGRESQL = pytest.StashKey[PrefectServer](), pytest.StashKey[PrefectServer]()


def shared_server(config: pytest.Config, factory: pytest.TempPathFactory, test: str = "") -> PrefectServer:
    """The one server of a test run, also for folders whose fixtures do not know of each other.

    Where workers and runs live and die it is on PostgreSQL, if that is installed; but not for tests (by their
    id) that look into its SQLite. There the automations that watch heartbeats and the runs themselves keep
    each other from writing, now and then for a minute in which every worker is held for dead.
    """
    folder = programs() if DEPTH and not test.startswith(SQLITE) else None
    key = _ON_POSTGRESQL if folder else _ON_SQLITE
    if key not in config.stash:
        # By itself it plans the runs of schedules once a minute: long for a test that waits for them.
        settings = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10"}
        if folder:
            database = contextlib.ExitStack()
            config.add_cleanup(database.close)
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.enter_context(postgresql(folder))
        server = PrefectServer(factory.mktemp("prefect"), settings=settings)
        config.add_cleanup(server.stop)
        config.stash[key] = server.start()
    return config.stash[key]
