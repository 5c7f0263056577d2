"""A statistics study by real processes: counted in secret, killed in the middle, and its report in every vault."""

import json
import os
from pathlib import Path

import pytest

from client.reports import Reports
from federation.answers import StatisticsReport
from simulations.institutions import write_yaml
from tests.client.statistics.town import RULE, draft
from tests.client.vault_home import MEMBERS
from tests.e2e.deployed import Deployed, deployed, wait_for
from tests.e2e.killing import rounds_answered, study_pid

pytestmark = pytest.mark.e2e
NAME, ROUNDS = "people", 3
CUSTOMERS = len(MEMBERS) * 360
"""Nine of ten of each member's 400 agreed to profiling."""
QUERIES = [
    {"id": "customers", "kind": "count", "by": [{"column": "job"}]},
    {"id": "why", "kind": "tree", "of": ["age", "job"], "label": "bought", "depth": ROUNDS - 1, "smallest_leaf": 50},
]
SECURE = {"n_min": 3, "c": 0, "noise": ["local", "shared"]}


@pytest.fixture
def federation(tmp_path: Path):
    with deployed(tmp_path) as found:
        for member in MEMBERS:
            found.town.change(member, statistics=[RULE], secure=SECURE)
        found.start_all()
        yield found


def ask(federation: Deployed) -> None:
    """Preview a study, and start it, by the commands that people type."""
    asked = draft(
        name=NAME,
        aggregation="secure",
        noise="shared",
        n_min=3,
        c=0,
        min_partners=3,
        epsilon=1.0,
        deadline_seconds=60.0,
        queries=QUERIES,
    )
    file = federation.root / f"{NAME}.yaml"
    write_yaml(file, asked, asked.title)
    shown = json.loads(federation.coordinator("query", str(file), "--dry-run", "--json").stdout)
    assert (shown["rounds"], sorted(shown["members"])) == (ROUNDS, sorted(MEMBERS))
    assert federation.events(NAME) == []
    federation.coordinator("query", str(file), "--start")


def test_a_killed_study_goes_on_and_its_report_is_in_every_vault(federation):
    ask(federation)
    federation.wait_event(NAME, "RoundDone")
    os.kill(study_pid(federation), 9)
    federation.wait_finished(NAME)

    assert rounds_answered(federation, NAME) == {number: MEMBERS for number in range(1, ROUNDS + 1)}
    (resumed,) = [item for item in federation.events(NAME) if item["event"] == "Resumed"]
    assert 1 <= resumed["after_round"] < ROUNDS
    (listed,) = json.loads(federation.coordinator("reports", "--json").stdout)
    assert (listed["answers"], listed["members"]) == (len(QUERIES), list(MEMBERS))
    report = StatisticsReport.model_validate_json(federation.coordinator("reports", NAME, "--json").stdout)
    assert (report.aggregation, report.rounds) == ("secure", ROUNDS)
    rows = report.answer("customers").tables[0].rows
    half = max((row.high or 0.0) - (row.low or 0.0) for row in rows) / 2
    assert 0 < half < CUSTOMERS / 4
    assert abs(sum(row.value or 0.0 for row in rows) - CUSTOMERS) < 4 * half
    for member in MEMBERS:
        assert Reports(federation.town.homes[member].folder("reports")).newest("shop", "tree").report == report
        wait_for(lambda member=member: federation.kinds(member).count("close") == 1, f"{member} closed it")
        kinds = federation.kinds(member)
        assert (kinds.count("reserve"), kinds.count("release")) == (1, 2 * ROUNDS), (
            "each sum was opened and paid for once"
        )
