import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.errors import DataError
from simulations import datasets
from simulations.sites import BANKS, JOB_GROUPS, SHOPS

HEADER = "age job marital education default balance housing loan contact day month duration campaign pdays previous poutcome y"
BANK = f"""{";".join(HEADER.split())}
58;"management";"married";"tertiary";"no";2143;"yes";"no";"unknown";5;"may";261;1;-1;0;"unknown";"no"
44;"unknown";"single";"unknown";"yes";-29;"yes";"no";"cellular";5;"may";151;1;12;2;"success";"yes"
30;"housemaid";"single";"primary";"no";0;"no";"yes";"telephone";31;"dec";9;3;0;1;"other";"no"
"""
CDNOW = """ customer_id  date number_of_cds  dollar_value
 00001 19970101  1   11.77
 00002 19970312  1   12.00
 00001 19980112  5   77.00
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bank_full.csv.gz").write_bytes(gzip.compress(BANK.encode()))
    (tmp_path / "cdnow_master.txt").write_text(CDNOW)
    pd.DataFrame(
        {
            "household_id": [900, 900, 7],
            "product_id": [1, 2, 1],
            "sales_value": [0.5, 3.0, 9.25],
            "transaction_timestamp": pd.to_datetime(["2017-01-01 11:53", "2017-01-01 12:10", "2018-01-01 03:00"]),
        }
    ).to_parquet(tmp_path / "transactions.parquet")
    pd.DataFrame({"product_id": [1, 2, 2], "department": ["GROCERY", "DELI", "DELI"]}).to_parquet(
        tmp_path / "products.parquet"
    )
    monkeypatch.setattr(
        datasets, "fetched", lambda where, name: {path.name: path for path in where.iterdir() if path.is_file()}
    )
    return tmp_path


def test_the_bank_set_is_read_as_a_bank_would_have_it(cache: Path) -> None:
    frame = datasets.bank_full(cache)
    assert "duration" not in frame.columns
    assert frame["position"].tolist() == [0, 1, 2]
    assert frame["group"].tolist() == ["managers", "households", "households"]
    assert frame["pdays"].isna().tolist() == [True, False, False]
    assert frame["pdays"].tolist()[1:] == [12.0, 0.0]
    assert frame["job"].isna().tolist() == [False, True, False]
    assert frame["contact"].isna().tolist() == [True, False, False]
    assert frame["subscribed"].tolist() == [0, 1, 0]
    assert frame["default"].tolist() == [0, 1, 0]
    assert "unknown" not in frame.to_csv()


def test_every_bank_gets_its_own_rows_with_ids_of_its_own(cache: Path) -> None:
    frame = datasets.bank_full(cache)
    parts = [datasets.of_site(frame, site) for site in BANKS]
    assert sum(len(part) for part in parts) == len(frame)
    positions = [position for part in parts for position in part["position"]]
    assert sorted(positions) == [0, 1, 2]
    households = parts[[site.id for site in BANKS].index("bank_households")]
    assert households["customer"].is_unique
    assert "day" not in households.columns and "group" not in households.columns


def test_each_job_group_is_a_bank() -> None:
    assert set(JOB_GROUPS.values()) == {site.group for site in BANKS}
    assert len({site.id for site in (*BANKS, *SHOPS)}) == len(BANKS) + len(SHOPS)


def test_cdnow_is_split_by_the_month_of_the_first_purchase(cache: Path) -> None:
    log = datasets.cdnow(cache)
    assert log["customer"].tolist() == ["00001", "00002", "00001"]
    assert log["group"].tolist() == ["january", "march", "january"]
    assert log["day"].dt.strftime("%Y-%m-%d").tolist() == ["1997-01-01", "1997-03-12", "1998-01-12"]
    assert log["amount"].tolist() == [11.77, 12.0, 77.0]


def test_complete_journey_keeps_one_row_a_line_with_its_department(cache: Path) -> None:
    log = datasets.complete_journey(cache)
    assert log["customer"].tolist() == ["900", "900", "7"]
    assert log["category"].tolist() == ["GROCERY", "DELI", "GROCERY"]
    assert log["day"].dt.strftime("%Y-%m-%d").tolist() == ["2017-01-01", "2017-01-01", "2018-01-01"]


def test_online_retail_drops_what_stands_twice(tmp_path: Path) -> None:
    rows = [
        ("2009-2010", "1", "2010-11-30 10:00", 2, 1.5, 11, "United Kingdom"),
        ("2009-2010", "2", "2010-12-01 09:00", 1, 9.0, 11, "United Kingdom"),
        ("2010-2011", "2", "2010-12-01 09:00", 1, 9.0, 11, "United Kingdom"),
        ("2010-2011", "C3", "2010-12-02 09:00", 1, 9.0, 11, "United Kingdom"),
        ("2010-2011", "4", "2010-12-03 09:00", 3, 2.0, None, "Germany"),
        ("2010-2011", "5", "2010-12-03 09:00", 3, 2.0, 12, "EIRE"),
        ("2010-2011", "6", "2010-12-03 09:00", -3, 2.0, 12, "EIRE"),
    ]
    names = ["sheet", "Invoice", "InvoiceDate", "Quantity", "Price", "Customer ID", "Country"]
    frame = pd.DataFrame(rows, columns=names).astype({"Customer ID": "Int64"})
    frame["InvoiceDate"] = pd.to_datetime(frame["InvoiceDate"])
    frame.to_parquet(tmp_path / "online_retail_II_rebuilt.parquet")
    log = datasets.online_retail(tmp_path)
    assert log["amount"].tolist() == [3.0, 9.0, 6.0]
    assert log["customer"].tolist() == ["11", "11", "12"]
    assert log["group"].tolist() == ["united_kingdom", "united_kingdom", "other"]


def test_churn_modelling_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "Churn_Modelling.csv").write_text(
        "RowNumber;CustomerId;Surname;CreditScore;Geography;Gender;Age;Tenure;Balance;NumOfProducts;HasCrCard;IsActiveMember;"
        "EstimatedSalary;Exited\n1;15634602;Hargrave;619;France;Female;42;2;0;1;1;1;101348.88;1\n"
    )
    frame = datasets.churn_modelling(tmp_path)
    assert "Hargrave" not in frame.to_string()
    assert frame["group"].tolist() == ["france"]
    assert frame["exited"].tolist() == [1]


def test_bank_additional_speaks_the_same_language(tmp_path: Path) -> None:
    (tmp_path / "bank-additional-full.csv").write_text(
        '"age";"job";"marital";"education";"default";"housing";"loan";"contact";"month";"day_of_week";"duration";"campaign";"pdays";'
        '"previous";"poutcome";"emp.var.rate";"y"\n'
        '56;"housemaid";"married";"basic.4y";"unknown";"no";"no";"telephone";"may";"mon";261;1;999;0;"nonexistent";1.1;"no"\n'
        '57;"services";"unknown";"university.degree";"no";"yes";"no";"cellular";"may";"mon";149;1;3;1;"failure";1.1;"yes"\n'
    )
    frame = datasets.bank_additional(tmp_path)
    assert frame["education"].tolist() == ["primary", "tertiary"]
    assert frame["pdays"].isna().tolist() == [True, False]
    assert frame["poutcome"].isna().tolist() == [True, False]
    assert frame["default"].isna().tolist() == [True, False]
    assert "duration" not in frame.columns and "balance" not in frame.columns


@pytest.mark.parametrize("read", [datasets.bank_additional, datasets.churn_modelling, datasets.online_retail])
def test_a_missing_benchmark_file_is_named(read: object, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path)  # type: ignore[operator]
    assert caught.value.code == "CSL-M111"
    assert "--data" in caught.value.action


def test_a_set_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        datasets.fetched(tmp_path, "cdnow")
    assert caught.value.code == "CSL-M110"
    assert "consilience data fetch" in caught.value.action


def test_consent_follows_the_rates_and_the_two_consents_are_independent() -> None:
    customers = pd.Series([f"c{number}" for number in range(20_000)])
    site = BANKS[0]
    table = datasets.consent(customers, site)
    assert abs(table["profiling"].mean() - site.learns) < 0.02
    assert abs(table["contact"].mean() - site.contacts) < 0.02
    assert abs(table["profiling"].astype(float).corr(table["contact"].astype(float))) < 0.03


@settings(max_examples=25)
@given(order=st.permutations([f"c{number}" for number in range(30)]))
def test_consent_does_not_depend_on_the_order_of_the_rows(order: list[str]) -> None:
    twice = pd.Series([*order, *order[:5]])
    left = datasets.consent(twice, SHOPS[0])
    right = datasets.consent(pd.Series(sorted(order)), SHOPS[0])
    pd.testing.assert_frame_equal(left, right)


def test_consent_differs_between_institutions_and_seeds() -> None:
    customers = pd.Series([f"c{number}" for number in range(500)])
    first = datasets.consent(customers, BANKS[0])
    assert not first.equals(datasets.consent(customers, BANKS[1]))
    assert not first.equals(datasets.consent(customers, BANKS[0], seed=1))
