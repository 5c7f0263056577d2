import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cohort import load_cohort
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import ConsilienceError, DataError, DocumentError
from simulations import datasets
from simulations.engines.simulation import PopulationData, PublicData, TableData
from simulations.institutions import write_yaml
from simulations.partners import public
from simulations.partners.customers import Customers, compact, nearest, ranks
from simulations.partners.kept import Newest
from simulations.partners.source import CONFIGS, load
from tests.simulations.partners.some import CONTRACT

HEADER = "age job marital education default balance housing loan contact day month duration campaign pdays previous poutcome y"
BANK = f"""{";".join(HEADER.split())}
58;"management";"married";"tertiary";"no";2143;"yes";"no";"unknown";5;"may";261;1;-1;0;"unknown";"no"
44;"unknown";"single";"unknown";"yes";-29;"yes";"no";"cellular";5;"may";151;1;12;2;"success";"yes"
30;"housemaid";"single";"primary";"no";0;"no";"yes";"telephone";31;"dec";9;3;0;1;"other";"no"
"""
ROWS = """age,job,loan,spend,bought,house,when,town
30,baker,1,2.5,1,north,2024-02-01,Ulm
41,,0,,0,south,2024-01-01,Bonn
52.5,smith,,11,no,north,2024-03-01,Ulm
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "bank_full.csv.gz").write_bytes(gzip.compress(BANK.encode()))
    draw = np.random.default_rng(1)
    customers = draw.integers(1, 400, 900)
    days = pd.Timestamp("1997-01-01") + pd.to_timedelta(draw.integers(0, 540, 900), unit="D")
    lines = [
        f"{who:05d} {day:%Y%m%d} 1 {amount:.2f}"
        for who, day, amount in zip(customers, days, draw.gamma(2, 15, 900), strict=True)
    ]
    (folder / "cdnow_master.txt").write_text("customer_id date number_of_cds dollar_value\n" + "\n".join(lines))
    monkeypatch.setattr(
        datasets, "fetched", lambda where, name: {path.name: path for path in where.iterdir() if path.is_file()}
    )
    return folder


def written(folder: Path, text: str | bytes, name: str = "table.csv", **asked: str) -> TableData:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    if not (folder / "some.yaml").exists():
        write_yaml(folder / "some.yaml", CONTRACT, "Made up")
    return TableData(kind="table", path=str(folder / name), contract=str(folder / "some.yaml"), **asked)


def refused(data: TableData) -> ConsilienceError:
    with pytest.raises(ConsilienceError) as caught:
        load(data)
    return caught.value


def test_the_bank_set_keeps_every_row_and_its_institutions(cache: Path) -> None:
    found = load(PublicData(), cache)
    assert found.contract.name == "bank_campaign"
    assert found.institution.tolist() == ["managers", "households", "households"]
    assert found.labels.tolist() == [0.0, 1.0, 0.0]
    assert found.time.tolist() == [0, 1, 2]
    taken = found.take(np.array([1, 0]), without=["day"])
    assert "day" not in taken and "day" in found.columns
    assert taken["age"].tolist() == [44.0, 58.0] and taken["age"].dtype == np.float64
    assert taken["job"].tolist() == [-1, found.contract.column("job").categories.index("management")]  # type: ignore[union-attr]
    assert taken["job"].dtype == np.int64
    assert taken["default"].tolist() == [1.0, 0.0]
    assert np.isnan(taken["pdays"]).tolist() == [False, True]


def test_the_same_data_are_the_same_object_and_cannot_be_changed(cache: Path) -> None:
    found = load(PublicData(), cache)
    assert load(PublicData(), cache) is found
    with pytest.raises(ValueError, match="read-only"):
        found.labels[0] = 1.0


def test_shops_are_read_by_the_products_own_features(cache: Path) -> None:
    found = load(PublicData(set="cdnow"), cache)
    assert found.contract.name == "rfm"
    assert set(found.institution) == {"january", "february", "march"}
    assert set(found.labels) == {0.0, 1.0}
    log = datasets.cdnow(cache).dropna(subset=["group"])  # who first bought later is no customer of the set's
    before = log[log["day"] < pd.Timestamp("1997-10-01")]
    days = before.drop_duplicates(["customer", "day"]).groupby("customer").size()
    assert sorted(found.columns["frequency"].tolist()) == sorted(days.tolist())
    bought = set(
        log[(log["day"] >= pd.Timestamp("1997-10-01")) & (log["day"] < pd.Timestamp("1998-07-01"))]["customer"]
    )
    assert found.labels.sum() == len(set(before["customer"]) - bought)
    # first purchases are in order of time
    assert (np.diff(found.columns["tenure"][np.argsort(found.time)]) <= 0).all()


def test_features_are_computed_once_and_again_when_the_file_is_damaged(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
    read: list[str] = []

    def counted(*given: object) -> object:
        read.append("")
        return load_cohort(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(public, "load_cohort", counted)
    first = public.shops(cache, "cdnow", contract)
    assert len(read) == 3
    again = public.shops(cache, "cdnow", contract)
    assert len(read) == 3
    (path,) = (cache / public.FOLDER).iterdir()
    content = bytearray(path.read_bytes())
    for damaged in (content[: len(content) // 2], content[:200] + bytes([content[200] ^ 1]) + content[201:], b""):
        path.write_bytes(damaged)
        repaired = public.shops(cache, "cdnow", contract)
        assert path.read_bytes() == content
        for found in (again, repaired):
            for name, values in first.columns.items():
                assert np.array_equal(found.columns[name], values, equal_nan=True)
            assert np.array_equal(found.labels, first.labels)
            assert found.institution.tolist() == first.institution.tolist()
    assert len(read) == 12


def test_kept_features_belong_to_one_contract_and_one_log(cache: Path) -> None:
    contract = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
    public.shops(cache, "cdnow", contract)
    public.shops(cache, "cdnow", contract.model_copy(update={"version": 2}))
    log = cache / "cdnow_master.txt"
    log.write_text(log.read_text() + "\n00001 19970301 1 5.00")
    public.shops(cache, "cdnow", contract)
    assert len(list((cache / public.FOLDER).iterdir())) == 3


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(cache: Path) -> None:
    (cache / public.FOLDER).write_text("in the way")
    (cache / public.FOLDER).chmod(0o400)
    contract = load_yaml(CONFIGS / "contracts" / "rfm.yaml", FeatureContract)
    assert len(public.shops(cache, "cdnow", contract))


def test_a_set_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load(PublicData(set="grocery"), tmp_path)
    assert caught.value.code == "CSL-M110"


@pytest.mark.parametrize("of", ["bank", "shop"])
def test_a_population_gives_customers_of_one_kind(of: str) -> None:
    data = PopulationData.model_validate({"kind": "population", "of": of, "customers": 600, "institutions": 4})
    found = load(data)
    assert len(set(found.institution)) == 4 and all(name.startswith(of) for name in found.institution)
    assert found.contract.label.name == "churned"
    assert {"subscribed", "responded", "arm"} <= set(found.extra)
    assert not {"person", "customer", "churned"} & set(found.extra)
    assert found.person is not None and len(found.person) == len(found) > len(set(found.person)) == 600
    assert sorted(found.time) == list(range(len(found))) and len(found) >= 600
    other = load(data.model_copy(update={"label": "subscribed"}))
    assert np.array_equal(other.labels, found.extra["subscribed"])
    assert not np.array_equal(load(data.model_copy(update={"seed": 2})).labels[:600], found.labels[:600])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_is_read_by_its_contract(tmp_path: Path, kind: str) -> None:
    data = written(tmp_path, ROWS, institution="house", time="when")
    if kind == "parquet":
        pd.read_csv(tmp_path / "table.csv").assign(bought=[True, False, False]).to_parquet(tmp_path / "table.parquet")
        data = data.model_copy(update={"path": str(tmp_path / "table.parquet")})
    found = load(data)
    taken = found.take(np.arange(3))
    assert taken["age"].tolist() == [30.0, 41.0, 52.5]
    assert taken["job"].tolist() == [0, -1, 1]
    assert np.array_equal(taken["loan"], [1.0, 0.0, np.nan], equal_nan=True)
    assert np.array_equal(taken["spend"], [2.5, np.nan, 11.0], equal_nan=True)
    assert found.labels.tolist() == [1.0, 0.0, 0.0]
    assert found.institution.tolist() == ["north", "south", "north"]
    assert found.time.tolist() == [1, 0, 2]
    assert set(found.extra) == {"town"} or set(found.extra) == {"town", "when"}
    assert found.extra["town"].tolist() == ["Ulm", "Bonn", "Ulm"]


def test_a_table_without_institution_and_time_is_one_institution_in_order_of_rows(tmp_path: Path) -> None:
    found = load(written(tmp_path, ROWS))
    assert len(set(found.institution)) == 1
    assert found.time.tolist() == [0, 1, 2]
    assert found.extra["house"].tolist() == ["north", "south", "north"]
    assert "when" not in found.extra  # differs in every row: it divides nothing


def test_an_optional_column_may_be_absent(tmp_path: Path) -> None:
    found = load(written(tmp_path, "age,loan,bought\n30,1,0\n40,0,1\n"))
    assert set(found.columns) == {"age", "loan"}


def test_a_table_that_changed_is_read_again(tmp_path: Path) -> None:
    data = written(tmp_path, "age,loan,bought\n30,1,0\n")
    assert len(load(data)) == 1
    written(tmp_path, "age,loan,bought\n30,1,0\n40,0,1\n")
    os.utime(tmp_path / "table.csv", ns=(1, 1))
    assert len(load(data)) == 2


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("ages,loan,bought\n3,1,0\n", "CSL-M222", "age (nearest: ages)"),
        ("age,loan,Bought\n3,1,0\n", "CSL-M222", "bought (nearest: Bought)"),
        ("loan,bought,x\n1,0,3\n", "CSL-M222", "no column age."),
        ("age,loan,bought\n", "CSL-M220", "no rows"),
        ("", "CSL-M220", "cannot be read"),
        (b"age,loan,bought\n\xff\xfe,1,0\n", "CSL-M220", "cannot be read"),
        ("age,loan,bought\n1,2,3\n4,5,6,7\n", "CSL-M220", "cannot be read"),
        ("age,loan,bought\n3,1,0\nold,1,0\nNA,1,0\n", "CSL-M223", "age: not a number in 1 row, first in row 2"),
        ("age,loan,bought\ninf,1,0\n", "CSL-M223", "age: not finite in 1 row, first in row 1"),
        ("age,loan,bought\n3,2,0\n4,maybe,0\n", "CSL-M223", "loan: neither 0 or 1 nor yes or no in 2 rows"),
        ("age,loan,bought\n3,1,\n4,1,0\n", "CSL-M223", "bought: no label in 1 row, first in row 1"),
        ("age,loan,bought,job\n3,1,0,bakr\n", "CSL-M223", '"bakr" (nearest: baker)'),
        ("age,loan,bought,job\n3,1,0,a\n3,1,0,b\n3,1,0,c\n3,1,0,d\n3,1,0,e\n", "CSL-M223", "and 2 more"),
        ("age,loan,bought,job\nold,1,0,bakr\n", "CSL-M223", "not a number"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, text: str | bytes, code: str, says: str) -> None:
    error = refused(written(tmp_path, text))
    assert error.code == code
    assert says in error.cause
    assert isinstance(error, DataError)


@pytest.mark.parametrize("kept", [0.5, 0.98])
def test_a_compressed_table_that_was_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    draw = np.random.default_rng(1)
    whole = gzip.compress(("age,loan,bought\n" + "".join(f"{age},1,0\n" for age in draw.uniform(0, 90, 3000))).encode())
    assert len(load(written(tmp_path, whole, "table.csv.gz"))) == 3000
    error = refused(written(tmp_path, whole[: int(kept * len(whole))], "table.csv.gz"))
    assert error.code == "CSL-M220" and "table.csv.gz cannot be read" in error.cause
    harmed = bytearray(whole)
    harmed[len(whole) // 2 : len(whole) // 2 + 40] = bytes(40)
    assert refused(written(tmp_path, bytes(harmed), "table.csv.gz")).code == "CSL-M220"


def test_lists_and_records_are_passed_over_unless_they_are_asked_for(tmp_path: Path) -> None:
    data = written(tmp_path, ROWS, institution="house")
    frame = pd.read_csv(tmp_path / "table.csv").assign(bag=[[1], [], [2, 3]], home=[{"a": 1}, {"a": 2}, {"a": 3}])
    frame.to_parquet(tmp_path / "table.parquet")
    data = data.model_copy(update={"path": str(tmp_path / "table.parquet")})
    assert {"town", "when"} >= set(load(data).extra) >= {"town"}
    for asked in ({"institution": "bag"}, {"time": "bag"}, {"institution": "home"}):
        error = refused(data.model_copy(update=asked))
        assert error.code == "CSL-M223" and f"lists or records in {next(iter(asked.values()))}." in error.cause
    for name in ("age", "job", "bought"):  # required, optional, the label
        frame.assign(**{name: frame["bag"]}).to_parquet(tmp_path / "table.parquet")
        error = refused(data)
        assert error.code == "CSL-M223" and f"lists or records in {name}." in error.cause


def test_a_contract_that_changed_is_read_again(cache: Path, tmp_path: Path) -> None:
    configs = tmp_path / "configs"
    (configs / "contracts").mkdir(parents=True)
    path = configs / "contracts" / "bank_campaign.yaml"
    text = (CONFIGS / "contracts" / "bank_campaign.yaml").read_text()
    path.write_text(text)
    first = load(PublicData(), cache, configs)
    path.write_text(text.replace("version: 1", "version: 2"))
    os.utime(path, ns=(1, 1))
    assert (first.contract.version, load(PublicData(), cache, configs).contract.version) == (1, 2)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    error = refused(written(tmp_path, "age,loan,bought,job,w\nold,7,9,bakr,soon\n", time="w"))
    assert error.cause.count("\n") == 5
    assert "w: neither a number nor a date" in error.cause


def test_files_that_are_not_there_or_are_something_else_are_named(tmp_path: Path) -> None:
    data = written(tmp_path, ROWS)
    error = refused(data.model_copy(update={"path": str(tmp_path / "none.csv")}))
    assert (error.code, "No such file" in error.cause) == ("CSL-M220", True)
    error = refused(data.model_copy(update={"path": str(tmp_path / "none.parquet")}))
    assert error.code == "CSL-M220"
    assert refused(written(tmp_path, ROWS, "table.parquet")).code == "CSL-M220"
    error = refused(data.model_copy(update={"contract": str(tmp_path / "none.yaml")}))
    assert error.code == "CSL-F103" and isinstance(error, DocumentError)
    assert refused(data.model_copy(update={"institution": "hous"})).cause.endswith("hous (nearest: house).")
    assert refused(data.model_copy(update={"time": "whn"})).cause.endswith("whn (nearest: when).")


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.floats(-1e9, 1e9),
            st.sampled_from(["baker", "smith", "tailor", ""]),
            st.sampled_from(["yes", "No", "1", "0", "true", ""]),
            st.sampled_from(["0", "1"]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, str, str, str]]
) -> None:
    lines = [f"{'' if age is None else repr(age)},{job},{loan},{label}" for age, job, loan, label in rows]
    found = load(written(tmp_path_factory.mktemp("rows"), "age,job,loan,bought\n" + "\n".join(lines) + "\n"))
    taken = found.take(np.arange(len(rows)))
    assert np.array_equal(taken["age"], [np.nan if row[0] is None else row[0] for row in rows], equal_nan=True)
    places = {"baker": 0, "smith": 1, "tailor": 2, "": -1}
    assert taken["job"].tolist() == [places[row[1]] for row in rows]
    answers = {"yes": 1.0, "No": 0.0, "1": 1.0, "0": 0.0, "true": 1.0, "": np.nan}
    assert np.array_equal(taken["loan"], [answers[row[2]] for row in rows], equal_nan=True)
    assert found.labels.tolist() == [float(row[3]) for row in rows]


@given(
    st.lists(st.floats() | st.floats(width=32), max_size=20) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)
)
def test_narrow_numbers_are_the_same_numbers(values: list[float] | list[int]) -> None:
    integers = all(isinstance(value, int) for value in values)
    wide = np.array(values, dtype=np.int64 if integers else np.float64)
    narrow = compact(wide)
    assert np.array_equal(narrow.astype(wide.dtype), wide, equal_nan=not integers)


def test_ranks_keep_the_order_of_equals() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [2, 0, 3, 1]


def test_the_nearest_name_keeps_its_spelling() -> None:
    assert nearest("bought", ["Bought", "sold"]) == " (nearest: Bought)"
    assert nearest("bought", ["xyz"]) == ""


def test_only_the_newest_are_kept() -> None:
    kept: Newest[list[int]] = Newest(2)
    one, two = kept.get("a", lambda: [1]), kept.get("b", lambda: [2])
    assert kept.get("a", lambda: [9]) is one
    kept.get("c", lambda: [3])
    assert kept.get("a", lambda: [9]) is one
    assert kept.get("b", lambda: [4]) is not two


def test_customers_count_themselves(tmp_path: Path) -> None:
    found = load(written(tmp_path, ROWS))
    assert isinstance(found, Customers) and len(found) == 3
