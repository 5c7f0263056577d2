"""Error codes are stable and documented: the page is what the code says, and every code says something."""

from tests.errors_page import PACKAGES, ROOT, collect, page


def test_the_page_is_what_the_code_says():
    assert (ROOT / "docs" / "errors.md").read_text() == page()


def test_every_code_has_a_cause():
    assert [code for code, entry in collect().items() if not entry["cause"]] == []


def test_a_letter_belongs_to_one_package():
    assert {code: entry["package"] for code, entry in collect().items() if entry["package"] != PACKAGES[code[4]]} == {}
