"""A statistics report for people, as Markdown: every answer's tables, with intervals, and what holds for them."""

from federation.answers import Answer, AnswerTable, Row, StatisticsReport

_MOST_ROWS = 60


def readable(report: StatisticsReport) -> str:
    """Return the report as Markdown; long tables are cut, and say so."""
    lines = [f"# {report.title}", "", *_terms(report)]
    for answer in report.answers:
        lines += ["", f"## {answer.title}", ""]
        lines += _answer(answer)
    return "\n".join(lines) + "\n"


def _terms(report: StatisticsReport) -> list[str]:
    how = "Each institution released its own noisy sums."
    if report.aggregation == "secure":
        how = "Only sums over several institutions were opened; "
        how += "the noise is shared." if report.noise == "shared" else "each institution added the full noise."
    lines = [
        f"Purpose {report.purpose}; contract {report.contract}; {report.rounds} rounds. {how} "
        f"Intervals at {report.confidence:.0%}, noise included.",
        "",
        "| institution | declared customers | epsilon | delta | rounds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for item in report.members:
        lines.append(
            f"| {item.member} | {item.declared_size:,} | {item.epsilon:g} | {item.delta:.3g} | {item.rounds} |"
        )
    return lines


def _answer(answer: Answer) -> list[str]:
    lines: list[str] = []
    for table in answer.tables:
        lines += _table(table)
    return lines + [f"- {note}" for note in answer.notes]


def _table(table: AnswerTable) -> list[str]:
    head = [*table.key, f"value ({table.unit})", "from", "to"]
    lines = [f"**{_cell(table.title)}**", "", _line(head), _line(["---"] * len(table.key) + ["---:"] * 3)]
    lines += [_line([*row.key, *_numbers(row)]) for row in table.rows[:_MOST_ROWS]]
    if len(table.rows) > _MOST_ROWS:
        lines.append("")
        lines.append(f"{len(table.rows) - _MOST_ROWS} more rows stand in the report's JSON.")
    return [*lines, ""]


def _numbers(row: Row) -> list[str]:
    return [number(row.value), number(row.low), number(row.high)]


def number(value: float | None) -> str:
    """Return a number as people read it; an em dash where the noise leaves nothing to say."""
    if value is None:
        return "—"
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if size < 100 else f"{value:.1f}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").splitlines())
