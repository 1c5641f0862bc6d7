"""A proxy's lane: how many child runs at one time, which streams share one, and who hears what of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

import pytest

from tasks.lanes import Lane
from tests.tasks.orders import an_order, its_outcome
from vsa.errors import RunStopped, StreamFailed, VsaError
from vsa.media.outcomes import StreamOutcome
from vsa.ranges import GIB
from vsa.stop import Stop
from vsa.transfer.order import StreamOrder

SECONDS = 30.0


class Noting:
    """Something that many threads do, and a test waits for."""

    def __init__(self) -> None:
        self._changed = threading.Condition()

    def note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, SECONDS)


class Asked(Stop):
    """A stop that knows which threads look at it: those that wait for their turn."""

    def __init__(self) -> None:
        super().__init__()
        self._threads: set[threading.Thread] = set()
        self._noting = Noting()

    def check(self) -> None:
        self._noting.note(lambda: self._threads.add(threading.current_thread()))
        super().check()

    def by(self, threads: int) -> None:
        """Return once so many threads have looked."""
        self._noting.wait_for(lambda: len(self._threads) >= threads)


class Proxy:
    """Has streams carried out when the test lets it, and keeps what it was given together."""

    def __init__(self) -> None:
        self.led: list[list[str]] = []
        self.failure: BaseException | None = None
        self.failures: dict[str, VsaError] = {}
        self._noting = Noting()
        self._ends = threading.Semaphore(0)

    def run(self, orders: Sequence[StreamOrder]) -> list[StreamOutcome | VsaError]:
        self._noting.note(lambda: self.led.append([order.disk.name for order in orders]))
        assert self._ends.acquire(timeout=SECONDS)
        if self.failure is not None:
            raise self.failure
        return [self.failures.get(order.disk.name) or its_outcome(order) for order in orders]

    def let(self, runs: int) -> None:
        """Let so many more runs come to their end."""
        self._ends.release(runs)

    def began(self, runs: int) -> None:
        """Return once so many runs have begun."""
        self._noting.wait_for(lambda: len(self.led) >= runs)


@pytest.fixture
def proxy() -> Proxy:
    return Proxy()


@pytest.fixture
def stop() -> Asked:
    return Asked()


def in_a_thread(call: Callable[[], StreamOutcome]) -> Future[StreamOutcome]:
    """What the call comes to in a thread that is nobody else's."""
    future: Future[StreamOutcome] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


Begin = Callable[..., list[Future[StreamOutcome]]]


@pytest.fixture
def begin(proxy: Proxy, stop: Asked) -> Iterator[Begin]:
    """Begins streams in threads of their own, one after the other; of two places, three disks share a run."""
    lane = Lane(2, proxy.run, stop=stop, small=GIB, together=3)
    begun = 0

    def begin(*disks: str, size: int = GIB, alone: bool = False) -> list[Future[StreamOutcome]]:
        nonlocal begun
        futures = []
        for disk in disks:
            futures.append(in_a_thread(partial(lane.carry, an_order(disk, size=size), alone=alone)))
            begun += 1
            stop.by(begun)
        return futures

    yield begin
    proxy.let(100)


def carried(futures: Sequence[Future[StreamOutcome]]) -> list[str]:
    backups = [future.result(SECONDS).backup for future in futures]
    return [backup.disk.name for backup in backups if backup]


# Whose turn it is when a place becomes free is not for the test to say.
often = pytest.mark.parametrize("again", range(12))


def test_small_disks_that_wait_for_a_place_share_the_next_run(proxy: Proxy, begin: Begin) -> None:
    first = begin("a", "b")
    proxy.began(2)
    waiting = begin(*"cdefghij")
    assert proxy.led == [["a"], ["b"]], "there are two places"
    proxy.let(1)
    proxy.began(3)
    proxy.let(100)
    assert carried([*first, *waiting]) == [*"abcdefghij"], "to each its own"
    assert max(map(len, proxy.led)) == 3


def test_those_that_share_a_run_leave_the_other_places_their_share(proxy: Proxy, begin: Begin) -> None:
    """They go one after the other: two runs of two are done before one of three and one of one."""
    first = begin("a", "b")
    proxy.began(2)
    waiting = begin(*"cdef")
    proxy.let(1)
    proxy.began(3)
    proxy.let(1)
    proxy.began(4)
    proxy.let(100)
    carried([*first, *waiting])
    assert [len(led) for led in proxy.led[:3]] == [1, 1, 2]
    assert max(map(len, proxy.led)) == 2


@often
def test_a_large_disk_has_a_run_of_its_own(proxy: Proxy, begin: Begin, again: int) -> None:
    first = begin("a", "b")
    proxy.began(2)
    waiting = [*begin("large", size=GIB + 1), *begin("c", "d")]
    proxy.let(100)
    assert sorted(carried([*first, *waiting])) == ["a", "b", "c", "d", "large"]
    assert ["large"] in proxy.led


@often
def test_a_disk_that_may_have_killed_its_run_takes_no_other_along(
    proxy: Proxy, begin: Begin, again: int
) -> None:
    first = begin("a", "b")
    proxy.began(2)
    waiting = [*begin("deadly", alone=True), *begin("c", "d")]
    proxy.let(100)
    assert sorted(carried([*first, *waiting])) == ["a", "b", "c", "d", "deadly"]
    assert ["deadly"] in proxy.led


def test_what_ends_a_run_is_told_to_all_that_were_part_of_it_and_the_place_is_free_again(
    proxy: Proxy, begin: Begin
) -> None:
    first = begin("a", "b")
    proxy.began(2)
    waiting = begin("c", "d", "e")
    proxy.let(1)
    proxy.began(3)
    proxy.failure = StreamFailed("the proxy is gone")
    proxy.let(3)
    failed = [future for future in [*first, *waiting] if future.exception(SECONDS)]
    assert len(failed) >= 4, "both runs that were under way"
    for future in failed:
        with pytest.raises(StreamFailed, match="the proxy is gone"):
            future.result()
    proxy.failure = None
    proxy.let(100)
    assert carried(begin("f")) == ["f"]


def test_one_that_fails_in_a_shared_run_fails_alone(proxy: Proxy, begin: Begin) -> None:
    first = begin("a", "b")
    proxy.began(2)
    waiting = begin("c", "d", "e")
    proxy.failures["d"] = StreamFailed("disk d is unreadable")
    proxy.let(100)
    assert carried([*first, waiting[0], waiting[2]]) == ["a", "b", "c", "e"]
    with pytest.raises(StreamFailed, match="disk d is unreadable"):
        waiting[1].result(SECONDS)


def test_a_stop_ends_the_waiting_of_those_whose_turn_has_not_come(
    proxy: Proxy, begin: Begin, stop: Asked
) -> None:
    first = begin("a", "b")
    proxy.began(2)
    waiting = begin("c", "d")
    stop.set()
    for future in waiting:
        with pytest.raises(RunStopped):
            future.result(SECONDS)
    proxy.let(2)
    assert carried(first) == ["a", "b"], "those that are under way are the run's to stop"
    assert proxy.led == [["a"], ["b"]]
    (late,) = begin("late")
    with pytest.raises(RunStopped):
        late.result(SECONDS)


def test_a_run_that_forgets_a_stream_leaves_nobody_waiting() -> None:
    lane = Lane(1, lambda orders: [], stop=Stop())
    with pytest.raises(ValueError, match="shorter"):
        lane.carry(an_order("a"))
    with pytest.raises(ValueError, match="shorter"):
        lane.carry(an_order("b"))
