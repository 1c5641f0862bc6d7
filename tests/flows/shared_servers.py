"""The Prefect servers that tests share: each starts when first asked for, and ends with the test run."""

from __future__ import annotations

import contextlib

import pytest

from demo.postgresql import postgresql, programs
from tests.flows.prefect_server import PrefectServer

_SHARED = pytest.StashKey[PrefectServer]()
# By itself it plans the runs of schedules once a minute: long for a test that waits for them.
_SETTINGS = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "10"}


def shared_server(config: pytest.Config, factory: pytest.TempPathFactory) -> PrefectServer:
    """The one server of a test run, also for folders whose fixtures do not know of each other."""
    if _SHARED not in config.stash:
        server = PrefectServer(factory.mktemp("prefect"), settings=_SETTINGS)
        config.add_cleanup(server.stop)
        config.stash[_SHARED] = server.start()
    return config.stash[_SHARED]


_OF_THE_FLEET = pytest.StashKey[PrefectServer]()


def fleet_server(config: pytest.Config, factory: pytest.TempPathFactory) -> PrefectServer:
    """The server of those tests whose workers and streams die; on PostgreSQL if it is installed.

    On SQLite the automations that watch heartbeats and the runs themselves keep each other from writing, now
    and then for a minute ("database is locked"), in which every worker is held for dead.
    """
    if _OF_THE_FLEET not in config.stash:
        settings = dict(_SETTINGS)
        if folder := programs():
            database = contextlib.ExitStack()
            config.add_cleanup(database.close)
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database.enter_context(postgresql(folder))
        server = PrefectServer(factory.mktemp("prefect"), settings=settings)
        config.add_cleanup(server.stop)
        config.stash[_OF_THE_FLEET] = server.start()
    return config.stash[_OF_THE_FLEET]
