"""The report says what stands in the pack, in every section, safely, and says where it leaves something out."""

import re
import zipfile
from html.parser import HTMLParser

import pytest

from client.evidence.articles import GDPR, PIPL, SECTIONS, annex, beside
from client.evidence.build import build_evidence
from client.evidence.chart import usage_chart
from client.evidence.gather import MOST_POINTS, Gathered, Point
from client.evidence.manifest import REPORT
from client.evidence.verdict import verify_pack
from client.words import day_of, percent, plain, size_of
from tests.client.evidence_home import live, months


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    past = months(live(tmp_path_factory.mktemp("past")))
    past.ledger.refuse("CSL-P201", "<script>alert(1)</script>", 'an "evil" <b>reason</b>')
    return past


def report(past, folder):
    path = folder / "pack.zip"
    path.unlink(missing_ok=True)
    build_evidence(past.home, past.key, path)
    assert verify_pack(path).valid
    with zipfile.ZipFile(path) as archive:
        return archive.read(REPORT).decode()


@pytest.fixture(scope="module")
def page(past, tmp_path_factory):
    return report(past, tmp_path_factory.mktemp("pack"))


class Page(HTMLParser):
    """Collects tags, attributes and text, and holds every end against its beginning."""

    EMPTY = frozenset(("meta", "br", "line"))

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.words = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_it_is_whole_html_without_scripts_or_anything_from_elsewhere(page):
    found = Page(page)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(found.tags)
    assert found.links and all(link.startswith("#") for link in found.links)
    assert not re.search(r"url\(|@import", page)
    assert all(f'id="{link[1:]}"' in page for link in found.links)


def test_what_people_wrote_is_text_and_nothing_else(page):
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "<b>reason</b>" not in page
    assert "loyalty campaign &lt;2026&gt;" in page


def test_every_section_tells_what_happened(past, page):
    text = " ".join(" ".join(Page(page).words).split())
    for words in (
        "4 studies granted",
        "10 replies that left the house",
        "3 requests refused",
        "Who may buy: loyalty",
        "approved by first, second",
        "within the policy's automatic limits",
        "noisy gradient sum",
        "still open: it counts in full",
        "that charge came back",
        "name list spring-2026",
        "Letters of 12 March",
        "AUC 0.748 (0.731 to 0.765)",
        "the card is not in the pack",
        "New key",
        "The smallest number of partners falls from 3 to 2.",
        "test/birch",
        "not legal advice",
    ):
        assert words in text, words
    assert past.policy.digest() in text and "<path" in page


def test_articles_stand_beside_every_section_and_are_all_explained(page):
    named = {("GDPR", number) for gdpr, _ in SECTIONS.values() for number in gdpr}
    named |= {("PIPL", number) for _, pipl in SECTIONS.values() for number in pipl}
    assert named == {(item.law, item.number) for item in annex()}
    assert set(GDPR) | set(PIPL) == {item.number for item in annex()}
    assert all(beside(section) in page for section in SECTIONS)


def test_what_is_left_out_is_counted_and_said(past, tmp_path, monkeypatch):
    monkeypatch.setattr("client.evidence.gather.MOST_ROWS", 1)
    monkeypatch.setattr("client.evidence.gather.MOST_STUDIES", 2)
    page = report(past, tmp_path)
    assert "2 further refusals" in page and "2 further studies" in page and "1 further policies" in page
    assert ">4</dd><dt>studies granted" in page


def test_the_drawing_is_thinned_and_never_empty_of_its_end(past):
    state = past.ledger.state()
    gathered = Gathered()
    for number in range(5 * MOST_POINTS):
        gathered._point(number, state)
    gathered.end(state)
    assert len(gathered.points) <= MOST_POINTS and gathered.points[-1].ts == state.ts
    assert usage_chart([], 0, 1) == ""
    full = usage_chart([Point(5, (1.0, 0.5, 0.2, 0.0))], 5, 5)
    assert "100%" in full and "nan" not in full and "inf" not in full


def test_words_for_figures():
    assert [percent(value) for value in (0.0, 0.125, 1.0, 0.99995)] == ["0.0%", "12.5%", "100.0%", "99.995%"]
    assert [size_of(value) for value in (5, 2048, 3 << 20, 5 << 30)] == ["5 bytes", "2.0 kB", "3.0 MB", "5.0 GB"]
    assert day_of(2**53 - 1) == "9999-12-31" and plain(1.23456e-5) == "1.23e-05"


def test_refusals_that_were_only_counted_are_summed_and_shown(tmp_path):
    past = live(tmp_path / "home")
    now = past.ledger.now()
    past.ledger.refuse("CSL-P201", "cross_sell", "unknown purpose")
    past.ledger.refuse_many(950, now, past.ledger.now(), {"CSL-P201": 40, "CSL-C510": 900})
    text = " ".join(" ".join(Page(report(past, tmp_path)).words).split())
    assert "951 requests refused" in text and "950 more" in text
    assert (
        "CSL-C510 900 only counted" in text
        and "CSL-P201 41 unknown purpose" in text
        and "others 10 only counted" in text
    )
