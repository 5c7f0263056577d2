"""A whole population: it repeats, it differs, its shares are those asked for, and models have something to learn and a ceiling."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from client.cohort import load_cohort
from client.config import load_node
from federation.basis import Basis
from federation.charter import Declaration
from federation.contract import CategoricalColumn, FlagColumn, NumericColumn
from federation.errors import DocumentError
from simulations.population.contracts import columns_of, contract_of
from simulations.population.generate import START, generate
from simulations.population.membership import OPTIONAL
from simulations.population.parameters import KINDS, PopulationParameters
from simulations.population.purchases import HORIZON_DAYS, WINDOW_DAYS
from simulations.population.table import learnable

SMALL = PopulationParameters(customers=3_000)


def same(one, other) -> None:
    for kind in KINDS:
        assert_frame_equal(one.tables[kind], other.tables[kind], check_exact=True)
        assert_frame_equal(one.truths[kind], other.truths[kind], check_exact=True)


def test_a_seed_repeats_to_the_bit_and_another_differs() -> None:
    first = generate(SMALL, 5)
    same(first, generate(SMALL, 5, purchases=True))
    other = generate(SMALL, 6)
    for kind in KINDS:
        for name in ("age", "churned", "subscribed", "channel"):
            assert not first.tables[kind][name].equals(other.tables[kind][name])


@pytest.mark.parametrize("kind", KINDS)
def test_tables_fit_the_contract(town, kind) -> None:
    table, contract = town.tables[kind], contract_of(kind, "churned")
    for column in contract.columns:
        values = table[column.name]
        if isinstance(column, NumericColumn):
            assert values.dtype == np.float64
            assert ((values >= column.low) & (values <= column.high) | values.isna()).mean() > 0.98
        elif isinstance(column, CategoricalColumn):
            assert set(values.dropna()) == set(column.categories)
        else:
            assert isinstance(column, FlagColumn)
            assert set(values) == {0, 1}
        assert values.notna().all() or not column.required or column.name in ("job", "education", "earlier")
    named = {"customer", "person", "institution", "position", "arm", "churned", "subscribed", "responded"}
    assert set(table.columns) == named | {column.name for column in contract.columns}
    optional = {column.name for column in contract.columns if not column.required}
    assert optional == set(OPTIONAL[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_in_order_of_time_and_ids_belong_to_institutions(town, kind) -> None:
    table = town.tables[kind]
    assert (table["position"] == np.arange(len(table))).all()
    assert table["customer"].is_unique
    assert not table.duplicated(["person", "institution"]).any()
    for item in (item for item in town.institutions if item.kind == kind):
        mine = town.at(item.name)
        assert len(mine) == (table["institution"] == item.name).sum() > 0
        assert mine["customer"].str.startswith(f"{item.name}-").all()
        assert not {"person", *item.lacks} & set(mine.columns)
        assert all(table.loc[table["institution"] == item.name, name].isna().all() for name in item.lacks)
    with pytest.raises(DocumentError, match="CSL-M202"):
        town.at(f"{kind}_99")


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.8])
def test_overlap_is_as_asked(overlap) -> None:
    made = generate(PopulationParameters(customers=6_000, overlap=overlap, across=0.5), 3)
    people = {kind: set(made.tables[kind]["person"]) for kind in KINDS}
    for kind in KINDS:
        person = made.tables[kind]["person"]
        assert person.duplicated(keep=False).mean() == pytest.approx(overlap, abs=0.002)
    assert len(people["bank"] & people["shop"]) / len(people["bank"]) == pytest.approx(0.5, abs=0.001)
    assert len(people["bank"] | people["shop"]) == 6_000


def test_the_same_person_is_alike_at_two_institutions() -> None:
    def likeness(consistency: float) -> float:
        made = generate(PopulationParameters(customers=8_000, shops=0, overlap=0.9, consistency=consistency), 2)
        table = made.tables["bank"]
        twice = table[table["person"].duplicated(keep=False)].sort_values(["person", "institution"])
        pairs = twice["transactions"].to_numpy().reshape(-1, 2)
        ages = twice["age"].to_numpy().reshape(-1, 2)
        assert (ages[:, 0] == ages[:, 1]).all()
        return float(np.corrcoef(np.log1p(pairs).T)[0, 1])

    assert likeness(0.9) > likeness(0.1) + 0.15


def test_institutions_differ_as_much_as_asked() -> None:
    even = generate(PopulationParameters(customers=20_000, skew=0.0, mix=0.0, base_spread=0.0, lacking=0.0), 4)
    uneven = generate(PopulationParameters(customers=20_000, skew=1.5, mix=0.8, base_spread=0.8, lacking=1.0), 4)

    def spread(made, what) -> float:
        return float(what(made.tables["bank"].groupby("institution")).std())

    for what in (lambda group: np.log(group.size()), lambda group: group["churned"].mean()):
        assert spread(even, what) < 0.4 * spread(uneven, what)
    assert not any(item.lacks for item in even.institutions)
    assert all(item.lacks for item in uneven.institutions)


@settings(max_examples=15)
@given(st.floats(0.02, 0.6), st.floats(0.02, 0.6), st.floats(0.02, 0.5), st.floats(-0.02, 0.3), st.integers(0, 1 << 40))
def test_base_rates_are_those_asked_for(churn, subscribed, response, uplift, seed) -> None:
    parameters = PopulationParameters(
        customers=400,
        banks=3,
        shops=2,
        bank_churn=churn,
        subscribed_bank=subscribed,
        response=response,
        uplift=uplift,
    )
    made = generate(parameters, seed)
    truth = made.truths["bank"]
    assert truth["churn"].mean() == pytest.approx(churn, abs=1e-4)
    assert truth["subscribe"].mean() == pytest.approx(subscribed, abs=1e-4)
    for kind in KINDS:
        effect = made.truths[kind]["respond_contacted"] - made.truths[kind]["respond_control"]
        assert effect.mean() == pytest.approx(uplift, abs=1e-4)


@pytest.mark.parametrize("asked", [{"banks": 2, "shops": 1}, {"banks": 3, "shops": 0}, {"banks": 0, "shops": 3}])
def test_as_many_people_as_institutions(asked) -> None:
    made = generate(PopulationParameters(customers=3, **asked), 1, purchases=True)
    assert set(made.tables) == {kind for kind in KINDS if asked[f"{kind}s"]}
    for item in made.institutions:
        assert len(made.at(item.name)) >= 1
    assert (made.purchases is None) == (asked["shops"] == 0)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_shares_at_their_ends(share) -> None:
    ends = dict.fromkeys(("bank_churn", "subscribed_bank", "contacted", "overlap", "across", "bank_share"), share)
    made = generate(PopulationParameters(customers=500, consistency=share, mix=share, lacking=share, **ends), 1)
    table = made.tables["bank"]
    assert table["churned"].mean() == table["subscribed"].mean() == (table["arm"] == "contacted").mean() == share


def test_the_label_is_what_the_log_says(town) -> None:
    as_of = START + pd.Timedelta(days=WINDOW_DAYS)
    log = town.purchases
    assert log["day"].max() < as_of + pd.Timedelta(days=HORIZON_DAYS)
    assert not log.duplicated(["customer", "day"]).any()
    after = set(log.loc[log["day"] >= as_of, "customer"])
    table = town.tables["shop"]
    assert ((table["churned"] == 1) == ~table["customer"].isin(after)).all()
    before = log[log["day"] < as_of].groupby("customer")["day"].agg(["size", "max"]).loc[table["customer"]]
    assert (before["size"].to_numpy() == table["frequency"]).all()
    assert ((as_of - before["max"]).dt.days.to_numpy() == table["recency"]).all()


def test_relations_are_those_that_anybody_would_expect(town) -> None:
    bank, shop = town.tables["bank"], town.tables["shop"]

    def rate(table: pd.DataFrame, column: str, label: str, parts: int = 4) -> np.ndarray:
        return table.groupby(pd.qcut(table[column].rank(method="first"), parts))[label].mean().to_numpy()

    assert (np.diff(rate(bank, "transactions", "churned")) < 0).all()
    assert (np.diff(rate(shop, "frequency", "churned")) < 0).all()
    assert (np.diff(rate(shop, "recency", "churned")) > 0).all()
    assert bank[bank["complaints"] > 1]["churned"].mean() > 1.5 * bank[bank["complaints"] == 0]["churned"].mean()
    assert rate(bank, "balance", "subscribed")[-1] > rate(bank, "balance", "subscribed")[0]
    assert bank.groupby("channel")["age"].mean().idxmax() == "branch"
    assert np.corrcoef(bank["income"].fillna(2500), np.arcsinh(bank["balance"]))[0, 1] > 0.2


def test_tails_are_heavy(town) -> None:
    frequency, balance = town.tables["shop"]["frequency"], town.tables["bank"]["balance"]
    assert frequency.var() > 4 * frequency.mean()
    assert frequency.quantile(0.999) > 10 * frequency.mean()
    assert balance.mean() > 2 * balance.median()


@pytest.mark.parametrize("kind", KINDS)
def test_the_campaign_is_random_helps_on_average_and_not_everybody_alike(town, kind) -> None:
    table, truth = town.tables[kind], town.truths[kind]
    treated = table["arm"] == "contacted"
    assert treated.mean() == pytest.approx(0.5, abs=0.015)
    for column in columns_of(table, contract_of(kind, "responded")):
        values = pd.to_numeric(table[column], errors="coerce")
        if values.notna().any():
            gap = values[treated].mean() - values[~treated].mean()
            assert abs(gap) < 5 * values.std() * np.sqrt(4 / len(table))
    effect = truth["respond_contacted"] - truth["respond_control"]
    assert effect.std() > 0.05
    assert (effect < 0).mean() > 0.1
    order = pd.qcut(effect, 3, labels=False)
    seen = [
        table["responded"][treated & (order == part)].mean() - table["responded"][~treated & (order == part)].mean()
        for part in range(3)
    ]
    assert seen[0] < 0.02 < seen[1] + 0.02 < seen[2]


def demographic_auc(town, kind, label) -> float:
    """The earlier half against the later half, by two columns that say little."""
    contract, table = contract_of(kind, label), town.tables[kind]
    basis = Basis.of(contract, "additive")
    names = ("age", "region") if kind == "bank" else ("region", "channel")
    encoded = basis.encode(columns_of(table, contract))[:, np.r_[tuple(basis.blocks[name] for name in names)]]
    labels, half = table[label].to_numpy(), len(table) // 2
    model = LogisticRegression(solver="newton-cholesky").fit(encoded[:half], labels[:half])
    return float(roc_auc_score(labels[half:], model.decision_function(encoded[half:])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", ["churned", "subscribed"])
def test_models_have_something_to_learn_and_a_ceiling(town, kind, label) -> None:
    found = learnable(town, kind, label)
    assert demographic_auc(town, kind, label) + 0.05 < found.pooled
    assert 0.70 < found.pooled < 0.85
    assert found.pooled + 0.02 < found.ceiling < 0.97


@pytest.mark.parametrize("kind", KINDS)
def test_a_response_can_be_told_from_chance_and_no_more(town, kind) -> None:
    found = learnable(town, kind, "responded")
    assert 0.55 < found.pooled < found.ceiling < 0.8


def test_the_base_rate_drifts_only_if_it_is_to(town) -> None:
    table = town.tables["bank"]
    late = table["position"] >= len(table) // 2
    assert table.loc[late, "subscribed"].mean() > table.loc[~late, "subscribed"].mean() + 0.005
    flat = generate(PopulationParameters(customers=30_000, shops=0, drift=0.0), 1)
    truth = flat.truths["bank"]["subscribe"]
    assert truth[: len(truth) // 2].mean() == pytest.approx(truth[len(truth) // 2 :].mean(), abs=0.004)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", ["churned", "subscribed", "responded"])
def test_either_label_for_either_kind(kind, label) -> None:
    contract = contract_of(kind, label)
    assert contract.label.name == label
    assert contract.columns == contract_of(kind, "churned").columns
    own = {"bank": "subscribed", "shop": "churned"}[kind] == label
    assert contract.name == (f"population_{kind}" if own else f"population_{kind}_{label}")


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(DocumentError, match=r'CSL-M202.*"bought"'):
        contract_of("shop", "bought")


@pytest.mark.parametrize("kind", KINDS)
def test_an_institution_reads_its_table_as_its_own(tmp_path, kind) -> None:
    made = generate(SMALL, 9)
    item = next(item for item in made.institutions if item.kind == kind and item.lacks)
    table, contract = made.at(item.name), contract_of(kind, "churned")
    table.to_parquet(tmp_path / "own.parquet")
    agreed = table[["customer"]].assign(study="yes")
    agreed.to_parquet(tmp_path / "consent.parquet")
    columns = {
        column.name: {"column": column.name, **({"unit": column.unit} if column.kind == "numeric" else {})}
        for column in contract.columns
        if column.name in table.columns
    }
    mapping = {
        "kind": "table",
        "source": {"kind": "parquet", "path": "own.parquet"},
        "customer": "customer",
        "columns": columns,
        "label": {"column": "churned", "yes": ["1"], "no": ["0"]},
        "position": "position",
    }
    consent = {
        "layout": "columns",
        "source": {"kind": "parquet", "path": "consent.parquet"},
        "customer": "customer",
        "purposes": {"study": "study"},
    }
    node = {"member": "north", "contracts": {contract.name: mapping}, "consent": consent}
    (tmp_path / "node.yaml").write_text(json.dumps(node))
    cohort, _ = load_cohort(
        load_node(tmp_path / "node.yaml"), contract, Declaration(contract=contract.name, size=100), "study", "learn"
    )
    mine = table.set_index("customer").loc[list(cohort.ids)]
    assert len(cohort) == len(table)
    assert (cohort.label == mine["churned"]).all()
    for name, values in columns_of(mine, contract).items():
        np.testing.assert_array_equal(cohort.columns[name], values)
    assert not set(item.lacks) & set(cohort.columns)
