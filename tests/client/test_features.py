"""Features from a log: the formulas against the plain definition, and nothing across the cut, ever."""

from collections import defaultdict
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.cohort import Cohort, load_cohort
from client.config import NodeConfig
from client.features import window_of
from client.rfm_sql import FORMULAS
from client.validation import Findings
from federation.charter import Declaration
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import DataError
from tests.client.node_files import AS_OF, DECLARED, KINDS, Row, consent_for, purchase, rfm, shop_node

ROOT = Path(__file__).resolve().parents[2]
ALL = tuple(FORMULAS)
SLOW_FIXTURE = [HealthCheck.function_scoped_fixture]
EVERYBODY = [f"w{number}" for number in range(4)]

purchases = st.lists(
    st.builds(
        purchase,
        st.sampled_from(EVERYBODY),
        st.integers(-25, 110),
        st.floats(0, 500, allow_nan=False).map(lambda x: round(x, 2)),
        st.sampled_from(["web", "shop", None]),
    ),
    min_size=1,
    max_size=30,
)


def learn(node: NodeConfig, *names: str, declared: Declaration = DECLARED) -> Cohort:
    return load_cohort(node, rfm(*(names or ALL)), declared, "study", "learn")[0]


def fresh(home: Path, rows: list[Row], **more: Any) -> NodeConfig:
    """A node whose first customer always buys inside the window, so that the cohort is never empty."""
    return shop_node(home, [*rows, purchase("anchor", 50)], consent=consent_for(home, [*EVERYBODY, "anchor"]), **more)


def slow_truth(rows: list[Row], window: int = 100, basket: float = 10.0) -> dict[str, dict[str, float]]:
    """The definitions, one customer at a time."""
    spent: dict[str, dict[date, float]] = defaultdict(lambda: defaultdict(float))
    named: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        if AS_OF - timedelta(days=window) <= row["day"] < AS_OF and row["paid"] >= 0:
            spent[row["who"]][row["day"]] += row["paid"]
            if row["channel"]:
                named[row["who"]][row["channel"]] += row["paid"]
    truth: dict[str, dict[str, float]] = {}
    for who, by_day in spent.items():
        days = sorted(by_day)
        ages = [(AS_OF - day).days for day in days]
        gaps = [(later - earlier).days for earlier, later in zip(days, days[1:], strict=False)]
        total, shares = sum(by_day.values()), named[who]
        later = [1.0 if 2 * age <= ages[0] else -1.0 for age in ages[1:]]
        truth[who] = {
            "recency": ages[-1] / window,
            "frequency": len(days),
            "monetary": total / len(days) / basket,
            "spend": total / basket,
            "tenure": ages[0] / window,
            "gap_mean": float(np.mean(gaps)) / window if gaps else np.nan,
            "gap_spread": float(np.std(gaps) / np.mean(gaps)) if len(gaps) >= 2 else np.nan,
            "overdue": ages[-1] / float(np.mean(gaps)) if gaps else np.nan,
            "trend": float(np.mean(later)) if later else np.nan,
            "main_share": max(shares.values()) / sum(shares.values()) if sum(shares.values()) > 0 else np.nan,
            "variety": len(shares) if shares else np.nan,
        }
    return truth


@given(purchases)
@settings(max_examples=15, suppress_health_check=SLOW_FIXTURE)
def test_every_formula_against_the_definition(tmp_path: Path, rows: list[Row]) -> None:
    cohort = learn(fresh(tmp_path, rows))
    truth = slow_truth([*rows, purchase("anchor", 50)])
    assert list(cohort.ids) == sorted(truth)
    for name in ALL:
        np.testing.assert_allclose(
            cohort.columns[name], [truth[who][name] for who in cohort.ids], rtol=1e-9, err_msg=name
        )
    buys_after = {row["who"] for row in rows if AS_OF <= row["day"] < AS_OF + timedelta(days=20)}
    assert cohort.label is not None
    assert list(cohort.label) == [float(who not in buys_after) for who in cohort.ids]


@given(purchases, purchases)
@settings(max_examples=15, suppress_health_check=SLOW_FIXTURE)
def test_nothing_at_or_after_the_cut_changes_a_feature(tmp_path: Path, rows: list[Row], other: list[Row]) -> None:
    before = [row for row in rows if row["day"] < AS_OF]
    one = learn(fresh(tmp_path, before + [row for row in rows if row["day"] >= AS_OF]))
    two = learn(fresh(tmp_path, before + [row for row in other if row["day"] >= AS_OF]))
    assert list(one.ids) == list(two.ids)
    for name in ALL:
        np.testing.assert_array_equal(one.columns[name], two.columns[name], err_msg=name)


@given(purchases, purchases)
@settings(max_examples=15, suppress_health_check=SLOW_FIXTURE)
def test_nothing_before_the_cut_changes_a_label(tmp_path: Path, rows: list[Row], other: list[Row]) -> None:
    after = [row for row in rows if row["day"] >= AS_OF]
    labels = []
    for past in (rows, other):
        cohort = learn(fresh(tmp_path, after + [row for row in past if row["day"] < AS_OF]), "recency")
        assert cohort.label is not None
        labels.append(dict(zip(cohort.ids, cohort.label, strict=True)))
    both = set(labels[0]) & set(labels[1])
    assert {who: labels[0][who] for who in both} == {who: labels[1][who] for who in both}


def test_a_purchase_at_the_stroke_of_the_cut_is_outcome_and_one_just_before_is_feature(tmp_path: Path) -> None:
    midnight = datetime.combine(AS_OF, datetime.min.time())
    rows = [
        {"who": "a", "day": midnight - timedelta(seconds=1), "paid": 10.0, "channel": "web"},
        {"who": "b", "day": midnight - timedelta(days=3), "paid": 10.0, "channel": "web"},
        {"who": "b", "day": midnight, "paid": 99.0, "channel": "web"},
        {"who": "c", "day": midnight, "paid": 10.0, "channel": "web"},
    ]
    cohort = learn(shop_node(tmp_path, rows), "recency", "monetary")
    assert list(cohort.ids) == ["a", "b"]
    np.testing.assert_allclose(cohort.columns["recency"], [0.01, 0.03])
    np.testing.assert_allclose(cohort.columns["monetary"], [1.0, 1.0])
    assert cohort.label is not None
    assert list(cohort.label) == [1.0, 0.0]


def test_the_window_is_half_open_on_both_sides() -> None:
    learning, scoring = window_of(DECLARED, "learn"), window_of(DECLARED, "score")
    assert learning is not None
    assert scoring is not None
    assert (learning.start, learning.cut, learning.end) == (AS_OF - timedelta(100), AS_OF, AS_OF + timedelta(20))
    assert (scoring.start, scoring.cut, scoring.end) == (
        AS_OF - timedelta(80),
        AS_OF + timedelta(20),
        AS_OF + timedelta(20),
    )
    assert learning.days == scoring.days == 100


def test_the_middle_of_a_customers_time_counts_as_late(tmp_path: Path) -> None:
    rows = [
        purchase(who, days)
        for who, days in (("a", 40), ("a", 20), ("b", 40), ("b", 21), ("c", 40), ("c", 30), ("c", 10))
    ]
    np.testing.assert_array_equal(learn(shop_node(tmp_path, rows), "trend").columns["trend"], [1.0, -1.0, 0.0])


def test_window_edges(tmp_path: Path) -> None:
    rows = [
        purchase("first", 100),
        purchase("early", 101),
        purchase("last", 1),
        purchase("after", 0),
        purchase("last", -19),
    ]
    rows += [purchase("first", -20)]  # the day after the horizon: too late to count
    cohort = learn(shop_node(tmp_path, rows), "recency")
    assert list(cohort.ids) == ["first", "last"]
    assert cohort.label is not None
    assert list(cohort.label) == [1.0, 0.0]


def test_scoring_uses_the_newest_window_and_has_no_label(tmp_path: Path) -> None:
    rows = [purchase("a", 90), purchase("b", 10), purchase("c", -19)]
    cohort, _ = load_cohort(shop_node(tmp_path, rows), rfm("recency"), DECLARED, "contact", "score")
    assert list(cohort.ids) == ["b", "c"]
    np.testing.assert_allclose(cohort.columns["recency"], [0.30, 0.01])
    assert cohort.label is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_the_same_features(tmp_path: Path, kind: str) -> None:
    rows = [purchase("a", 10), purchase("a", 30, 5.5), purchase("b", 99, 0.0, None), purchase("a", 31, 2.0, "shop")]
    cohort = learn(shop_node(tmp_path, rows, kind))
    truth = slow_truth(rows)
    for name in ALL:
        np.testing.assert_allclose(cohort.columns[name], [truth[who][name] for who in "ab"], err_msg=name)


def test_bad_rows_are_counted_and_contribute_nothing(tmp_path: Path) -> None:
    good = [
        {"who": "a", "day": (AS_OF - timedelta(days=d)).isoformat(), "paid": "10", "channel": "web"} for d in (5, 9)
    ]
    bad = [
        {**good[0], "who": ""},
        {**good[0], "day": "31.02.2024"},
        {**good[0], "day": ""},
        {**good[0], "day": "infinity"},
        {**good[0], "paid": "ten"},
        {**good[0], "paid": ""},
        {**good[0], "paid": "nan"},
        {**good[0], "paid": "-inf"},
        {**good[0], "paid": "1e300"},
        {**good[0], "paid": "-3"},
    ]
    cohort, findings = load_cohort(shop_node(tmp_path, good + bad, "csv"), rfm(*ALL), DECLARED, "study", "learn")
    clean = learn(shop_node(tmp_path, good, "csv"))
    for name in ALL:
        np.testing.assert_array_equal(cohort.columns[name], clean.columns[name])
    assert {item.code: item.count for item in findings.of("dropped")} == {
        "CSL-C201": 1,
        "CSL-C204": 3,
        "CSL-C202": 2,
        "CSL-C203": 3,
        "CSL-C206": 1,
    }
    assert findings.rows == 12


def test_dates_in_the_institutions_own_format(tmp_path: Path) -> None:
    day = AS_OF - timedelta(days=7)
    rows = [{"who": "a", "day": int(day.strftime("%Y%m%d")), "paid": 1.0, "channel": "web"}]
    node = shop_node(tmp_path, rows, time={"column": "day", "format": "%Y%m%d"})
    np.testing.assert_allclose(learn(node, "recency").columns["recency"], [0.07])
    with pytest.raises(DataError, match="CSL-C118"):
        learn(shop_node(tmp_path, rows), "recency")


def test_amounts_are_converted_and_units_must_agree(tmp_path: Path) -> None:
    rows = [purchase("a", 5, 2000.0)]
    cents = {"column": "paid", "unit": "cents"}
    with pytest.raises(DataError, match="CSL-C106") as caught:
        learn(shop_node(tmp_path, rows, amount=cents))
    assert "cents to euro" in str(caught.value)
    node = shop_node(tmp_path, rows, amount={**cents, "convert": "cents to euro"})
    np.testing.assert_allclose(learn(node, "monetary").columns["monetary"], [2.0])


def test_money_at_stake_is_spending_scaled_to_the_horizon(tmp_path: Path) -> None:
    node = shop_node(tmp_path, [purchase("a", 5, 30.0), purchase("a", 50, 20.0)], value="spend")
    value = learn(node, "recency").value
    assert value is not None
    np.testing.assert_allclose(value, [50.0 * 20 / 100])


def test_a_log_that_ends_before_the_label_is_known_is_refused(tmp_path: Path) -> None:
    rows = [purchase("a", 5), purchase("a", -18)]
    with pytest.raises(DataError, match="CSL-C110"):
        learn(shop_node(tmp_path, rows, complete_until=(AS_OF + timedelta(days=19)).isoformat()), "recency")


def test_the_last_purchase_in_the_log_decides_nothing_but_what_is_shown_at_home(tmp_path: Path) -> None:
    rows = [purchase("a", 5), purchase("a", -18)]
    for last, expected in ((rows, [("CSL-C110", "note", 1)]), ([*rows, purchase("b", -19)], [])):
        node = shop_node(tmp_path, last, complete_until=None)
        cohort, findings = load_cohort(node, rfm("recency"), DECLARED, "study", "learn")
        assert len(cohort) == 1
        assert [(i.code, i.severity, i.count) for i in findings.items if i.code == "CSL-C110"] == expected


def test_a_feature_without_formula_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CSL-C116") as caught:
        learn(shop_node(tmp_path, [purchase("a", 5)]), "recency", "horoscope")
    assert "horoscope" in str(caught.value)


def test_without_category_the_shares_are_absent_and_a_required_one_is_refused(tmp_path: Path) -> None:
    node = shop_node(tmp_path, [purchase("a", 5)], names=False)
    assert set(learn(node, "recency", "main_share").columns) == {"recency"}
    contract = rfm("recency", "main_share")
    required = contract.columns[1].model_copy(update={"required": True})
    strict = contract.model_copy(update={"columns": (contract.columns[0], required)})
    with pytest.raises(DataError, match="CSL-C103"):
        load_cohort(node, strict, DECLARED, "study", "learn")


def test_a_declaration_without_dates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CSL-C117"):
        learn(shop_node(tmp_path, [purchase("a", 5)]), "recency", declared=Declaration(contract="rfm", size=5))


def test_nobody_in_the_window_is_an_empty_cohort(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="CSL-C109"):
        learn(shop_node(tmp_path, [purchase("a", 500)]), "recency")


def test_the_published_contract_has_a_formula_for_every_column(tmp_path: Path) -> None:
    contract = load_yaml(ROOT / "configs" / "contracts" / "rfm.yaml", FeatureContract)
    cohort, findings = load_cohort(shop_node(tmp_path, [purchase("a", 5)]), contract, DECLARED, "study", "learn")
    assert set(cohort.columns) == {column.name for column in contract.columns}
    assert isinstance(findings, Findings)


def test_a_log_larger_than_the_engines_memory(tmp_path: Path) -> None:
    """The figures come out the same when the engine has to spill."""
    count, days = 60_000, 12
    source = np.random.default_rng(3)
    whose = np.repeat(np.arange(count), days)
    names = [f"customer-with-a-long-number-{number}" for number in whose]
    rows = {
        "who": names,
        "day": [AS_OF - timedelta(days=int(d)) for d in source.integers(1, 100, len(whose))],
        "paid": source.random(len(whose)),
        "channel": ["web"] * len(whose),
    }
    consent = consent_for(tmp_path, sorted(set(names)))
    node = shop_node(tmp_path, [purchase("a", 5)], consent=consent)
    pq.write_table(pa.table(rows), tmp_path / "log.parquet")
    small, large = (node.model_copy(update={"memory_mb": size}).at(tmp_path) for size in (128, 2048))
    one, two = learn(small), learn(large)
    assert len(one) == count
    for name in ALL:
        np.testing.assert_allclose(one.columns[name], two.columns[name], rtol=1e-9)
