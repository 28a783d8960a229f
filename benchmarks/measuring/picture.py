"""Two curves over concurrency, side by side, as an SVG that reads on light and dark pages. Pure."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 860, 340
PANEL_W, PANEL_H = 340, 210
TOP, LEFTS = 70, (62, 492)
COLOURS = {"floor": "#8a94a6", "server": "#2f6fed"}
OTHERS = ("#c2571a", "#8b5cf6")
INK = "#6b7280"

Curve = Sequence[tuple[int, float]]
"""(clients, value), by clients ascending."""


@dataclass(frozen=True)
class Panel:
    """One diagram: its title, its unit, and a curve for each name."""

    title: str
    unit: str
    curves: Mapping[str, Curve]


def drawn(panels: Sequence[Panel], *, title: str) -> str:
    """The picture; both axes begin at zero, except that clients are spaced by their logarithm."""
    names = list(dict.fromkeys(name for panel in panels for name in panel.curves))
    colours = {name: COLOURS.get(name) or OTHERS[place % len(OTHERS)] for place, name in enumerate(names)}
    legend = "".join(
        f'<rect x="{LEFTS[0] + 110 * place}" y="34" width="12" height="12" rx="3" fill="{colours[name]}"/>'
        f'<text x="{LEFTS[0] + 18 + 110 * place}" y="44">{html.escape(name)}</text>'
        for place, name in enumerate(names)
    )
    body = "".join(_panel(panel, left, colours) for panel, left in zip(panels, LEFTS, strict=True))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}" font-family="system-ui, sans-serif" font-size="12" fill="{INK}">'
        f'<text x="{LEFTS[0]}" y="20" font-size="14" font-weight="600">{html.escape(title)}</text>'
        f"{legend}{body}</svg>\n"
    )


def _panel(panel: Panel, left: int, colours: Mapping[str, str]) -> str:
    highest = _rounded(max(value for curve in panel.curves.values() for _, value in curve))
    places = sorted({clients for curve in panel.curves.values() for clients, _ in curve})
    low, high = math.log2(places[0]), math.log2(places[-1])

    def x(clients: int) -> float:
        return left + PANEL_W * (math.log2(clients) - low) / ((high - low) or 1)

    def y(value: float) -> float:
        return TOP + PANEL_H * (1 - value / highest)

    parts = [f'<text x="{left}" y="{TOP - 8}">{html.escape(panel.title)} ({html.escape(panel.unit)})</text>']
    for step in range(5):
        value = highest * step / 4
        parts.append(
            f'<line x1="{left}" x2="{left + PANEL_W}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            f'stroke="{INK}" stroke-opacity=".25"/>'
            f'<text x="{left - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    parts += [
        f'<text x="{x(clients):.1f}" y="{TOP + PANEL_H + 18}" text-anchor="middle">{clients}</text>'
        for clients in places
    ]
    middle = left + PANEL_W / 2
    parts.append(f'<text x="{middle}" y="{TOP + PANEL_H + 38}" text-anchor="middle">clients at once</text>')
    for name, curve in panel.curves.items():
        points = " ".join(f"{x(clients):.1f},{y(value):.1f}" for clients, value in curve)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colours[name]}" stroke-width="2.5"/>')
        parts += [
            f'<circle cx="{x(clients):.1f}" cy="{y(value):.1f}" r="3.5" fill="{colours[name]}"/>'
            for clients, value in curve
        ]
    return "".join(parts)


def _rounded(highest: float) -> float:
    """The next value that four lines divide well."""
    if highest <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(highest))
    return next(power * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 5, 6, 8, 10) if power * step >= highest)
