"""A report's figures in words, alike in the terminal and on the page."""

from dataclasses import dataclass

from client.campaign.report import Effect, Report
from client.campaign.uplift import CostPerExtra, Interval, Rate

EFFECT_HEAD = ("arm", "approached", "control", "converted", "without", "uplift", "extra conversions")
UNKNOWN = "–"
SLICE_HEAD = ("", "arm", "approached", "control", "converted", "without", "uplift", "")


@dataclass(frozen=True)
class TextTable:
    """A table as it is shown."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables_of(report: Report) -> list[TextTable]:
    """Return a report as tables: groups, effects, money, strata, the model against chance, and the Qini curve."""
    found = [_groups(report), _effects(report), _money(report)]
    if any(effect.visit is not None or effect.retained is not None for effect in report.effects):
        found.append(_others(report))
    for by in ("chosen by", "decile", "segment"):
        slices = report.of(by)
        if len({item.name for item in slices}) > 1:
            rows = [(item.name, *_effect_row(item.effect)[:-1], _verdict(item.effect.uplift)) for item in slices]
            found.append(
                TextTable(f"By {by}" if by != "chosen by" else "By who chose", (by, *SLICE_HEAD[1:]), tuple(rows))
            )
    if report.qini is not None:
        found.append(_qini(report))
    return found


def lines_of(report: Report) -> list[str]:
    """Return what the report says in sentences: each arm's verdict, the model's, the smallest uplift that could be seen, and the notes."""
    lines = [_sentence(effect, report.unit) for effect in report.effects]
    if report.contest is not None:
        gap = report.contest.advantage
        lines.append(f"Does the model earn its place? {report.contest.verdict} (by {points(gap)} points).")
    return [*lines, *report.notes]


def points(gap: Interval) -> str:
    """Return a difference of rates in points, with its interval."""
    return f"{100 * gap.estimate:+.2f} [{100 * gap.low:+.2f}, {100 * gap.high:+.2f}]"


def money(gap: Interval | None) -> str:
    """Return a difference of money a customer, with its interval; a dash where it is not known."""
    return UNKNOWN if gap is None else f"{gap.estimate:+,.2f} [{gap.low:+,.2f}, {gap.high:+,.2f}]"


def price(cost: CostPerExtra) -> str:
    """Return the cost of an extra conversion, or why there is none."""
    if cost.estimate is None or cost.low is None or cost.high is None:
        return cost.verdict
    return f"{cost.estimate:,.2f} [{cost.low:,.2f}, {cost.high:,.2f}]"


def _sentence(effect: Effect, unit: str) -> str:
    subject = "All arms together" if effect.arm == "all arms" else f"Arm {effect.arm}"
    if effect.uplift.above_zero:
        more = f"{effect.extra.estimate:,.0f} [{effect.extra.low:,.0f}, {effect.extra.high:,.0f}] more conversions"
        each = price(effect.cost_per_extra)
        bought = (
            f"at {each} {unit} each" if effect.cost_per_extra.high is not None else "at a cost that has no upper end"
        )
        return f"{subject}: {more} than without an approach, {bought}."
    seen = f"a difference below {100 * effect.smallest_seen:.2f} points would hardly show in groups of this size"
    if effect.uplift.below_zero:
        return f"{subject}: worse than control, by {points(effect.uplift)} points."
    return f"{subject}: not better than control as far as can be told; {seen}."


def _groups(report: Report) -> TextTable:
    rows = tuple(
        (
            group.name,
            f"{group.drawn:,}",
            f"{group.withdrew:,}",
            f"{group.unknown:,}",
            UNKNOWN if group.mean_score is None else f"{group.mean_score:.3f}",
        )
        for group in report.groups
    )
    return TextTable("Groups", ("group", "drawn", "withdrew since", "outcome unknown", "mean score"), rows)


def _effects(report: Report) -> TextTable:
    rows = tuple(_effect_row(effect) for effect in report.effects)
    return TextTable("Conversion: points of the rate against control", EFFECT_HEAD, rows)


def _effect_row(effect: Effect) -> tuple[str, ...]:
    extra = f"{effect.extra.estimate:+,.0f} [{effect.extra.low:+,.0f}, {effect.extra.high:+,.0f}]"
    return (
        effect.arm,
        f"{effect.treated.n:,}",
        f"{effect.control.n:,}",
        _share(effect.treated),
        _share(effect.control),
        points(effect.uplift),
        extra,
    )


def _money(report: Report) -> TextTable:
    columns = {
        "arm": [effect.arm for effect in report.effects],
        "cost": [f"{effect.cost:,.2f}" for effect in report.effects],
        "cost of an extra conversion": [price(effect.cost_per_extra) for effect in report.effects],
        "spend uplift": [money(effect.spend) for effect in report.effects],
        "net of cost": [money(effect.net) for effect in report.effects],
    }
    return _told(f"Money in {report.unit}; spend and net for each customer", columns)


def _others(report: Report) -> TextTable:
    columns = {
        "arm": [effect.arm for effect in report.effects],
        "visit uplift": [_points(effect.visit) for effect in report.effects],
        "retention uplift": [_points(effect.retained) for effect in report.effects],
    }
    return _told("Visits and retention: points of the rate against control", columns)


def _told(title: str, columns: dict[str, list[str]]) -> TextTable:
    """Return a table of the columns in which anything is known."""
    known = {head: cells for head, cells in columns.items() if any(cell != UNKNOWN for cell in cells)}
    return TextTable(title, tuple(known), tuple(zip(*known.values(), strict=True)))


def _qini(report: Report) -> TextTable:
    assert report.qini is not None
    curve = report.qini
    places = range(1, len(curve.share))
    rows = [
        (
            str(curve.deciles[place - 1]),
            f"{curve.share[place]:.0%}",
            points(Interval(curve.gain[place], curve.low[place], curve.high[place])),
        )
        for place in places
    ]
    rows += [
        ("AUUC", "", points(curve.auuc)),
        ("above chance", "", points(curve.coefficient)),
    ]
    title = f"Qini curve: extra conversions for 100 customers ({curve.covered:.0%} of the population covered)"
    return TextTable(title, ("up to decile", "customers", "gain"), tuple(rows))


def _points(gap: Interval | None) -> str:
    return UNKNOWN if gap is None else points(gap)


def _share(rate: Rate) -> str:
    return f"{rate.hits:,} ({rate.share:.2%})"


def _verdict(gap: Interval) -> str:
    return "better" if gap.above_zero else "worse" if gap.below_zero else "not shown"
