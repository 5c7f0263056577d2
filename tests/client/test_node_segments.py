"""`consilience node segments`: own customers in the federation's segments, noted in the ledger before anything is shown."""

import csv
import json

import numpy as np
import pytest

from client.placed import read_placements
from client.reports import Reports
from client.unlock import unlock
from client.withdrawal import register
from federation.answers import Answer, AnswerTable, Row
from federation.command import run
from federation.errors import ExitCode, StorageError
from federation.measures import Condition, Rule
from federation.segments import Thresholds, rules_table, thresholds_table
from tests.client.test_node_command import home, looks, node, town  # noqa: F401 - fixtures
from tests.client.test_node_scores import NoPolicy, contactable
from tests.client.test_segments import report
from tests.client.vault_home import CANARY, customers

YOUNG, MIDDLE, OLD = "young", "middle", "old"
CUTS = (30.0, 40.0, 50.0, 70.0)
SEGMENTS = (
    Rule(name=OLD, where=(Condition(column="f", ge=5.0),)),
    Rule(name=MIDDLE, where=(Condition(column="f", ge=2.0),)),
    Rule(name=YOUNG, where=()),
)
STAGES = (Rule(name="farming", where=(Condition(column="job", any_of=("farmer",)),)),)


def shares(rows, *key):
    lines = tuple(Row(key=(name, *key), value=value, low=value - 0.01, high=value + 0.01) for name, value in rows)
    return AnswerTable(name="shares", title="Shares", unit="share", rows=lines)


def segmented():
    """A report by age alone: the town's contract has no other number."""
    thresholds = thresholds_table(Thresholds(("age",) * 3, (CUTS,) * 3), (CUTS,) * 3, (CUTS,) * 3, "Thresholds")
    tables = (
        thresholds,
        shares([(YOUNG, 0.2), (MIDDLE, 0.5), (OLD, 0.25), ("unscored", 0.05)]),
        rules_table(SEGMENTS, "Rules"),
    )
    return Answer(id="rfm", kind="rfm", title="Segments", tables=tables)


def staged():
    return Answer(
        id="life",
        kind="lifecycle",
        title="Stages",
        tables=(shares([("farming", 1.0 - 0.01)], "end"), rules_table(STAGES, "Rules")),
    )


@pytest.fixture
def told(home):  # noqa: F811
    reports = Reports(home.folder("reports"))
    reports.keep(report(segmented(), staged(), contract="shop"))
    return home


def ages(member="alder"):
    frame = customers(member).set_index("customer")
    return {name: int(frame.loc[name, "years"]) for name in contactable(member)}


def written(home, tmp_path):  # noqa: F811
    out = tmp_path / "segments.csv"
    assert node(home, "segments", "--out", str(out)) == 0
    assert out.stat().st_mode & 0o077 == 0
    return list(csv.DictReader(out.read_text().splitlines()))


def test_everybody_who_agreed_to_be_contacted_is_placed_and_nobody_else(told, tmp_path, capsys):
    rows = written(told, tmp_path)
    found = ages()
    assert {row["customer"] for row in rows} == set(found)
    for row in rows:
        age = found[row["customer"]]
        assert row["segment"] == (OLD if age >= 70 else MIDDLE if age >= 30 else YOUNG)
        assert int(row["f"]) == 1 + sum(age >= cut for cut in CUTS) and int(row["r"]) == 6 - int(row["f"])
        assert float(row["monetary"]) == min(age, 90)
        assert row["stage"] in ("farming", "other")
    assert looks(told) == [("export", "segments by segments", "analyst", len(rows))]
    assert CANARY not in capsys.readouterr().out
    # the table of next actions reads the same file
    placed = read_placements((tmp_path / "segments.csv").read_bytes()).placed
    assert {name: place.segment for name, place in placed.items()} == {row["customer"]: row["segment"] for row in rows}


def test_sizes_and_worth_stand_beside_the_federations_share(told, capsys):
    assert node(told, "segments", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    found = np.array(list(ages().values()))
    assert shown["customers"] == len(found) and shown["reports"][0]["name"] == "segments"
    groups = {group["name"]: group for group in shown["segments"]}
    assert groups[OLD]["customers"] == np.count_nonzero(found >= 70) and groups[OLD]["elsewhere"] == 0.25
    assert groups[OLD]["total"] == found[found >= 70].sum() and groups["unscored"]["worth"] is None
    assert [group["name"] for group in shown["stages"]] == ["farming", "other"]
    assert shown["stages"][1]["elsewhere"] is None
    assert looks(told)[-1][0] == "view" and looks(told)[-1][3] == len(found)
    assert node(told, "segments", "--contract", "shop") == 0
    printed = capsys.readouterr().out
    assert OLD in printed and "farming" in printed and "25.0%" in printed and CANARY not in printed


def test_the_newest_report_of_each_kind_counts(told, capsys):
    later = Reports(told.folder("reports"), clock=lambda: 4e9)
    later.keep(report(staged(), contract="shop", study="1" * 64))
    later.keep(report(contract="shop", study="2" * 64))
    assert node(told, "segments", "--json") == 0
    assert [item["study"] for item in json.loads(capsys.readouterr().out)["reports"]] == ["0" * 64, "1" * 64]


def test_who_withdrew_or_withdraws_meanwhile_is_not_placed(told, tmp_path, monkeypatch):
    from client.node import segments as module

    keys = unlock(told)
    gone = sorted(contactable())
    register(told, keys.store, gone[:5])
    real = module.place

    def place(*arguments):
        register(told, keys.store, gone[5:7])
        return real(*arguments)

    monkeypatch.setattr(module, "place", place)
    assert {row["customer"] for row in written(told, tmp_path)} == set(gone[7:])


def test_a_pipe_and_what_a_spreadsheet_might_take_for_a_formula(told, capfdbinary):
    assert node(told, "segments", "--out", "-") == 0
    lines = capfdbinary.readouterr().out.decode().splitlines()
    assert len(lines) == 1 + len(contactable()) and lines[0].startswith('"customer","segment","stage"')


def test_what_the_ledger_cannot_note_is_not_shown(told, tmp_path, monkeypatch, capsys):
    def full(*arguments, **named):
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    monkeypatch.setattr("client.node.segments.Ledger.access", full)
    assert node(told, "segments") == ExitCode.STORAGE
    assert node(told, "segments", "--out", str(tmp_path / "a.csv")) == ExitCode.STORAGE
    assert OLD not in capsys.readouterr().out and not (tmp_path / "a.csv").exists()


def test_what_is_wrong_is_said_before_anybody_is_placed(home, tmp_path, monkeypatch, capsys):  # noqa: F811
    assert node(home, "segments") == ExitCode.STORAGE
    assert "CSL-C800" in capsys.readouterr().err
    Reports(home.folder("reports")).keep(report(segmented(), contract="shop"))
    assert node(home, "segments", "--contract", "rfm") == ExitCode.STORAGE
    assert "CSL-C800" in capsys.readouterr().err
    assert node(home, "segments", "--out", str(tmp_path / "a.json")) == ExitCode.DOCUMENT
    (tmp_path / "a.csv").write_text("mine")
    assert node(home, "segments", "--out", str(tmp_path / "a.csv")) == ExitCode.STORAGE
    assert (tmp_path / "a.csv").read_text() == "mine" and looks(home) == []
    monkeypatch.setattr("client.node.segments.open_reader", lambda place: NoPolicy())
    assert node(home, "segments") == ExitCode.POLICY
    assert "CSL-C431" in capsys.readouterr().err and looks(home) == []


def test_only_analysts_may(told, capsys):
    told.roles_file.write_text("officers: [somebody_else]\n")
    told.roles_file.chmod(0o600)
    assert run(["node", "segments", "--home", str(told.root)]) == ExitCode.POLICY
    assert "CSL-C542" in capsys.readouterr().err
