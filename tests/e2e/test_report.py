"""The marketing report, whole: three federations, three studies, one page."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from federation.answers import StatisticsReport
from simulations.catalogue import CATALOGUE
from simulations.command import app
from simulations.fetch import default_cache, present

pytestmark = pytest.mark.e2e

QUERIES = {"value": 12, "banks": 7, "campaign": 1}
MEMBERS = {"value": 4, "banks": 8, "campaign": 4}


def test_the_report_asks_everything_and_says_what_it_cost(tmp_path: Path) -> None:
    if not all(present(default_cache(), item) for item in CATALOGUE):
        pytest.skip("the public data are not fetched: run `consilience data fetch`")
    out = tmp_path / "report"
    done = CliRunner().invoke(app, ["report", "--out", str(out), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert {name: len(part["report"]["answers"]) for name, part in result["parts"].items()} == QUERIES
    assert {name: len(part["accounts"]) for name, part in result["parts"].items()} == MEMBERS
    for name, part in result["parts"].items():
        report = StatisticsReport.model_validate_json(json.dumps(part["report"]))
        assert report.aggregation == "secure" and len(report.members) == MEMBERS[name]
        assert [item["id"] for item in part["exact_seen_by_no_party"]] == [item.id for item in report.answers]
        for account in part["accounts"]:
            for spent in (account["training"], account["holdout"]):
                assert 0.9 * account["granted"] < spent <= account["granted"] * (1 + 1e-9)
        assert all((out / file).is_file() for file in part["files"])
    # Intervals of one answer move together: over runs about 95% hold, in one run hardly ever fewer than 8 in 10.
    assert result["intervals"]["noise"]["held"] >= 0.8 * result["intervals"]["noise"]["of"] > 200
    page = (out / "report.html").read_text()
    assert "SIMULATED OUTCOMES" in page and "seen by no party" in page and "<script" not in page
