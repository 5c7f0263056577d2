"""Node configuration: every problem at once with its line and key, nothing secret in the file, paths from the home."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.config import NodeConfig, load_node
from client.units import CONVERSIONS, factor
from federation.document import parse_yaml
from federation.errors import DocumentError

ROOT = Path(__file__).resolve().parents[2]

GOOD = """\
member: north
contracts:
  people:
    kind: table
    source: {kind: csv, path: people.csv}
    customer: id
    columns:
      age: {column: AGE, unit: years, missing: [-1, 99.0]}
      loan: {column: loan, yes: ["ja"], no: ["nein"]}
    label: {column: y, yes: [1], no: [0]}
"""


def problems(text: str) -> str:
    with pytest.raises(DocumentError) as caught:
        parse_yaml(text.encode(), NodeConfig, "node.yaml")
    assert caught.value.code == "CSL-F105"
    return caught.value.cause


def test_numbers_in_spellings_are_what_the_source_holds() -> None:
    node = parse_yaml(GOOD.encode(), NodeConfig, "node.yaml")
    mapping = node.contracts["people"]
    assert mapping.kind == "table"
    assert mapping.columns["age"].missing == ("-1", "99")
    assert mapping.label is not None
    assert mapping.label.yes == ("1",)


def test_all_problems_at_once_with_line_and_key() -> None:
    text = GOOD.replace("customer: id", "customer: 7").replace("unit: years", "units: years").replace("[0]", "[1]")
    cause = problems(text)
    assert "3 problems" in cause
    assert "line 6: contracts.people.customer" in cause
    assert "line 8" in cause
    assert "units" in cause
    assert "line 10" in cause
    assert "not both" in cause


def test_a_bare_yes_is_refused_because_yaml_reads_it_as_a_truth_value() -> None:
    assert "put it in quotes" in problems(GOOD.replace("[1]", "[yes]"))


def test_convert_and_scale_exclude_each_other_and_conversions_are_known() -> None:
    assert "not both" in problems(GOOD.replace("unit: years", "unit: months, convert: months to years, scale: 2.0"))
    assert "unknown conversion" in problems(GOOD.replace("unit: years", "unit: moons, convert: moons to years"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{kind: sql, table: t}", "either url or url_env"),
        ("{kind: sql, table: t, url: 'sqlite:///a.db', url_env: BANK_URL}", "either url or url_env"),
        ("{kind: sql, table: t, url: 'postgresql://me:SECRETWORD@host/db'}", "a password must not stand in this file"),
        ("{kind: sql, table: t, url: 'nonsense'}", "not a database URL"),
        ("{kind: excel, path: a.xls}", "kind"),
        ("{kind: csv, path: a.csv, delimiter: ';;'}", "at most 1"),
    ],
)
def test_sources_that_are_refused(source: str, message: str) -> None:
    cause = problems(GOOD.replace("{kind: csv, path: people.csv}", source))
    assert message in cause
    assert "SECRETWORD" not in cause


@pytest.mark.parametrize("pattern", ["%d.%m", "%Q-%Y", "%Y-%m-%d'); DROP TABLE log; --%x"])
def test_time_formats_that_are_refused(pattern: str) -> None:
    text = f"""\
member: north
contracts:
  rfm:
    kind: transactions
    source: {{kind: parquet, path: log.parquet}}
    customer: id
    time: {{column: day, format: "{pattern}"}}
    amount: {{column: paid, unit: euro}}
    typical_basket: {{amount: 10.0, unit: euro}}
"""
    assert "strptime" in problems(text)


def test_rows_to_score_need_the_position_that_they_start_from() -> None:
    assert "needs the position column" in problems(GOOD + "    score: {from_position: 5}\n")
    assert "either from_position or source" in problems(GOOD + "    score: {}\n")


def test_home_is_the_folder_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(GOOD)
    assert load_node(tmp_path / "node.yaml").home == tmp_path.resolve()
    with pytest.raises(DocumentError, match="CSL-C001"):
        _ = parse_yaml(GOOD.encode(), NodeConfig, "node.yaml").home


@pytest.mark.parametrize("name", ["bank", "shop"])
def test_the_examples_are_valid(name: str) -> None:
    assert load_node(ROOT / "configs" / "nodes" / f"{name}.yaml").consent is not None


def test_how_the_service_runs_has_defaults() -> None:
    service = parse_yaml(GOOD.encode(), NodeConfig, "node.yaml").service
    assert (service.link, service.runtime_port, service.metrics_port, service.poll_seconds) == (None, 19_100, None, 0.1)
    text = (
        GOOD
        + 'service: {link: "gateway.north.example:8443", runtime_port: 19200, metrics_port: 9464, poll_seconds: 1}\n'
    )
    service = parse_yaml(text.encode(), NodeConfig, "node.yaml").service
    assert (service.link, service.metrics_port, service.poll_seconds) == ("gateway.north.example:8443", 9464, 1.0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("link: http://gateway", "service.link"),
        ('link: "gateway:70000"', "at most 65535"),
        ("runtime_port: 0", "service.runtime_port"),
        ("runtime_port: 65536", "service.runtime_port"),
        ("metrics_port: 19100", "two ports"),
        ("poll_seconds: 0", "service.poll_seconds"),
        ("poll_seconds: .nan", "numbers must be finite"),
        ("node_key: keys/node.key", "unknown key"),
    ],
)
def test_a_service_that_cannot_run_is_refused(line: str, said: str) -> None:
    assert said in problems(GOOD + f"service: {{{line}}}\n")


@given(st.sampled_from(sorted(CONVERSIONS)))
def test_a_conversion_leads_only_where_it_says(name: str) -> None:
    own, target, rate = CONVERSIONS[name]
    assert factor(own, target, name, None) == rate
    assert isinstance(factor(target, own, name, None), str)
    assert isinstance(factor(own, target, None, None), str)
    assert factor(target, target, None, None) == 1.0
    assert factor(own, target, None, 3.0) == 3.0


def test_a_unit_must_be_stated() -> None:
    assert "must state its unit" in str(factor(None, "euro", None, None))
