"""Pictures of any answer table: bars with intervals for one label, a heat map for two, a table otherwise. HTML with inline SVG, no scripts.

Labels are text of the page, so that long ones wrap and none is cut. Darkness alone tells more from less, so that it reads in grey.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from federation.answers import AnswerTable, Row
from simulations.marketing_words import NOTHING, Words, is_share, number, points, short, span

Exact = Mapping[tuple[str, ...], float]
_MOST_BARS, _MOST_COLUMNS, _MOST_CELLS, _GROUPED = 40, 8, 200, 2
_WIDE, _HIGH = 400.0, 20.0
_SHADES, _DARK = 0.72, 0.55
_DASH = "\u2014"


@dataclass(frozen=True)
class Scale:
    """The common scale of a picture's rows: what lies at its left and right end."""

    low: float
    high: float

    @classmethod
    def of(cls, rows: Sequence[Row], exact: Exact) -> "Scale":
        """Return a scale that holds zero and every value, interval and exact mark."""
        values = [x for row in rows for x in (row.value, row.low, row.high, exact.get(row.key)) if x is not None]
        low, high = min([0.0, *values]), max([0.0, *values])
        return cls(low, high if high > low else low + 1.0)

    def at(self, value: float) -> float:
        """Return where a value lies, in units of the drawing."""
        return round((value - self.low) / (self.high - self.low) * (_WIDE - 4.0) + 2.0, 2)


def picture(table: AnswerTable, exact: Exact, words: Words, gains: bool = False) -> Markup:
    """Draw a table in the way that fits its labels; empty where it is better read as a table. `gains`: shares are percentage points."""
    rows = table.rows
    if not any(row.value is not None for row in rows):
        return Markup()
    if len(table.key) <= 1 and len(rows) <= _MOST_BARS:
        return bars(rows, table.unit, exact, words, gains)
    if len(table.key) == 2:
        across = list(dict.fromkeys(row.key[1] for row in rows))
        if len(across) <= _GROUPED and len(rows) <= _MOST_BARS:
            return bars(rows, table.unit, exact, words, gains)
        if len(across) <= _MOST_COLUMNS and len(rows) <= _MOST_CELLS:
            return heat(table, exact, words)
    return Markup()


def bars(rows: Sequence[Row], unit: str, exact: Exact, words: Words, gains: bool = False) -> Markup:
    """Draw one bar a row: its label, the bar from zero with the interval across its end, and the numbers."""
    scale = Scale.of(rows, exact)
    lines = [_bar_line(row, unit, exact.get(row.key), words, scale, gains) for row in rows]
    return Markup('<table class="bars"><tbody>{}</tbody></table>').format(Markup("").join(lines))


def _bar_line(row: Row, unit: str, exact: float | None, words: Words, scale: Scale, gains: bool) -> Markup:
    value = points(row.value) if gains and is_share(unit) else number(row.value, unit)
    interval = f"{points(row.low)} to {points(row.high)}" if gains and row.low is not None else span(row, unit)
    return Markup(
        '<tr><th scope="row">{}</th><td class="drawn">{}</td><td class="said"><b>{}</b> <span>{}</span></td></tr>'
    ).format(words.labels(row.key) or "all", _bar(row, exact, scale), value, interval)


def _bar(row: Row, exact: float | None, scale: Scale) -> Markup:
    zero, middle = scale.at(0.0), _HIGH / 2.0
    parts = [_line(zero, 0.0, zero, _HIGH, "zero")]
    if row.value is not None:
        left, right = sorted((zero, scale.at(row.value)))
        parts.append(
            Markup('<rect class="bar" x="{}" y="4" width="{}" height="{}"/>').format(
                left, round(max(right - left, 0.8), 2), _HIGH - 8.0
            )
        )
    parts += _interval(row, scale, middle)
    if exact is not None:
        parts.append(_line(scale.at(exact), 0.0, scale.at(exact), _HIGH, "exact"))
    return _drawing(parts, _HIGH, _spoken(row, exact))


def _interval(row: Row, scale: Scale, middle: float) -> list[Markup]:
    if row.low is None or row.high is None:
        return []
    low, high = scale.at(row.low), scale.at(row.high)
    return [
        _line(low, middle, high, middle, "reach"),
        _line(low, middle - 4.0, low, middle + 4.0, "reach"),
        _line(high, middle - 4.0, high, middle + 4.0, "reach"),
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, x1, y1, x2, y2)


def _drawing(parts: Sequence[Markup], height: float, spoken: str) -> Markup:
    return Markup('<svg role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>').format(
        spoken, f"{_WIDE:g}", f"{height:g}", Markup("").join(parts)
    )


def _spoken(row: Row, exact: float | None) -> str:
    value = NOTHING if row.value is None else f"{row.value:.4g}"
    interval = "" if row.low is None or row.high is None else f", from {row.low:.4g} to {row.high:.4g}"
    return f"{value}{interval}" + ("" if exact is None else f"; exact {exact:.4g}")


def heat(table: AnswerTable, exact: Exact, words: Words) -> Markup:
    """Draw a heat map of two labels: darker is more, and a strip in each cell shows the interval and the exact answer.

    Rows and columns in which nothing is told are left out; rows without a second label are drawn as bars below.
    """
    told = [row for row in table.rows if row.value is not None and row.key[1]]
    single = [row for row in table.rows if not row.key[1]]
    names = [
        [
            name
            for name in dict.fromkeys(row.key[place] for row in table.rows)
            if any(row.key[place] == name for row in told)
        ]
        for place in range(2)
    ]
    below = (
        bars([row.model_copy(update={"key": row.key[:1]}) for row in single], table.unit, {}, words) if single else ""
    )
    return _grid(table, names[0], names[1], exact, words) + below


def _grid(table: AnswerTable, down: Sequence[str], across: Sequence[str], exact: Exact, words: Words) -> Markup:
    cells = {row.key: row for row in table.rows}
    scale = Scale.of([row for row in table.rows if row.key[0] in down and row.key[1] in across], exact)
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(words.label(name)) for name in across)
    lines = [
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            words.label(name),
            Markup("").join(_cell(cells.get((name, other)), table.unit, exact, scale) for other in across),
        )
        for name in down
    ]
    corner = Markup("<b>{}</b> down, <b>{}</b> across").format(*(words.label(name) for name in table.key))
    return Markup('<table class="heat"><thead><tr><td>{}</td>{}</tr></thead><tbody>{}</tbody></table>').format(
        corner, head, Markup("").join(lines)
    )


def _cell(row: Row | None, unit: str, exact: Exact, scale: Scale) -> Markup:
    if row is None:
        return Markup("<td></td>")
    reach = max(abs(scale.low), abs(scale.high))
    strength = 0.0 if row.value is None else _SHADES * min(abs(row.value) / reach, 1.0)
    tone = "dark" if strength > _DARK else "light"
    parts = _interval(row, scale, 4.0)
    truth = exact.get(row.key)
    if truth is not None:
        parts.append(_line(scale.at(truth), 0.0, scale.at(truth), 8.0, "exact"))
    strip = _drawing(parts, 8.0, _spoken(row, truth))
    return Markup('<td class="{}" style="--shade:{}"><b>{}</b><small>{}</small>{}</td>').format(
        tone, f"{100.0 * strength:.0f}%", number(row.value, unit), span(row, unit), strip
    )


def full_table(table: AnswerTable, exact: Exact, words: Words) -> Markup:
    """Return every row of a table as it was released: labels, value, interval, and the exact answer where there is one."""
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(words.label(name)) for name in table.key)
    columns = [short(table.unit), "from", "to", *(["exact, seen by no party"] if exact else [])]
    head += Markup("").join(Markup('<th scope="col" class="n">{}</th>').format(name) for name in columns)
    lines = []
    for row in table.rows:
        numbers = [row.value, row.low, row.high, *([exact.get(row.key)] if exact else [])]
        cells = [Markup("<td>{}</td>").format(words.label(text)) for text in row.key]
        cells += [Markup('<td class="n">{}</td>').format(_bare(value, table.unit)) for value in numbers]
        lines.append(Markup("<tr>{}</tr>").format(Markup("").join(cells)))
    return Markup('<table class="rows"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>').format(
        head, Markup("").join(lines)
    )


def _bare(value: float | None, unit: str) -> str:
    return _DASH if value is None else number(value, unit)


_LEFT, _TOP, _ACROSS, _TALL, _APART = 70.0, 12.0, 600.0, 220.0, 16.0


def curve(rows: Sequence[Row], unit: str, exact: Exact, words: Words) -> Markup:
    """Draw values along an order, such as a Qini curve: steps of equal width, the interval as a band, the exact answer as a thin line.

    The straight line from nothing to the end is what an order that knows nothing would give.
    """
    drawn = [row for row in rows if row.value is not None and row.low is not None and row.high is not None]
    if len(drawn) < 2:
        return Markup()
    scale = Scale.of(drawn, exact)
    step = _ACROSS / len(rows)
    x = {row.key: _LEFT + step * (place + 1) for place, row in enumerate(rows)}
    labels = Markup("").join(Markup("<li>{}</li>").format(words.label(row.key[-1])) for row in rows)
    return Markup(
        '<svg class="curve" role="img" aria-label="{}" viewBox="0 0 690 260">{}</svg><ol class="along">{}</ol>'
    ).format(
        words.labels(rows[0].key[:-1]) or "curve",
        Markup("").join([*_lines(rows, drawn, x, scale, exact), *_axis(x, scale, unit)]),
        labels,
    )


def _height(value: float, scale: Scale) -> float:
    return round(_TOP + _TALL * (scale.high - value) / (scale.high - scale.low), 1)


def _lines(
    rows: Sequence[Row], drawn: Sequence[Row], x: Mapping[tuple[str, ...], float], scale: Scale, exact: Exact
) -> list[Markup]:
    zero = _height(0.0, scale)
    upper = [(x[row.key], _height(row.high, scale)) for row in drawn if row.high is not None]
    lower = [(x[row.key], _height(row.low, scale)) for row in reversed(drawn) if row.low is not None]
    line = [(_LEFT, zero), *((x[row.key], _height(row.value, scale)) for row in drawn if row.value is not None)]
    true = [(x[row.key], _height(exact[row.key], scale)) for row in rows if row.key in exact]
    parts = [
        Markup('<polygon class="band" points="{}"/>').format(_points([*upper, *lower])),
        _line(_LEFT, zero, _LEFT + _ACROSS, zero, "zero"),
        Markup('<polyline class="plain" points="{}"/>').format(_points([line[0], line[-1]])),
        Markup('<polyline class="along" points="{}"/>').format(_points(line)),
    ]
    if true:
        parts.append(Markup('<polyline class="exactly" points="{}"/>').format(_points([(_LEFT, zero), *true])))
    return parts


def _axis(x: Mapping[tuple[str, ...], float], scale: Scale, unit: str) -> list[Markup]:
    values = [
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            _LEFT - 8, _height(at, scale) + 4, number(at, unit)
        )
        for at in dict.fromkeys((scale.low, 0.0, scale.high))
        if at == 0.0 or abs(_height(at, scale) - _height(0.0, scale)) > _APART
    ]
    steps = [
        Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(round(at, 1), _TOP + _TALL + 20, place)
        for place, at in enumerate(x.values(), start=1)
    ]
    return [*values, *steps]


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
