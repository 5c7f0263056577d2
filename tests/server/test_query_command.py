"""Statistics on the command line: what a query costs, keeping and starting it, its study, and its report."""

import json
from datetime import date
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from federation.answers import StatisticsReport
from federation.charter import Charter, Declaration, PinnedContract, seal
from federation.command import run as command_line
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import ConsilienceError
from federation.service_state import ServiceLock
from privacy.keys import load_identity
from server.command import app
from server.events import Delivered, GrantsReceived, Reported, RosterSettled, RoundDone, RoundStarted, StudySigned
from server.home import CoordinatorHome
from server.journal import Journal
from server.service.studies import StudyBook
from server.statistics.reports import ReportBook, SealedReport
from tests.server.fakes import draft as training_draft
from tests.server.fakes import key_of
from tests.server.service.conftest import found
from tests.server.statistics.papers import report

RUNNER = CliRunner()
QUERIES: list[dict[str, object]] = [
    {"id": "customers", "kind": "count", "by": [{"column": "job"}]},
    {"id": "age", "kind": "mean", "of": "age"},
]
MEMBERS = ("alpha", "beta", "gamma")
STUDY = "ab" * 32
RFM = Path(__file__).parents[2] / "configs" / "contracts" / "rfm.yaml"


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return found(tmp_path / "home", "a" * 64)


def written(folder: Path, **changes: object) -> str:
    tree: dict[str, object] = {
        "kind": "statistics",
        "name": "people",
        "title": "Who they are",
        "purpose": "marketing.analytics",
        "contract": "shoppers",
        "epsilon": 1.0,
        "min_partners": 3,
        "queries": QUERIES,
    }
    path = folder / "queries.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (tree | changes).items() if value is not None}))
    return str(path)


def run(home: CoordinatorHome, *words: str, status: int = 0) -> str:
    result = RUNNER.invoke(app, [*words, "--home", str(home.root)], terminal_width=200)
    assert result.exit_code == status, result.output
    return result.output


def refused(home: CoordinatorHome, *words: str) -> ConsilienceError:
    error = RUNNER.invoke(app, [*words, "--home", str(home.root)]).exception
    assert isinstance(error, ConsilienceError) and error.action
    return error


def sealed_again(home: CoordinatorHome, **changes: object) -> None:
    """Seal another charter for the home, as if the members had agreed on it."""
    charter: Charter = home.charter().model_copy(update=changes)
    keys = {item.id: key_of(item.id) for item in charter.members}
    content = seal(charter, keys, load_identity(home.identity_key, allow_plain=True)).canonical()
    home.charter_file.write_bytes(content)
    home.pin_file.write_text(charter.digest() + "\n")


def nobody_declares(home: CoordinatorHome) -> None:
    """All declare customers for another contract, and none for the shoppers'."""
    other = Declaration(contract="other", size=1000)
    charter = home.charter()
    members = tuple(item.model_copy(update={"declares": (other,)}) for item in charter.members)
    sealed_again(home, members=members, contracts=(*charter.contracts, PinnedContract(name="other", sha256="0" * 64)))


def files(home: CoordinatorHome) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}


def test_a_dry_run_shows_cost_and_error_and_keeps_nothing(home, tmp_path):
    before = files(home)
    output = run(home, "query", written(tmp_path), "--dry-run")
    assert "people: 2 queries on shoppers for marketing.analytics; each member's noisy sums are seen." in output
    assert "4 members declare 7,500 customers; the study needs 3 members and 1 round." in output
    assert "ε 1," in output and "Half widths of the noise, at 95%" in output
    assert "customers: " in output and output.count("±") >= 2
    assert "Kept" not in output
    assert files(home) == before


def test_the_file_of_the_readme_is_previewed(home):
    contract = load_yaml(RFM, FeatureContract)
    transactions(home, contract, as_of=date(2026, 1, 1))
    output = run(home, "query", str(RFM.parents[1] / "queries" / "value.yaml"), "--dry-run")
    assert "only sums are opened" in output and "segments: " in output


def test_a_query_with_too_little_to_ask_anything_says_so_before_anybody_pays(home):
    transactions(home, load_yaml(RFM, FeatureContract), as_of=date(2026, 1, 1))
    file = str(RFM.parents[1] / "queries" / "value.yaml")
    for epsilon in ("0.001", "0.02"):
        error = refused(home, "query", file, "--dry-run", "--epsilon", epsilon)
        assert int(error.exit_code) == 8 and "budget" in error.cause


def test_json_has_the_same_figures_and_more_epsilon_is_more_exact(home, tmp_path):
    file = written(tmp_path)
    shown = json.loads(run(home, "query", file, "--dry-run", "--json"))
    assert (shown["study"], shown["rounds"], shown["epsilon"], shown["least"]) == ("people", 1, 1.0, 3)
    assert shown["members"] == {"alpha": 1000, "beta": 2000, "delta": 1500, "gamma": 3000}
    assert [item["id"] for item in shown["queries"]] == ["customers", "age"]
    finer = json.loads(run(home, "query", file, "--dry-run", "--json", "--epsilon", "4"))
    for here, there in zip(shown["queries"], finer["queries"], strict=True):
        for coarse, fine in zip(here["expected"], there["expected"], strict=True):
            assert 0 < fine["within"] < coarse["within"]


def test_without_epsilon_in_the_file_one_must_be_given_for_the_preview(home, tmp_path):
    file = written(tmp_path, epsilon=None)
    error = refused(home, "query", file, "--dry-run")
    assert error.code == "CSL-S781" and "--epsilon" in error.action
    shown = json.loads(run(home, "query", file, "--dry-run", "--json", "--epsilon", "0.5"))
    assert shown["epsilon"] == 0.5
    assert "Kept as" in run(home, "query", file, "--epsilon", "0.5")
    assert home.draft("people").epsilon is None


def test_what_is_kept_is_the_file_and_no_other_epsilon(home, tmp_path):
    file = written(tmp_path)
    error = refused(home, "query", file, "--epsilon", "4")
    assert error.code == "CSL-S783" and int(error.exit_code) == 3
    assert not (home.root / "studies" / "people.yaml").exists()
    run(home, "query", file, "--epsilon", "1")
    assert (home.root / "studies" / "people.yaml").read_bytes() == Path(file).read_bytes()


def test_a_kept_query_says_how_it_is_started(home, tmp_path):
    output = run(home, "query", written(tmp_path))
    assert "Kept as" in output and "consilience coordinator study start people" in output
    assert StudyBook(home.root).read("people") is None


def test_start_wants_the_study_and_says_whether_a_service_runs(home, tmp_path):
    file = written(tmp_path)
    output = run(home, "query", file, "--start", "--grant-seconds", "60")
    assert "wanted from now on" in output and "The service does not run" in output
    record = StudyBook(home.root).read("people")
    assert record is not None and record.wanted == "running" and record.grant_seconds == 60.0
    with ServiceLock(home.run):
        assert "is wanted already" in run(home, "query", file, "--start")


def test_a_finished_query_costs_nothing_again_by_accident(home, tmp_path):
    file, book = written(tmp_path), StudyBook(home.root)
    book.want("people")
    run(home, "query", file)
    book.settle("people", "finished", delivered="people-0123456789ab")
    error = refused(home, "query", file, "--start")
    assert error.code == "CSL-S804" and "people-0123456789ab" in error.cause
    assert "study start people --again" in error.action
    assert refused(home, "study", "start", "people").code == "CSL-S804"
    record = book.read("people")
    assert record is not None and record.state == "finished"
    run(home, "study", "start", "people", "--again")
    record = book.read("people")
    assert record is not None and record.state == "waiting" and record.delivered is None


def test_a_report_alone_tells_that_a_study_is_finished(home, tmp_path):
    run(home, "query", written(tmp_path))
    published = publish(home)
    error = refused(home, "study", "start", "people")
    assert error.code == "CSL-S804" and published in error.cause


def test_another_query_does_not_replace_one_that_is_not_finished(home, tmp_path):
    run(home, "query", written(tmp_path), "--start")
    assert refused(home, "query", written(tmp_path, title="Another")).code == "CSL-S805"


@pytest.mark.parametrize(
    "words",
    [("--dry-run", "--start"), ("--watch",), ("--start", "--watch", "--json"), ("--epsilon", "0"), ("--epsilon", "x")],
)
def test_options_that_contradict_each_other_are_not_understood(home, tmp_path, words):
    before = files(home)
    run(home, "query", written(tmp_path), *words, status=2)
    assert files(home) == before


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        (
            {"queries": [{"id": "a", "kind": "mean", "of": "agee"}]},
            "CSL-S101",
            ("a: ", "agee", "age, spent, job, member"),
        ),
        ({"queries": [{"id": "a", "kind": "count", "by": [{"column": "age"}]}]}, "CSL-S101", ("age", "cuts")),
        (
            {"queries": [{"id": "a", "kind": "count", "where": [{"column": "bought", "any_of": ["yes"]}]}]},
            "CSL-S101",
            ("bought", "label"),
        ),
        ({"contract": "walkers"}, "CSL-S784", ("walkers", "shoppers")),
        ({"min_partners": 9}, "CSL-S101", ("9 are needed, and 4 declare",)),
        ({"queries": [QUERIES[0] | {"accuracy": {"within": 0.01}}]}, "CSL-S780", ("times its epsilon",)),
        ({"queries": []}, "CSL-F105", ("queries",)),
        ({"queries": [QUERIES[0], dict(QUERIES[0], kind="count", by=[])]}, "CSL-F105", ("more than once: customers",)),
        ({"queries": [{"id": "a", "kind": "guess"}]}, "CSL-F105", ("guess",)),
        ({"kind": "statistic"}, "CSL-F105", ("kind", "statistics")),
        ({"kind": None}, "CSL-F105", ("kind",)),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(home, tmp_path, changes, code, words):
    before = files(home)
    error = refused(home, "query", written(tmp_path, **changes))
    assert error.code == code, str(error)
    for word in words:
        assert word in str(error), str(error)
    assert files(home) == before


def test_every_problem_is_named_at_once(home, tmp_path):
    queries = [{"id": "a", "kind": "mean", "of": "agee"}, {"id": "b", "kind": "mean", "of": "job"}]
    error = refused(home, "query", written(tmp_path, queries=queries, min_partners=9))
    assert error.code == "CSL-S101" and "3 problems" in error.cause
    assert "\n  a: " in error.cause and "\n  b: " in error.cause and "\n  members: " in error.cause


def test_an_empty_federation_and_a_contract_that_is_not_pinned(home, tmp_path):
    file = written(tmp_path)
    nobody_declares(home)
    assert "nobody declares customers for shoppers" in str(refused(home, "query", file))
    sealed_again(home, contracts=(PinnedContract(name="other", sha256="0" * 64),))
    assert "The charter pins no contract called shoppers; it has other." in str(refused(home, "query", file))
    changed = PinnedContract(name="shoppers", sha256="0" * 64)
    sealed_again(home, contracts=(changed, PinnedContract(name="other", sha256="0" * 64)))
    assert "not the version that the charter pins" in str(refused(home, "query", file))


def transactions(home: CoordinatorHome, contract: FeatureContract, **declared: object) -> None:
    """Pin a contract over logs of purchases, for which all declare customers."""
    name = contract.name
    declaration = Declaration(contract=name, size=1000, **({"window_days": 365, "horizon_days": 90} | declared))
    members = tuple(item.model_copy(update={"declares": (declaration,)}) for item in home.charter().members)
    pinned = PinnedContract(name=name, sha256=contract.digest())
    sealed_again(home, members=members, contracts=(pinned,))
    (home.root / "contracts" / f"{name}.yaml").write_text(yaml.safe_dump(contract.model_dump(mode="json")))


def test_a_contract_of_purchases_needs_dates(home, tmp_path):
    contract = load_yaml(RFM, FeatureContract)
    queries = [{"id": "n", "kind": "count"}]
    file = written(tmp_path, contract="rfm", queries=queries)
    transactions(home, contract, window_days=None, horizon_days=None)
    error = refused(home, "query", file)
    assert error.code == "CSL-S101" and "no as-of date is declared by alpha, beta, delta, gamma" in error.cause
    transactions(home, contract, as_of=date(2026, 1, 1))
    assert "± " in run(home, "query", file, "--dry-run")


def test_a_training_draft_is_sent_to_where_it_belongs(home):
    spring = home.root / "studies" / "spring.yaml"
    error = refused(home, "query", str(spring))
    assert error.code == "CSL-F440" and "study propose" in error.action


@pytest.mark.parametrize("word", ["check", "propose"])
def test_a_statistics_file_given_to_study_is_sent_to_query(home, tmp_path, word):
    file = written(tmp_path)
    error = refused(home, "study", word, file)
    assert error.code == "CSL-S782" and f"coordinator query {file}" in error.action
    assert not (home.root / "studies" / "people.yaml").exists()


def test_errors_reach_the_shell_as_exit_codes(home, tmp_path, capsys):
    where = ["--home", str(home.root)]
    assert command_line(["coordinator", "query", written(tmp_path), "--dry-run", *where]) == 0
    unknown = written(tmp_path, queries=[{"id": "a", "kind": "mean", "of": "agee"}])
    assert command_line(["coordinator", "query", unknown, "--dry-run", *where]) == 3
    exact = written(tmp_path, queries=[QUERIES[0] | {"accuracy": {"within": 0.01}}])
    assert command_line(["coordinator", "query", exact, "--dry-run", *where]) == 8
    assert command_line(["coordinator", "query", str(tmp_path / "absent.yaml"), *where]) == 3
    assert command_line(["coordinator", "reports", "absent", *where]) == 3
    assert command_line(["coordinator", "query", unknown, "--home", str(tmp_path)]) == 9
    assert "CSL-S111" in capsys.readouterr().err
    assert command_line(["coordinator", "query", unknown, "--dry-run", "--home", str(tmp_path)]) == 9
    assert command_line(["coordinator", "reports", "--home", str(tmp_path)]) == 9
    assert "CSL-S103" in capsys.readouterr().err


def test_a_preview_needs_charter_and_contract_alone(home, tmp_path):
    for file in (home.config_file, home.identity_key, home.authority_key):
        file.unlink()
    assert "± " in run(home, "query", written(tmp_path), "--dry-run")
    assert refused(home, "query", written(tmp_path)).code == "CSL-S111"


# -- the study of a query


def journal(home: CoordinatorHome) -> Journal:
    book = StudyBook(home.root)
    book.want("people")
    write = Journal(book.journal("people"))
    write(StudySigned("people", STUDY, 2, (*MEMBERS, "delta")))
    write(RosterSettled(MEMBERS, ("delta",)))
    write(GrantsReceived(MEMBERS, (1.0, 1.0, 0.5), ()))
    write(RoundStarted(1, 2, MEMBERS))
    write(RoundDone(1, 2, MEMBERS, (), 0.5, 1024, 2048))
    return write


def publish(home: CoordinatorHome, **changes: object) -> str:
    key = load_identity(home.identity_key, allow_plain=True)
    said: StatisticsReport = report(name="people", study=STUDY, **changes)
    return ReportBook(home.reports).publish(said, key).path.name.removesuffix(".report.json")


def test_a_statistics_study_is_watched_without_words_of_training(home, tmp_path):
    run(home, "query", written(tmp_path))
    write = journal(home)
    name, book = publish(home), StudyBook(home.root)
    write(RoundDone(2, 2, MEMBERS[:2], ("gamma",), 0.5, 1024, 2048))
    write(Reported(name, home.reports / f"{name}.report.json", "cd" * 32))
    write(Delivered(MEMBERS, True))
    book.settle("people", "finished", "what came of it is published", delivered=name)
    output = run(home, "study", "watch", "people")
    for part in (
        "study people signed: abababababab, 2 rounds",
        "round 2/2: 2 answered",
        f"report {name} is published",
        f"consilience coordinator reports {name}",
        "report delivered to alpha, beta, gamma",
        "finished: what came of it is published",
    ):
        assert part in output, output
    assert "model" not in output and "train" not in output and "evaluat" not in output
    lines = [json.loads(line)["event"] for line in run(home, "study", "watch", "people", "--json").splitlines()]
    assert lines[-2:] == ["Reported", "Delivered"]


def test_the_list_tells_kinds_apart(home, tmp_path):
    run(home, "query", written(tmp_path))
    rows = {row["study"]: row for row in json.loads(run(home, "study", "list", "--json"))}
    assert (rows["people"]["kind"], rows["people"]["state"]) == ("statistics", "proposed")
    assert rows["spring"]["kind"] == "training"
    journal(home)
    book = StudyBook(home.root)
    book.settle("people", "running")
    assert "running (counting)" in run(home, "study", "list")
    book.settle("people", "finished", delivered="people-0123456789ab")
    rows = {row["study"]: row for row in json.loads(run(home, "study", "list", "--json"))}
    assert (rows["people"]["model"], rows["people"]["report"]) == (None, "people-0123456789ab")
    (home.root / "studies" / "people.yaml").write_text("{")
    rows = {row["study"]: row for row in json.loads(run(home, "study", "list", "--json"))}
    assert rows["people"]["kind"] is None


def test_a_statistics_study_is_stopped_and_goes_on(home, tmp_path):
    run(home, "query", written(tmp_path), "--start")
    assert "people is stopped" in run(home, "study", "stop", "people")
    assert "wanted from now on" in run(home, "study", "start", "people")


def test_a_kept_query_that_fits_no_more_is_not_started(home, tmp_path):
    run(home, "query", written(tmp_path))
    nobody_declares(home)
    assert refused(home, "study", "start", "people").code == "CSL-S101"
    assert StudyBook(home.root).read("people") is None


def test_a_draft_of_training_under_the_same_name_is_another_study(home, tmp_path):
    run(home, "query", written(tmp_path))
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(training_draft(name="people").model_dump(mode="json")))
    run(home, "study", "propose", str(other))
    rows = {row["study"]: row for row in json.loads(run(home, "study", "list", "--json"))}
    assert rows["people"]["kind"] == "training"


# -- reports


def test_reports_are_listed_and_shown(home):
    assert "coordinator query FILE" in run(home, "reports")
    assert json.loads(run(home, "reports", "--json")) == []
    name = publish(home)
    assert run(home, "reports").startswith(f"{name}  Who they are: 1 answer of 2 members, ε up to 1")
    (row,) = json.loads(run(home, "reports", "--json"))
    assert (row["report"], row["members"], row["epsilon"]) == (name, ["alder", "birch"], 1.0)
    page = run(home, "reports", name)
    assert page == run(home, "reports", "people")
    assert "# Who they are" in page and "| clerk | 10 | 5 | 15 |" in page
    assert StatisticsReport.model_validate_json(run(home, "reports", name, "--json")).study == STUDY


def test_a_study_s_newest_report_is_meant(home):
    publish(home)
    key = load_identity(home.identity_key, allow_plain=True)
    newer = ReportBook(home.reports).publish(report(name="people", study="ef" * 32, title="Anew"), key)
    assert "# Anew" in run(home, "reports", "people")
    book = StudyBook(home.root)
    book.want("people")
    book.settle("people", "finished", delivered=f"people-{STUDY[:12]}")
    assert "# Who they are" in run(home, "reports", "people")
    assert newer.path.exists()


def test_a_report_is_written_to_a_file(home, tmp_path):
    publish(home)
    page, signed = tmp_path / "people.md", tmp_path / "people.json"
    assert f"Written: {page}" in run(home, "reports", "people", "--out", str(page))
    assert page.read_text().startswith("# Who they are\n")
    assert json.loads(run(home, "reports", "people", "--out", str(signed), "--json")) == {"file": str(signed)}
    assert SealedReport.from_canonical(signed.read_bytes()).report.name == "people"
    run(home, "reports", "people", "--out", str(tmp_path / "people.csv"), status=2)
    run(home, "reports", "--out", str(page), status=2)


def test_a_report_that_was_changed_is_not_shown_and_hides_no_other(home):
    name = publish(home)
    key = load_identity(home.identity_key, allow_plain=True)
    ReportBook(home.reports).publish(report(name="other", title="Untouched"), key)
    path = home.reports / f"{name}.report.json"
    path.write_bytes(path.read_bytes().replace(b"Who they are", b"Who they ate"))
    error = refused(home, "reports", name)
    assert int(error.exit_code) == 6
    whole, changed = json.loads(run(home, "reports", "--json"))
    assert whole["title"] == "Untouched"
    assert changed["report"] == name and changed["problem"].startswith(error.code)
    assert error.code in run(home, "reports") and "Untouched" in run(home, "reports")


def test_a_report_by_another_key_is_not_shown(home):
    ReportBook(home.reports).publish(report(name="people", study=STUDY), key_of("alpha"))
    assert int(refused(home, "reports", "people").exit_code) == 6


def test_an_unknown_report_is_named(home):
    error = refused(home, "reports", "absent")
    assert error.code == "CSL-S786" and "absent" in error.cause


@pytest.mark.parametrize("word", ["query", "reports"])
def test_help_teaches(word):
    result = RUNNER.invoke(app, [word, "--help"])
    assert result.exit_code == 0 and len(result.output) > 700


def test_the_help_of_studies_points_to_query():
    assert "query" in RUNNER.invoke(app, ["study", "--help"]).output
