"""Of a study that is added up in secret officers see two epsilons: what is charged, and what would hold should that fail."""

import json
import zipfile

import pytest

from client.evidence.build import build_evidence
from client.evidence.manifest import REPORT
from client.evidence.verdict import verify_pack
from client.officer.budget_view import secret_rows, secret_table
from client.officer.study_view import secrecy_lines
from client.outlook import if_broken_at, look_ahead
from client.pricing import broken_epsilon, events_of
from federation.errors import PolicyError
from federation.study import StudySpec
from privacy.ledger import system_clock
from privacy.ledger.entries import Reserve
from tests.client.evidence_home import live
from tests.client.officer_desk import run, wait
from tests.client.vault_home import CONTRACT, found

RULE = {"n_min": 3, "c": 0, "noise": ["local", "shared"]}


def secret(spec, noise="shared", **terms):
    """Return the same study, added up in secret."""
    terms = {"n_min": 3, "c": 0, "noise": noise} | terms
    tree = spec.model_dump(mode="json")
    tree["draft"] |= {"aggregation": "secure", **terms}
    return StudySpec.model_validate_json(json.dumps(tree | {"secure": {**terms, "share": 16384.0}}))


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = found(tmp_path_factory.mktemp("secret") / "town", automatic=0.0)
    town.change(secure=RULE)
    return town


@pytest.fixture(scope="module")
def at(town):
    return "--home", town.homes["alder"].root


@pytest.fixture(scope="module")
def waiting(town):
    return wait(town, secret(town.spec(epsilon=1.0)))


def rows(at):
    return {row["study"]: row for row in json.loads(run("inbox", *at, "--json"))}


def test_the_inbox_shows_the_aggregation_and_both_epsilons(town, at, waiting):
    wait(town, town.spec(name="open_one", epsilon=1.0))
    found = rows(at)
    row, plain = found["propensity"], found["open_one"]
    assert (row["aggregation"], row["secure"]) == ("secure", {"noise": "shared", "n_min": 3, "c": 0})
    assert row["epsilon"] == 1.0 and all(1.2 < row["if_broken"][name] < 2.0 for name in ("training", "holdout"))
    assert (plain["aggregation"], plain["secure"], plain["if_broken"]) == ("plain", None, None)
    output = run("inbox", *at)
    assert "opened over at least 3 institutions: a coordinator whom no institution helps sees nobody's reply" in output
    assert f"alone holds epsilon {row['if_broken']['training']:.3f} on training" in output
    assert "plain: each reply carries this institution's own noise in full" in output


def test_the_figure_is_that_of_the_study_as_the_vault_would_price_it(town, at, waiting):
    with town.ledger() as ledger:
        outlook = look_ahead(waiting.spec, town.charter, ledger, system_clock(), CONTRACT)
        alone = if_broken_at(waiting.spec, town.charter, ledger, system_clock(), CONTRACT)
    assert outlook.terms.secure == waiting.spec.secure and outlook.grant.secure is not None
    assert alone == outlook.if_broken == broken_epsilon(outlook.grant, waiting.spec.secure, 1e-5)
    assert rows(at)["propensity"]["if_broken"] == alone
    assert outlook.fits and all(effect.cost.nano > 0 for effect in outlook.effects)


def test_show_and_budget_plan_say_both(at, waiting):
    output = run("show", "propensity", *at)
    assert "masked, so that only a sum over 3 institutions or more can be opened" in output
    assert "It would be granted epsilon 1 at delta 1e-05" in output and "Should the protocol fail" in output
    facts = json.loads(run("show", "propensity", *at, "--json"))
    assert facts["secure"] == {"noise": "shared", "n_min": 3, "c": 0} and facts["outlook"]["if_broken"]
    output = run("budget", "plan", "propensity", *at)
    assert "Should the protocol fail" in output and "After it, the largest further study" in output


def test_a_draft_is_priced_as_the_coordinator_would_plan_it(town, at, tmp_path):
    draft = secret(town.spec(epsilon=0.5)).draft.model_dump(mode="json")
    path = tmp_path / "draft.yaml"
    path.write_text(json.dumps(draft))
    facts = json.loads(run("budget", "plan", path, "--rounds", 3, "--rate", 0.5, *at, "--json"))
    assert facts["secure"]["noise"] == "shared" and facts["if_broken"]["training"] > facts["epsilon"] == 0.5


def test_a_study_that_the_policy_would_refuse_has_no_figure(town, at):
    wait(town, secret(town.spec(name="weak", epsilon=1.0), noise="local"))
    before = rows(at)["weak"]
    assert before["if_broken"]["training"] == pytest.approx(1.0, rel=0.01)  # local noise: the same figure twice
    town.change(secure=RULE | {"noise": ["shared"]})
    try:
        row = rows(at)["weak"]
        assert row["if_broken"] is None and "CSL-P214" in row["missing"]
    finally:
        town.change(secure=RULE)


def test_a_floor_lowers_what_a_study_gets(town, waiting):
    town.change(secure=RULE | {"local_noise_floor": 1.0})
    try:
        with town.ledger() as ledger:
            floored = look_ahead(waiting.spec, town.charter, ledger, system_clock(), CONTRACT)
        assert all(value <= 1.0 + 1e-6 for value in floored.if_broken.values())
        (event,) = events_of(floored.grant, waiting.spec.secure)["training"]
        assert floored.grant.epsilon == 1.0 and event.noise_multiplier > 0
    finally:
        town.change(secure=RULE)
    with town.ledger() as ledger:
        free = look_ahead(waiting.spec, town.charter, ledger, system_clock(), CONTRACT)
    assert free.grant.secure.sensitivity > floored.grant.secure.sensitivity


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    """A ledger with a plain study, a secret one that is over, one whose data nobody read, and one that is open."""
    past = live(tmp_path_factory.mktemp("past"), automatic=2.0)
    past.change(secure=RULE)
    past.run(past.spec("plain_one"))
    past.run(secret(past.spec("over")))
    past.run(secret(past.spec("half")), rounds=1, evaluate=False)
    past.run(secret(past.spec("never")), rounds=0, evaluate=False, read=False)
    past.run(secret(past.spec("running"), noise="local"), close=False)
    return past


def claims(past):
    entries = [entry.body for entry in past.ledger.entries(kinds=("reserve",))]
    return {body.data.study: body.data for body in entries if isinstance(body, Reserve)}


def test_the_budget_page_lists_what_counts_and_never_adds_it_up(past):
    rows = {row["study"]: row for row in secret_rows(past.ledger)}
    assert list(rows) == ["over", "half", "running"]
    # Its hold-out's histograms may have left masked before they were opened: nothing is given back once the data were read.
    assert list(rows["half"]["if_broken"]) == ["training", "holdout"]
    for name, row in rows.items():
        stated = {claim.account: claim.epsilon for claim in claims(past)[name].if_broken}
        assert row["if_broken"].items() <= stated.items() and row["epsilon"] == 0.4
    at = "--home", past.home.root
    output = run("budget", *at)
    assert "Studies added up in secret" in output and "never added to each other" in output
    facts = json.loads(run("budget", *at, "--json"))
    assert [row["study"] for row in facts["secret"]] == list(rows)
    life = next(row for row in facts["budgets"] if (row["account"], row["budget"]) == ("training", "life"))
    spent = past.ledger.state().training.life.nano
    assert (
        life["spent"]["nano"] + life["reserved"]["nano"]
        == spent
        == sum(data.charge("training").cost.nano for name, data in claims(past).items() if name != "never")
    )
    assert json.loads(run("budget", *at, "--no-tight", "--json"))["secret"] is None


@pytest.mark.parametrize(
    ("c", "words"), [(1, "the coordinator and any one institution together"), (2, "and any 2 institutions together")]
)
def test_against_whom_is_said(c, words):
    (line,) = secrecy_lines({"noise": "shared", "n_min": 6, "c": c}, None)
    assert words in line and "over at least 6 institutions" in line


def test_many_secret_studies_are_cut_and_counted():
    row = {"study": "[x]", "epsilon": 1.0, "delta": 1e-6, "if_broken": {"training": 2.0}}
    table = secret_table([row] * 25)
    assert "the newest 20 of 25" in str(table.title) and table.row_count == 20


def test_the_ledgers_words_name_both(past):
    output = run("ledger", "--kind", "reserve", "--home", past.home.root)
    assert output.replace("\n", " ").count("should the protocol fail") == 4


def test_the_evidence_pack_shows_both_and_is_valid(past, tmp_path):
    path = tmp_path / "pack.zip"
    build_evidence(past.home, past.key, path)
    verdict = verify_pack(path)
    assert verdict.valid
    with zipfile.ZipFile(path) as archive:
        page = archive.read(REPORT).decode()
    assert page.count("<dt>if that failed</dt>") == 4 and page.count("shared noise: opened over at least 3") == 3
    assert "the promise rests on that protocol, too" in page and "Besides plain ones, studies that add up" in page
    stated = claims(past)["over"].broken("training").epsilon
    assert f"ε {stated:.3g} for customers who train" in page and "part of no sum on this page" in page


def test_a_report_cuts_the_digests_of_what_was_released(tmp_path):
    past, survivors = live(tmp_path, automatic=2.0), "c0ffee00" * 8
    past.change(secure=RULE)
    rid = past.run(secret(past.spec("over")), rounds=0, evaluate=False, close=False)
    what = f"round 1 of 3, masked, for the sum over 5 institutions {survivors}"
    past.ledger.release(rid, 1, "training", "1" * 64, 4_096, what=what)
    path = tmp_path / "pack.zip"
    build_evidence(past.home, past.key, path)
    assert verify_pack(path).valid
    with zipfile.ZipFile(path) as archive:
        page, entries = archive.read(REPORT).decode(), b"".join(map(archive.read, archive.namelist()))
    assert f"institutions {survivors[:12]}…<" in page and survivors not in page
    assert what.encode() in entries  # the ledger's own words are whole


def test_a_pack_without_secret_studies_says_nothing_of_them(tmp_path):
    past = live(tmp_path, automatic=2.0)
    past.run(past.spec("plain_one"))
    path = tmp_path / "pack.zip"
    build_evidence(past.home, past.key, path)
    with zipfile.ZipFile(path) as archive:
        page = archive.read(REPORT).decode()
    assert "in secret" not in page and "if that failed" not in page


def test_a_plain_study_cannot_be_granted_where_only_sums_are_opened(tmp_path):
    past = live(tmp_path, automatic=2.0)
    past.change(aggregation="secure", secure=RULE)
    with pytest.raises(PolicyError, match="CSL-P213"):
        past.grant(past.spec("plain_one"))
    past.grant(secret(past.spec("added_up")))
