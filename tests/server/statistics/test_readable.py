"""The readable page of a report: tables, cut where they are long, and nothing in a cell that breaks them."""

from hypothesis import example, given
from hypothesis import strategies as st

from federation.answers import AnswerTable, Row
from server.statistics.readable import number, readable
from tests.server.statistics.papers import answer, report

LONG = 75
SHOWN = 60


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("|")]


def table(*given: Row, **changes: object) -> AnswerTable:
    fields: dict[str, object] = {"name": "t", "title": "T", "unit": "customers", "key": ("job",), "rows": given}
    return AnswerTable(**(fields | changes))  # type: ignore[arg-type]


def test_a_page_names_terms_members_and_every_answer():
    page = readable(report(answers=(answer(), answer("second", title="Another", notes=("A note.",)))))
    assert page.startswith("# Who they are\n")
    assert "Purpose marketing.analytics; contract shop; 2 rounds." in page
    assert "Intervals at 95%, noise included." in page
    assert "| alder | 4,000 | 1 | 1e-06 | 2 |" in page and "| birch | 400 | 0.5 | 1e-05 | 1 |" in page
    assert "## How many" in page and "## Another" in page and "- A note." in page
    assert "| job | value (customers) | from | to |" in page and "| clerk | 10 | 5 | 15 |" in page


def test_a_page_says_what_was_opened_and_whose_noise_counts():
    assert "released its own noisy sums" in readable(report())
    shared = readable(report(aggregation="secure", noise="shared"))
    assert "Only sums over several institutions were opened" in shared and "noise is shared" in shared
    assert "added the full noise" in readable(report(aggregation="secure", noise="local"))


def test_a_long_table_is_cut_and_says_so():
    many = tuple(Row(key=(f"group-{place}",), value=float(place)) for place in range(LONG))
    page = readable(report(answers=(answer(rows=many),)))
    shown = [line for line in rows(page) if line.startswith("| group-")]
    assert len(shown) == SHOWN and shown[-1].startswith(f"| group-{SHOWN - 1} ")
    assert f"{LONG - SHOWN} more rows stand in the report's JSON." in page
    exact = readable(report(answers=(answer(rows=many[:SHOWN]),)))
    assert "more rows" not in exact and f"group-{SHOWN - 1}" in exact


def test_what_the_noise_hides_is_a_dash():
    page = readable(report(answers=(answer(rows=(Row(key=("clerk",), value=None),)),)))
    assert "| clerk | — | — | — |" in page


def test_a_table_without_labels_has_one_line():
    said = answer(tables=(table(Row(key=(), value=3.0), key=()),))
    assert "| 3 | — | — |" in readable(report(answers=(said,)))


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=60))
@example("\\|")
@example("one\rtwo\u2028three")
def test_no_label_breaks_a_table(label):
    given_row = Row(key=(label,), value=1.0, low=0.0, high=2.0)
    page = readable(report(answers=(answer(tables=(table(given_row),)),)))
    (line,) = [line for line in page.splitlines() if line.endswith("| 1 | 0 | 2 |") and line.startswith("| ")]
    cells = line.replace("\\\\", "").replace("\\|", "").split("|")
    assert len(cells) == 6


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_to_what_it_was(value):
    text = number(value)
    back = float(text.replace(",", ""))
    assert abs(back - value) <= max(
        0.5 if abs(value) >= 1000 else 0.05 if abs(value) >= 100 else 0.0, 5e-4 * abs(value)
    )


def test_numbers_are_short():
    assert [number(value) for value in (None, 0.0, 0.01234567, 12.3456, 123.456, 1234.5, -98765.4)] == [
        "—",
        "0",
        "0.01235",
        "12.35",
        "123.5",
        "1,234",
        "-98,765",
    ]
