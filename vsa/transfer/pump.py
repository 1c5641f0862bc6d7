"""Bounded parallel reading: reader threads fill buffers, worker threads empty them.

The number of buffers is the back-pressure: readers wait when the workers fall behind. The first error
ends the pump and is raised to the caller; nothing is handled after it.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from vsa.memory import Buffers
from vsa.ranges import ByteRange
from vsa.stop import Stop

Handle = Callable[[ByteRange, memoryview], None]


class Reader(Protocol):
    """Something that fills a buffer with the bytes of a range, or raises."""

    def read_into(self, at: ByteRange, buffer: memoryview) -> None: ...

    def close(self) -> None: ...


class Pump:
    """Readers and buffers that live as long as the disk is being read."""

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        *,
        longest: int,
        stop: Stop,
        readers: int = 4,
        workers: int = 2,
        buffers: Buffers | None = None,
    ) -> None:
        """`longest`: the most bytes of a read. What is filled are `buffers`, if they are given."""
        self._readers = [open_reader() for _ in range(readers)]
        self._workers = workers
        self._stop = stop
        self._pool = buffers or Buffers()
        self._buffers: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        for _ in range(readers + workers):
            self._buffers.put(self._pool.take(longest))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.close()
        # No thread is left that has one.
        while not self._buffers.empty():
            self._pool.give_back(self._buffers.get())

    def run(self, reads: Iterable[ByteRange], handle: Handle) -> None:
        """Read every range and hand it to `handle`, in any order, from several threads at once.

        The view that `handle` gets is valid only during its call.
        """
        _Run(self._readers, self._workers, self._buffers, self._stop).run(iter(reads), handle)


class _Run:
    """One pass over some reads."""

    def __init__(
        self,
        readers: list[Reader],
        workers: int,
        buffers: queue.SimpleQueue[memoryview],
        stop: Stop,
    ) -> None:
        self._readers = readers
        self._workers = workers
        self._buffers = buffers
        self._stop = stop
        self._full: queue.SimpleQueue[tuple[ByteRange, memoryview] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._error: BaseException | None = None

    def run(self, reads: Iterator[ByteRange], handle: Handle) -> None:
        filling = [self._thread(partial(self._fill, reader, reads)) for reader in self._readers]
        emptying = [self._thread(partial(self._empty, handle)) for _ in range(self._workers)]
        for thread in filling:
            thread.join()
        for _ in emptying:
            self._full.put(None)
        for thread in emptying:
            thread.join()
        if self._error is not None:
            raise self._error

    @staticmethod
    def _thread(target: Callable[[], None]) -> threading.Thread:
        # The caller's context goes along, so that log records of a thread reach the caller's task.
        thread = threading.Thread(target=contextvars.copy_context().run, args=(target,), daemon=True)
        thread.start()
        return thread

    def _fill(self, reader: Reader, reads: Iterator[ByteRange]) -> None:
        try:
            while self._error is None:
                self._stop.check()
                with self._lock:
                    at = next(reads, None)
                if at is None:
                    return
                buffer = self._buffers.get()
                try:
                    reader.read_into(at, buffer)
                except BaseException:
                    self._buffers.put(buffer)
                    raise
                self._full.put((at, buffer))
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self._fail(error)

    def _empty(self, handle: Handle) -> None:
        while (item := self._full.get()) is not None:
            at, buffer = item
            try:
                if self._error is None:
                    handle(at, buffer[: at.length])
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                self._fail(error)
            finally:
                self._buffers.put(buffer)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
