"""`consilience node actions` and `node strategy check`: noted in the ledger first, only who may be contacted, by the home's own map."""

import csv
import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from scipy.special import logit

from client.reports import Reports
from client.unlock import unlock
from client.withdrawal import register
from federation.command import run
from federation.errors import ExitCode, StorageError
from tests.client import vault_home
from tests.client.test_node_command import home, looks, node, town  # noqa: F401 - fixtures
from tests.client.test_node_scores import contactable
from tests.client.test_node_segments import MIDDLE, OLD, YOUNG, ages, segmented, staged
from tests.client.test_segments import report
from tests.client.vault_home import CANARY

MAPS = Path(__file__).parents[2] / "configs" / "strategies"
STUDY = ("--study", "propensity")


def install(home):  # noqa: F811
    (home.root / "strategies").mkdir(exist_ok=True)
    text = (MAPS / "bank.yaml").read_text().replace("contract: bank_campaign", "contract: shop")
    # the town's weights are drawn anew each time: by deciles every band is there
    text = text.replace("kind: probability", "kind: decile")
    text = text.replace("at_least: {high: 0.4, medium: 0.15, low: 0.0}", "up_to: {high: 2, medium: 6, low: 10}")
    (home.root / "strategies" / "shop.yaml").write_text(text)


def table(tmp_path, lines):
    path = tmp_path / "placed.csv"
    path.write_text("customer,segment,stage,value\n" + "".join(f"{line}\n" for line in lines))
    return path


def asked(home, capsys, *more):  # noqa: F811
    capsys.readouterr()
    assert node(home, "actions", *STUDY, "--json", *more) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def later(monkeypatch):
    """Play a scoring some days after the study's end."""

    def go(days):
        monkeypatch.setattr("client.node.scores._now", lambda: datetime.now(UTC) + timedelta(days=days))

    return go


def test_everybody_who_may_be_contacted_has_a_line_and_nobody_else(home, tmp_path, capsys):  # noqa: F811
    install(home)
    out = tmp_path / "actions.csv"
    assert node(home, "actions", *STUDY, "--out", str(out)) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["customer"] for row in rows} == contactable() and out.stat().st_mode & 0o077 == 0
    assert all((row["product"] == "") == (row["band"] == "low") == (int(row["decile"]) > 6) for row in rows)
    assert {row["band"] for row in rows} == {"high", "medium", "low"}
    assert looks(home) == [("export", looks(home)[0][1], "analyst", len(rows))]
    assert looks(home)[0][1].startswith("next actions of study propensity, model ")
    assert "customers with their next actions" in capsys.readouterr().out


def test_the_scores_are_those_of_node_scores(home, capsys):  # noqa: F811
    found = asked(home, capsys, "--top", "5")
    assert node(home, "scores", *STUDY, "--top", "5", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["customer"], row["score"], row["reason_1"]) for row in found["rows"]] == [
        (row["customer"], row["score"], row["reason_1"]) for row in scores
    ]


def test_own_segments_and_worth_decide(home, tmp_path, capsys):  # noqa: F811
    install(home)
    people = sorted(contactable())
    placed = table(
        tmp_path, [f"{people[0]},champions,active,100", f"{people[1]},odd,active,", f"{people[2]},lost,new,5"]
    )
    found = asked(home, capsys, "--placed", str(placed), "--by", "value", "--top", "3")
    assert [row["customer"] for row in found["rows"]][:2] == [people[0], people[2]]
    first = found["rows"][0]
    assert first["value_at_risk"] == pytest.approx(100 * first["score"]) and (first["segment"], first["tier"]) == (
        "champions",
        "A",
    )
    summary = found["summary"]
    assert summary["placed"] == 3 and summary["unknown_place"] == 1 and summary["without_value"] == len(people) - 2
    monkey = SimpleNamespace(buffer=io.BytesIO(placed.read_bytes()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", monkey)
        assert asked(home, capsys, "--placed", "-", "--by", "value", "--top", "3")["rows"] == found["rows"]


def test_delivered_reports_place_customers(home, capsys):  # noqa: F811
    install(home)
    file = home.root / "strategies" / "shop.yaml"
    text = file.read_text().replace("champions", OLD).replace("stages: [new,", "stages: [farming, new,")
    file.write_text(text.replace("segments: [", f"segments: [{YOUNG}, {MIDDLE}, "))
    before = asked(home, capsys)["summary"]
    assert before["placed_by"] is None and before["placed"] == 0
    Reports(home.folder("reports")).keep(report(segmented(), staged(), contract="shop"))
    found = asked(home, capsys, "--top", "400")
    assert found["summary"]["placed_by"] == "report segments" and found["summary"]["unknown_place"] == 0
    age = ages()
    for row in found["rows"]:
        own = age[row["customer"]]
        assert row["segment"] == (OLD if own >= 70 else MIDDLE if own >= 30 else YOUNG) and row["stage"]
        assert (row["product"] == "deposit_long") == (row["segment"] == OLD and row["band"] == "high")
    assert {group["name"] for group in found["summary"]["stages"]} == {"farming", "other"}


def test_one_channel_at_a_time(home, tmp_path, capsys):  # noqa: F811
    install(home)
    out = tmp_path / "app.parquet"
    assert node(home, "actions", *STUDY, "--channel", "app", "--out", str(out)) == 0
    rows = pq.read_table(out).to_pylist()
    assert rows and {row["channel"] for row in rows} == {"app"} and looks(home)[-1][3] == len(rows) < len(contactable())


def test_the_sums_alone_name_nobody(home, tmp_path):  # noqa: F811
    install(home)
    out = tmp_path / "sums.json"
    assert node(home, "actions", *STUDY, "--out", str(out)) == 0
    assert CANARY not in out.read_text() and json.loads(out.read_text())["customers"] == len(contactable())
    assert looks(home)[-1][0] == "export" and looks(home)[-1][3] == 0


def test_a_pipe_gets_the_same_table(home, tmp_path, capsysbinary):  # noqa: F811
    out = tmp_path / "a.csv"
    assert node(home, "actions", *STUDY, "--out", str(out)) == 0
    capsysbinary.readouterr()
    assert node(home, "actions", *STUDY, "--out", "-") == 0
    assert capsysbinary.readouterr().out == out.read_bytes()


def test_without_a_map_nobody_has_an_action_and_that_is_said(home, capsys):  # noqa: F811
    assert node(home, "actions", *STUDY, "--top", "1") == 0
    shown = capsys.readouterr().out
    assert "no strategy map" in shown and "nothing" in shown and "nothing to compare" in shown
    assert asked(home, capsys)["summary"]["with_action"] == 0


def test_what_changed_is_shown_the_next_time(home, capsys, later):  # noqa: F811
    before = {row["customer"]: row["score"] for row in asked(home, capsys, "--top", "400")["rows"]}
    frame = vault_home.customers("alder")
    older = frame["customer"].isin(sorted(contactable())[:20])
    frame.loc[older, "years"] = (frame.loc[older, "years"] + 25).clip(18, 90)
    vault_home.write_csv(home, "customers.csv", frame)
    later(7)
    found = asked(home, capsys, "--top", "400")
    assert found["compared"]["same_model"] and found["compared"]["matched"] == len(contactable())
    for row in found["rows"]:
        assert row["score_before"] == before[row["customer"]]
        change = abs(logit(row["score"]) - logit(row["score_before"]))
        assert abs(change - 0.005) < 1e-3 or (change > 0.005) == ("Age: now" in row["risen"] + row["fallen"])
        assert change < 1e-3 or row["customer"] in set(frame["customer"][older])
    again = asked(home, capsys, "--top", "400")
    assert again["rows"] == found["rows"]  # the same day again is held against the same scoring
    assert node(home, "actions", *STUDY, "--top", "2") == 0
    assert "moved up" in capsys.readouterr().out
    assert node(home, "scores", *STUDY, "--top", "2") == 0
    assert "before" in capsys.readouterr().out
    assert asked(home, capsys, "--since", "2020-01-01")["compared"] is None


def test_who_withdrew_is_in_no_line_and_no_sum(home, capsys, later):  # noqa: F811
    gone = sorted(contactable())[:7]
    register(home, unlock(home).store, gone)
    later(1)
    found = asked(home, capsys, "--top", "400")
    assert {row["customer"] for row in found["rows"]} == contactable() - set(gone)
    assert found["summary"]["customers"] == len(contactable()) - 7
    assert found["compared"]["gone"] == 0  # nor in the scoring that it is held against


def test_what_the_ledger_cannot_note_is_not_shown(home, tmp_path, monkeypatch, capsys):  # noqa: F811
    def full(*arguments, **named):
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    monkeypatch.setattr("client.node.actions.Ledger.access", full)
    out = tmp_path / "a.csv"
    for more in ((), ("--json",), ("--out", str(out)), ("--out", "-")):
        assert node(home, "actions", *STUDY, *more) == ExitCode.STORAGE
    assert CANARY not in capsys.readouterr().out and not out.exists()


def test_what_is_wrong_is_said_before_anything_is_scored(home, tmp_path, capsys):  # noqa: F811
    def refused(code, exit_code, *more):
        assert node(home, "actions", *STUDY, *more) == exit_code
        assert code in capsys.readouterr().err

    placed = table(tmp_path, ["a," + "x" * 65 + ",,"])
    refused("CSL-C766", ExitCode.DOCUMENT, "--placed", str(placed))
    refused("CSL-C767", ExitCode.DOCUMENT, "--placed", str(tmp_path / "none.csv"))
    refused("CSL-C554", ExitCode.DOCUMENT, "--out", str(tmp_path / "a.txt"))
    refused("CSL-C553", ExitCode.STORAGE, "--out", str(placed.rename(tmp_path / "mine.csv")))
    install(home)
    file = home.root / "strategies" / "shop.yaml"
    file.write_text(
        file.read_text().replace("default: nothing", "default: {product: car, channel: app, message: start_small}")
    )
    refused("CSL-C763", ExitCode.DOCUMENT)
    file.write_bytes((MAPS / "shop.yaml").read_bytes())
    refused("CSL-C764", ExitCode.DOCUMENT)
    assert looks(home) == []


def test_only_analysts_may(home, capsys):  # noqa: F811
    home.roles_file.write_text("operators: [somebody_else]\n")
    home.roles_file.chmod(0o600)
    assert node(home, "actions", *STUDY) == ExitCode.POLICY
    assert "CSL-C542" in capsys.readouterr().err


def test_a_map_is_looked_through_without_a_home(tmp_path, capsys):
    assert run(["node", "strategy", "check", str(MAPS / "shop.yaml")]) == 0
    shown = capsys.readouterr().out
    assert "band low: nothing" in shown and "Note: Rules 1 and 3" in shown and "default" in shown
    assert run(["node", "strategy", "check", str(MAPS / "bank.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] and sum(found["decides"]) == found["cells"]
    broken = tmp_path / "broken.yaml"
    broken.write_text(
        (MAPS / "bank.yaml").read_text().replace("default: nothing", "default: {product: a, channel: b, message: c}")
    )
    assert run(["node", "strategy", "check", str(broken)]) == ExitCode.DOCUMENT
    captured = capsys.readouterr()
    assert "Fault: The default: the map has no product a." in captured.out and "CSL-C768" in captured.err
    assert run(["node", "strategy", "check", str(tmp_path / "none.yaml")]) == ExitCode.DOCUMENT
    assert "CSL-F103" in capsys.readouterr().err


def test_a_withdrawal_reaches_the_kept_scorings_at_once(home, tmp_path):  # noqa: F811
    from client import scorings

    gone = sorted(contactable())[:3]
    path = tmp_path / "gone.txt"
    path.write_text("\n".join(gone))
    (kept,) = scorings.files(home)
    store = unlock(home).store
    before = len(scorings._read(kept, store).tags)
    arguments = ["officer", "withdraw", "--home", str(home.root), "--customers", str(path), "--reason", "Asked"]
    assert run(arguments) == 0
    assert len(scorings._read(kept, store).tags) == before - 3
