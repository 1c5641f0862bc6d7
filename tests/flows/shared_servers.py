"""The Prefect server that tests share: it starts when first asked for, and ends with the test run."""

from __future__ import annotations

import contextlib

import pytest

from demo.installation import DATABASE
from demo.postgresql import postgresql, programs
from tests.flows.prefect_server import PrefectServer
from tests.soak import DEPTH

_SERVER = pytest.StashKey[PrefectServer]()


def shared_server(config: pytest.Config, factory: pytest.TempPathFactory) -> PrefectServer:
    """The one server of a test run, also for folders whose fixtures do not know of each other.

    Where workers and runs live and die, in CI, it is on PostgreSQL, if that is installed. On SQLite the
    automations that watch heartbeats and the runs themselves keep each other from writing, now and then for
    a minute in which every worker is held for dead.
    """
    if _SERVER not in config.stash:
        # By itself it plans the runs of schedules once a minute: long for a test that waits for them.
        settings = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10"}
        if DEPTH and (folder := programs()):
            database = contextlib.ExitStack()
            config.add_cleanup(database.close)
            settings[DATABASE] = database.enter_context(postgresql(folder))
        server = PrefectServer(factory.mktemp("prefect"), settings=settings)
        config.add_cleanup(server.stop)
        config.stash[_SERVER] = server.start()
    return config.stash[_SERVER]
