"""The report: figures against a loop over members, verdicts by what was put in, the words and the page."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from client.campaign.draw import CONTROL
from client.campaign.frame import draw_campaign
from client.campaign.page import page_of
from client.campaign.record import Overlap
from client.campaign.report import ALL_ARMS, Report, report_of
from client.campaign.store import Campaign
from client.campaign.words import lines_of, tables_of
from federation.errors import DataError
from tests.client.campaign.parts import WHEN, design, drawn, frame, with_outcomes


@pytest.fixture(scope="module")
def campaign() -> Campaign:
    return with_outcomes(drawn(12_000, 4000), {"mail": 0.08, "call": 0.0})


@pytest.fixture(scope="module")
def report(campaign) -> Report:
    return report_of(campaign)


def effect(report, arm):
    return next(item for item in report.effects if item.arm == arm)


def test_the_figures_are_those_of_a_loop_over_members(campaign, report):
    pairs = list(zip(campaign.members, campaign.outcomes.conversion, strict=True))
    held = [hit for member, hit in pairs if member.arm == CONTROL]
    for arm in ("mail", "call"):
        mine = [hit for member, hit in pairs if member.arm == arm]
        found = effect(report, arm)
        assert (found.treated.hits, found.treated.n) == (sum(mine), len(mine))
        assert (found.control.hits, found.control.n) == (sum(held), len(held))
        gap = sum(mine) / len(mine) - sum(held) / len(held)
        assert found.uplift.estimate == pytest.approx(gap)
        assert found.extra.estimate == pytest.approx(gap * len(mine))
        assert found.spend.estimate == pytest.approx(20 * gap)
        cost = {"mail": 0.5, "call": 4.0}[arm]
        assert found.net.estimate == pytest.approx(20 * gap - cost) and found.cost == pytest.approx(cost * len(mine))
    together = effect(report, ALL_ARMS)
    assert together.treated.n == effect(report, "mail").treated.n + effect(report, "call").treated.n
    assert report.groups[-1].name == CONTROL and report.groups[-1].drawn == len(held)


def test_what_works_is_shown_and_what_does_not_is_not(report):
    mail, call = effect(report, "mail"), effect(report, "call")
    assert mail.uplift.above_zero and mail.uplift.low <= 0.08 <= mail.uplift.high
    assert mail.cost_per_extra.verdict == "better than control"
    assert mail.cost_per_extra.low <= 0.5 / 0.08 <= mail.cost_per_extra.high
    assert not call.uplift.above_zero and call.cost_per_extra.verdict == "not better than control"
    assert call.cost_per_extra.high is None and call.retained is None and call.visit is not None
    lines = " ".join(lines_of(report))
    assert "Arm mail:" in lines and "more conversions" in lines
    assert "Arm call: not better than control" in lines and "would hardly show" in lines
    assert "Does the model earn its place? not shown" in lines


def test_strata_add_up(campaign, report):
    for by in ("decile", "segment", "chosen by"):
        mine = [item.effect for item in report.of(by) if item.effect.arm == "mail"]
        assert sum(item.treated.hits for item in mine) == effect(report, "mail").treated.hits
        assert sum(item.control.n for item in mine) == effect(report, "mail").control.n
    assert {item.name for item in report.of("segment")} == {"loyal", "new"}


def test_the_model_earns_its_place_where_its_choice_is_moved_more():
    def contest(effect_of):
        campaign = drawn(12_000, 3000, random_share=0.4)
        made = with_outcomes(campaign, {})
        generator = np.random.default_rng(4)
        rates = np.array([0.1 + (m.arm != CONTROL) * effect_of[m.chosen_by] for m in campaign.members])
        hits = (generator.random(len(rates)) < rates).astype(float)
        return report_of(replace(made, outcomes=replace(made.outcomes, conversion=hits))).contest

    good, bad = contest({"model": 0.15, "random": 0.0}), contest({"model": 0.0, "random": 0.15})
    assert good.verdict.startswith("yes") and good.advantage.low <= 0.15 <= good.advantage.high
    assert bad.verdict.startswith("no:") and bad.advantage.high < 0
    assert report_of(with_outcomes(drawn(random_share=0.0), {})).contest is None


def test_the_curve_speaks_for_the_whole_population(campaign, report):
    """The model's third and the random sample of the other two thirds stand for everybody: an even effect gives a straight line."""
    assert report.qini.covered == 1.0 and report.qini.share == pytest.approx([k / 10 for k in range(11)])
    assert report.qini.auuc.low <= 0.04 / 2 <= report.qini.auuc.high
    assert report.qini.coefficient.low <= 0 <= report.qini.coefficient.high
    assert report_of(campaign) == report  # the bootstrap too


def test_unknown_and_withdrawn_members_are_counted_and_left_out(campaign):
    known = np.ones(len(campaign.members), dtype=bool)
    known[:50] = False
    values = {
        name: np.where(known, getattr(campaign.outcomes, name), np.nan) for name in ("conversion", "visit", "spend")
    }
    outcomes = replace(campaign.outcomes, known=known, **values)
    gone = {member.customer for member in campaign.members[100:130]}
    less = replace(campaign, outcomes=outcomes).without(lambda ids: np.array([who in gone for who in ids]))
    found = report_of(less)
    assert sum(group.unknown for group in found.groups) == 50 and sum(group.withdrew for group in found.groups) == 30
    assert effect(found, ALL_ARMS).treated.n + effect(found, ALL_ARMS).control.n == len(campaign.members) - 80
    assert any("withdrew" in note for note in found.notes)


def test_what_a_reader_must_know_is_said():
    campaign = with_outcomes(drawn(400, 100, random_share=0.0), {}, base=0.02)
    kept = campaign.record.outcomes.model_copy(update={"left_out": {"rows of nobody": 3}})
    record = campaign.record.model_copy(
        update={"outcomes": kept, "overlaps": (Overlap(campaign="autumn", customers=7),)}
    )
    notes = " ".join(report_of(replace(campaign, record=record)).notes)
    for words in ("not closed", "rows of nobody: 3", "autumn (7)", "Fewer than 5", "drawn by chance"):
        assert words in notes


def test_without_outcomes_there_is_no_report():
    with pytest.raises(DataError, match="CSL-C793"):
        report_of(drawn())
    campaign = with_outcomes(drawn(), {})
    unknown = np.array([member.arm != CONTROL for member in campaign.members])
    with pytest.raises(DataError, match="CSL-C793"):
        report_of(replace(campaign, outcomes=replace(campaign.outcomes, known=unknown)))


def test_json_is_json(report):
    found = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert found["effects"][0]["arm"] == ALL_ARMS and found["qini"]["deciles"] == list(range(1, 11))
    assert "c0000" not in json.dumps(found)


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith("#")
        ]


def test_the_page_needs_no_other_file_and_names_nobody(report):
    content = page_of(report).decode()
    page = _Page()
    page.feed(content)
    assert page.tags.count("svg") == 3 and "script" not in page.tags and page.tags.count("table") >= 6
    assert [link for link in page.links if not link.startswith("#")] == []
    assert "url(http" not in content and "c0000" not in content and "Whom to approach first" in content


def test_the_page_escapes_what_people_wrote():
    campaign = draw_campaign(design(unit="<b>euro</b>"), frame(), "refuse", WHEN)
    content = page_of(report_of(with_outcomes(campaign, {"mail": 0.2}))).decode()
    assert "<b>euro" not in content and "&lt;b&gt;euro" in content


def test_tables_have_a_cell_for_each_head(report):
    tables = tables_of(report)
    assert [table.title for table in tables][:2] == ["Groups", "Conversion: points of the rate against control"]
    assert all(len(row) == len(table.head) for table in tables for row in table.rows)
