"""Placing own customers by a report: exactly as the coordinator's measures counted them, and nothing invented."""

from pathlib import Path

import numpy as np
import pytest

from client.cohort import Cohort
from client.segments import place, segments, stages
from client.statistics.measuring import measure_all
from client.statistics.people import People
from federation.answers import MemberTerms, StatisticsReport
from federation.contract import CategoricalColumn, FeatureContract, FlagColumn, Label, NumericColumn
from federation.document import load_yaml
from federation.errors import DocumentError
from federation.measures import Cells, Condition, Rule, RulesAxis, Term
from federation.queries import Lifecycle, Rfm
from federation.segments import TRADE, StageRules, names_of
from server.statistics.asking import Setting, Sum
from server.statistics.lifecycle import LifecycleAsker
from server.statistics.rfm import RfmAsker
from simulations.asker_play import play

CONFIGS = Path(__file__).parents[2] / "configs"
RFM = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
STAGES = load_yaml(CONFIGS / "segments" / "stages.yaml", StageRules).stages
SD = 1000.0


def shop(seed, size=1500):
    """Customers of one shop; some columns unknown here and there."""
    generator = np.random.default_rng(seed)
    frequency = generator.geometric(0.4, size).astype(float)
    columns = {
        "recency": generator.random(size),
        "frequency": frequency,
        "monetary": generator.lognormal(0.0, 1.2, size),
        "tenure": generator.random(size),
        "overdue": np.where(frequency > 1, generator.exponential(2.0, size), np.nan),
        "trend": np.where(frequency > 1, generator.uniform(-1.0, 1.0, size), np.nan),
    }
    for name in ("recency", "monetary"):
        columns[name][generator.random(size) < 0.03] = np.nan
    ids = np.array([f"{seed}-{number:05d}" for number in range(size)], dtype=object)
    return Cohort(ids, columns)


def report(*answers, contract="rfm", study="0" * 64):
    return StatisticsReport(
        study=study,
        name="segments",
        title="Segments",
        purpose="marketing.segments",
        contract=contract,
        aggregation="plain",
        noise="local",
        confidence=0.95,
        rounds=2,
        members=(MemberTerms(member="alder", declared_size=1500, epsilon=1.0, delta=1e-6, rounds=2),),
        answers=answers,
    )


@pytest.fixture(scope="module")
def shops():
    return [shop(seed) for seed in range(3)]


def asked(asker, shops, sd=SD):
    times = ("start", "end") if isinstance(asker, LifecycleAsker) else ("start",)
    cohorts = [dict.fromkeys(times, cohort) for cohort in shops]
    return play(asker, RFM, cohorts, budget=2000.0, sd=sd, generator=np.random.default_rng(1))


@pytest.fixture(scope="module")
def rfm(shops):
    query = Rfm(kind="rfm", id="rfm", recency="recency", frequency="frequency", monetary="monetary")
    return RfmAsker(query, Setting(RFM, 4500, SD, 0.95)), query


@pytest.fixture(scope="module")
def delivered(shops, rfm):
    life = Lifecycle(kind="lifecycle", id="life", stages=STAGES)
    return report(asked(rfm[0], shops), asked(LifecycleAsker(life, Setting(RFM, 4500, SD, 0.95)), shops))


def test_every_institution_places_its_customers_as_the_measures_count_them(shops, rfm, delivered):
    """The delivered report comes through its encoding; the second round's question is the counting that it must agree with."""
    sent = StatisticsReport.from_canonical(delivered.canonical())
    counting = rfm[0].ask(2, 2000.0)[0]
    counting = counting.model_copy(update={"terms": (Term(cap=1),)})
    axis = Cells(axes=(RulesAxis(rules=STAGES),), terms=(Term(cap=1),))
    for cohort in shops:
        placed = place(cohort, RFM, sent)
        people = People.of(RFM, {"start": cohort})
        counted = measure_all([counting], people, RFM).tolist()
        taken = [rule.name for rule in counting.axes[0].rules]
        assert [np.count_nonzero(placed.segment == name) for name in [*taken, "unscored"]] == counted
        names = [*(rule.name for rule in STAGES), "other"]
        assert [np.count_nonzero(placed.stage == name) for name in names] == measure_all([axis], people, RFM).tolist()
        assert counted[-1] > 0  # some are unscored, since a value is not known
        assert set(placed.segment[(placed.r == 0) | (placed.m == 0)]) == {"unscored"}
        assert set(placed.segment) <= set(names_of(TRADE))


def test_own_figures_are_exact_and_stand_beside_the_federations_share(shops, delivered):
    placed = place(shops[0], RFM, delivered)
    groups = segments(placed, delivered)
    assert sum(group.customers for group in groups) == len(placed) == 1500
    assert sum(group.share for group in groups) == pytest.approx(1.0)
    shares = delivered.answers[0].table("shares")
    for group in groups:
        mine = shops[0].columns["monetary"][placed.segment == group.name]
        mine = np.clip(mine[~np.isnan(mine)], 0.0, 20.0)
        assert group.customers == np.count_nonzero(placed.segment == group.name)
        assert group.total == pytest.approx(mine.sum())
        assert group.worth == (pytest.approx(mine.mean()) if len(mine) else None)
        assert group.elsewhere == shares.value(group.name) and group.low <= group.elsewhere <= group.high
    # own customers are a third of the federation's, drawn alike: shares differ by chance alone
    assert max(abs(group.share - group.elsewhere) for group in groups) < 0.04
    found = stages(placed, delivered)
    assert [group.name for group in found] == [*(rule.name for rule in STAGES), "other"]  # whose recency is not known
    assert sum(group.customers for group in found) == 1500 and found[-1].elsewhere is None
    assert all(group.low <= group.elsewhere <= group.high for group in found[:-1])


def test_a_report_without_one_kind_leaves_it_open(shops, delivered):
    only = report(delivered.answers[1])
    placed = place(shops[0], RFM, only)
    assert set(placed.segment) == {""} and set(placed.r) == {0} and np.isnan(placed.worth).all()
    assert segments(placed, only) == [] and len(stages(placed, only)) == len(STAGES) + 1
    both = place(shops[0], RFM, only, report(delivered.answers[0], study="1" * 64))
    assert np.array_equal(both.segment, place(shops[0], RFM, delivered).segment)
    some = both.take(both.segment == "lost")
    assert set(some.segment) == {"lost"} and len(some) == len(some.ids) == len(some.stage)
    nothing = place(shops[0], RFM, report())
    assert set(nothing.segment) == set(nothing.stage) == {""} and stages(nothing, report()) == []


def test_conditions_on_groups_and_on_what_is_not_known():
    contract = FeatureContract(
        name="small",
        version=1,
        title="Small",
        source="table",
        columns=(
            CategoricalColumn(kind="categorical", name="job", meaning="Job", categories=("clerk", "farmer")),
            FlagColumn(kind="flag", name="loan", meaning="Loan"),
            NumericColumn(kind="numeric", name="age", meaning="Age", unit="years", low=0, high=99, knots=(0, 99)),
        ),
        label=Label(name="bought", meaning="Bought"),
    )
    rules = (
        Rule(name="farmers", where=(Condition(column="job", any_of=("farmer",)),)),
        Rule(name="borrowers", where=(Condition(column="loan", any_of=("yes",)),)),
        Rule(name="ageless", where=(Condition(column="age", missing=True),)),
        Rule(name="grown", where=(Condition(column="age", ge=18.0),)),
    )
    life = Lifecycle(kind="lifecycle", id="life", stages=rules)
    cohort = Cohort(
        np.array(list("abcdef"), dtype=object),
        {
            "job": np.array([1, 0, 0, -1, 0, -1]),
            "loan": np.array([1.0, 1.0, 0.0, np.nan, 0.0, 0.0]),
            "age": np.array([40.0, 40.0, np.nan, np.nan, 40.0, 12.0]),
        },
    )
    asker = LifecycleAsker(life, Setting(contract, 6, 0.0, 0.95))
    (measure,) = asker.ask(1, 1.0)
    people = People.of(contract, {"start": cohort, "end": cohort})
    asker.told(1, [_sum(measure, measure_all([measure], people, contract))])
    placed = place(cohort, contract, report(asker.answer(), contract="small"))
    assert placed.stage.tolist() == ["farmers", "borrowers", "ageless", "ageless", "grown", "other"]


def _sum(measure, values):
    return Sum(measure, values.reshape(1, 5, 5).astype(float), 0.0)


def test_a_report_on_another_version_of_the_contract_is_refused(shops, delivered):
    other = RFM.model_copy(update={"columns": RFM.columns[1:]})
    columns = {name: values for name, values in shops[0].columns.items() if name != "recency"}
    with pytest.raises(DocumentError, match="CSL-F432.*recency is no column"):
        place(Cohort(shops[0].ids, columns), other, delivered)
