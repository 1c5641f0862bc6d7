from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tests.engine.conftest import azure, control, world

__all__ = ["azure", "control", "world"]


@pytest.fixture(autouse=True)
def _only_words_are_logged() -> Iterator[None]:
    """pytest keeps what is logged until a test ends. An error there holds the frames of all its callers, and
    they what the disks of a play held: ten megabytes, in a soak a thousand times."""
    made_before = logging.getLogRecordFactory()

    def in_words(*arguments: Any, **more: Any) -> logging.LogRecord:
        record = made_before(*arguments, **more)
        record.msg, record.args = record.getMessage(), ()
        return record

    logging.setLogRecordFactory(in_words)
    yield
    logging.setLogRecordFactory(made_before)
