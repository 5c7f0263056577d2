"""`consilience node studies` says where a secure study stands, and on which terms."""

import json

import pytest

from federation.command import run
from tests.client.secure.town import MEMBERS


@pytest.fixture
def listed(capsys):
    """The row of a federation's secure study by `--json`, and what is printed for a person."""

    def found(federation):
        home = str(federation.town.homes["alder"].root)
        capsys.readouterr()
        assert run(["node", "studies", "--home", home, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)["studies"]
        assert run(["node", "studies", "--home", home]) == 0
        row = next(row for row in rows if row["rid"] == federation.rid)
        return row["secure"], " ".join(capsys.readouterr().out.split())

    return found


def test_terms_and_both_epsilons_are_named(granted, listed):
    row, text = listed(granted)
    assert (row["aggregation"], row["noise"], row["n_min"], row["c"]) == ("secure", "shared", 3, 0)
    assert set(row["epsilon_if_broken"]) == {"training", "holdout"}
    assert all(value > 2.0 for value in row["epsilon_if_broken"].values())
    assert (row["set_up"], row["sum"]) == ("not begun", None)
    assert "shared noise" in text and "if the masks broke" in text and "set-up: not begun" in text


def test_the_set_up_is_followed(granted, listed):
    keys = granted.keys()
    assert listed(granted)[0]["set_up"] == "keys made"
    sent = granted.exchanges(keys)
    row, text = listed(granted)
    assert (row["set_up"], row["participants"]) == ("keys sent", list(MEMBERS))
    assert "set-up among 5 institutions: keys sent" in text
    granted.ask("alder", "query.epoch_exchanges", granted.epoch_exchanges(sent, "alder"))
    assert listed(granted)[0]["set_up"] == "done"
    granted.set_up(MEMBERS[:4], attempt=2)
    row, text = listed(granted)
    assert (row["attempt"], row["participants"]) == (2, list(MEMBERS[:4])) and "done, attempt 2" in text


def test_the_calls_of_a_sum_are_followed(agreed, listed):
    ready = agreed.ready(1)
    row, text = listed(agreed)
    assert row["sum"] == {"number": 1, "of": 4, "stage": "ready", "attempt": 1} and "sum 1 of 4: ready" in text
    masked = agreed.masked(1, ready)
    assert listed(agreed)[0]["sum"]["stage"] == "masked"
    acks = agreed.acknowledged(1, masked)
    assert listed(agreed)[0]["sum"]["stage"] == "acknowledged"
    agreed.revealed(1, acks)
    assert listed(agreed)[0]["sum"]["stage"] == "opened"
    agreed.ready(2, attempt=3)
    row, text = listed(agreed)
    assert (
        row["sum"] == {"number": 2, "of": 4, "stage": "ready", "attempt": 3} and "sum 2 of 4: ready, attempt 3" in text
    )


def test_a_closed_study_says_that_its_keys_are_gone(agreed, listed):
    agreed.stop("alder")
    with agreed.town.ledger() as ledger:
        ledger.close(agreed.rid, "stopped")
    agreed.vault("alder")
    assert "keys of its sums are erased" in listed(agreed)[1]


def test_node_status_says_it_too(agreed, capsys):
    agreed.ready(2, attempt=3)
    home = str(agreed.town.homes["alder"].root)

    def printed():
        capsys.readouterr()
        assert run(["node", "status", "--home", home]) == 0
        return " ".join(capsys.readouterr().out.split())

    text = printed()
    assert f"propensity {agreed.rid[:12]} adds up in secret (shared noise)" in text
    assert "if the masks broke" in text and text.endswith("sum 2 of 4: ready, attempt 3")
    agreed.stop("alder")
    with agreed.town.ledger() as ledger:
        ledger.close(agreed.rid, "stopped")
    agreed.vault("alder")
    assert printed().endswith("closed: the keys of its sums are erased")


def test_a_plain_study_has_no_such_row(granted, capsys):
    town, plain = granted.town, granted.town.spec(name="plain", epsilon=0.3)
    granted.ask("alder", "query.offer", town.offer(plain))
    assert run(["node", "studies", "--home", str(town.homes["alder"].root), "--json"]) == 0
    rows = {row["study"]: row for row in json.loads(capsys.readouterr().out)["studies"]}
    assert rows["plain"]["secure"] is None and rows["propensity"]["secure"] is not None
    assert run(["node", "status", "--home", str(town.homes["alder"].root)]) == 0
    text = capsys.readouterr().out
    assert text.count("adds up in secret") == 1 and f"propensity {granted.rid[:12]}" in text
    assert f"plain {plain.digest()[:12]}" not in text
