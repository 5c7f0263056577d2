"""Whom a campaign is drawn from, its design, and the contract's table."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from client.campaign.draw import CONTROL
from client.campaign.frame import check_name, draw_campaign, head, running, segments_of
from client.campaign.record import MOST_ARMS, SEGMENTS, Arm, Window, parse_arms, parse_day
from client.campaign.store import TABLE, parquet_bytes, write_campaign
from client.campaign.table import COLUMNS, CONTRACT, LABEL, mapping_lines, table_of
from client.cohort import load_cohort
from client.config import NodeConfig
from client.placed import Placements, read_placements
from federation.charter import Declaration
from federation.contract import CategoricalColumn, FeatureContract
from federation.document import load_yaml, parse_yaml
from federation.errors import DataError, DocumentError, PolicyError, StorageError
from tests.client.campaign.parts import KEY, WHEN, WINDOW, arms_of, design, drawn, frame, ranked, with_outcomes
from tests.client.node_files import consent_for

ROOT = Path(__file__).parents[3]


def test_a_campaign_says_whom_it_was_drawn_from():
    campaign = drawn()
    record = campaign.record
    assert campaign.stem == "spring-2026-05-09" and record.status == "open"
    assert (record.source.eligible, record.source.not_eligible, record.source.elsewhere) == (2000, 0, 0)
    assert record.members == {name: len(ids) for name, ids in arms_of(campaign).items()}
    assert sum(item.eligible for item in record.population) == 2000
    assert sum(item.eligible for item in record.population if item.chosen_by == "model") == 600
    assert len(campaign.members) == 800 and record.members[CONTROL] == 160


def test_whoever_stands_on_the_list_and_may_not_be_approached_is_left_out_and_counted():
    held = replace(frame(), listed=frozenset({"c00001", "c00002", "gone", "too"}))
    campaign = draw_campaign(design(), held, "refuse", WHEN)
    assert campaign.record.source.not_eligible == 2
    assert {m.customer for m in campaign.members if m.chosen_by == "model"} == {"c00001", "c00002"}


def test_customers_of_another_campaign_are_refused_left_out_or_noted():
    busy = {"autumn": frozenset(f"c{place:05d}" for place in range(50)), "winter": frozenset({"elsewhere"})}
    held = frame(running=busy)
    with pytest.raises(PolicyError, match="CSL-C784") as caught:
        draw_campaign(design(), held, "refuse", WHEN)
    assert "autumn (50)" in str(caught.value) and "winter" not in str(caught.value)
    noted = draw_campaign(design(), held, "allow", WHEN)
    assert [(item.campaign, item.customers) for item in noted.record.overlaps] == [("autumn", 50)]
    assert noted.members == drawn().members
    apart = draw_campaign(design(), held, "leave out", WHEN)
    assert not {member.customer for member in apart.members} & busy["autumn"]
    assert (apart.record.overlaps, apart.record.source.elsewhere, apart.record.source.eligible) == ((), 50, 1950)


def test_open_campaigns_hold_their_customers_and_closed_ones_do_not(tmp_path):
    first = write_campaign(tmp_path, drawn(), KEY)
    closed = drawn(name="autumn")
    write_campaign(tmp_path, replace(closed, record=closed.record.model_copy(update={"closed": "2026-05-01"})), KEY)
    found = running(tmp_path, KEY, None)
    assert found == {"spring": frozenset(member.customer for member in first.members)}
    gone = first.members[0].customer
    assert gone not in running(tmp_path, KEY, lambda ids: np.array([who == gone for who in ids]))["spring"]
    check_name(tmp_path, "summer")
    with pytest.raises(StorageError, match="CSL-C781"):
        check_name(tmp_path, "autumn")


def test_the_head_of_a_ranking():
    assert head(ranked(10), 3) == {"c00000", "c00001", "c00002"}


def test_designs_are_read():
    assert parse_arms("mail=0.4, call=0.3", "2") == (
        Arm(name="mail", share=0.4, cost=2),
        Arm(name="call", share=0.3, cost=2),
    )
    assert [arm.cost for arm in parse_arms("mail=0.4,call=0.3", "call=4,mail=0.6")] == [0.6, 4.0]
    assert (
        design().control_share == pytest.approx(0.2)
        and design().cost_of(CONTROL) == 0
        and design().cost_of("call") == 4
    )
    assert parse_day("2026-04-02", "x").day == 2
    with pytest.raises(DocumentError, match="CSL-C792"):
        parse_day("2.4.2026", "contact-from")


@pytest.mark.parametrize(
    ("arms", "costs"),
    [
        ("mail", "1"),
        ("mail=x", "1"),
        ("mail=0.4,mail=0.2", "1"),
        ("", "1"),
        ("mail=0.4", "call=1"),
        ("mail=0.4", "much"),
    ],
)
def test_designs_that_cannot_be_read(arms, costs):
    with pytest.raises(DocumentError, match="CSL-C782"):
        parse_arms(arms, costs)


@given(st.text(max_size=30), st.text(max_size=12))
def test_whatever_is_written_for_arms_is_read_or_refused(arms, costs):
    try:
        found = parse_arms(arms, costs)
    except (DocumentError, ValidationError):
        return
    assert found and all(0 < arm.share < 1 and 0 <= arm.cost <= 1e6 for arm in found)


@pytest.mark.parametrize(
    "changes",
    [
        {"arms": (Arm(name="control", share=0.5, cost=0),)},
        {"arms": (Arm(name="mail", share=0.5, cost=0), Arm(name="mail", share=0.2, cost=0))},
        {"arms": (Arm(name="mail", share=0.995, cost=0),)},
        {"arms": tuple(Arm(name=f"a{n}", share=0.1, cost=0) for n in range(MOST_ARMS + 1))},
        {"arms": ()},
        {"random_share": 0.95},
        {"seed": ""},
        {"name": "Spring sale"},
    ],
)
def test_designs_that_make_no_sense(changes):
    with pytest.raises(ValidationError):
        design(**changes)


def test_dates_the_wrong_way_round():
    days = {
        "contact_from": WINDOW.contact_from,
        "contact_until": WINDOW.contact_until,
        "outcome_until": WINDOW.outcome_until,
    }
    for first, second in (("contact_from", "contact_until"), ("contact_until", "outcome_until")):
        with pytest.raises(ValidationError, match="contact begins before it ends"):
            Window(**(days | {first: days[second], second: days[first]}))


def test_contacts_begin_after_the_draw_and_outcomes_end_some_day():
    late = WINDOW.contact_from + timedelta(days=1)
    for day in (late, WINDOW.contact_from - timedelta(days=367)):
        with pytest.raises(DocumentError, match="CSL-C797"):
            draw_campaign(design(), frame(), "refuse", datetime(day.year, day.month, day.day, tzinfo=UTC))
    with pytest.raises(ValidationError, match="366 days"):
        Window(
            contact_from=WINDOW.contact_from,
            contact_until=WINDOW.contact_from,
            outcome_until=WINDOW.contact_from + timedelta(days=367),
        )


def test_segments_are_the_contract_s_or_other():
    own = read_placements(b"customer;stage;segment\na;x;loyal\nb;x;\nc;x;new\n")
    assert segments_of(own, ["a", "b", "c", "d"]) == {"a": "loyal", "b": "other", "c": "new", "d": "other"}
    wrong = read_placements(b"customer,segment\na,best friends\nb,new\nc,unknown\n")
    assert segments_of(wrong, ["b"]) == {"b": "new"}
    with pytest.raises(DataError, match="CSL-C794.*places 2 customers"):
        segments_of(wrong, ["a", "b", "c"])
    rules = replace(wrong, placed_by="report july")  # rules may name their segments as they like
    assert segments_of(rules, ["a", "b", "c"]) == {"a": "other", "b": "new", "c": "other"}
    assert segments_of(Placements(), ["a"]) == {"a": "other"}


def closed_campaign(**changes):
    campaign = with_outcomes(drawn(**changes), {"mail": 0.2})
    return replace(campaign, record=campaign.record.model_copy(update={"closed": "2026-06-01"}))


def contract() -> FeatureContract:
    return load_yaml(ROOT / "configs" / "contracts" / "campaign.yaml", FeatureContract)


def test_the_contract_is_what_the_code_writes():
    found = contract()
    assert found.name == CONTRACT and found.label.name == LABEL
    assert tuple(column.name for column in found.columns) == COLUMNS
    segment, arm = found.column("segment"), found.column("arm")
    assert isinstance(segment, CategoricalColumn) and segment.categories == SEGMENTS
    assert isinstance(arm, CategoricalColumn) and arm.categories == (
        CONTROL,
        *(f"arm_{n}" for n in range(1, MOST_ARMS + 1)),
    )
    assert found.column("decile").knots == tuple(float(cut) for cut in range(1, 11))


@pytest.mark.parametrize("unit", ["euro", "Swiss: francs"])
def test_a_study_reads_the_table_by_the_lines_that_were_printed(tmp_path, unit):
    campaign = closed_campaign(unit=unit)
    table = table_of(campaign)
    (tmp_path / "campaigns").mkdir()
    path = f"campaigns/{campaign.stem}{TABLE}"
    (tmp_path / path).write_bytes(parquet_bytes(table))
    lines = mapping_lines(campaign, path)
    ids = [member.customer for member in campaign.members]
    node = {"member": "north", "consent": consent_for(tmp_path, ids, c00003="no")}
    content = f"contracts:\n{lines}" + "\n".join(f"{key}: {json.dumps(value)}" for key, value in node.items())
    config = parse_yaml(content.encode(), NodeConfig, "node.yaml").at(tmp_path)
    cohort, findings = load_cohort(config, contract(), Declaration(contract=CONTRACT, size=800), "study", "learn")
    assert findings.of("dropped") == [] and findings.of("fault") == []
    there = sorted((member for member in campaign.members if member.customer != "c00003"), key=lambda m: m.customer)
    assert list(cohort.ids) == [member.customer for member in there]
    number = {CONTROL: 0, "mail": 1, "call": 2}
    assert cohort.columns["arm"].tolist() == [number[member.arm] for member in there]
    assert cohort.columns["decile"].tolist() == [member.decile for member in there]
    assert cohort.columns["segment"].tolist() == [SEGMENTS.index(member.segment) for member in there]
    assert cohort.columns["chosen_by"].tolist() == [int(member.chosen_by == "random") for member in there]
    by = dict(zip((m.customer for m in campaign.members), campaign.outcomes.conversion, strict=True))
    assert cohort.label.tolist() == [by[member.customer] for member in there]
    assert cohort.columns["cost"].sum() == pytest.approx(sum(campaign.record.design.cost_of(m.arm) for m in there))
    assert "retained" not in cohort.columns and "visit" in cohort.columns


def test_lines_ask_for_a_conversion_where_money_is_another():
    lines = mapping_lines(closed_campaign(unit="CHF"), "x.parquet")
    assert "placeholder" in lines and yaml.safe_load(lines)["campaign"]["columns"]["cost"]["unit"] == "CHF"
    assert "placeholder" not in mapping_lines(closed_campaign(), "x.parquet")


def test_only_a_closed_campaign_with_outcomes_becomes_a_table():
    campaign = with_outcomes(drawn(), {})
    with pytest.raises(PolicyError, match="CSL-C788"):
        table_of(campaign)
    given_up = drawn()
    with pytest.raises(DataError, match="CSL-C793"):
        table_of(replace(given_up, record=given_up.record.model_copy(update={"closed": "2026-06-01"})))
    closed = closed_campaign()
    known = np.ones(len(closed.members), dtype=bool)
    known[:7] = False
    assert table_of(replace(closed, outcomes=replace(closed.outcomes, known=known))).num_rows == len(known) - 7
