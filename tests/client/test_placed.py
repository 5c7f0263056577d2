"""Where customers stand, read from a table: what is written is read, and what does not fit is refused by its line alone."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.lists import csv_table
from client.placed import Place, read_placements
from federation.errors import DocumentError

names = st.sampled_from(["", "champions", "at risk", "Über 60"])
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=80)
@given(
    rows=st.dictionaries(texts, st.tuples(names, names, st.none() | st.floats(-1e6, 1e6)), min_size=1, max_size=20),
    delimiter=st.sampled_from(",;\t"),
    mark=st.booleans(),
)
def test_what_is_written_is_read(rows: dict[str, tuple[str, str, float | None]], delimiter: str, mark: bool) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["stage", "customer", "ignored", "segment", "value"])
    for customer, (segment, stage, value) in rows.items():
        writer.writerow([stage, customer, "=x", segment, "" if value is None else repr(value)])
    found = read_placements(text.getvalue().encode("utf-8-sig" if mark else "utf-8"))
    assert found.placed == {customer: Place(segment, stage) for customer, (segment, stage, _) in rows.items()}
    assert found.worth == {customer: value for customer, (_, _, value) in rows.items() if value is not None}


@settings(max_examples=150)
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: ("customer,value\n" + text).encode()))
def test_anything_else_is_refused_or_read_and_nothing_else_happens(content: bytes) -> None:
    try:
        found = read_placements(content)
    except DocumentError as error:
        assert error.code == "CSL-C766"
    else:
        assert all(customer for customer in found.placed)


def test_without_a_value_column_nobody_is_worth_anything_of_her_own() -> None:
    found = read_placements(b"customer,segment\na,lost\n\nb,\n")
    assert found.worth is None and found.placed == {"a": Place("lost"), "b": Place()}
    assert (found.placed_by, found.worth_from) == ("own table", "")
    money = read_placements(b"customer,value\na,\n")
    assert money.worth == {} and money.placed == {} and (money.placed_by, money.worth_from) == ("", "own table")


def test_a_table_of_ours_with_cells_made_safe_is_known_again() -> None:
    rows: list[tuple[str | int | float | None, ...]] = [("=1+1", "lost", 2.0), ("'b", "new", None), ("c", "", 0.0)]
    found = read_placements(csv_table(("customer", "segment", "value"), rows))
    assert [found.place(name) for name, *_ in rows] == [Place("lost"), Place("new"), Place()]
    assert [found.worth_of(str(name)) for name, *_ in rows] == [2.0, None, 0.0] and found.place("x") == Place()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no header"),
        (b"\n", "no header"),
        (b"customer\na\n", "header needs"),
        (b"segment,stage\nlost,new\n", "header needs"),
        (b"customer,segment,segment\na,x,y\n", "twice"),
        (b"customer,segment\ncanary," + b"x" * 65 + b"\n", "segment in row 2"),
        (b'customer,stage\na,new\ncanary,"n\tew"\n', "stage in row 3"),
        (b"customer,value\ncanary,much\n", "value in row 2"),
        (b"customer,value\ncanary,nan\n", "not finite"),
        (b"customer,value\ncanary,inf\n", "not finite"),
        (b"customer,value\ncanary,1\ncanary,2\n", "Row 3"),
        (b"customer,value\n ,1\n", "Row 2"),
        (b"customer,value\ncanary\n", "Row 2"),
        (b'customer,value\n"canary,1\n', "not CSV"),
        (b"customer,value\n\xff,1\n", "UTF-8"),
    ],
)
def test_what_does_not_fit_is_refused_without_its_content(content: bytes, why: str) -> None:
    with pytest.raises(DocumentError, match="CSL-C766") as caught:
        read_placements(content)
    assert why in caught.value.cause and "canary" not in str(caught.value)


def test_a_table_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.placed.LARGEST_FILE", 20)
    with pytest.raises(DocumentError, match="256 MiB"):
        read_placements(b"customer,value\na,1\nb,2\n")
