"""Officers decide: what they see is what was signed, what they sign is its digest, and four eyes are two people's."""

import json
import os
import pwd

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.inbox import Inbox
from federation.errors import ConsilienceError
from federation.signing import sign
from federation.study import CONTEXT
from privacy.keys import create_identity
from tests.client.officer_desk import PASSPHRASE, run, sealed_key, wait
from tests.client.vault_home import found


@pytest.fixture
def town(tmp_path):
    return found(tmp_path / "town", automatic=0.0)


@pytest.fixture
def at(town):
    return "--home", town.homes["alder"].root


def decide(word, town, tmp_path, at, study, which=0, *more):
    return run(word, study, "--reason", "Looked at it", *sealed_key(town, tmp_path, which), *at, "--yes", *more)


def test_the_inbox_says_who_asks_for_what_and_what_is_missing(town, at):
    assert "No study waits" in run("inbox", *at) and json.loads(run("inbox", *at, "--json")) == []
    study = wait(town, town.spec(epsilon=1.0))
    (row,) = json.loads(run("inbox", *at, "--json"))
    assert (row["study"], row["digest"], row["epsilon"]) == ("propensity", study.rid, 1.0)
    assert row["since"] == "2023-11-14 22:13:20" and row["status"] == "waiting"
    output = run("inbox", *at)
    for part in ("propensity", study.rid[:12], "marketing.propensity", "2 distinct officers' decisions"):
        assert part in output


def test_show_tells_everything_of_a_study_that_waits(town, at):
    wait(town, town.spec(epsilon=1.0))
    output = run("show", "propensity", *at, width=100)
    for part in (
        "Who may buy",
        "agreed to profiling",
        "Age; from 18 years to 90 years",
        "one of clerk, farmer",
        "Has a loan; yes or no (may be missing)",
        "alder (400 customers declared)",
        "at least 3 of them",
        "additive",
        "3 rounds",
        "25% of customers by keyed hash",
        "every record",
        "2 distinct officers",
        "noisy counts of held-out customers",
    ):
        assert part in " ".join(output.split()), part
    facts = json.loads(run("show", "propensity", *at, "--json"))
    assert [row["account"] for row in facts["outlook"]["budgets"]] == ["training", "training", "holdout", "holdout"]
    for row in facts["outlook"]["budgets"]:
        assert row["before_epsilon"] == 0 < row["after_epsilon"] <= 1.0 and row["fits"]
        assert row["left_epsilon"] < row["allowed_epsilon"]


def test_what_show_says_it_costs_is_what_the_vault_reserves(town, at, tmp_path):
    spec = town.spec(epsilon=1.0)
    wait(town, spec)
    facts = json.loads(run("show", "propensity", *at, "--json"))
    town.approve(spec)
    town.grant(town.vault(), spec)
    with town.ledger() as ledger:
        held = ledger.reservation(spec.digest())
    assert {charge.account: charge.cost.model_dump() for charge in held.data.charges} == facts["outlook"]["costs"]
    granted = json.loads(run("show", "propensity", *at, "--json"))
    assert granted["status"] == "open" and granted["granted"]["accounts"][0]["releases_allowed"] == 3
    assert [item["officer"] for item in granted["decisions"]] == ["first", "second"]
    assert "0 of 3 releases left the house" in run("show", spec.digest()[:8], *at)


def test_four_eyes_then_the_next_offer_is_granted(town, at, tmp_path):
    spec = town.spec(epsilon=1.0)
    wait(town, spec)
    output = decide("approve", town, tmp_path, at, "propensity")
    assert "first approved propensity" in output and "Still missing: one officer's decision" in output
    with pytest.raises(ConsilienceError, match="CSL-P313"):
        decide("approve", town, tmp_path, at, "propensity")
    value = json.loads(decide("approve", town, tmp_path, at, spec.digest()[:10], 1, "--json"))
    assert (value["officer"], value["status"], value["missing"], value["fits"]) == ("second", "approved", 0, True)
    assert json.loads(run("inbox", *at, "--json"))[0]["status"] == "approved"
    assert town.grant(town.vault(), spec).epsilon == 1.0


def test_one_officer_declines_and_the_study_is_put_aside(town, at, tmp_path):
    spec = town.spec(epsilon=1.0)
    wait(town, spec)
    decide("approve", town, tmp_path, at, "propensity")
    assert "every offer of it is refused" in decide("decline", town, tmp_path, at, "propensity", 1)
    assert run("inbox", *at).startswith("No study") and Inbox(town.homes["alder"].root / "inbox").declined()
    assert "declined" in run("show", "propensity", *at)
    with town.ledger() as ledger:
        assert [item.statement.decision for item in ledger.decisions(spec.digest())] == ["approve", "decline"]


def test_a_study_that_changed_is_another_study(town, at, tmp_path):
    study = wait(town, town.spec(epsilon=1.0))
    other = town.spec(epsilon=1.5)
    forged = study.model_copy(update={"spec": other})
    folder = town.homes["alder"].root / "inbox"
    (folder / f"{study.rid}.json").write_bytes(forged.canonical())
    with pytest.raises(ConsilienceError, match="CSL-C654"):
        decide("approve", town, tmp_path, at, "propensity")
    (folder / f"{study.rid}.json").rename(folder / f"{other.digest()}.json")
    for command in (("show", "propensity", *at), ("inbox", *at)):
        with pytest.raises(ConsilienceError, match="CSL-F202"):
            run(*command)
    with pytest.raises(ConsilienceError, match="CSL-F202"):
        decide("approve", town, tmp_path, at, "propensity")
    stranger = Ed25519PrivateKey.generate()
    foreign = forged.model_copy(update={"signature": sign(stranger, CONTEXT, other)})
    (folder / f"{other.digest()}.json").write_bytes(foreign.canonical())
    with pytest.raises(ConsilienceError, match="CSL-F201"):
        decide("approve", town, tmp_path, at, "propensity")
    with town.ledger() as ledger:
        assert ledger.decisions(other.digest()) == ledger.decisions(study.rid) == ()


def test_a_decision_counts_only_under_the_policy_in_force(town, at, tmp_path):
    spec = town.spec(epsilon=1.0)
    wait(town, spec)
    decide("approve", town, tmp_path, at, "propensity")
    town.change(smallest_cohort=150)
    (row,) = json.loads(run("inbox", *at, "--json"))
    assert row["missing"] == "2 distinct officers' decisions" and not row["decisions"][0]["counts"]
    assert "does not count" in run("show", "propensity", *at)
    assert "Still missing: one" in decide("approve", town, tmp_path, at, "propensity")


def test_who_may_not_decide(town, at, tmp_path):
    wait(town, town.spec(epsilon=1.0))
    secret = tmp_path / "pass"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    create_identity(tmp_path / "stranger.key", use="officer", passphrase=PASSPHRASE.encode())
    create_identity(tmp_path / "vault.key", use="identity", passphrase=PASSPHRASE.encode())
    wrong = tmp_path / "wrong"
    wrong.write_text("quite another passphrase")
    wrong.chmod(0o600)
    sealed_key(town, tmp_path)
    cases = [
        ("stranger.key", secret, "CSL-P314"),
        ("vault.key", secret, "CSL-P506"),
        ("officer-0.key", wrong, "CSL-P507"),
        ("missing.key", secret, "CSL-P502"),
    ]
    for key, phrase, code in cases:
        with pytest.raises(ConsilienceError, match=code):
            run(
                "approve",
                "propensity",
                "--reason",
                "x",
                "--key",
                tmp_path / key,
                "--passphrase-file",
                phrase,
                *at,
                "--yes",
            )
    with pytest.raises(ConsilienceError, match="CSL-C632"):
        run("approve", "propensity", "--reason", "x", "--key", tmp_path / "officer-0.key", *at, "--yes")
    for reason in ("", "   ", "x" * 301):
        with pytest.raises(ConsilienceError, match="CSL-C657"):
            run("approve", "propensity", "--reason", reason, *sealed_key(town, tmp_path), *at, "--yes")
    with town.ledger() as ledger:
        assert ledger.state().size == 2


def test_without_a_yes_nothing_is_written(town, at, tmp_path):
    wait(town, town.spec(epsilon=1.0))
    command = ("approve", "propensity", "--reason", "Fine", *sealed_key(town, tmp_path), *at)
    run(*command, answer="n\n", code=1)
    with pytest.raises(ConsilienceError) as caught:
        run(*command, answer="")
    assert caught.value.code == "CSL-C630"
    with town.ledger() as ledger:
        assert ledger.state().size == 2
    assert "first approved" in run(*command, answer="y\n")


def test_what_the_policy_would_refuse_cannot_be_approved(town, at, tmp_path):
    wait(town, town.spec(epsilon=1.0))
    town.change(smallest_partners=5)
    (row,) = json.loads(run("inbox", *at, "--json"))
    assert row["status"] == "refused" and "CSL-P207" in row["missing"]
    assert "CSL-P207" in run("show", "propensity", *at)
    with pytest.raises(ConsilienceError, match="CSL-P207"):
        decide("approve", town, tmp_path, at, "propensity")


def test_a_study_that_does_not_fit_is_said_to_before_it_is_approved(tmp_path):
    town = found(tmp_path / "town", epsilon=5.0, automatic=0.0)
    at = "--home", town.homes["alder"].root
    first, second = town.spec(epsilon=4.0, name="one"), town.spec(epsilon=4.0, name="two")
    town.approve(first)
    town.grant(town.vault(), first)
    wait(town, second)
    assert "does not fit" in run("show", "two", *at)
    assert "would be refused" in decide("approve", town, tmp_path, at, "two")


def test_close_gives_back_only_what_nothing_left_of(town, at):
    specs = [town.spec(epsilon=0.5, name=name) for name in ("one", "two")]
    vault = town.vault()
    for spec in specs:
        town.approve(spec)
        town.grant(vault, spec)
    vault.answer("train", town.train(specs[0], 1))
    run("close", "one", "--reason", "The partner left", *at, answer="n\n", code=1)
    assert "Given back: holdout" in run("close", "one", "--reason", "The partner left", *at, "--yes")
    value = json.loads(run("close", specs[1].digest()[:9], "--reason", "No longer needed", *at, "--yes", "--json"))
    assert value["returned"] == ["training", "holdout"] and value["erased"] == 0
    with pytest.raises(ConsilienceError, match="CSL-C658"):
        run("close", "one", "--reason", "Again", *at, "--yes")
    with town.ledger() as ledger:
        reasons = [entry.body.data.reason for entry in ledger.entries(kinds=("close",))]
        assert reasons[0].startswith("The partner left (by ") and ledger.reservation(specs[0].digest()).closed
        assert not list(ledger.entries(kinds=("access",)))  # plain studies have no secrets to erase
    assert json.loads(run("show", "one", *at, "--json"))["status"] == "closed"


def test_notes_beside_granted_studies_are_no_studies_and_an_altered_one_is_refused(town, at):
    spec = town.spec(epsilon=1.0)
    town.approve(spec)
    town.grant(town.vault(), spec)
    folder = town.homes["alder"].root / "studies"
    (folder / f"{spec.digest()}.fault.json").write_text("{}")
    assert "granted, and open" in run("show", "propensity", *at)
    path = folder / f"{spec.digest()}.json"
    path.write_bytes(path.read_bytes().replace(b'"rounds":3', b'"rounds":9').replace(b'"steps":3}', b'"steps":9}'))
    with pytest.raises(ConsilienceError, match="CSL-C659"):
        run("show", "propensity", *at)


def test_auditors_read_and_do_not_decide_and_analysts_do_neither(town, at, tmp_path):
    wait(town, town.spec(epsilon=1.0))
    login = pwd.getpwuid(os.getuid()).pw_name
    roles = town.homes["alder"].roles_file
    roles.touch(mode=0o600)
    roles.write_text(f"auditors: [{login}]\n")
    for command in (("inbox",), ("show", "propensity"), ("budget", "--no-tight"), ("ledger",)):
        run(*command, *at)
    keys = sealed_key(town, tmp_path)
    decisions = [("approve", "propensity", *keys), ("decline", "propensity", *keys), ("close", "propensity")]
    for command in decisions:
        with pytest.raises(ConsilienceError, match="CSL-C542"):
            run(*command, "--reason", "x", *at, "--yes")
    roles.write_text(f"analysts: [{login}]\n")
    for command in (("inbox",), ("show", "propensity"), ("budget",), ("budget", "plan", "propensity"), ("ledger",)):
        with pytest.raises(ConsilienceError, match="CSL-C542"):
            run(*command, *at)
    with town.ledger() as ledger:
        assert ledger.state().size == 2


@pytest.mark.parametrize("command", ["inbox", "show", "approve", "decline", "close"])
def test_help_teaches(command):
    assert len(run(command, "--help").splitlines()) > 8


def test_a_hostile_title_cannot_steer_the_terminal(town, at):
    wait(town, town.spec(epsilon=1.0, title="\x1b[2J[red]All fine", limits="\x1b[1mnone"))
    assert "\x1b[2J" not in run("show", "propensity", *at) and "[red]All fine" in run("show", "propensity", *at)
