from __future__ import annotations

import io
from collections.abc import Iterator

from vsa.progress import bar, lines, watched_on
from vsa.ranges import GIB, MIB


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Seconds:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def drawn(stream: io.StringIO) -> Iterator[str]:
    return (line.strip("\n") for line in stream.getvalue().split("\r")[1:])


def test_a_bar_is_redrawn_on_one_line_until_the_work_ends() -> None:
    stream, clock = io.StringIO(), Seconds()
    watched = bar(stream, clock)
    watched.started("osdisk", 4 * GIB)
    clock.now += 10
    watched.advanced(1 * GIB)
    watched.finished()
    begun, under_way, ended = drawn(stream)
    assert begun.startswith("osdisk [..............................] 0%  0 B of 4 GiB")
    assert "25%  1 GiB of 4 GiB  102.4 MiB/s  0:00:30 left" in under_way
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert ended.count("#") == round(0.25 * 30)


def test_a_bar_is_not_redrawn_for_every_byte() -> None:
    stream, clock = io.StringIO(), Seconds()
    watched = bar(stream, clock)
    watched.started("osdisk", 1000)
    for _ in range(1000):
        watched.advanced(1)
    assert len(list(drawn(stream))) == 1


def test_lines_come_at_the_start_now_and_then_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Seconds()
    watched = lines(stream, clock)
    watched.started("osdisk", 100 * MIB)
    for _ in range(25):
        clock.now += 1
        watched.advanced(4 * MIB)
    watched.finished()
    shown = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in shown] == [
        "osdisk: 0%", "osdisk: 40%", "osdisk: 80%", "osdisk: ended, 100%"
    ]  # fmt: skip
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_work_of_unknown_size_shows_its_amount_alone() -> None:
    stream, clock = io.StringIO(), Seconds()
    watched = lines(stream, clock)
    watched.started("listing", 0)
    watched.advanced(3 * MIB)
    watched.finished()
    assert stream.getvalue().splitlines()[-1] == "listing: ended, 3 MiB  0 B/s"


def test_a_label_cannot_command_the_terminal() -> None:
    stream = Terminal()
    bar(stream, Seconds()).started("\x1b]0;owned\x07\r\n", 1)
    assert "\\x1b]0;owned\\x07\\r\\n" in stream.getvalue()
    assert "\x07" not in stream.getvalue()


def test_the_stream_decides_between_bar_and_lines() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        watched_on(stream, Seconds()).started("x", 1)
    assert terminal.getvalue().startswith("\r") and not pipe.getvalue().startswith("\r")
