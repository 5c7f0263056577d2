"""The glass box's benchmark: equal terms for both sides, and verdicts that follow from the figures."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from federation.contract import FeatureContract
from federation.document import load_yaml

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
BANK = load_yaml(BENCHMARKS.parent / "configs" / "contracts" / "bank_campaign.yaml", FeatureContract)


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("glass_box")


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            **{column.name: [1, 0, 1] for column in BANK.columns},
            "age": [17, 40, 200],
            "pdays": [None, 10, 20],
            "job": ["student", "astronaut", None],
            "answer": [1, 0, 1],
        }
    )


def test_rows_are_read_by_the_contract_and_both_sides_get_the_same(box: ModuleType) -> None:
    cohort = box.cohort_of(frame(), BANK, "answer")
    assert cohort.columns["age"].tolist() == [18.0, 40.0, 90.0]
    assert np.isnan(cohort.columns["pdays"]).tolist() == [True, False, False]
    assert cohort.columns["job"].tolist() == [8, -1, -1] and cohort.label.tolist() == [1.0, 0.0, 1.0]
    pdays = BANK.column("pdays")
    low, high = box._bounds(pdays)
    assert high == 730.0 and low < 0.0
    assert box._without_missing(pdays, cohort.columns["pdays"]).tolist() == [low, 10.0, 20.0]
    assert box._bounds(BANK.column("job")) is None
    assert box._categories(BANK.column("job"))[-1] == "unknown" and box._categories(pdays) is None


def test_a_fifth_is_held_out_anew_by_every_seed(box: ModuleType) -> None:
    splits = box.random_splits(1000, 3)
    assert [int(held.sum()) for held in splits] == [200, 200, 200]
    assert not np.array_equal(splits[0], splits[1])
    assert all(np.array_equal(a, b) for a, b in zip(splits, box.random_splits(1000, 3), strict=True))


@pytest.mark.parametrize(("ours", "met"), [(0.76, True), (0.75, True), (0.74, False)])
def test_the_target_is_the_better_of_the_peers_settings(box: ModuleType, ours: float, met: bool) -> None:
    records = box.Records("set", "A set", BANK, box.cohort_of(frame(), BANK, "answer"), (), True)
    peers = [box.Row("set", f"DP-EBM, {name}", 1.0, (auc,) * 3) for name, auc in (("one", 0.7), ("other", 0.75))]
    rows = [box.Row("set", "additive", 1.0, (ours,) * 3), *peers]
    (verdict,) = box.verdicts([records], rows)
    assert verdict.met is met and "other" in verdict.text
    assert box.verdicts([records], rows[:1]) == []
    assert any("0.7500" in line for line in box.table(records, rows))


def test_the_contract_of_the_tv_set_is_one(box: ModuleType) -> None:
    contract = load_yaml(BENCHMARKS / "tv_churn.yaml", FeatureContract)
    assert len(contract.columns) == 46 and contract.label.name == "churned"
