"""Lines on axes, as SVG text: small pictures for docs/, written with nothing but the standard library."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

Series = Mapping[str, Sequence[tuple[float, float]]]
"""By the name of each line, its points; the order of names is that of the colours."""

WIDTH, HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 170, 40, 52
_COLOURS = ("#1f5fa8", "#c4501b", "#2f8f4e", "#8a4fb0", "#9a7b12", "#47525e")
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def plot(
    title: str, x_label: str, y_label: str, series: Series, *, log_x: bool = False, log_y: bool = False
) -> str:
    """The picture. Points that a logarithmic axis cannot show are left out; ValueError if none is left."""
    shown = {
        name: [(x, y) for x, y in points if (x > 0 or not log_x) and (y > 0 or not log_y)]
        for name, points in series.items()
    }
    every = [point for points in shown.values() for point in points]
    if not every:
        raise ValueError(f"plot {title!r}: there is no point to show")
    across = _axis([x for x, _ in every], log=log_x, start=_LEFT, end=WIDTH - _RIGHT)
    up = _axis([y for _, y in every], log=log_y, start=HEIGHT - _BOTTOM, end=_TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{_LEFT}" y="22" font-size="14" font-weight="bold">{escape(title)}</text>',
        *_grid(across, up),
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}" y="{HEIGHT - 14}" text-anchor="middle">'
        f"{escape(x_label)}</text>",
        f'<text transform="translate(16 {(_TOP + HEIGHT - _BOTTOM) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>',
    ]
    for number, (name, points) in enumerate(shown.items()):
        parts.extend(_line(number, name, [(across.at(x), up.at(y)) for x, y in sorted(points)]))
    return "\n".join([*parts, "</svg>", ""])


@dataclass(frozen=True)
class _Axis:
    """`at` gives the place of a value in the picture."""

    ticks: Sequence[float]
    at: Callable[[float], float]


def _axis(values: Sequence[float], *, log: bool, start: float, end: float) -> _Axis:
    ticks = _decades(values) if log else _even(values)
    scale = math.log10 if log else float
    low, high = scale(ticks[0]), scale(ticks[-1])

    def at(value: float) -> float:
        return start + (end - start) * (scale(value) - low) / (high - low)

    return _Axis(ticks, at)


def _even(values: Sequence[float]) -> list[float]:
    """From zero, in steps that people count in."""
    high = max(*values, 0.0) or 1.0
    magnitude = 10 ** math.floor(math.log10(high / 5))
    step = next(size for part in _STEPS if (size := part * magnitude) * 5.0001 >= high)
    return [step * count for count in range(math.ceil(high / step - 1e-9) + 1)]


def _decades(values: Sequence[float]) -> list[float]:
    """Powers of ten around the values, of two where ten leaves too few."""
    low, high = min(values), max(values)
    if high / low > 100:
        first = math.floor(math.log10(low) + 1e-9)
        return [10.0**power for power in range(first, max(first + 1, math.ceil(math.log10(high) - 1e-9)) + 1)]
    first = math.floor(math.log2(low) + 1e-9)
    return [2.0**power for power in range(first, max(first + 1, math.ceil(math.log2(high) - 1e-9)) + 1)]


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
    for value in across.ticks:
        x = across.at(value)
        yield f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#e3e6ea"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_short(value)}</text>'
    for value in up.ticks:
        y = up.at(value)
        yield f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#e3e6ea"/>'
        yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#667"/>'


def _line(number: int, name: str, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    colour, x, y = _COLOURS[number % len(_COLOURS)], WIDTH - _RIGHT + 14, _TOP + 10 + 20 * number
    path = "L".join(f"{across:.1f} {up:.1f}" for across, up in points)
    if path:
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for across, up in points:
        yield f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>'
    yield f'<path d="M{x} {y}h18" stroke="{colour}" stroke-width="2"/>'
    yield f'<text x="{x + 24}" y="{y + 4}">{escape(name)}</text>'


def _short(value: float) -> str:
    for size, prefix in _PREFIXES:
        if value >= size:
            return f"{value / size:g}{prefix}"
    return f"{value:.3g}"
