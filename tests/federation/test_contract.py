from pathlib import Path

import pytest

from federation.contract import FeatureContract
from federation.document import load_yaml, parse_yaml
from federation.errors import DocumentError

CONTRACTS = sorted((Path(__file__).parents[2] / "configs" / "contracts").glob("*.yaml"))

GOOD = """
name: shop
version: 1
title: A shop
source: table
columns:
  - {name: age, kind: numeric, meaning: Age, unit: years, low: 18, high: 90, knots: [18, 40, 90]}
  - {name: job, kind: categorical, meaning: Job, categories: [clerk, farmer]}
  - {name: loan, kind: flag, meaning: Loan, required: false}
label: {name: bought, meaning: Bought}
"""


def test_a_contract_reads_and_finds_its_columns():
    contract = parse_yaml(GOOD.encode(), FeatureContract, "c")
    assert contract.column("job").kind == "categorical"
    with pytest.raises(KeyError):
        contract.column("none")


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("low: 18, high: 90", "low: 90, high: 18", "must be below high"),
        ("knots: [18, 40, 90]", "knots: [18, 40, 40, 90]", "knots must increase"),
        ("knots: [18, 40, 90]", "knots: [20, 40, 90]", "first knot"),
        ("[clerk, farmer]", "[clerk, clerk]", "distinct"),
        ("name: job", "name: age", "names must be distinct"),
        ("name: bought", "name: age", "names must be distinct"),
        ("kind: flag", "kind: colour", "kind"),
        ("source: table", "source: carrier_pigeon", "source"),
        ("high: 90, knots", "high: .inf, knots", "finite"),
        ("required: false", "required: perhaps", "required"),
        ("unit: years", "units: years", "units"),
    ],
)
def test_bad_contracts(old, new, part):
    assert old in GOOD
    with pytest.raises(DocumentError) as caught:
        parse_yaml(GOOD.replace(old, new).encode(), FeatureContract, "c")
    assert part in str(caught.value)


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.stem)
def test_the_contracts_that_ship_are_valid(path):
    assert load_yaml(path, FeatureContract).name == path.stem


def test_contracts_ship():
    assert {path.stem for path in CONTRACTS} >= {"rfm", "bank_campaign"}
    bank = next(path for path in CONTRACTS if path.stem == "bank_campaign")
    assert "duration" not in {column.name for column in load_yaml(bank, FeatureContract).columns}
