"""How much of each budget was used, over time: a drawing in plain SVG that needs no other file."""

from collections.abc import Sequence
from dataclasses import dataclass

from client.evidence.gather import Point
from client.words import day_of

WIDTH, HEIGHT = 720, 236
LEFT, TOP, BOTTOM, GAP = 44, 34, 34, 52
TOPS = (0.04, 0.1, 0.2, 0.4, 1.0)  # the drawing ends at the first of these that everything is below
PANELS = ("Customers who train", "Customers who are held out")


@dataclass(frozen=True)
class _Panel:
    """Where one drawing lies and which time it spans; lengths in units of the view box."""

    x: float
    width: float
    begin: int
    end: int
    top: float

    def across(self, ts: int) -> float:
        """Return the place of a time."""
        span = max(self.end - self.begin, 1)
        return self.x + self.width * (ts - self.begin) / span

    def up(self, share: float) -> float:
        """Return the place of a share."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share / self.top


def usage_chart(points: Sequence[Point], begin: int, end: int) -> str:
    """Return an SVG of the shares of life and period budget in use, between two times; empty without points."""
    if not points:
        return ""
    width = (WIDTH - LEFT - GAP - 8) / 2
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="Share of each budget in use, over time" '
        'xmlns="http://www.w3.org/2000/svg">'
    ]
    highest = max(max(point.shares) for point in points)
    top = next((limit for limit in TOPS if highest <= limit), 1.0)
    for index, title in enumerate(PANELS):
        panel = _Panel(LEFT + index * (width + GAP), width, begin, max(end, begin + 1), top)
        parts.append(_frame(panel, title))
        parts.append(_step(panel, [(point.ts, point.shares[2 * index + 1]) for point in points], "period"))
        parts.append(_step(panel, [(point.ts, point.shares[2 * index]) for point in points], "life"))
    return "".join([*parts, "</svg>"])


def _frame(panel: _Panel, title: str) -> str:
    right = panel.x + panel.width
    parts = [f'<text class="title" x="{panel.x:.1f}" y="16">{title}</text>']
    for share in (part * panel.top for part in (0.0, 0.25, 0.5, 0.75, 1.0)):
        y = panel.up(share)
        kind = "full" if share == 1.0 else "grid"
        parts.append(f'<line class="{kind}" x1="{panel.x:.1f}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{panel.x - 7:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{_tick(share)}</text>'
        )
    base = HEIGHT - BOTTOM + 17
    parts.append(f'<text class="tick" x="{panel.x:.1f}" y="{base}">{day_of(panel.begin)}</text>')
    parts.append(f'<text class="tick" x="{right:.1f}" y="{base}" text-anchor="end">{day_of(panel.end)}</text>')
    return "".join(parts)


def _tick(share: float) -> str:
    text = f"{share:.1%}"
    return text.replace(".0%", "%")


def _step(panel: _Panel, values: Sequence[tuple[int, float]], kind: str) -> str:
    path, last = [], None
    for ts, share in values:
        x, y = panel.across(ts), panel.up(share)
        path.append(f"M{x:.1f} {y:.1f}" if last is None else f"H{x:.1f}V{y:.1f}")
        last = y
    path.append(f"H{panel.x + panel.width:.1f}")
    return f'<path class="{kind}" d="{"".join(path)}"/>'
