"""Outcomes come back: read alike from any kind of file, and whatever does not fit is named with its count."""

import csv
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from client.campaign import outcomes as module
from client.campaign.draw import CONTROL, Member
from client.campaign.outcomes import OutcomeMapping, Read, read_outcomes, refuse_problems
from client.config import NodeConfig
from federation.document import parse_yaml
from federation.errors import ConsilienceError, DataError, DocumentError
from tests.client.campaign.parts import WINDOW
from tests.client.node_files import people_node, person

MEMBERS = tuple(
    Member(f"c{place}", CONTROL if place % 5 == 0 else "mail", "model", 1, "other", 0.5) for place in range(20)
)
FULL = OutcomeMapping(visit="visit", retained="stayed", spend="spend", date="day", contacted="called")


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> NodeConfig:
    return people_node(tmp_path_factory.mktemp("node"), [person(1)])


def row(who: str, **changes: Any) -> dict[str, Any]:
    usual = {
        "customer": who, "conversion": "no", "visit": "no", "stayed": "yes", "spend": "", "day": "", "called": "2026-04-03",
    }  # fmt: skip
    return usual | changes


def bought(who: str, **changes: Any) -> dict[str, Any]:
    return row(who, **({"conversion": "yes", "visit": "yes", "spend": "12.5", "day": "2026-04-20"} | changes))


def everybody(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each member, those given in place of the usual ones."""
    named = {item["customer"] for item in rows}
    return [*rows, *(row(member.customer) for member in MEMBERS if member.customer not in named)]


def read(
    folder: Path, node: NodeConfig, rows: list[dict[str, Any]], mapping: OutcomeMapping = FULL, kind: str = "csv"
) -> Read:
    path = folder / f"back.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        pq.write_table(pa.table({name: [str(item[name]) for item in rows] for name in rows[0]}), path)
    return read_outcomes(path, mapping, node, MEMBERS, WINDOW)


def place(who: str) -> int:
    return [member.customer for member in MEMBERS].index(who)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_what_fits_is_read(tmp_path, node, kind):
    found = read(tmp_path, node, everybody(bought("c3"), row("c4", visit="yes", day="2026-04-03")), kind=kind)
    refuse_problems(found)
    back, three, four = found.outcomes, place("c3"), place("c4")
    assert (found.rows, found.matched) == (20, 20) and back.known.all()
    assert back.conversion.sum() == 1 and back.conversion[three] == 1 and back.spend[three] == 12.5
    assert (back.visit[four], back.conversion[four], back.spend[four]) == (1, 0, 0)
    assert back.retained[three] == 1 and found.spoken_of == ("conversion", "visit", "retained", "spend")


def test_who_has_no_row_had_no_outcome_and_what_is_not_mapped_is_not_known(tmp_path, node):
    found = read(tmp_path, node, [bought("c5"), bought("c3")], OutcomeMapping(spend="spend"))
    refuse_problems(found)
    back = found.outcomes
    assert back.known.all() and back.conversion.sum() == 2
    assert back.spend.sum() == 25 and np.isnan(back.visit).all() and np.isnan(back.retained).all()
    assert found.spoken_of == ("conversion", "spend")
    told = read(tmp_path, node, [bought("c5"), bought("c3")], FULL).outcomes
    assert (told.visit[place("c1")], np.isnan(told.retained[place("c1")])) == (0, True)


WRONG = {
    module.UNKNOWN: [row("stranger"), row("c3 2")],
    module.NAMELESS: [row("")],
    module.TWICE: [bought("c3"), bought("c3", day="2026-04-21")],
    module.NOT_READ: [bought("c3", spend="a lot"), row("c4", conversion="perhaps"), row("c6", conversion="")],
    module.NO_DATE: [bought("c3", day="")],
    module.REVERSED: [bought("c3", called="2026-04-25")],
    module.OUTSIDE: [bought("c3", day="2026-05-10"), bought("c4", day="2026-04-01", called="")],
    module.BEYOND: [bought("c3", spend="100000.5"), bought("c4", spend="-1")],
}


@pytest.mark.parametrize("what", list(WRONG))
def test_what_does_not_fit_is_named_and_the_file_refused(tmp_path, node, what):
    found = read(tmp_path, node, everybody(*WRONG[what]))
    assert found.left_out == {what: len(WRONG[what])}
    with pytest.raises(DataError, match="CSL-C786") as caught:
        refuse_problems(found)
    assert f"{what}: {len(WRONG[what])}" in str(caught.value)
    assert "stranger" not in str(caught.value) and "c3" not in str(caught.value)


@pytest.mark.parametrize("what", [module.TWICE, module.NOT_READ, module.NO_DATE, module.REVERSED, module.BEYOND])
def test_whose_row_cannot_be_used_is_unknown(tmp_path, node, what):
    found = read(tmp_path, node, everybody(*WRONG[what])).outcomes
    touched = {place(item["customer"]) for item in WRONG[what]}
    assert set(np.flatnonzero(~found.known)) == touched
    for values in (found.conversion, found.visit, found.retained, found.spend):
        assert np.isnan(values[sorted(touched)]).all()


def test_an_outcome_outside_the_window_is_none(tmp_path, node):
    found = read(tmp_path, node, everybody(*WRONG[module.OUTSIDE])).outcomes
    assert found.known.all() and found.conversion.sum() == 0 and found.spend.sum() == 0
    edges = [bought("c3", day="2026-05-09"), bought("c4", day="2026-04-02", called="2026-04-02")]
    assert read(tmp_path, node, everybody(*edges)).outcomes.conversion.sum() == 2


def test_a_file_that_leaves_the_control_group_out_is_noticed(tmp_path, node):
    only = [bought(member.customer) for member in MEMBERS if member.arm != CONTROL]
    assert (
        read(tmp_path, node, only).noted == {}
    )  # sixteen rows miss a control group of a fifth by chance, in 3 of 100 cases
    many = tuple(Member(f"m{n}", CONTROL if n < 20 else "mail", "model", 1, "other", 0.5) for n in range(100))
    path = tmp_path / "many.csv"
    path.write_text("customer,conversion\n" + "".join(f"m{n},yes\n" for n in range(20, 100)))
    uneven = read_outcomes(path, OutcomeMapping(), node, many, WINDOW)
    assert uneven.noted == {module.UNEVEN: 80} and uneven.left_out == {}
    with pytest.raises(DataError, match="none about the control group"):
        refuse_problems(uneven)


def test_a_converted_customer_with_an_empty_spend_has_an_unknown_one(tmp_path, node):
    found = read(tmp_path, node, everybody(bought("c3", spend=""))).outcomes
    assert found.known[place("c3")] and np.isnan(found.spend[place("c3")]) and found.spend[place("c4")] == 0


def test_own_spellings_and_delimiters(tmp_path, node):
    path = tmp_path / "own.csv"
    path.write_bytes("Kunde;Kauf;Wann\nc3;ja;20.04.2026\nc5;nein;\n".encode("latin-1"))
    text = (
        b'{customer: Kunde, conversion: Kauf, date: Wann, yes: ["ja"], no: ["nein"], '
        b'format: "%d.%m.%Y", delimiter: ";", encoding: latin-1}'
    )
    mapping = parse_yaml(text, OutcomeMapping, "mapping")
    found = read_outcomes(path, mapping, node, MEMBERS, WINDOW)
    refuse_problems(found)
    assert found.outcomes.conversion.sum() == 1 and found.outcomes.conversion[place("c3")] == 1


def test_a_mapping_that_makes_no_sense_is_refused():
    for wrong in ({"spend_low": 5.0, "spend_high": 1.0}, {"yes": ("x",), "no": ("X",)}, {"colour": "blue"}):
        with pytest.raises(ValidationError):
            OutcomeMapping.model_validate(wrong)


def test_files_that_cannot_be_read(tmp_path, node):
    with pytest.raises(DocumentError, match="CSL-C791"):
        read_outcomes(tmp_path / "back.xlsx", FULL, node, MEMBERS, WINDOW)
    with pytest.raises(DataError, match="CSL-C101"):
        read_outcomes(tmp_path / "none.csv", FULL, node, MEMBERS, WINDOW)
    (tmp_path / "less.csv").write_text("customer,visit\nc1,yes\n")
    with pytest.raises(DataError, match="CSL-C102"):
        read_outcomes(tmp_path / "less.csv", OutcomeMapping(), node, MEMBERS, WINDOW)
    (tmp_path / "empty.csv").write_text("customer,conversion\n")
    found = read_outcomes(tmp_path / "empty.csv", OutcomeMapping(), node, MEMBERS, WINDOW)
    assert (found.rows, found.matched, found.outcomes.conversion.sum()) == (0, 0, 0)


@given(st.binary(max_size=200))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_nothing_but_a_refusal_comes_of_it(tmp_path, node, content):
    path = tmp_path / "any.csv"
    path.write_bytes(b"customer,conversion\n" + content)
    try:
        found = read_outcomes(path, OutcomeMapping(), node, MEMBERS, WINDOW)
    except ConsilienceError:
        return
    assert len(found.outcomes.known) == len(MEMBERS) and found.matched <= found.rows


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*(member.customer for member in MEMBERS), "x", "y"]),
            st.sampled_from(["yes", "no", "?"]),
            st.sampled_from(["", "0", "3.5", "-2", "1e9", "nan", "much"]),
            st.sampled_from(["", "2026-04-01", "2026-04-05", "2026-05-20", "soon"]),
        ),
        max_size=25,
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_same_as_row_by_row(tmp_path, node, rows):
    """The whole reading against a loop that takes one row after the other."""
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as handle:
        csv.writer(handle).writerows([("customer", "conversion", "spend", "day"), *rows])
    found = read_outcomes(path, OutcomeMapping(spend="spend", date="day"), node, MEMBERS, WINDOW).outcomes
    for number, member in enumerate(MEMBERS):
        mine = [item for item in rows if item[0] == member.customer]
        known, conversion, spend = slow(mine)
        assert found.known[number] == known
        assert found.conversion[number] == pytest.approx(conversion, nan_ok=True)
        assert found.spend[number] == pytest.approx(spend, nan_ok=True)


def slow(mine: list[tuple[str, str, str, str]]) -> tuple[bool, float, float]:
    unknown = (False, float("nan"), float("nan"))
    if not mine:
        return True, 0.0, 0.0
    if len(mine) > 1:
        return unknown
    _, flag, text, day = mine[0]
    if flag == "?" or text in ("nan", "much") or day == "soon":
        return unknown
    conversion = 1.0 if flag == "yes" else 0.0
    spend = float(text) if text else (float("nan") if conversion else 0.0)
    if spend < 0 or spend > 100_000:
        return unknown
    if conversion or spend > 0:
        if not day:
            return unknown
        if not WINDOW.contact_from <= date.fromisoformat(day) <= WINDOW.outcome_until:
            return True, 0.0, 0.0
    return True, conversion, spend
