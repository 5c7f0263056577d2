"""The dry run: everything a person at the institution needs, and nothing raised for a fault in the data."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from client.check import NOTICE, CheckReport, check
from federation.study import HashHoldout, PositionHoldout
from tests.client.node_files import (
    DECLARED,
    FLAT,
    KINDS,
    consent_for,
    people,
    people_node,
    person,
    purchase,
    rfm,
    shop_node,
)

CANARY = "CANARY-4711"


def shown(report: CheckReport) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(report)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def bank(home: Path, **more: Any) -> CheckReport:
    rows = [person(number, at=number, AGE=200.0 if number == 1 else 30.0) for number in range(10)]
    rows[4]["y"] = CANARY
    rows[5]["work"] = CANARY
    consent = consent_for(home, [row["id"] for row in rows], p2="no", p3="no")
    node = people_node(home, rows, consent=consent, position="at", score={"from_position": 8}, **more)
    return check(
        node,
        people(),
        FLAT.model_copy(update={"size": 7}),
        "study",
        "contact",
        PositionHoldout(kind="position", position=7),
    )


def test_counts_and_shares(tmp_path: Path) -> None:
    report = bank(tmp_path)
    found = report.learn.findings
    assert report.ok
    assert (found.rows, found.customers, found.without_consent, found.used) == (10, 10, 2, 7)
    assert (report.training, report.held_out) == (4, 3)
    assert report.learn.positive == pytest.approx(4 / 7)
    assert found.columns["age"].clipped == pytest.approx(1 / 7)
    assert report.score.findings.used == 2
    assert report.score.refusal is None


def test_output_says_where_it_may_be_seen_and_shows_no_value(tmp_path: Path) -> None:
    report = bank(tmp_path)
    for text in (shown(report), json.dumps(report.as_dict())):
        assert NOTICE in text
        assert CANARY not in text
        assert "CSL-C205" in text
        assert "CSL-C207" in text
        assert "p1" not in text.replace("p1%", "")


def test_a_declared_size_far_from_the_true_one_is_pointed_out(tmp_path: Path) -> None:
    report = bank(tmp_path)
    assert len(report.advice) == 1
    assert "4 customers would train, 7 are declared" in report.advice[0]
    assert "CSL-C213" in shown(report)
    fitting = check(
        people_node(tmp_path, [person(1), person(2)]), people(), FLAT.model_copy(update={"size": 2}), "study", "contact"
    )
    assert fitting.advice == ()


def test_a_fault_is_reported_and_not_raised(tmp_path: Path) -> None:
    report = bank(tmp_path, columns={"age": {"column": "GONE", "unit": "years"}})
    assert not report.ok
    assert report.learn.refusal is not None
    assert report.learn.refusal["code"] == "CSL-C100"
    assert "GONE" in shown(report)
    assert report.as_dict()["ok"] is False


def test_scoring_that_is_not_mapped_does_not_stop_learning(tmp_path: Path) -> None:
    report = check(people_node(tmp_path, [person(1), person(2)]), people(), FLAT, "study", "contact")
    assert report.ok
    assert report.score.refusal is not None
    assert report.score.refusal["code"] == "CSL-C122"


@pytest.mark.parametrize("kind", KINDS)
def test_a_shop(tmp_path: Path, kind: str) -> None:
    rows = [purchase(f"c{number}", 5 + number) for number in range(20)]
    node = shop_node(tmp_path, [*rows, purchase("c1", -3)], kind)
    holdout = HashHoldout(kind="hash", share=0.5)
    report = check(node, rfm("recency", "gap_mean"), DECLARED, "study", "contact", holdout, b"k" * 32)
    assert report.training is not None
    assert report.held_out is not None
    assert report.training + report.held_out == 20
    assert report.learn.positive == pytest.approx(19 / 20)
    assert report.learn.findings.columns["gap_mean"].missing == 1.0
    assert "left out: no consent" in shown(report)
    without_key = check(node, rfm("recency"), DECLARED.model_copy(update={"size": 10}), "study", "contact", holdout)
    assert without_key.training is None
    assert without_key.advice == (), "half of the 20 are held out, so that the declared 10 fit"


def test_a_label_with_one_outcome_only(tmp_path: Path) -> None:
    report = check(people_node(tmp_path, [person(1), person(3)]), people(), FLAT, "study", "contact")
    assert "CSL-C212" in shown(report)
