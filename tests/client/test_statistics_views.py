"""A statistics study is shown for what it is: every question in plain words, who counts, how far noise moves an answer, what it costs."""

import json
import math
import zipfile

import pytest

from client.evidence.build import build_evidence
from client.evidence.manifest import REPORT, STUDIES
from client.evidence.verdict import verify_pack
from client.inbox import PendingStudy
from client.officer.statistics_view import noise_facts
from client.outlook import if_broken_at, look_ahead
from client.reports import Reports
from client.statistics.pricing import price_statistics, statistics_broken, statistics_events
from client.studies import OpenStatistics, Studies
from federation.command import run as run_command
from federation.encoding import canonical
from federation.errors import ConsilienceError
from federation.messages import StatisticsGrant, unpack
from federation.statistics import StatisticsSpec
from federation.study import StudySpec
from privacy.accounting import epsilon
from privacy.decision import decide_statistics
from privacy.ledger import system_clock
from tests.client.evidence_home import live
from tests.client.officer_desk import run, sealed_key, wait
from tests.client.statistics_desk import RULE, YAML, statistics, wait_for
from tests.client.vault_home import CANARY, CONTRACT, found

SECURE = {"noise": "shared", "n_min": 3, "c": 0}


@pytest.fixture
def town(tmp_path):
    town = found(tmp_path / "town", automatic=0.0)
    town.change(statistics=[RULE], secure={"n_min": 3, "c": 0, "noise": ["local", "shared"]})
    return town


@pytest.fixture
def at(town):
    return "--home", town.homes["alder"].root


def flat(output):
    return " ".join(output.split())


def granted(town, spec):
    """Let both officers approve a study, and its vault reserve it."""
    town.approve(spec)
    with town.vault() as vault:
        return unpack(vault.answer("query.offer", town.offer(spec)), StatisticsGrant, town.key("alder"))[0]


def test_a_waiting_study_reads_back_as_its_own_kind(town):
    for spec, kind in ((statistics(town), StatisticsSpec), (town.spec(epsilon=1.0), StudySpec)):
        waiting = wait_for(town, spec)
        again = PendingStudy.from_canonical(waiting.canonical())
        assert again == waiting and type(again.spec) is kind and again.rid == spec.digest()
        before = {
            name: json.loads(waiting.canonical())[name]
            for name in ("kind", "policy", "epsilon", "delta", "received", "signature")
        }
        assert waiting.canonical() == canonical(before | {"spec": json.loads(spec.canonical())})


def test_the_inbox_says_which_of_the_two_a_study_is(town, at):
    wait_for(town, statistics(town))
    wait(town, town.spec(epsilon=1.0))
    rows = {row["study"]: row for row in json.loads(run("inbox", *at, "--json"))}
    assert (rows["who"]["kind"], rows["propensity"]["kind"]) == ("statistics", "training")
    assert (rows["who"]["questions"], rows["propensity"]["questions"]) == ("2 questions in 2 rounds", None)
    assert rows["who"]["status"] == "waiting" and rows["who"]["epsilon"] == 1.0
    output = run("inbox", *at)
    assert output.count("statistics: 2 questions in 2 rounds over all customers who agreed; both accounts pay") == 1


def test_show_says_every_question_every_column_and_who_counts(town, at):
    wait_for(town, statistics(town))
    output = flat(run("show", "who", *at, width=110))
    for part in (
        "1. by_job Who they are. How many customers there are, in each group of job.",
        "2. older_buyers The mean of bought over the customers for whom it is known; only customers with age from 60 on; the noise is to "
        "move it by 0.05 at most, in 95% of all cases.",
        "with an interval that holds in 95% of all cases",
        "- age Age; from 18 years to 90 years",
        "- bought Bought within a month; yes or no, known only afterwards",
        "those who train and those who are held out alike: both accounts pay",
        "only customers who agreed to profiling",
        "2 times, paid by both accounts: at most 12 counts and sums, each with noise;",
        "both pay it, since everybody is counted",
        "customers in 95 of 100 cases",
        "2 distinct officers' decisions",
    ):
        assert part in output, part
    assert "- loan" not in output and "model" not in output.replace("models", "")
    facts = json.loads(run("show", "who", *at, "--json"))
    assert facts["kind"] == "statistics" and [item["name"] for item in facts["features"]] == ["age", "bought", "job"]
    assert [item["query"]["kind"] for item in facts["questions"]] == ["count", "mean"]
    assert {row["account"] for row in facts["outlook"]["budgets"]} == {"training", "holdout"}
    assert all(row["before_epsilon"] == 0 < row["after_epsilon"] <= 1.0 for row in facts["outlook"]["budgets"])


def test_control_characters_in_a_title_never_reach_the_terminal(town, at):
    evil = {"id": "one", "kind": "count", "title": "nice\x1b[2K\rworse [red]"}
    wait_for(town, statistics(town, queries=[evil]))
    output = run("show", "who", *at)
    assert "\x1b[2K" not in output and "\r" not in output and "[red]" in output


def test_a_column_that_the_contract_does_not_have_is_named_as_such(town, at):
    foreign = {"id": "one", "kind": "count", "by": [{"column": "income"}]}
    wait_for(town, statistics(town, queries=[foreign]))
    assert "- income no column of this contract: the vault refuses to look at it" in flat(run("show", "who", *at))


def test_what_show_says_it_costs_is_what_the_vault_reserves(town, at):
    spec = statistics(town)
    wait_for(town, spec)
    facts = json.loads(run("show", "who", *at, "--json"))
    grant = granted(town, spec)
    with town.ledger() as ledger:
        held = ledger.reservation(spec.digest())
    assert held.data.work == "statistics"
    assert {charge.account: charge.cost.model_dump() for charge in held.data.charges} == facts["outlook"]["costs"]
    assert facts["outlook"]["noise"]["sensitivity"] == grant.sensitivity
    after = json.loads(run("show", "who", *at, "--json"))
    assert (after["status"], after["outlook"]) == ("open", None)
    assert [item["releases_allowed"] for item in after["granted"]["accounts"]] == [2, 2]
    assert "Granted, statistics over all customers who agreed, for marketing.propensity on shop" in flat(
        run("ledger", "--kind", "reserve", *at)
    )


def test_the_noise_in_words_is_the_noise_of_a_count():
    """A count times the cap floor(S) plus noise of parameter sigma, divided by the cap: 1.96 sigma / floor(S), and sqrt(n) of it for n."""
    grant = StatisticsGrant(
        study="0" * 64,
        member="alder",
        declared_size=400,
        epsilon=1.0,
        delta=1e-5,
        share=16_384.0,
        sensitivity=3_104.8,
    )
    facts = noise_facts(grant, 4)
    assert facts["one_count_within"] == pytest.approx(1.96 * 16_384 / 3_104, rel=1e-4)
    assert facts["sum_within"] == pytest.approx(2 * facts["one_count_within"])
    tiny = noise_facts(grant.model_copy(update={"sensitivity": 0.5}), 1)
    assert math.isfinite(tiny["one_count_within"])


def test_four_eyes_approve_the_questions_and_the_next_offer_is_granted(town, at, tmp_path):
    spec = statistics(town)
    wait_for(town, spec)
    line = ("--reason", "Harmless", *sealed_key(town, tmp_path, 0), *at)
    output = flat(run("approve", "who", *line, answer="y\n"))
    assert "How many customers there are, in each group of job." in output and "first approved who" in output
    with pytest.raises(ConsilienceError, match="CSL-P313"):
        run("approve", "who", *line, "--yes")
    run("approve", "who", "--reason", "Harmless", *sealed_key(town, tmp_path, 1), *at, "--yes")
    with town.vault() as vault:
        grant = unpack(vault.answer("query.offer", town.offer(spec)), StatisticsGrant, town.key("alder"))[0]
    assert grant.epsilon == 1.0 and run("inbox", *at).startswith("No study")


def test_without_a_rule_it_would_be_refused_and_officers_see_why(town, at):
    wait_for(town, statistics(town))
    town.change(statistics=[])
    assert "the policy in force would refuse it: CSL-P202" in flat(run("show", "who", *at))
    with pytest.raises(ConsilienceError, match="CSL-P202"):
        run("budget", "plan", "who", *at)


def test_of_sums_in_secret_both_figures_are_shown(town, at):
    spec = statistics(town, secure=SECURE)
    wait_for(town, spec)
    (row,) = json.loads(run("inbox", *at, "--json"))
    with town.ledger() as ledger:
        outlook = look_ahead(spec, town.charter, ledger, system_clock(), CONTRACT)
        alone = if_broken_at(spec, town.charter, ledger, system_clock(), CONTRACT)
    assert row["if_broken"] == alone == outlook.if_broken == statistics_broken(spec, outlook.grant)
    assert all(1.0 < value < 3.0 for value in alone.values())
    for events in statistics_events(spec, outlook.grant).values():
        assert epsilon(events, 1e-5) <= 1.0
    output = flat(run("show", "who", *at))
    assert "each with noise, masked, so that only a sum over 3 institutions or more can be opened" in output
    assert "shared noise" in output and f"alone holds epsilon {alone['training']:.3f} on training" in output


def test_a_draft_is_priced_before_anybody_plans_it(town, at, tmp_path):
    path = tmp_path / "who.yaml"
    path.write_text(YAML.format(epsilon=0.5))
    value = json.loads(run("budget", "plan", path, "--rounds", 2, *at, "--json"))
    assert value["fits"] and value["epsilon"] == 0.5 and value["largest_epsilon"] == 1.0
    assert value["costs"]["training"] == value["costs"]["holdout"] and value["costs"]["training"]["nano"] > 0
    waiting = wait_for(town, statistics(town, epsilon=0.5))
    planned = json.loads(run("budget", "plan", waiting.rid[:8], *at, "--json"))
    assert planned["costs"] == value["costs"]
    file = tmp_path / "who.json"
    for document in (waiting, waiting.spec):
        file.write_bytes(document.canonical())
        assert json.loads(run("budget", "plan", file, *at, "--json"))["costs"] == value["costs"]
    for more, code in (((), "CSL-C672"), (("--rounds", 101), "CSL-C672"), (("--rounds", 2, "--rate", 0.5), "CSL-C870")):
        with pytest.raises(ConsilienceError, match=code):
            run("budget", "plan", path, *more, *at)
    path.write_text(YAML.format(epsilon=2.0))
    with pytest.raises(ConsilienceError, match="CSL-P204"):
        run("budget", "plan", path, "--rounds", 2, *at)


def test_so_many_as_the_budget_says_fit(town, at, tmp_path):
    path = tmp_path / "who.yaml"
    path.write_text(YAML.format(epsilon=1.0))
    value = json.loads(run("budget", "plan", path, "--rounds", 1, *at, "--json"))
    (most,) = {item["studies"] for item in value["how_many"] if item["epsilon"] == 1.0}
    assert most == min(row["further_studies"] for row in value["budgets"]) > 3


def node(town, capsys, *words):
    capsys.readouterr()
    assert run_command([*words, "--home", str(town.homes["alder"].root), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["studies"]


def test_node_studies_and_status_show_it_beside_models(town, capsys):
    spec = statistics(town)
    grant = granted(town, spec)
    wait_for(town, statistics(town, name="later"))
    rows = {row["study"]: row for row in node(town, capsys, "node", "studies")}
    assert (rows["who"]["kind"], rows["who"]["status"], rows["later"]["status"]) == ("statistics", "open", "waiting")
    assert (rows["who"]["rounds"], rows["who"]["released"], rows["who"]["evaluated"]) == (2, 0, False)
    assert (rows["who"]["epsilon"], rows["who"]["model"]) == (grant.epsilon, "no report yet")
    assert rows["who"]["questions"][0] == "How many customers there are, in each group of job."
    (row,) = node(town, capsys, "node", "status")
    assert row == rows["who"]
    home = town.homes["alder"]
    assert run_command(["node", "studies", "--home", str(home.root)]) == 0
    shown = capsys.readouterr().out
    assert "who" in shown and "counts all customers who agreed:" in shown and CANARY not in shown
    (home.folder("reports") / f"{spec.digest()}.json").write_text("{}")
    assert Reports(home.folder("reports")).has(spec.digest())
    assert node(town, capsys, "node", "status")[0]["model"] == "report here"


def test_evidence_holds_the_questions_against_the_ledger(tmp_path):
    past = live(tmp_path / "past")
    past.change(statistics=[RULE | {"automatic_epsilon": 1.0}])
    past.run(past.spec("spring"))
    spec = statistics(past.town, epsilon=0.5, title="Who they <b>are</b>")
    rid = keep(past, spec)
    for number, account in ((1, "training"), (3, "holdout"), (2, "training"), (4, "holdout")):
        past.ledger.release(rid, number, account, f"{number % 2:064x}", 96, what="noisy counts and sums")
    path = tmp_path / "pack.zip"
    build_evidence(past.home, past.key, path)
    assert verify_pack(path).valid
    with zipfile.ZipFile(path) as archive:
        page = archive.read(REPORT).decode()
        assert f"{STUDIES}/{rid}.json" in archive.namelist()
    assert "Who they &lt;b&gt;are&lt;/b&gt;" in page and "The mean of bought over the customers" in page
    assert "statistics over all customers who agreed" in page and "nobody: all are counted" in page
    assert "<dd>6</dd><dt>replies that left the house</dt>" in page, (
        "four of training, and two that both accounts paid for"
    )
    assert page.count("no model was delivered") == 1, "a statistics study has no model, and the other's is not kept"


def test_evidence_refuses_a_statistics_document_that_is_not_what_was_reserved(tmp_path):
    past = live(tmp_path / "past")
    past.change(statistics=[RULE | {"automatic_epsilon": 1.0}])
    spec = statistics(past.town, epsilon=0.5)
    rid = keep(past, spec)
    shelf = Studies(past.home.folder("studies"))
    kept = shelf.opened(rid)
    shelf.keep(kept.model_copy(update={"grant": kept.grant.model_copy(update={"sensitivity": 1.0})}))
    with pytest.raises(ConsilienceError, match="CSL-C808|other terms"):
        build_evidence(past.home, past.key, tmp_path / "pack.zip")


def keep(past, spec):
    """Reserve a statistics study as the vault does, and keep its document; returns its digest."""
    declaration = past.town.charter.member("alder").declaration("shop")
    terms = decide_statistics(past.policy, spec, past.town.charter, "alder", past.ledger.today())
    grant = price_statistics(spec, "alder", declaration, terms)
    rid, rounds = spec.digest(), spec.plan.rounds
    past.ledger.reserve(
        rid,
        study=spec.draft.name,
        charges=statistics_events(spec, grant),
        releases={"training": rounds, "holdout": rounds},
        terms=terms,
        if_broken=None,
    )
    Studies(past.home.folder("studies")).keep(OpenStatistics(spec=spec, grant=grant))
    return rid
