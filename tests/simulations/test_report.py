import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulations import figures
from simulations.report import estimate, render, write
from simulations.results import Estimate, StudyResult
from simulations.sites import BANKS
from tests.simulations.synthetic import demo_result, study_result

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Checker(HTMLParser):
    """Collects ids, tags, texts and whatever would be loaded from elsewhere; fails on tags that are not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in {"src", "href", "xlink:href", "srcset", "action"} and not (value or "").startswith("#"):
                self.loads.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def page() -> str:
    return render(demo_result())


@pytest.fixture(scope="module")
def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    return checker


def test_the_page_stands_alone(page: str, checked: Checker) -> None:
    assert checked.loads == []
    assert "script" not in checked.tags and "link" not in checked.tags and "img" not in checked.tags
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_are_unique_and_references_lead_somewhere(page: str, checked: Checker) -> None:
    assert len(checked.ids) == len(set(checked.ids))
    for target in re.findall(r'(?:url\(#|href="#)([^)"]+)', page):
        assert target in checked.ids


def test_every_institution_and_every_part_is_there(checked: Checker) -> None:
    result = demo_result()
    for study in result.studies:
        assert study.title in checked.text
        for site in study.sites:
            assert checked.text.count(site.title) >= 2
        for heading, text in study.card:
            assert heading in checked.text and text in checked.text
    for word in ("seen by no party", "simulated", "Did federating help?", "Not protected", "CC BY 4.0"):
        assert word in checked.text
    assert checked.tags.count("svg") == 1 + 4 * len(result.studies)


def test_paper_is_thought_of(page: str) -> None:
    assert "@page { size: A4;" in page
    assert "break-inside: avoid" in page


def test_texts_are_escaped() -> None:
    hostile = "<script>alert('x')</script>"
    result = demo_result()
    study = replace(result.studies[0], title=hostile, card=((hostile, hostile),))
    study = replace(study, sites=tuple(replace(site, title=hostile) for site in study.sites))
    checker = Checker()
    checker.feed(render(replace(result, studies=(study,))))
    assert "script" not in checker.tags
    assert hostile in checker.text


def test_no_list_and_no_shapes_are_told_as_such() -> None:
    result = demo_result()
    study = replace(result.studies[0], names=None, shapes="")
    text = render(replace(result, studies=(study,)))
    assert "No institution adopted the model" in text
    assert "What the model learned" not in text


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.html"
    write(demo_result(), path)
    assert path.read_text().rstrip().endswith("</html>")
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_an_uninformative_estimate_says_so() -> None:
    assert estimate(Estimate(None, None, None)).startswith("uninformative")
    assert estimate(Estimate(0.7, 0.6, 0.8)).startswith("0.700 (95")


def test_figures_are_the_same_for_the_same_values() -> None:
    study = study_result("propensity", "t", BANKS)
    assert figures.curves(study) == figures.curves(study)
    assert figures.gains(study) != figures.gains(replace(study, sites=study.sites[:3]))


@settings(max_examples=8)
@given(value=st.floats(0.0, 1.0), spent=st.floats(0.0, 9.0))
def test_figures_take_any_values(value: float, spent: float) -> None:
    study: StudyResult = study_result("propensity", "t", BANKS[:2])
    sites = tuple(
        replace(site, alone=value, federated=1 - value, pooled=0.5, budget=replace(site.budget, training=spent))
        for site in study.sites
    )
    odd = replace(study, sites=sites)
    for drawn in (figures.gains(odd), figures.budgets(odd)):
        assert drawn.startswith("<svg") and drawn.rstrip().endswith("</svg>")
