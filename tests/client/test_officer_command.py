import json
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from client.home import Home
from client.officer_command import app
from federation.charter import Charter, Declaration, Member, PinnedContract, seal
from federation.document import load_yaml
from federation.errors import ConsilienceError, ExitCode
from federation.signing import public_hex
from federation.study import HashHoldout
from privacy.events import DiscreteGaussianHistogram, SubsampledGaussian
from privacy.keys import create_identity
from privacy.ledger import Ledger
from privacy.policy import Policy, Terms

POLICY = """
institution: alder
version: 1
issued: 2020-01-01
expires: 2100-01-01
purposes:
  - {id: marketing.churn, meaning: Keep customers, consent: profiling}
contact_consent: contact
studies:
  - contract: shop
    purposes: [marketing.churn]
    models: [additive]
    modes: [fedsgd]
    max_epsilon: 1.0
    max_delta: 1.0e-6
    holdout: {kind: hash, share: 0.2}
budget:
  mode: open
  unit: customer
  neighbours: add_or_remove_one
  period: {days: 30, epsilon: 2.0, delta: 1.0e-6}
  life: {epsilon: 3.0, delta: 1.0e-6}
smallest_cohort: 500
smallest_partners: 1
aggregation: plain
reply_grid_seconds: 1.0
"""


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if isinstance(result.exception, ConsilienceError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def home(tmp_path):
    """A vault's home after one study that was trained and closed, one that is open, and one refusal."""
    home = Home(tmp_path / "alder")
    home.folder("keys")
    key = create_identity(home.identity_key, allow_plain=True)
    coordinator = Ed25519PrivateKey.generate()
    charter = Charter(
        federation="test",
        version=1,
        coordinator_key=public_hex(coordinator),
        members=(
            Member(id="alder", title="Alder", key=public_hex(key), declares=(Declaration(contract="shop", size=1000),)),
        ),
        contracts=(PinnedContract(name="shop", sha256="0" * 64),),
    )
    home.charter_file.write_bytes(seal(charter, {"alder": key}, coordinator).canonical())
    home.pin_file.write_text(charter.digest() + "\n")
    home.policy_file.write_text(POLICY)
    policy = load_yaml(home.policy_file, Policy)
    with Ledger.create(home.ledger_file, key, member="alder", holdout_key=b"h" * 32) as ledger:
        ledger.activate(policy)
        terms = Terms(
            policy.digest(),
            1.0,
            1e-6,
            "marketing.churn",
            "profiling",
            "shop",
            HashHoldout(kind="hash", share=0.2),
            1000,
        )
        charges = {
            "training": (SubsampledGaussian(noise_multiplier=6.0, sampling_rate=1.0, steps=1),),
            "holdout": (DiscreteGaussianHistogram(sigma=6.0, count=1),),
        }
        for rid, study in (("a" * 64, "lapse"), ("b" * 64, "return")):
            ledger.reserve(rid, study=study, charges=charges, releases={"training": 1, "holdout": 1}, terms=terms)
        ledger.release("a" * 64, 1, "training", "0" * 64, 100, what="gradient sum of round 1")
        ledger.close("a" * 64)
        ledger.refuse("CSL-P201", "cross_sell", "The policy does not know [the] purpose.")
    return home


def test_check_explains_and_warns(home):
    output = run("policy", "check", home.policy_file)
    assert "Keep customers" in output and "Warning" in output and "Digest" in output
    output = run("policy", "check", home.policy_file, "--home", home.root)
    assert "in force in the vault's ledger" in output
    value = json.loads(run("policy", "check", home.policy_file, "--json"))
    assert value["valid"] and value["policy"] == load_yaml(home.policy_file, Policy).digest()


def test_check_says_whether_the_ledger_would_take_it(home, tmp_path):
    changed = tmp_path / "next.yaml"
    changed.write_text(POLICY.replace("version: 1", "version: 2"))
    assert "would take this policy" in run("policy", "check", changed, "--home", home.root)
    changed.write_text(POLICY.replace("version: 1", "version: 2").replace("epsilon: 2.0", "epsilon: 2.5"))
    with pytest.raises(ConsilienceError, match="CSL-P304"):
        run("policy", "check", changed, "--home", home.root)
    changed.write_text(POLICY.replace("plain", "secure"))
    with pytest.raises(ConsilienceError, match="CSL-F105"):
        run("policy", "check", changed)


def test_budget_shows_spent_reserved_left_and_the_tight_figure(home):
    rows = json.loads(run("budget", home.root, "--json"))
    assert [(row["account"], row["budget"]) for row in rows] == [
        ("training", "30 days"),
        ("training", "life"),
        ("holdout", "30 days"),
        ("holdout", "life"),
    ]
    period, life, holdout, _ = rows
    assert 0.6 < period["spent_epsilon"] <= 1.0 and period["spent_epsilon"] == pytest.approx(period["reserved_epsilon"])
    assert holdout["spent_epsilon"] == 0 < holdout["reserved_epsilon"]
    assert life["tight_epsilon"] <= life["used_epsilon"] < life["allowed_epsilon"] and period["tight_epsilon"] is None
    assert 0 < period["left_epsilon"] < 2.0
    output = run("budget", home.root)
    assert "reserved" in output and f"{life['used_share']:.0%}" != "0%"


def test_budget_before_any_policy(home):
    home.ledger_file.unlink()
    from privacy.keys import load_identity

    key = load_identity(home.identity_key, allow_plain=True)
    Ledger.create(home.ledger_file, key, member="alder", holdout_key=b"h" * 32).close_file()
    assert "nothing can be spent" in run("budget", home.root) and json.loads(run("budget", home.root, "--json")) == []


def test_ledger_lists_and_filters(home):
    output = run("ledger", home.root)
    for part in (
        "gradient sum of round 1 left (100 bytes",
        "Refused, CSL-P201",
        "[the]",
        "which is returned",
        "begins",
    ):
        assert part in output
    assert [row["kind"] for row in json.loads(run("ledger", home.root, "--json", "--study", "lapse"))] == [
        "reserve",
        "release",
        "close",
    ]
    assert [row["seq"] for row in json.loads(run("ledger", home.root, "--json", "--kind", "reserve"))] == [2, 3]
    assert [row["study"] for row in json.loads(run("ledger", home.root, "--json", "--study", "bbbb"))] == ["return"]
    assert json.loads(run("ledger", home.root, "--json", "--study", "cross_sell"))[0]["data"]["code"] == "CSL-P201"
    assert json.loads(run("ledger", home.root, "--json", "--study", "nothing")) == []


def test_verify_a_home_and_a_bare_file(home):
    output = run("verify", home.root)
    assert "Valid" in output and "7 entries of alder" in output
    head = output.split("Tree head ")[1].strip()
    public = home.charter().member("alder").key
    for key in (public, home.identity_key):
        assert json.loads(run("verify", home.ledger_file, "--key", key, "--head", head, "--json"))["valid"]
    with pytest.raises(ConsilienceError, match="CSL-C602"):
        run("verify", home.ledger_file)
    with pytest.raises(ConsilienceError, match="CSL-C601"):
        run("verify", home.root, "--head", "7:abc")


def test_verify_says_what_is_wrong_and_exits_with_the_integrity_code(home):
    connection = sqlite3.connect(home.ledger_file)
    connection.execute("DROP TRIGGER entry_stays")
    connection.execute("UPDATE entry SET body = CAST(replace(body, 'round 1', 'round 2') AS BLOB) WHERE seq = 4")
    connection.commit()
    connection.close()
    output = run("verify", home.root, code=int(ExitCode.INTEGRITY))
    assert "NOT valid" in output and "entry 4" in output and "CSL-P613" in output and "CSL-P621" in output
    value = json.loads(run("verify", home.root, "--json", code=int(ExitCode.INTEGRITY)))
    assert not value["valid"] and {"CSL-P613", "CSL-P615", "CSL-P621"} == {item["code"] for item in value["findings"]}


def test_nothing_works_without_charter_or_ledger(home):
    home.ledger_file.unlink()
    for command in ("budget", "ledger", "verify"):
        with pytest.raises(ConsilienceError, match="CSL-P513"):
            run(command, home.root)
    home.pin_file.write_text("0" * 64)
    with pytest.raises(ConsilienceError, match="CSL-F204"):
        run("verify", home.root)


@pytest.mark.parametrize("arguments", [[], ["policy"], ["policy", "check"], ["budget"], ["ledger"], ["verify"]])
def test_help_teaches(arguments):
    output = run(*arguments, "--help")
    assert "Usage" in output and len(output.splitlines()) > 5


def test_a_kind_that_does_not_exist_is_a_usage_error_and_an_unknown_study_is_said_to_be_one(home):
    assert "is not one of" in run("ledger", home.root, "--kind", "relase", code=ExitCode.USAGE)
    assert "No entry" in run("ledger", home.root, "--study", "nothing")


def test_a_policy_that_is_not_in_force_is_warned_of(home, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY.replace("expires: 2100-01-01", "expires: 2021-01-01"))
    assert "not in force" in run("policy", "check", path)
    assert "not in force" not in run("policy", "check", home.policy_file)


def test_a_key_that_fits_nothing_is_named_as_the_likelier_mistake(home):
    stranger = public_hex(Ed25519PrivateKey.generate())
    with pytest.raises(ConsilienceError, match="CSL-C603"):
        run("verify", home.ledger_file, "--key", stranger)
