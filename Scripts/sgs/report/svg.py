"""Pieces of inline SVG, and numbers in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

_PREFIXES = ("", "k", "M", "G", "T", "P")


def quantity(value: float, unit: str = "") -> str:
    """A number with three digits and a decimal prefix: 12748896 → 12.7 M."""
    power = 0
    while abs(value) >= 999.5 and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    digits = 0 if value == int(value) and power == 0 else max(0, 2 - int(math.log10(max(abs(value), 1))))
    return f"{value:.{digits}f} {_PREFIXES[power]}{unit}".rstrip()


def rounded(value: float, unit: str = "") -> str:
    """A tick's number: as `quantity`, without digits that say nothing."""
    digits, _, rest = quantity(value, unit).partition(" ")
    return f"{_trimmed(digits)} {rest}".rstrip()


def _trimmed(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def number(value: float) -> str:
    """A coordinate, to a hundredth."""
    return _trimmed(f"{value:.2f}")


def text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{shown}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    places = " ".join(f'{n}="{number(v)}"' for n, v in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)))
    return f'<line {places} class="{kind}"/>'


def box(x: float, y: float, width: float, height: float, kind: str, title: str) -> str:
    places = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}"'
    return f'<rect {places} class="{kind}"><title>{escape(title)}</title></rect>'


def svg(width: int, height: int, name: str, parts: Iterable[str], *, role: str = "img", kind: str = "") -> str:
    """A chart as wide as there is room; `role` is group where its parts lead somewhere."""
    classes = f"w{width} {kind}".rstrip()
    return (
        f'<svg viewBox="0 0 {width} {height}" role="{role}" aria-label="{escape(name)}" class="{classes}">'
        + "\n".join(parts)
        + "</svg>"
    )


def ticks(most: float, count: int = 8) -> list[float]:
    """At most about `count` round numbers from 0 to `most`."""
    if most <= 0:
        return [0.0]
    rough = most / count
    base = 10 ** math.floor(math.log10(rough))
    step = next(factor * base for factor in (1, 2, 5, 10) if factor * base >= rough * 0.999)
    return [step * n for n in range(int(most / step + 1e-9) + 1)]
