"""The marketing report's page: one self-contained HTML file that prints well. No scripts, nothing loaded from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from federation.queries import Query
from simulations import marketing_campaign as campaign
from simulations.marketing_result import MarketingReport, Part
from simulations.marketing_sections import Section, section
from simulations.marketing_words import Words, gained, points
from simulations.pages import templates, write_page
from simulations.sites import Site
from simulations.words import count, scientific, share, size

_ORDER = (
    "count",
    "histogram",
    "mean",
    "quantiles",
    "sum",
    "crosstab",
    "rfm",
    "lifecycle",
    "lifetime",
    "clusters",
    "label",
    "tree",
    "correlation",
)
_IN_SHORT = ("count", "rfm", "lifetime", "tree", "campaign")
_TITLES = {
    "value": ("The shops: what customers are worth, and where they stand", "Shops"),
    "banks": ("The banks: who takes a term deposit", "Banks"),
    "campaign": ("The campaign: whom it moved, and at what cost", "Campaign, simulated"),
}


@dataclass(frozen=True)
class Chapter:
    """One part of the page: its answers in the order in which they are read."""

    part: Part
    title: str
    short: str
    sections: tuple[Section, ...]
    gloss: tuple[str, ...]

    @property
    def in_short(self) -> tuple[str, ...]:
        """The first sentences of the answers that matter most."""
        chosen = [item for item in self.sections if item.kind in _IN_SHORT]
        return tuple(line for item in chosen for line in item.headline[: 2 if item.kind == "campaign" else 1])


@dataclass(frozen=True)
class BuiltIn:
    """What was built into the simulated campaign for one arm, beside what the study found."""

    title: str
    share: str
    cost: float
    best: str
    rest: str
    true: str
    found: str
    held: str


def write(result: MarketingReport, path: Path) -> None:
    """Write the page atomically; its folder is made when missing. Raises StorageError CSL-F301 when it cannot be written."""
    write_page(render(result), path)


def render(result: MarketingReport) -> str:
    """Return the page as HTML."""
    environment = templates(count=count, size=size, share=share, scientific=scientific)
    chapters = [_chapter(part) for part in result.parts]
    return environment.get_template("marketing.html.j2").render(
        result=result,
        chapters=chapters,
        members=len({site.id for part in result.parts for site in part.sites}),
        answers=sum(len(part.report.answers) for part in result.parts),
        rounds=sum(part.report.rounds for part in result.parts),
        held=held(result),
        built_in=[row for part in result.parts if part.name == "campaign" for row in _built_in(part)],
        control=1.0 - sum(arm.share for arm in campaign.TRUTH),
        base=(campaign.base(1), campaign.base(10)),
        top_deciles=campaign.TOP_DECILES,
        random_share=campaign.RANDOM_SHARE,
    )


def words_of(part: Part) -> Words:
    """Return what names mean in a part; a campaign's arms are called what the simulation calls them."""
    arms = {arm.name: f"{arm.title} ({arm.name})" for arm in campaign.TRUTH} if part.name == "campaign" else {}
    typical = {site.window.typical_purchase for site in part.sites if site.window is not None}
    return Words(part.contract, arms, typical.pop() if len(typical) == 1 else None)


def _chapter(part: Part) -> Chapter:
    words = words_of(part)
    queries = {query.id: query for query in part.draft.queries}
    exact = {answer.id: answer for answer in part.exact}
    ordered = sorted(part.report.answers, key=lambda answer: _rank(answer.kind, queries[answer.id], words))
    title, short = _TITLES.get(part.name, (part.report.title, part.report.title))
    sections = tuple(section(answer, exact[answer.id], queries[answer.id], words) for answer in ordered)
    return Chapter(part, title, short, sections, tuple(_public(part.sites)))


def _rank(kind: str, query: Query, words: Words) -> int:
    """Return where an answer stands in its chapter; means of the label beside the tree that splits for it, unknown kinds at the end."""
    if kind == "mean" and getattr(query, "of", "") == words.contract.label.name:
        kind = "label"
    return _ORDER.index(kind) if kind in _ORDER else len(_ORDER)


def _public(sites: Sequence[Site]) -> list[str]:
    """Say what windows and typical purchases are, where the institutions declare them."""
    windows = [(site.title, site.window) for site in sites if site.window is not None]
    if not windows:
        return []
    days = ", ".join(f"{window.window_days} days ({title})" for title, window in windows)
    typical = sorted({window.typical_purchase for _, window in windows})
    money = " or ".join(f"{value:g} dollars" for value in typical)
    tenth = sorted({round(window.window_days / 10) for _, window in windows})
    return [
        f"A window is the time that an institution looks back from the day of the report: {days}. A tenth (0.1) of a window is "
        f"{' or '.join(map(str, tenth))} days.",
        f"A typical purchase is what each shop declares as such: {money}. Amounts are multiples of it, so that shops of any price "
        "level compare.",
    ]


def held(result: MarketingReport) -> tuple[str, ...]:
    """Say how often intervals held the exact answer: those for the noise alone, and those that hold the population as well."""
    lines = []
    for judged, what in (
        (result.alone, "that hold the noise alone"),
        (result.both, "that also hold the chance of who became a customer"),
    ):
        if judged.share is not None:
            lines.append(
                f"Of {count(judged.of)} intervals {what}, {count(judged.held)} held the exact answer: {share(judged.share)}."
            )
    return tuple(lines)


def _built_in(part: Part) -> list[BuiltIn]:
    answer = part.report.answers[0]
    gains = {row.key[-1]: row for row in answer.table("uplift").rows}
    found = []
    for arm in campaign.TRUTH:
        true, row = campaign.built_in(arm), gains[arm.name]
        inside = row.low is not None and row.high is not None and row.low <= true <= row.high
        found.append(
            BuiltIn(
                arm.title,
                share(arm.share),
                arm.cost,
                points(arm.best),
                points(arm.rest),
                points(true),
                gained(row),
                "yes" if inside else "no",
            )
        )
    return found
