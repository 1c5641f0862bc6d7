"""What is logged by threads of a pool is said in the context of whoever gave them their work."""

from __future__ import annotations

from contextvars import ContextVar

from vsa.threads import Threads

TASK = ContextVar("TASK", default="nobody's")


def test_each_piece_of_work_runs_in_the_context_that_it_was_given_in() -> None:
    with Threads(1) as pool:
        TASK.set("the first task's")
        first = pool.submit(TASK.get)
        TASK.set("the second task's")
        others = pool.map(lambda _: TASK.get(), range(3))
        assert first.result() == "the first task's"
        assert set(others) == {"the second task's"}


def test_what_work_sets_stays_with_it() -> None:
    TASK.set("mine")
    with Threads(1) as pool:
        pool.submit(TASK.set, "another's").result()
        assert pool.submit(TASK.get).result() == "mine"
