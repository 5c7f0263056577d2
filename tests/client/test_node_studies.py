"""`consilience node studies`: each study where it stands, and what was refused, by its code."""

import json

import pytest

from client.unlock import unlock
from federation.command import run
from privacy.ledger import Ledger
from tests.client import vault_home
from tests.client.vault_home import CANARY


@pytest.fixture(scope="module")
def careful(tmp_path_factory):
    """A town in which officers approve everything above epsilon 0.5."""
    town = vault_home.found(tmp_path_factory.mktemp("careful"), automatic=0.5)
    with town.vault() as vault:
        waiting, declined = town.spec(name="waiting"), town.spec(name="declined")
        granted, closed = town.spec(name="granted", epsilon=0.4), town.ranking(name="closed", epsilon=0.3)
        for spec in (waiting, declined, granted, closed):
            vault.answer("query.offer", town.offer(spec))
        vault.answer("train", town.train(granted, 1))
        vault.answer("train", town.train(granted, 2))
        vault.answer("train", town.train(closed, 1))
        vault.answer("evaluate", town.evaluate(closed))
        model = town.weights(closed, 1.0)
        vault.answer("query.model", town.model(closed, model))
        vault.answer("query.receipts", town.receipts(closed, model))
        vault.answer("train", town.train(closed, 2))
        vault.answer("query.secrets", town.hello())
    return town


def studies(town, *more):
    return run(["node", "studies", "--home", str(town.homes["alder"].root), *more])


def rows(town, capsys):
    capsys.readouterr()
    assert studies(town, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_each_study_stands_where_it_stands(careful, capsys):
    found = {row["study"]: row for row in rows(careful, capsys)["studies"]}
    assert set(found) == {"waiting", "declined", "granted", "closed"}
    assert found["waiting"]["status"] == "waiting" and "2 distinct officers" in found["waiting"]["status_words"]
    assert (found["granted"]["status"], found["granted"]["released"], found["granted"]["rounds"]) == ("open", 2, 3)
    assert found["granted"]["epsilon"] == 0.4 and found["granted"]["model"] == "none yet"
    assert (
        found["closed"]["status"] == "closed" and found["closed"]["evaluated"] and found["closed"]["model"] == "in use"
    )


def test_what_was_refused_stands_by_its_code(careful, capsys):
    refused = rows(careful, capsys)["refused"]
    codes = {item["code"] for item in refused}
    assert {"CSL-C528", "CSL-C510", "CSL-C524"} <= codes
    assert [item["last"] for item in refused] == sorted((item["last"] for item in refused), reverse=True)


def test_refusals_that_were_only_counted_are_added_up(careful, capsys):
    home = careful.homes["alder"]
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        moment = ledger.now()
        ledger.refuse_many(12, moment, moment, {"CSL-C510": 7, "CSL-C401": 3})
        ledger.refuse_many(1, moment, moment, {"CSL-C401": 1})
    refused = {(item["code"], item["about"]): item["times"] for item in rows(careful, capsys)["refused"]}
    assert refused["CSL-C510", "counted only"] == 7 and refused["CSL-C401", "counted only"] == 4
    assert refused["other codes", "counted only"] == 2


def test_the_table_names_no_customer_and_says_what_is_wrong_with_the_data(careful, capsys):
    home = careful.homes["alder"]
    rid = careful.spec(name="granted", epsilon=0.4).digest()
    note = home.root / "studies" / f"{rid}.fault.json"
    note.write_text(json.dumps({"fault": "CSL-C103 \x1b[31mage is missing"}))
    try:
        assert studies(careful) == 0
        out = capsys.readouterr().out
        assert "noise alone" in out and "age is missing" in out and "\x1b[31m" not in out and CANARY not in out
        for word in ("waiting", "granted", "closed", "CSL-C510"):
            assert word in out
        note.write_text("nonsense")
        assert "cannot be read" in next(row["fault"] for row in rows(careful, capsys)["studies"] if row["fault"])
    finally:
        note.unlink()


def test_a_node_that_knows_no_study_says_so(careful, capsys):
    assert run(["node", "studies", "--home", str(careful.homes["cedar"].root)]) == 0
    assert "No study is known" in capsys.readouterr().out
