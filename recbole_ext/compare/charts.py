"""Charts as inline SVG in a ``<figure>``; their colours are the page's, light or dark.

Drawn for 360 units, the width of a phone, so that a letter is there as large as in the text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape

Interval = tuple[float, float, float]
"""Mean, and the ends of its interval."""

WIDTH, HEIGHT = 360, 240
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 40
_DASHES = ("", "6 3", "2 2", "8 3 2 3")
_COLOURS = 8


def bars(title: str, values: Mapping[str, Interval]) -> str:
    """Return horizontal bars from 0 with intervals."""
    room = WIDTH - 60
    scale = room / max(1e-12, *(high for *_, high in values.values()))
    parts = []
    for i, (name, (mean, low, high)) in enumerate(values.items()):
        y = 36 * i
        parts.append(
            f'<text x="0" y="{y + 13}">{escape(name)}</text>'
            f'<rect x="0" y="{y + 18}" width="{mean * scale:.1f}" height="12" '
            'fill="var(--accent)" opacity=".55"/>'
            f'<path d="M{low * scale:.1f} {y + 24}H{high * scale:.1f}" '
            'stroke="currentColor" stroke-width="2"/>'
            f'<text x="{high * scale + 6:.1f}" y="{y + 28}" class="soft">{mean:.4f}</text>'
        )
    return _figure(title, "".join(parts), 36 * len(values) + 2)


def lines(
    title: str,
    x: str,
    y: str,
    series: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    names: Sequence[str],
) -> str:
    """Return lines: name -> several of the same colour, each a list of points.

    A name has the colour and marker of its place in ``names``, here and in the other charts.
    """
    points = [p for several in series.values() for line in several for p in line]
    plane, to_x, to_y = _axes(x, y, [p[0] for p in points], [p[1] for p in points], whole=True)
    parts = [plane]
    for name, several in series.items():
        i = names.index(name)
        for line in several:
            d = "L".join(f"{to_x(a):.1f} {to_y(b):.1f}" for a, b in line)
            parts.append(f'<path d="M{d}" {_stroke(i)}/>')
            parts.append(_dot(i, to_x(line[-1][0]), to_y(line[-1][1])))
    return _figure(title, "".join(parts), HEIGHT, _places(series, names))


def scatter(
    title: str, x: str, y: str, points: Mapping[str, tuple[float, float]], names: Sequence[str]
) -> str:
    """Return a point per name; x is drawn by its logarithm."""
    exponents = {name: math.log10(max(p[0], 0.1)) for name, p in points.items()}
    low, high = math.floor(min(exponents.values())), math.ceil(max(exponents.values()))
    ticks = [float(e) for e in range(low, max(high, low + 1) + 1)]
    plane, to_x, to_y = _axes(
        x, y, ticks, [p[1] for p in points.values()], ticks, lambda e: f"{10**e:,g}"
    )
    parts = [plane]
    for name, (_, value) in points.items():
        parts.append(_dot(names.index(name), to_x(exponents[name]), to_y(value), 5))
    return _figure(title, "".join(parts), HEIGHT, _places(points, names), dots=True)


def intervals(
    title: str,
    x: str,
    y: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Interval]],
    names: Sequence[str],
) -> str:
    """Return, for each group, a point with its interval per name, and a line at 0."""
    values = [0.0, *(v for several in series.values() for one in several for v in one)]
    plane, to_x, to_y = _axes(
        x,
        y,
        [-0.5, len(groups) - 0.5],
        values,
        [float(i) for i in range(len(groups))],
        lambda i: groups[round(i)],
    )
    parts = [plane, f'<path d="M{LEFT} {to_y(0):.1f}H{WIDTH - RIGHT}" stroke="currentColor"/>']
    for place, (name, several) in enumerate(series.items()):
        i, shift = names.index(name), 0.7 * ((place + 0.5) / len(series) - 0.5)
        for group, (mean, low, high) in enumerate(several):
            at = to_x(group + shift)
            parts.append(
                f'<path d="M{at:.1f} {to_y(low):.1f}V{to_y(high):.1f}" {_stroke(i, False)}/>'
            )
            parts.append(_dot(i, at, to_y(mean)))
    return _figure(title, "".join(parts), HEIGHT, _places(series, names), dots=True)


def _axes(
    x: str,
    y: str,
    xs: Sequence[float],
    ys: Sequence[float],
    x_ticks: Sequence[float] | None = None,
    x_text: Callable[[float], str] = lambda v: f"{v:g}",
    whole: bool = False,
) -> tuple[str, Callable[[float], float], Callable[[float], float]]:
    """Return the grid with its labels, and what maps values to places."""
    y_ticks = ticks_of(min(ys), max(ys))
    x_ticks = ticks_of(min(xs), max(xs), whole=whole) if x_ticks is None else x_ticks
    bounds = min(*xs, *x_ticks), max(*xs, *x_ticks)
    to_x = _scale(*bounds, LEFT + 6, WIDTH - RIGHT - 12)
    to_y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP + 16)
    digits = max(0, -math.floor(math.log10(y_ticks[1] - y_ticks[0]) + 1e-9))
    parts = [f'<text x="0" y="{TOP + 4}" class="soft">{escape(y)}</text>']
    for tick in y_ticks:
        at = to_y(tick)
        parts.append(
            f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/><text x="{LEFT - 5}" '
            f'y="{at + 4:.1f}" text-anchor="end" class="soft">{tick + 0.0:.{digits}f}</text>'
        )
    parts += [
        f'<text x="{to_x(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle" '
        f'class="soft">{escape(x_text(tick))}</text>'
        for tick in x_ticks
    ]
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end" class="soft">'
        f"{escape(x)}</text>"
    )
    return "".join(parts), to_x, to_y


def ticks_of(low: float, high: float, n: int = 4, whole: bool = False) -> list[float]:
    """Return two or more round numbers, equally far apart, around ``low`` and ``high``."""
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / n))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m * n >= span * 0.999)
    step = max(1.0, round(step)) if whole else step
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    return [i * step for i in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _form(i: int) -> int:
    return (i + i // _COLOURS) % len(
        _DASHES
    )  # the ninth differs from the first, whose colour it has


def _stroke(i: int, dashed: bool = True) -> str:
    dash = _DASHES[_form(i)] if dashed else ""
    extra = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="var(--c{i % _COLOURS})" stroke-width="2"{extra}'


def _dot(i: int, x: float, y: float, size: float = 4) -> str:
    """Return a marker: of its colour, and of one of four shapes, for those who see no colours."""
    path = (
        f"M{-size} 0a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0",
        f"M{-size} {-size}h{2 * size}v{2 * size}h{-2 * size}z",
        f"M0 {-1.3 * size}L{1.2 * size} {size}H{-1.2 * size}z",
        f"M0 {-1.4 * size}L{1.4 * size} 0L0 {1.4 * size}L{-1.4 * size} 0z",
    )[_form(i)]
    return (
        f'<path transform="translate({x:.1f} {y:.1f})" d="{path}" fill="var(--c{i % _COLOURS})"/>'
    )


def _places(shown: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    return {name: names.index(name) for name in shown}


def _figure(
    title: str,
    body: str,
    height: int,
    places: Mapping[str, int] | None = None,
    dots: bool = False,
) -> str:
    legend = "".join(
        '<li><svg viewBox="0 0 26 12" aria-hidden="true">'
        + ("" if dots else f'<path d="M0 6H26" {_stroke(i)}/>')
        + f"{_dot(i, 13, 6)}</svg>{escape(name)}</li>"
        for name, i in (places or {}).items()
    )
    legend = f'<ul class="legend">{legend}</ul>' if places else ""
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><svg class="plot" '
        f'viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
        f"{legend}</figure>"
    )
