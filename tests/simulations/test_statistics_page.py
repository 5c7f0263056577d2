"""The marketing report: pictures of any table, careful headlines, exact answers beside noisy ones, and the simulated campaign."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cohort import Cohort
from federation.answers import Answer, AnswerTable, Row
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.drafts import load_statistics
from federation.errors import ConsilienceError
from federation.measures import groups_of
from federation.queries import Campaign, Count, Group, Mean
from federation.statistics import StatisticsDraft
from simulations import marketing, marketing_page
from simulations import marketing_campaign as campaign
from simulations.demo import CONFIGS
from simulations.marketing_exact import compared, judge
from simulations.marketing_figures import bars, curve, heat, picture
from simulations.marketing_headlines import Seen, headline
from simulations.marketing_page import render
from simulations.marketing_parts import load_asked
from simulations.marketing_result import Account, Judged, MarketingReport, Part
from simulations.marketing_sections import TECHNICAL, section
from simulations.marketing_words import NOTHING, Words, number, points, said
from simulations.seeded import SeededSource
from simulations.sites import SHOPS
from simulations.statistics_play import Party, Played, Table

RFM = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
CAMPAIGN = load_yaml(CONFIGS / "contracts" / "campaign.yaml", FeatureContract)
BANKS = load_yaml(CONFIGS / "contracts" / "bank_campaign.yaml", FeatureContract)
WORDS = Words(RFM)
COUNT = Count(id="q", kind="count")
VOID = {"meta", "br", "rect", "line", "polygon", "polyline"}
PER_SHOP = 2_500


class Checker(HTMLParser):
    """Collects ids and texts and whatever would be loaded from elsewhere; fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.loads += [value or "" for name, value in attrs if name in {"src", "href", "srcset", "action"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def table(
    rows: list[Row], name: str = "counts", unit: str = "customers", key: tuple[str, ...] | None = None
) -> AnswerTable:
    labels = key if key is not None else tuple(f"k{place}" for place in range(len(rows[0].key)))
    return AnswerTable(name=name, title="A title", unit=unit, key=labels, rows=tuple(rows))


def row(key: tuple[str, ...], value: float | None, low: float | None = None, high: float | None = None) -> Row:
    return Row(key=key, value=value, low=low, high=high)


LABELS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=60)
VALUES = st.floats(-1e9, 1e9, allow_nan=False)


@st.composite
def tables(draw: st.DrawFn) -> AnswerTable:
    keys = draw(st.integers(0, 3))
    names = draw(st.lists(st.tuples(*[LABELS] * keys), min_size=1, max_size=12, unique=True))
    rows = []
    for key in names if keys else [()]:
        value = draw(st.none() | VALUES)
        reach = draw(st.none() | st.floats(0, 1e9, allow_nan=False))
        centre = value if value is not None else 0.0
        ends = (None, None) if reach is None else (centre - reach, centre + reach)
        rows.append(row(key, value, *ends))
    unit = draw(st.sampled_from(["customers", "share", "correlation", "euro", "days of purchase"]))
    return table(rows, unit=unit)


@settings(max_examples=60)
@given(tables())
def test_no_key_of_any_table_is_lost_and_everything_is_escaped(item: AnswerTable) -> None:
    answer = Answer(id="q", kind="something_new", title="New & <b>bold</b>", tables=(item,), notes=("a < b",))
    shown = section(answer, answer, COUNT, WORDS)
    (folded,) = shown.folded
    page = checked(str(folded.table) + "".join(str(figure.drawn) for figure in shown.figures))
    assert set(page.tags) <= {"table", "thead", "tbody", "tr", "th", "td", "b", "span", "small", "svg", "rect", "line"}
    assert str(folded.table).count("<tr>") == len(item.rows) + 1
    for found in item.rows:
        for label in found.key:
            assert WORDS.label(label) in page.text
    assert shown.headline and all(shown.headline)


@settings(max_examples=60)
@given(tables())
def test_pictures_stay_within_their_frame_and_draw_every_interval(item: AnswerTable) -> None:
    drawn = str(bars(item.rows, item.unit, {}, WORDS))
    assert drawn.count("<svg") == len(item.rows)
    assert drawn.count('class="reach"') == 3 * sum(found.low is not None for found in item.rows)
    assert drawn.count('class="bar"') == sum(found.value is not None for found in item.rows)
    assert drawn.count(f"<b>{NOTHING}</b>") == sum(found.value is None for found in item.rows)
    for name in ("x", "x1", "x2"):
        for at in re.findall(rf' {name}="([^"]*)"', drawn):
            assert 0.0 <= float(at) <= 400.0


def test_each_shape_has_its_picture() -> None:
    one = table([row(("a",), 1.0, 0.5, 2.0), row(("b",), None)])
    two = table([row((x, y), 1.0, 0.0, 2.0) for x in "abc" for y in "def"])
    narrow = table([row((x, y), 1.0, 0.0, 2.0) for x in "abc" for y in "de"])
    three = table([row(("a", "b", "c"), 1.0)])
    assert 'class="bars"' in picture(one, {}, WORDS)
    assert 'class="heat"' in picture(two, {}, WORDS)
    assert 'class="bars"' in picture(narrow, {}, WORDS)
    assert 'class="bars"' in picture(table([row((), 5.0, 4.0, 6.0)]), {}, WORDS)
    assert picture(three, {}, WORDS) == ""
    assert picture(table([row(("a",), None)]), {}, WORDS) == ""


def test_the_exact_answer_is_a_mark_of_its_own() -> None:
    rows = [row(("a",), 10.0, 8.0, 12.0), row(("b",), 20.0, 18.0, 22.0)]
    drawn = str(bars(rows, "customers", {("b",): 19.0}, WORDS))
    assert drawn.count('class="exact"') == 1 and "exact 19" in drawn
    assert 'class="exact"' not in str(bars(rows, "customers", {}, WORDS))


def test_a_heat_map_leaves_out_what_is_not_told_and_the_table_keeps_it() -> None:
    rows = [row((x, y), None if x == "gone" else 0.5, None, None) for x in ("here", "gone") for y in ("c", "d", "e")]
    item = table([*rows, row(("newcomer", ""), 0.25, 0.2, 0.3)], unit="share")
    drawn = str(heat(item, {}, WORDS))
    assert "gone" not in drawn and "newcomer" in drawn and drawn.count("<td class=") >= 3
    answer = Answer(id="q", kind="new", title="T", tables=(item,))
    assert "gone" in section(answer, answer, COUNT, WORDS).folded[0].table


def test_a_curve_has_its_band_and_the_line_that_knows_nothing() -> None:
    rows = [row(("buy", "mail", str(place)), 0.01 * place, 0.005 * place, 0.02 * place) for place in range(1, 6)]
    drawn = curve(rows, "share", {rows[4].key: 0.04}, WORDS)
    checked(str(drawn))
    for kind in ("band", "plain", "along", "exactly"):
        assert f'class="{kind}"' in drawn
    assert curve(rows[:1], "share", {}, WORDS) == ""


def test_numbers_are_written_as_their_unit_is_read() -> None:
    assert number(12345.6, "customers") == "12\u202f346"
    assert number(0.1234, "share of customers") == "12.3\u202f%"
    assert number(-0.5, "correlation") == "\u22120.50"
    assert number(None, "euro") == NOTHING and number(float("nan"), "euro") == NOTHING
    assert number(0.0002, "euro") == "under 0.001" and number(0.0, "euro") == "0"
    assert points(0.0123) == "+1.2" and points(-0.0123) == "\u22121.2" and points(0.0001) == "0.0"
    assert said(row((), 5.0, 4.0, 6.0), "customers") == "5 (4 to 6)"
    assert said(row((), None, 0.0, 1.0), "share") == "somewhere from 0.0\u202f% to 100.0\u202f%"
    assert said(row((), None), "share") == NOTHING


def test_columns_are_called_by_plain_words() -> None:
    assert WORDS.label("1. recency below 0.6, and frequency at least 2") == (
        "1. time since the last purchase below 0.6 of a window, and days with a purchase at least 2"
    )
    assert WORDS.label("high recency, low monetary") == "last purchase long ago, small purchases"
    assert (
        Words(BANKS).label("poutcome not success, and housing yes")
        == "result of the last campaign not success, and housing loan yes"
    )
    assert Words(CAMPAIGN, {"arm_1": "e-mail"}).label("arm_1") == "e-mail"


def test_the_interval_decides_what_a_headline_claims() -> None:
    query = Mean(id="q", kind="mean", of="lapsed", by=(Group(column="frequency", cuts=(2.0,)),))

    def told(*rows: Row) -> str:
        answer = Answer(
            id="q", kind="mean", title="T", tables=(table(list(rows), "means", "share of customers", ("frequency",)),)
        )
        return " ".join(headline(Seen(answer, query, WORDS)))

    assert "highest for “few”" in told(row(("few",), 0.8, 0.78, 0.82), row(("many",), 0.2, 0.18, 0.22))
    assert "No group can be told from another" in told(row(("few",), 0.5, 0.4, 0.6), row(("many",), 0.45, 0.4, 0.55))
    assert "too wide" in told(row(("few",), 0.5, 0.0, 1.0), row(("many",), 0.1, 0.0, 0.9))
    assert "too wide" in told(row(("few",), None), row(("many",), None))


def test_a_campaign_is_said_to_have_worked_only_where_the_interval_says_so() -> None:
    def told(low: float, high: float) -> str:
        arms = table(
            [
                row(("control",), 100.0, 90.0, 110.0),
                row(("arm_1",), 100.0, 90.0, 110.0),
                row(("arm_2",), 3.0, 0.0, 9.0),
            ],
            "customers",
        )
        gains = table(
            [row(("conversion", "arm_1"), (low + high) / 2.0, low, high), row(("conversion", "arm_2"), 0.9, 0.8, 1.0)],
            "uplift",
            "share of customers",
        )
        query = Campaign(id="q", kind="campaign", arm="arm", outcomes=("conversion",))
        return " ".join(headline(Seen(Answer(id="q", kind="campaign", title="T", tables=(arms, gains)), query, WORDS)))

    assert "worked: +5.0" in told(0.04, 0.06)
    assert "cannot be shown to have worked" in told(-0.01, 0.06)
    assert "did harm" in told(-0.06, -0.04)
    assert "arm 2" not in told(0.04, 0.06)  # nobody can be shown to be in it


def test_an_interval_is_judged_where_there_is_something_to_judge() -> None:
    noisy = table(
        [row(("a",), 5.0, 4.0, 6.0), row(("b",), 5.0, 4.0, 6.0), row(("c",), 1.0, 0.0, 2.0), row(("d",), None)]
    )
    true = table([row(("a",), 5.5), row(("b",), 7.0), row(("c",), 0.0), row(("d",), 9.0)])
    whole = noisy.model_copy(update={"name": "all", "title": "Rate (population)"})
    alone, both = judge(
        Answer(id="q", kind="count", title="T", tables=(noisy, whole)),
        Answer(id="q", kind="count", title="T", tables=(true, true.model_copy(update={"name": "all"}))),
    )
    assert alone == Judged(1, 2) and both == Judged(1, 2) and (alone + both).share == 0.5
    assert Judged(0, 0).share is None


def test_what_the_last_round_did_not_touch_has_no_exact_mark() -> None:
    same = table([row(("a",), 5.0, 4.0, 6.0)])
    assert compared(same, Answer(id="q", kind="count", title="T", tables=(same,))) == {}
    other = table([row(("a",), 5.0, 4.0, 6.0)], name="other")
    assert compared(same, Answer(id="q", kind="count", title="T", tables=(other,))) == {}


def shop_cohort(seed: int, prefix: str) -> Cohort:
    draw = np.random.default_rng(seed)
    days = 1.0 + draw.geometric(0.4, PER_SHOP)
    recency = draw.beta(1.0, 1.0 + 0.5 * days)
    return Cohort(
        ids=np.array([f"{prefix}{number:05d}" for number in range(PER_SHOP)], dtype=object),
        columns={
            "recency": recency,
            "frequency": days,
            "monetary": draw.lognormal(0.0, 0.6, PER_SHOP),
            "tenure": np.clip(recency + draw.random(PER_SHOP) * (1.0 - recency), 0.0, 1.0),
            "overdue": draw.lognormal(0.0, 1.0, PER_SHOP),
            "trend": draw.uniform(-1.0, 1.0, PER_SHOP),
        },
        label=(draw.random(PER_SHOP) < 0.2 + 0.6 * recency).astype(np.float64),
    )


@pytest.fixture(scope="module")
def cohorts() -> dict[str, Cohort]:
    return {site.id: shop_cohort(place, site.id) for place, site in enumerate(SHOPS)}


@pytest.fixture(scope="module")
def value(cohorts: dict[str, Cohort]) -> Part:
    parties = [
        Party(name, {"start": item, "end": replace(item, label=None)}, PER_SHOP) for name, item in cohorts.items()
    ]
    return played_part("value", load_statistics(CONFIGS / "queries" / "value.yaml"), RFM, parties)


def played_part(name: str, draft: StatisticsDraft, contract: FeatureContract, parties: list[Party]) -> Part:
    table_ = Table(contract, parties)
    noisy: Played = table_.play(draft, 3.0, SeededSource(f"page {name}"))
    exact = table_.play(draft, 3.0, None).answers
    accounts = tuple(Account(site.title, PER_SHOP, 3.0, 1e-6, 2.9, 2.9, noisy.rounds) for site in SHOPS)
    sites = SHOPS if name == "value" else tuple(campaign.campaign_site(site) for site in SHOPS)
    return Part(
        name,
        draft,
        contract,
        noisy.report,
        exact,
        Judged(9, 10),
        Judged(0, 0),
        accounts,
        sites,
        1.0,
        100,
        200,
        300,
        (f"{name}.report.json", f"{name}.report.md"),
    )


@pytest.fixture(scope="module")
def campaign_rows(cohorts: dict[str, Cohort], value: Part) -> dict[str, pd.DataFrame]:
    return {
        site.id: campaign.simulated(cohorts[site.id], frozenset(cohorts[site.id].ids[::2]), RFM, value.report, site)
        for site in SHOPS
    }


@pytest.fixture(scope="module")
def campaign_part(campaign_rows: dict[str, pd.DataFrame]) -> Part:
    parties = [Party(name, {"start": campaign_cohort(rows)}, PER_SHOP) for name, rows in campaign_rows.items()]
    return played_part("campaign", load_statistics(CONFIGS / "queries" / "campaign.yaml"), CAMPAIGN, parties)


def campaign_cohort(rows: pd.DataFrame) -> Cohort:
    places = {
        column.name: {name: place for place, name in enumerate(column.categories)}
        for column in CAMPAIGN.columns
        if column.kind == "categorical"
    }
    columns = {name: rows[name].map(known).to_numpy(dtype=np.int64) for name, known in places.items()}
    columns |= {name: rows[name].to_numpy(dtype=np.float64) for name in ("decile", "spend", "cost")}
    columns |= {name: np.asarray(rows[name] == "yes", dtype=np.float64) for name in ("visit", "retained")}
    label = np.asarray(rows["conversion"] == "yes", dtype=np.float64)
    return Cohort(ids=rows["customer"].to_numpy(dtype=object), columns=columns, label=label)


def test_the_simulated_campaign_has_what_was_built_in(
    campaign_rows: dict[str, pd.DataFrame], campaign_part: Part
) -> None:
    """Seeded; without the seed each arm would miss four standard errors once in 16,000 runs."""
    gains = {found.key[-1]: found.value for found in campaign_part.exact[0].table("uplift").rows}
    size = {found.key[0]: found.value for found in campaign_part.exact[0].table("customers").rows}
    for arm in campaign.TRUTH:
        found, many, control = gains[arm.name], size[arm.name], size["control"]
        assert found is not None and many and control
        assert abs(found - campaign.built_in(arm)) < 4.0 * (0.13 / many + 0.13 / control) ** 0.5
        shares = {"arm_1": 0.35, "arm_2": 0.40}
        assert many / sum(n for n in size.values() if n) == pytest.approx(shares[arm.name], abs=0.01)
    for rows in campaign_rows.values():
        assert list(rows.columns) == list(campaign.COLUMNS)
        assert set(rows["arm"]) == {"control", "arm_1", "arm_2"}
        assert (rows["cost"][rows["arm"] == "control"] == 0.0).all()
        assert (rows["spend"][rows["conversion"] == "no"] == 0.0).all()
        listed = rows["chosen_by"] == "model"
        assert (rows["decile"][listed] <= campaign.TOP_DECILES).all()
        assert (rows["decile"][~listed] > campaign.TOP_DECILES).all()
        assert 1.0 - listed.mean() == pytest.approx(campaign.RANDOM_SHARE, abs=0.01)


def test_the_simulated_campaign_takes_only_whom_may_be_contacted_and_is_the_same_each_time(
    cohorts: dict[str, Cohort], value: Part, campaign_rows: dict[str, pd.DataFrame]
) -> None:
    site = SHOPS[0]
    contacts = frozenset(cohorts[site.id].ids[::2])
    again = campaign.simulated(cohorts[site.id], contacts, RFM, value.report, site)
    assert again.equals(campaign_rows[site.id]) and set(again["customer"]) <= contacts
    assert set(again["segment"]) <= set(groups_of("segment", CAMPAIGN))


def test_the_whole_page_is_sound_and_says_what_is_simulated(value: Part, campaign_part: Part) -> None:
    result = MarketingReport(
        "1.0", "1 May 2030", 60.0, marketing.SEEDS, (value, campaign_part), (("Set", "Source", "CC0"),)
    )
    page = render(result)
    found = checked(page)
    assert len(found.ids) == len(set(found.ids)) and found.loads == [] and "script" not in found.tags
    assert (
        "SIMULATED OUTCOMES" in found.text
        and f"seed {campaign.SEED}" in found.text
        and "seen by no party" in found.text
    )
    for part in result.parts:
        words = marketing_page.words_of(part)
        for answer in part.report.answers:
            assert answer.title in found.text
            shown = [item for item in answer.tables if item.name not in TECHNICAL]
            labels = {words.label(text) for item in shown for line in item.rows for text in line.key}
            assert [label for label in labels if label not in found.text] == []
    assert marketing_page.held(result) == (
        "Of 20 intervals that hold the noise alone, 18 held the exact answer: 90\u202f%.",
    )
    assert result.as_tree()["intervals"] == {"noise": {"held": 18, "of": 20}, "population": {"held": 0, "of": 0}}


def test_missing_queries_and_impossible_epsilons_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConsilienceError) as missing:
        load_asked(tmp_path, "value", "churn", SHOPS, None)
    assert missing.value.code == "CSL-M152"
    for epsilon in (0.0, -1.0, 1e6, float("nan")):
        with pytest.raises(ConsilienceError) as caught:
            marketing.run_report(tmp_path, tmp_path, None, CONFIGS, epsilon)  # type: ignore[arg-type]
        assert caught.value.code == "CSL-M153"
    asked, contract = load_asked(CONFIGS, "banks", "propensity", SHOPS, 0.5)
    assert asked.draft.epsilon == 0.5 and contract.name == "bank_campaign"
