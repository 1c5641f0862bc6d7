"""Bars as SVG text: any browser shows it, and it needs no library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_ROW, _BAR, _LEFT, _WIDTH, _RIGHT, _TOP = 24, 15, 250, 420, 90, 34
OURS, OTHERS = "#1f6feb", "#8c959f"
_FONT = "font-family='sans-serif' font-size='12'"


@dataclass(frozen=True)
class Bar:
    """One bar; `spread` are the least and the most of the rounds."""

    label: str
    value: float
    spread: tuple[float, float]
    ours: bool


def bars(title: str, unit: str, shown: Sequence[Bar]) -> str:
    """Horizontal bars, the shortest first, with their values and a thin line for their spread."""
    shown = sorted(shown, key=lambda bar: bar.value)
    most = max((bar.spread[1] for bar in shown), default=0.0) or 1.0
    height = _TOP + _ROW * len(shown) + 8
    width = _LEFT + _WIDTH + _RIGHT
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}'>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
        f"<text x='8' y='20' {_FONT} font-weight='bold'>{escape(title)}</text>",
    ]
    for number, bar in enumerate(shown):
        parts += _bar(bar, _TOP + number * _ROW, _WIDTH / most, unit)
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, top: int, scale: float, unit: str) -> list[str]:
    end = _LEFT + bar.value * scale
    least, most = (_LEFT + value * scale for value in bar.spread)
    middle, text = top + _BAR / 2, top + _BAR - 3
    return [
        f"<text x='{_LEFT - 8}' y='{text}' {_FONT} text-anchor='end'>{escape(bar.label)}</text>",
        f"<rect x='{_LEFT}' y='{top}' width='{max(end - _LEFT, 1):.1f}' height='{_BAR}' "
        f"fill='{OURS if bar.ours else OTHERS}'/>",
        f"<line x1='{least:.1f}' x2='{most:.1f}' y1='{middle}' y2='{middle}' stroke='black'/>",
        f"<text x='{max(end, most) + 6:.1f}' y='{text}' {_FONT}>{_short(bar.value)}{escape(unit)}</text>",
    ]


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
