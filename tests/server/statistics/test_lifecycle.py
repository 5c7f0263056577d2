"""Life-cycle stages: counts at both times, moves, probabilities and flows, and how far the noise moves them."""

from pathlib import Path

import numpy as np
import pytest

from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import FederationError
from federation.measures import Condition, Rule, problems_of, sensitivity
from federation.queries import Accuracy, Lifecycle
from federation.segments import StageRules, rules_from
from server.statistics.asking import Setting
from server.statistics.lifecycle import LifecycleAsker, check
from simulations.asker_play import play
from tests.server.statistics.shop import BUDGET, CONFIGS, RFM, SD, cohorts, exact, noisy, setting

STAGES = load_yaml(CONFIGS / "segments" / "stages.yaml", StageRules).stages
NAMES = (*(rule.name for rule in STAGES), "other")
QUERY = Lifecycle(kind="lifecycle", id="life", stages=STAGES)


@pytest.fixture(scope="module")
def shops():
    return cohorts(np.random.default_rng(4))


def stage_of(columns, row):
    """The rules of configs/segments/stages.yaml, written out."""
    recency, tenure, overdue, trend = (columns[name][row] for name in ("recency", "tenure", "overdue", "trend"))
    if tenure < 0.25:
        return "new"
    if recency >= 0.6:
        return "lost"
    if overdue < 2.0:
        return "growing" if trend >= 0.3 else "active"
    return "cooling"


@pytest.fixture(scope="module")
def truth(shops):
    """Customers by stage at both times, counted one by one."""
    table = np.zeros((len(NAMES), len(NAMES)))
    for shop in shops:
        at = {
            time: {name: stage_of(cohort.columns, row) for row, name in enumerate(cohort.ids)}
            for time, cohort in shop.items()
        }
        for name in at["start"].keys() | at["end"].keys():
            table[NAMES.index(at["start"].get(name, "other")), NAMES.index(at["end"].get(name, "other"))] += 1
    return table


def true_figures(table):
    """What each row of the answer should hold, by table and key; nothing for what is not defined."""
    found = {}
    for i, j in np.ndindex(*table.shape):
        found["moves", NAMES[i], NAMES[j]] = table[i, j]
        found["transitions", NAMES[i], NAMES[j]] = table[i, j] / table[i].sum()
    for time, axis in (("start", 1), ("end", 0)):
        sizes = table.sum(axis=axis)
        for name, size in zip(NAMES, sizes, strict=True):
            found["stages", name, time] = size
            if name != "other":
                found["shares", name, time] = size / sizes[:-1].sum()
    for name, flow in zip(NAMES, table.sum(axis=0) - table.sum(axis=1), strict=True):
        found["flows", name] = flow
    return found


def test_without_noise_the_answer_is_the_federations_own(shops, truth):
    answer = play(
        LifecycleAsker(QUERY, Setting(RFM, 6000, 0.0, 0.95)),
        RFM,
        shops,
        budget=100.0,
        sd=0.0,
        generator=np.random.default_rng(0),
    )
    assert rules_from(answer.table("rules")) == STAGES and answer.kind == "lifecycle"
    figures = true_figures(truth)
    for (table, *key), value in figures.items():
        assert answer.table(table).value(*key) == pytest.approx(value, abs=1e-6)
    assert sum(len(table.rows) for table in answer.tables if table.name != "rules") == len(figures)


def test_what_is_published_fits_together(shops):
    for seed in range(5):
        answer = play(
            LifecycleAsker(QUERY, setting()), RFM, shops, budget=BUDGET, sd=SD, generator=np.random.default_rng(seed)
        )
        for name in NAMES:
            moved = [answer.table("moves").value(name, other) for other in NAMES]
            came = [answer.table("moves").value(other, name) for other in NAMES]
            assert min(moved) >= 0.0
            assert sum(moved) == pytest.approx(answer.table("stages").value(name, "start"), abs=0.1)
            assert sum(came) == pytest.approx(answer.table("stages").value(name, "end"), abs=0.1)
            assert answer.table("flows").value(name) == pytest.approx(sum(came) - sum(moved), abs=0.1)
            shares = [answer.table("transitions").value(name, other) for other in NAMES]
            assert None in shares or sum(shares) == pytest.approx(1.0, abs=1e-6)
        for table in answer.tables[:-1]:
            assert all(row.value is None or row.low <= row.value <= row.high for row in table.rows)


def test_intervals_cover_at_the_confidence(shops, truth):
    """600 repetitions: 95% +- 2.7 points is three standard deviations of the binomial; cells near zero may cover more."""
    generator = np.random.default_rng(22)
    asker = LifecycleAsker(QUERY, setting())
    measures = asker.ask(1, BUDGET)
    parts = exact(measures, shops)
    figures = true_figures(truth)
    covered, repetitions = dict.fromkeys(figures, 0), 600
    for _ in range(repetitions):
        asker.told(1, noisy(measures, parts, generator))
        for table in asker.answer().tables[:-1]:
            for row in table.rows:
                covered[table.name, *row.key] += row.low - 1e-6 <= figures[table.name, *row.key] <= row.high + 1e-6
    shares = {key: count / repetitions for key, count in covered.items()}
    assert {key: share for key, share in shares.items() if share < 0.923} == {}
    away = [key for key, value in figures.items() if key[0] != "transitions" and abs(value) > 100 or key[0] == "flows"]
    assert len(away) > 25 and {key: shares[key] for key in away if shares[key] > 0.977} == {}


def test_a_stage_with_too_few_customers_has_no_shares(shops):
    query = QUERY.model_copy(
        update={"stages": (Rule(name="nobody", where=(Condition(column="recency", lt=-1.0),)), *STAGES)}
    )
    answer = play(
        LifecycleAsker(query, setting()), RFM, shops, budget=BUDGET, sd=SD, generator=np.random.default_rng(1)
    )
    rows = [row for row in answer.table("transitions").rows if row.key[0] == "nobody"]
    assert {(row.value, row.low, row.high) for row in rows} == {(None, 0.0, 1.0)}
    assert any("Too few to say where they went from here: nobody" in note for note in answer.notes)
    assert any("cannot be told from 0" in note for note in answer.notes)


def test_a_query_that_does_not_fit_is_said_in_words():
    assert check(QUERY, RFM) == []
    bank = load_yaml(Path(CONFIGS / "contracts" / "bank_campaign.yaml"), FeatureContract)
    assert "need a log of purchases" in check(QUERY, bank)[0]
    wrong = Lifecycle(kind="lifecycle", id="a", stages=(Rule(name="a", where=(Condition(column="age", ge=1.0),)),))
    assert "age is no column" in check(wrong, RFM)[0]
    late = Lifecycle(
        kind="lifecycle", id="a", stages=(Rule(name="a", where=(Condition(column="recency", at="end", ge=0.1),)),)
    )
    assert "leave `at` out" in check(late, RFM)[0]
    label = Lifecycle(kind="lifecycle", id="a", stages=STAGES, where=(Condition(column="lapsed", any_of=("yes",)),))
    assert "lapsed is the label" in check(label, RFM)[0]


def test_the_budget_is_used_and_one_that_says_nothing_is_refused():
    asker = LifecycleAsker(QUERY, setting())
    measures = asker.ask(1, BUDGET)
    assert problems_of(measures, RFM) == [] and BUDGET - 1 < sensitivity(measures) <= BUDGET * (1 + 1e-12)
    with pytest.raises(FederationError, match="needs 66"):
        asker.ask(1, 10.0)
    asker.ask(1, 66.0)


def test_the_accuracy_asked_for_names_the_sensitivity_that_reaches_it(shops):
    asker = LifecycleAsker(QUERY.model_copy(update={"accuracy": Accuracy(within=20.0)}), setting())
    needed = asker.needed(1)
    moves, sizes, share = asker.expected({1: needed})
    assert moves.within <= 20.0 and moves.within == pytest.approx(20.0, rel=0.01)
    assert sizes.within == pytest.approx(moves.within * 6**0.5) and share.unit == "share"
    asker.told(1, noisy(measures := asker.ask(1, needed), exact(measures, shops), np.random.default_rng(1)))
    row = max(asker.answer().table("moves").rows, key=lambda row: row.value)
    assert (row.high - row.low) / 2.0 == pytest.approx(moves.within, rel=0.1)
    assert LifecycleAsker(QUERY, setting()).needed(1) is None
