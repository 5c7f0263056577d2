"""`consilience node campaign` at a home with a name list: from the draw to the table, and the ledger before every look."""

import csv
import json
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from client.campaign import store
from client.campaign.draw import CONTROL
from client.config import load_node
from client.placed import Place, Placements
from client.unlock import unlock
from client.withdrawal import register
from federation.command import run
from federation.encoding import sha256_hex
from federation.errors import ExitCode, StorageError
from tests.client.test_node_command import home, looks, town  # noqa: F401 - fixtures
from tests.client.test_node_scores import contactable
from tests.client.vault_home import CANARY

TODAY = datetime.now(UTC).date()
FIRST, LAST, SOLD, COUNTED = ((TODAY + timedelta(days=days)).isoformat() for days in (1, 8, 19, 38))
DAYS = ("--contact-from", FIRST, "--contact-until", LAST, "--outcome-until", COUNTED)
DESIGN = ("--study", "propensity", "--arms", "mail=0.4,call=0.4", "--cost", "mail=0.6,call=4", *DAYS)


def campaign(home, command, *arguments):  # noqa: F811
    return run(["node", "campaign", command, *arguments, "--home", str(home.root)])


def new(home, name="spring", *more):  # noqa: F811
    return campaign(home, "new", name, *DESIGN, "--seed", "a seed", *more)


def members(home, name="spring"):  # noqa: F811
    folder = home.folder(store.FOLDER)
    return store.read_campaign(folder, store.stem_named(folder, name), unlock(home).store)


def back(home, tmp_path, name="spring", **rates):  # noqa: F811
    """A file of outcomes: the first of each arm convert, as many as `rates` say."""
    path = tmp_path / "back.csv"
    seen: dict[str, int] = {}
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("customer", "conversion", "money", "day"))
        found = members(home, name).members
        sizes = {arm: sum(member.arm == arm for member in found) for arm in ("mail", "call", CONTROL)}
        for member in found:
            seen[member.arm] = seen.get(member.arm, 0) + 1
            hit = seen[member.arm] <= rates.get(member.arm, 0.1) * sizes[member.arm]
            writer.writerow((member.customer, "yes" if hit else "no", 30 if hit else 0, SOLD if hit else ""))
    return path


BACK = ("--spend", "money", "--date", "day")


def shown(capsys):
    return json.loads(capsys.readouterr().out)


def test_from_the_draw_to_the_table(home, tmp_path, capsys):  # noqa: F811
    assert new(home, "spring", "--json") == 0
    record = shown(capsys)["campaigns"][0]
    assert record["status"] == "open" and record["members"] == {"mail": 50, "call": 50, "control": 25}
    assert record["source"]["listed_by"].startswith("name list propensity-")
    assert looks(home)[-1][0] == "view" and looks(home)[-1][3] == 125 and sha256_hex(b"a seed") in looks(home)[-1][1]
    found = members(home)
    assert {member.customer for member in found.members} <= contactable()
    assert sum(member.chosen_by == "random" for member in found.members) == 25

    path = back(home, tmp_path, mail=0.7)
    assert campaign(home, "outcomes", "spring", str(path), *BACK, "--json") == 0
    assert shown(capsys)["matched"] == 125
    assert campaign(home, "report", "spring", "--json") == 0
    report = shown(capsys)
    mail = next(effect for effect in report["effects"] if effect["arm"] == "mail")
    assert mail["treated"]["hits"] == 35 and mail["uplift"]["low"] > 0 and report["status"] == "outcomes in"
    assert campaign(home, "report", "spring") == 0
    assert "more conversions than without" in capsys.readouterr().out.replace("\n", " ")
    page = tmp_path / "report.html"
    assert campaign(home, "report", "spring", "--html", str(page)) == 0
    assert page.stat().st_mode & 0o777 == 0o600 and CANARY not in page.read_text()

    assert campaign(home, "table", "spring") == ExitCode.POLICY and "CSL-C788" in capsys.readouterr().err
    assert campaign(home, "close", "spring") == 0
    capsys.readouterr()
    assert campaign(home, "table", "spring", "--json") == 0
    table = shown(capsys)
    rows = pq.read_table(table["file"]).to_pylist()
    assert len(rows) == 125 and {row["arm"] for row in rows} == {"arm_1", "arm_2", "control"}
    assert looks(home)[-1][0] == "export" and looks(home)[-1][3] == 125
    mapped = home.node_file.read_text().replace("contracts:\n", f"contracts:\n{table['mapping']}")
    home.node_file.write_text(mapped)
    assert set(load_node(home.node_file).contracts) == {"shop", "campaign"}
    source = load_node(home.node_file).contracts["campaign"].source
    assert (home.root / source.path).stat().st_mode & 0o777 == 0o600


def test_the_same_seed_draws_the_same_and_a_name_is_drawn_once(home, capsys):  # noqa: F811
    assert new(home) == 0
    first = members(home).members
    assert new(home) == ExitCode.STORAGE and "CSL-C781" in capsys.readouterr().err
    for path in home.folder(store.FOLDER).iterdir():
        path.unlink()
    assert new(home) == 0 and members(home).members == first


def test_another_campaign_with_the_same_customers(home, capsys):  # noqa: F811
    assert new(home) == 0
    assert new(home, "autumn") == ExitCode.POLICY and "CSL-C784" in capsys.readouterr().err
    assert new(home, "autumn", "--allow-overlap", "--leave-out-running") == ExitCode.DOCUMENT
    assert new(home, "winter", "--leave-out-running", "--random-share", "0") == ExitCode.DATA
    assert "CSL-C783" in capsys.readouterr().err  # the whole list is busy
    assert new(home, "autumn", "--allow-overlap", "--json") == 0
    assert shown(capsys)["campaigns"][0]["overlaps"][0]["campaign"] == "spring"
    assert campaign(home, "close", "spring") == ExitCode.POLICY and "CSL-C787" in capsys.readouterr().err
    assert campaign(home, "close", "spring", "--without-outcomes") == 0
    assert campaign(home, "close", "autumn", "--without-outcomes") == 0
    assert new(home, "summer") == 0


def test_outcomes_twice_are_once_and_others_must_be_asked_for(home, tmp_path, capsys):  # noqa: F811
    assert new(home) == 0
    path = back(home, tmp_path, mail=0.7)
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == 0
    before, notes = members(home).record, len(looks(home))
    capsys.readouterr()
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == 0
    assert "in already" in capsys.readouterr().out
    assert members(home).record == before and len(looks(home)) == notes
    path.write_text(path.read_text().replace(",30,", ",31,"))
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == ExitCode.POLICY
    assert "CSL-C796" in capsys.readouterr().err and members(home).record == before
    assert campaign(home, "outcomes", "spring", str(path), *BACK, "--replace") == 0
    assert members(home).outcomes.spend.max() == 31
    assert campaign(home, "close", "spring") == 0 and campaign(home, "close", "spring") == 0
    path.write_text(path.read_text().replace(",31,", ",32,"))
    assert campaign(home, "outcomes", "spring", str(path), *BACK, "--replace") == ExitCode.POLICY
    assert "CSL-C795" in capsys.readouterr().err


def test_outcomes_that_do_not_fit_are_refused_or_left_out(home, tmp_path, capsys):  # noqa: F811
    assert new(home) == 0
    path = back(home, tmp_path, mail=0.7)
    path.write_text(path.read_text() + f"{CANARY}-nobody,yes,1,{SOLD}\n")
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == ExitCode.DATA
    error = capsys.readouterr().err
    assert "CSL-C786" in error and "no members: 1" in error and CANARY not in error
    assert members(home).outcomes is None
    assert campaign(home, "outcomes", "spring", str(path), *BACK, "--leave-out") == 0
    assert members(home).record.outcomes.left_out == {"rows about customers who are no members": 1}
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text("{customer: customer, conversion: conversion, spend: money, date: day, spend_high: 10.0}")
    assert campaign(home, "outcomes", "spring", str(path), "--mapping", str(mapping), "--replace") == ExitCode.DATA
    assert "beyond the bounds" in capsys.readouterr().err
    assert campaign(home, "outcomes", "spring", str(tmp_path / "none.csv")) == ExitCode.DOCUMENT


def test_an_interrupted_writing_is_mended_by_the_same_command(home, tmp_path, capsys, monkeypatch):  # noqa: F811
    assert new(home) == 0
    path = back(home, tmp_path, mail=0.7)

    def full(*arguments, **named):
        raise StorageError("CSL-F301", "The disk is full.", "Free space.")

    with monkeypatch.context() as patch:
        patch.setattr("client.campaign.store.write_record", full)
        assert campaign(home, "outcomes", "spring", str(path), *BACK) == ExitCode.STORAGE
    assert campaign(home, "report", "spring") == ExitCode.INTEGRITY and "CSL-C785" in capsys.readouterr().err
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == 0
    assert campaign(home, "report", "spring") == 0


def test_show_names_those_approached_and_keeps_the_control_group_back(home, tmp_path, capsys):  # noqa: F811
    assert new(home) == 0
    capsys.readouterr()
    assert campaign(home, "show", "spring", "--top", "3", "--json") == 0
    assert len(shown(capsys)["rows"]) == 3 and looks(home)[-1][0::3] == ("view", 3)
    assert campaign(home, "show", "spring") == 0 and CANARY in capsys.readouterr().out
    out = tmp_path / "approach.csv"
    assert campaign(home, "show", "spring", "--out", str(out)) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    held = {member.customer for member in members(home).members if member.arm == CONTROL}
    assert len(rows) == 100 and not held & {row["customer"] for row in rows}
    assert rows[0]["contact_until"] == LAST and out.stat().st_mode & 0o777 == 0o600
    assert looks(home)[-1][0::3] == ("export", 100)
    capsys.readouterr()
    assert campaign(home, "show", "spring", "--out", "-") == 0
    assert capsys.readouterr().out == out.read_bytes().decode() and looks(home)[-1][0::3] == ("export", 100)
    whole = tmp_path / "all.parquet"
    assert campaign(home, "show", "spring", "--with-control", "--out", str(whole)) == 0
    assert held < set(pq.read_table(whole)["customer"].to_pylist())
    assert campaign(home, "list") == 0 and "spring" in capsys.readouterr().out
    assert campaign(home, "show", "autumn") == ExitCode.STORAGE and "CSL-C780" in capsys.readouterr().err


def test_who_withdrew_is_not_drawn_shown_or_counted(home, tmp_path, capsys):  # noqa: F811
    keys = unlock(home)
    early = sorted(contactable())[:5]
    register(home, keys.store, early)
    assert new(home, "spring", "--random-share", "0.1") == 0
    assert not {member.customer for member in members(home).members} & set(early)
    late = members(home).members[0]
    register(home, keys.store, [late.customer])
    capsys.readouterr()
    assert campaign(home, "show", "spring", "--with-control", "--top", "500", "--json") == 0
    assert late.customer not in {row["customer"] for row in shown(capsys)["rows"]}
    path = back(home, tmp_path, mail=0.7)
    assert late.customer in path.read_text()
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == 0
    assert members(home).record.outcomes.left_out == {"rows about customers who withdrew": 1}
    assert late not in members(home).members
    assert campaign(home, "report", "spring", "--json") == 0
    out = capsys.readouterr().out
    groups = json.loads(out[out.index("{") :])["groups"]
    assert sum(group["withdrew"] for group in groups) == 1


def test_who_withdraws_while_the_draw_runs_is_taken_off(home, monkeypatch):  # noqa: F811
    from client.node import campaign as module

    keys, gone = unlock(home), sorted(contactable())[:3]
    real = module.draw_campaign

    def draw(*arguments):
        register(home, keys.store, gone)
        return real(*arguments)

    monkeypatch.setattr(module, "draw_campaign", draw)
    assert new(home) == 0
    assert not {member.customer for member in members(home).members} & set(gone)


def test_what_the_ledger_cannot_note_does_not_happen(home, tmp_path, monkeypatch, capsys):  # noqa: F811
    def full(*arguments, **named):
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    assert new(home) == 0
    path = back(home, tmp_path)
    assert campaign(home, "outcomes", "spring", str(path), *BACK) == 0 and campaign(home, "close", "spring") == 0
    capsys.readouterr()
    monkeypatch.setattr("privacy.ledger.Ledger.access", full)
    assert new(home, "autumn") == ExitCode.STORAGE
    for command in (("report",), ("table",), ("show",), ("show", "--out", str(tmp_path / "a.csv"))):
        assert campaign(home, command[0], "spring", *command[1:]) == ExitCode.STORAGE
    assert CANARY not in capsys.readouterr().out and not (tmp_path / "a.csv").exists()
    assert len(list(home.folder(store.FOLDER).iterdir())) == 2


def test_the_list_may_be_the_head_of_todays_ranking(home, capsys, tmp_path):  # noqa: F811
    segments = tmp_path / "segments.csv"
    ids = sorted(contactable())
    rows = [f"{who},{'loyal' if place % 2 else 'at_risk'}\n" for place, who in enumerate(ids)]
    segments.write_text("customer,segment\n" + "".join(rows))
    assert new(home, "spring", "--top", "40", "--random-share", "0.5", "--segments", str(segments), "--json") == 0
    record = shown(capsys)["campaigns"][0]
    assert "first 40" in record["source"]["listed_by"] and sum(record["members"].values()) == 80
    assert {member.segment for member in members(home).members} == {"loyal", "at_risk"}
    assert record["source"]["placed_by"] == "own table"
    assert {member.decile for member in members(home).members if member.chosen_by == "model"} <= {1, 2, 3, 4}


def test_delivered_rules_place_customers_where_nobody_gives_a_table(home, capsys, monkeypatch):  # noqa: F811
    from client.node import campaign as module

    ids = sorted(contactable())
    placed = {who: Place(("champions", "lost", "unscored")[number % 3]) for number, who in enumerate(ids)}
    monkeypatch.setattr(module, "standing", lambda *given: Placements(placed=placed, placed_by="report july"))
    assert new(home, "spring", "--json") == 0
    assert shown(capsys)["campaigns"][0]["source"]["placed_by"] == "report july"
    assert {member.segment for member in members(home).members} == {"champions", "lost", "other"}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (("--arms", "mail=0.999", "--cost", "1"), "CSL-C782"),
        (("--arms", "control=0.5", "--cost", "1"), "CSL-C782"),
        (("--arms", "Mail=0.5", "--cost", "1"), "CSL-C782"),
        (("--cost", "nan"), "CSL-C782"),
        (("--contact-until", TODAY.isoformat()), "CSL-C782"),
        (("--contact-from", (TODAY - timedelta(days=1)).isoformat()), "CSL-C797"),
        (("--contact-from", "soon"), "CSL-C792"),
        (("--seed", ""), None),
    ],
)
def test_designs_that_do_not_fit_draw_nothing(home, capsys, change, code):  # noqa: F811
    found = campaign(home, "new", "spring", *DESIGN, *change)
    error = capsys.readouterr().err
    assert (found == ExitCode.OK) if code is None else (found == ExitCode.DOCUMENT and code in error)


def test_a_list_by_another_model_or_none_is_said(home, capsys, monkeypatch):  # noqa: F811
    from client.node import campaign as module

    real = module.adopted

    def adopted(*arguments):
        study, decision = real(*arguments)
        return study, decision.model_copy(update={"model": "0" * 64})

    with monkeypatch.context() as patch:
        patch.setattr(module, "adopted", adopted)
        assert new(home) == ExitCode.DATA and "CSL-C789" in capsys.readouterr().err
    for path in home.folder("lists").iterdir():
        path.unlink()
    assert new(home) == ExitCode.STORAGE and "CSL-C613" in capsys.readouterr().err


def test_only_analysts_may(home, capsys):  # noqa: F811
    home.roles_file.write_text("officers: [somebody_else]\n")
    home.roles_file.chmod(0o600)
    assert campaign(home, "list") == ExitCode.POLICY and "CSL-C542" in capsys.readouterr().err
