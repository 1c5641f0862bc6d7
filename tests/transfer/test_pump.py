"""Every range is handled once; an error or a stop ends it soon; nothing hangs and nothing grows."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vsa.errors import RunStopped
from vsa.ranges import ByteRange
from vsa.stop import Stop
from vsa.transfer.pump import Pump, Reader

pytestmark = pytest.mark.timeout(30)

LONGEST = 64
PATIENCE = 10.0
"""Seconds after which a thread that still waits has been forgotten."""


@dataclass
class Disk:
    """Readers of one made-up disk, and what happened to them."""

    before: Callable[[ByteRange], None] = lambda at: None
    closed: int = 0
    buffers: set[int] = field(default_factory=set)

    def open(self) -> Reader:
        return DiskReader(self)


@dataclass
class DiskReader:
    disk: Disk

    def read_into(self, at: ByteRange, buffer: memoryview) -> None:
        self.disk.before(at)
        self.disk.buffers.add(id(buffer.obj))
        buffer[: at.length] = contents(at)

    def close(self) -> None:
        self.disk.closed += 1


def contents(at: ByteRange) -> bytes:
    return bytes(position * 31 % 251 for position in range(at.offset, at.end))


def a_pump(disk: Disk, stop: Stop | None = None, *, readers: int = 4, workers: int = 2) -> Pump:
    return Pump(disk.open, longest=LONGEST, stop=stop or Stop(), readers=readers, workers=workers)


def some_reads(count: int, length: int = LONGEST) -> list[ByteRange]:
    return [ByteRange(number * 100, number * 100 + length) for number in range(count)]


@settings(deadline=None, max_examples=50)
@given(
    lengths=st.lists(st.integers(1, LONGEST), max_size=60),
    readers=st.integers(1, 5),
    workers=st.integers(1, 4),
    passes=st.integers(1, 3),
)
def test_every_range_is_handled_once_with_its_own_bytes(lengths, readers, workers, passes):
    reads = [ByteRange(number * 100, number * 100 + length) for number, length in enumerate(lengths)]
    with a_pump(Disk(), readers=readers, workers=workers) as pump:
        for _ in range(passes):
            handled: list[ByteRange] = []

            def handle(at: ByteRange, data: memoryview, handled=handled) -> None:
                assert bytes(data) == contents(at)
                handled.append(at)

            pump.run(reads, handle)
            assert sorted(handled) == reads


def test_readers_work_at_the_same_time_and_so_do_workers():
    together = threading.Barrier(3)
    disk = Disk(before=lambda at: together.wait(PATIENCE) and None)
    with a_pump(disk, readers=3, workers=1) as pump:
        pump.run(some_reads(3), lambda at, data: None)
    met = threading.Barrier(2)
    with a_pump(Disk(), readers=1, workers=2) as pump:
        pump.run(some_reads(2), lambda at, data: met.wait(PATIENCE) and None)


def test_readers_that_are_ahead_wait_for_a_free_buffer():
    """So many buffers and no more, however slow the workers are; the same ones pass after pass."""
    goes_on = threading.Event()
    read = threading.Semaphore(0)
    disk = Disk(before=lambda at: read.release())
    with a_pump(disk, readers=3, workers=2) as pump:
        run = threading.Thread(
            target=pump.run, args=(some_reads(50), lambda at, data: goes_on.wait(PATIENCE) and None)
        )
        run.start()
        for _ in range(5):
            assert read.acquire(timeout=PATIENCE)
        assert not read.acquire(timeout=0.2), "a sixth range was read though five buffers were all in use"
        goes_on.set()
        run.join(PATIENCE)
        assert not run.is_alive()
        pump.run(some_reads(50), lambda at, data: None)
    assert len(disk.buffers) <= 5


class Broken(Exception):
    """What a reader or a worker raises here."""


@pytest.mark.parametrize("error", [Broken("no"), KeyboardInterrupt(), RunStopped("stop")])
def test_an_error_of_a_reader_is_raised_and_no_more_is_read(error: BaseException):
    started: list[ByteRange] = []

    def fail_at_tenth(at: ByteRange) -> None:
        started.append(at)
        if at.offset == 900:
            raise error

    with a_pump(Disk(before=fail_at_tenth)) as pump, pytest.raises(type(error)) as caught:
        pump.run(some_reads(10_000), lambda at, data: None)
    assert caught.value is error
    assert len(started) < 9_000


@pytest.mark.parametrize("error", [Broken("no"), KeyboardInterrupt()])
def test_nothing_is_handled_after_the_first_error(error: BaseException):
    handled: list[ByteRange] = []

    def handle(at: ByteRange, data: memoryview) -> None:
        handled.append(at)
        if len(handled) == 3:
            raise error

    with a_pump(Disk(), workers=1) as pump, pytest.raises(type(error)) as caught:
        pump.run(some_reads(1000), handle)
    assert caught.value is error
    assert len(handled) == 3


def test_the_first_of_several_errors_is_the_one_that_is_raised():
    failing: list[threading.Thread] = []
    both = threading.Barrier(2)

    def fail_one_after_the_other(at: ByteRange) -> None:
        if at.offset == 0:
            failing.append(threading.current_thread())
            both.wait(PATIENCE)
            raise Broken("first")
        both.wait(PATIENCE)
        failing[0].join(PATIENCE)
        raise Broken("later")

    disk = Disk(before=fail_one_after_the_other)
    with a_pump(disk, readers=2) as pump, pytest.raises(Broken, match="first"):
        pump.run(some_reads(2), lambda at, data: None)


def test_the_list_of_reads_may_be_slow_and_need_not_know_of_threads():
    def reads() -> Iterator[ByteRange]:
        for read in some_reads(50):
            time.sleep(0.001)
            yield read

    handled: list[ByteRange] = []
    with a_pump(Disk(), readers=5) as pump:
        pump.run(reads(), lambda at, data: handled.append(at))
    assert sorted(handled) == some_reads(50)


def test_an_error_in_the_list_of_reads_is_raised():
    def reads() -> Iterator[ByteRange]:
        yield from some_reads(5)
        raise Broken("the list ends here")

    with a_pump(Disk()) as pump, pytest.raises(Broken, match="the list ends here"):
        pump.run(reads(), lambda at, data: None)


def test_an_error_of_one_reader_frees_the_others_that_wait_for_a_buffer():
    """All buffers are full and nobody empties them: the worker has failed, the readers must still end."""
    disk = Disk()
    with a_pump(disk, readers=4, workers=1) as pump:

        def fail(at: ByteRange, data: memoryview) -> None:
            raise Broken("the worker")

        for _ in range(20):
            with pytest.raises(Broken):
                pump.run(some_reads(100), fail)
        # No buffer was lost on the way: with one missing, this would wait for ever in the end.
        handled: list[ByteRange] = []
        pump.run(some_reads(100), lambda at, data: handled.append(at))
        assert len(handled) == 100


def test_failing_readers_give_their_buffers_back():
    broken = True

    def fail(at: ByteRange) -> None:
        if broken:
            raise Broken("the reader")

    with a_pump(Disk(before=fail), readers=2, workers=1) as pump:
        for _ in range(20):
            with pytest.raises(Broken):
                pump.run(some_reads(10), lambda at, data: None)
        broken = False
        handled: list[ByteRange] = []
        pump.run(some_reads(100), lambda at, data: handled.append(at))
        assert len(handled) == 100


def test_a_reader_fails_while_the_others_are_reading():
    failed = threading.Event()

    def one_fails(at: ByteRange) -> None:
        if at.offset == 0:
            failed.set()
            raise Broken("the first")
        failed.wait(PATIENCE)

    with a_pump(Disk(before=one_fails)) as pump, pytest.raises(Broken, match="the first"):
        pump.run(some_reads(1000), lambda at, data: None)


def test_a_stop_ends_the_pump_soon():
    stop = Stop()
    late: list[ByteRange] = []

    def stop_at_tenth(at: ByteRange) -> None:
        if stop.is_set:
            late.append(at)
        if at.offset == 900:
            stop.set()

    with a_pump(Disk(before=stop_at_tenth), stop, readers=4) as pump, pytest.raises(RunStopped):
        pump.run(some_reads(10_000), lambda at, data: None)
    assert len(late) <= 4, "what each reader had in hand"


def test_a_stop_before_the_start_reads_nothing():
    stop = Stop()
    stop.set()
    started: list[ByteRange] = []
    with a_pump(Disk(before=started.append), stop) as pump, pytest.raises(RunStopped):
        pump.run(some_reads(10), lambda at, data: None)
    assert started == []


def test_the_callers_context_reaches_every_thread():
    """Log records of a thread must find the way to the task that the pump runs in."""
    task = contextvars.ContextVar("task", default="nobody's")
    seen: set[str] = set()
    with a_pump(Disk(before=lambda at: seen.add(f"reads in {task.get()}"))) as pump:
        for name in ("first", "second"):
            task.set(name)
            pump.run(some_reads(8), lambda at, data: seen.add(f"handles in {task.get()}"))
    assert seen == {"reads in first", "handles in first", "reads in second", "handles in second"}


@pytest.mark.parametrize("error", [None, Broken("no")])
def test_readers_are_closed_at_the_end_and_no_thread_is_left(error: Exception | None):
    before = threading.active_count()
    disk = Disk()

    def use() -> None:
        with a_pump(disk, readers=5) as pump:
            pump.run(some_reads(20), lambda at, data: None)
            assert disk.closed == 0
            if error:
                raise error

    if error:
        with pytest.raises(Broken):
            use()
    else:
        use()
    assert disk.closed == 5
    assert threading.active_count() <= before
