"""Studies on the command line: proposing, wanting, watching, stopping, listing."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from federation.errors import ConsilienceError
from federation.service_state import ServiceLock
from federation.study import SecurePlan
from privacy.secure_aggregation.roster import Roster
from server.command import app
from server.events import Delivered, GrantsReceived, Published, RosterSettled, RoundDone, StudySigned
from server.home import CoordinatorHome
from server.journal import Journal
from server.planning import SHARE
from server.service.studies import StudyBook
from server.study_command import _missing
from tests.server.fakes import draft
from tests.server.service.conftest import found

RUNNER = CliRunner()


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    return found(tmp_path / "home", "a" * 64)


def run(home: CoordinatorHome, *words: str, status: int = 0) -> str:
    result = RUNNER.invoke(app, ["study", *words, "--home", str(home.root)], terminal_width=200)
    assert result.exit_code == status, result.output
    return result.output


def refused(home: CoordinatorHome, *words: str) -> str:
    error = RUNNER.invoke(app, ["study", *words, "--home", str(home.root)]).exception
    assert isinstance(error, ConsilienceError) and error.action
    return error.code


def written(folder: Path, **changes: object) -> str:
    path = folder / "draft.yaml"
    path.write_text(yaml.safe_dump(draft(**changes).model_dump(mode="json")))
    return str(path)


def test_a_proposal_is_checked_shown_and_kept(home, tmp_path):
    file = written(tmp_path, name="autumn", rounds=10)
    output = run(home, "propose", file)
    assert "10 rounds, as the draft says" in output and "study start autumn" in output
    assert (home.root / "studies" / "autumn.yaml").read_bytes() == Path(file).read_bytes()
    shown = json.loads(run(home, "propose", file, "--json"))
    assert (shown["plan"]["rounds"], shown["plan"]["steps"], len(shown["members"])) == (10, 10, 4)


def test_a_secure_draft_says_what_may_be_missing_and_who_may_collude(home, tmp_path):
    terms = {"aggregation": "secure", "noise": "shared", "n_min": 3, "c": 0}
    output = run(home, "propose", written(tmp_path, name="autumn", **terms))
    assert "only sums over at least 3 members are opened" in output and "while none colludes with" in output
    assert "the noise of 2 members counts" in output and "1 of 4 may be missing" in output
    assert "Of 4 that are ready, 3 must send their vectors: 1 may drop out." in output
    output = run(home, "propose", written(tmp_path, name="winter", **terms | {"noise": "local", "n_min": 4, "c": 1}))
    assert "while no more than one of them colludes with" in output
    assert "each vault adds the full noise itself" in output
    assert "the study needs 4 members" in output and "Nobody may be missing." in output
    assert "Added up in secret" not in run(home, "propose", written(tmp_path, name="spring_2"))


def test_who_may_be_missing_counts_from_the_partners_that_the_study_needs(home, tmp_path):
    terms = {"aggregation": "secure", "noise": "shared", "n_min": 3, "c": 0, "min_partners": 4}
    file = written(tmp_path, name="autumn", **terms)
    assert "Nobody may be missing." in run(home, "check", file)
    assert json.loads(run(home, "check", file, "--json"))["secure"] == {
        "noise": "shared",
        "n_min": 3,
        "c": 0,
        "least": 4,
        "may_be_missing": 0,
    }
    alone = RUNNER.invoke(app, ["study", "check", file, "--json"])
    assert json.loads(alone.output)["secure"]["may_be_missing"] is None
    assert "secure" not in json.loads(run(home, "check", written(tmp_path), "--json"))


@pytest.mark.parametrize(
    ("least", "c", "members", "missing", "drop"),
    [(4, 1, 8, 4, 3), (3, 0, 8, 5, 3), (7, 1, 8, 1, 1), (4, 1, 20, 16, 9), (4, 1, 9, 5, 3)],
)
def test_of_those_who_are_ready_more_than_half_must_send_their_vectors(least, c, members, missing, drop):
    plan = SecurePlan(noise="shared", n_min=c + 3, c=c, share=SHARE)
    roster = Roster("a" * 64, "b" * 64, dict.fromkeys(map(str, range(members)), "c" * 64), c + 3, c)
    assert members - max(least, roster.survivors_needed(members)) == drop
    words = _missing(plan, least, members)
    assert f"{missing} of {members} may be missing" in words
    assert f"Of {members} that are ready, {members - drop} must send their vectors: {drop} may drop out." in words


def test_a_draft_that_does_not_fit_the_charter_is_not_kept(home, tmp_path):
    assert refused(home, "propose", written(tmp_path, name="autumn", min_partners=9)) == "CSL-S101"
    assert not (home.root / "studies" / "autumn.yaml").exists()


def test_the_draft_of_a_study_that_is_not_finished_is_not_replaced(home, tmp_path):
    run(home, "start", "spring")
    other = written(tmp_path, title="Another")
    assert refused(home, "propose", other) == "CSL-S805"
    run(home, "propose", str(home.root / "studies" / "spring.yaml"))
    run(home, "stop", "spring")
    run(home, "propose", other)
    (home.root / "checkpoints" / "spring.checkpoint").write_bytes(b"x")
    assert refused(home, "propose", written(tmp_path, title="A third")) == "CSL-S805"


def test_starting_says_whether_a_service_will_take_it_up(home):
    output = run(home, "start", "spring", "--keep-trying", "--grant-seconds", "60")
    assert "wanted from now on" in output and "The service does not run" in output
    record = StudyBook(home.root).read("spring")
    assert record.wanted == "running" and record.keep_trying and record.grant_seconds == 60.0
    with ServiceLock(home.run):
        output = run(home, "start", "spring")
    assert "wanted already" in output and "does not run" not in output


def test_what_cannot_be_started_is_named(home):
    assert refused(home, "start", "absent") == "CSL-F103"
    assert refused(home, "start", "../charter") == "CSL-S104"
    (home.root / "studies" / "other.yaml").write_bytes((home.root / "studies" / "spring.yaml").read_bytes())
    assert refused(home, "start", "other") == "CSL-S803"
    assert StudyBook(home.root).names() == ()


def test_a_finished_study_is_not_run_again_by_accident(home):
    book = StudyBook(home.root)
    book.want("spring")
    book.settle("spring", "finished", delivered="spring-1234")
    assert refused(home, "start", "spring") == "CSL-S804"
    run(home, "start", "spring", "--again")
    record = book.read("spring")
    assert record.state == "waiting" and record.delivered is None


def lost(home: CoordinatorHome, *, journal: bool = False, models: tuple[str, ...] = ()) -> None:
    """Leave of a study only what the words say, and no record."""
    if journal:
        write = Journal(told(home).journal("spring"))
        write(Published("spring-0123456789ab", home.registry / "spring-0123456789ab", "0" * 64))
        write(Delivered(("alpha",), True))
        StudyBook(home.root).file("spring").unlink()
    for model in models:
        (home.registry / model).mkdir()


@pytest.mark.parametrize("left", [{"journal": True}, {"models": ("spring-0123456789ab",)}])
def test_a_delivered_study_whose_record_is_lost_is_not_run_again_by_accident(home, left):
    lost(home, **left)
    result = RUNNER.invoke(app, ["study", "start", "spring", "--home", str(home.root)])
    assert isinstance(result.exception, ConsilienceError) and result.exception.code == "CSL-S804"
    assert "spring-0123456789ab" in result.exception.cause and "--again" in result.exception.action
    assert StudyBook(home.root).read("spring") is None
    run(home, "start", "spring", "--again")
    assert StudyBook(home.root).read("spring").wanted == "running"


def test_a_damaged_record_of_a_delivered_study_leads_to_no_second_bill(home):
    lost(home, models=("spring-0123456789ab",))
    book = StudyBook(home.root)
    book.want("spring")
    book.file("spring").write_text("{")
    assert refused(home, "start", "spring") == refused(home, "start", "spring", "--again") == "CSL-S801"
    book.file("spring").unlink()
    assert refused(home, "start", "spring") == "CSL-S804"


def test_a_study_whose_record_is_lost_goes_on_from_its_checkpoint(home):
    lost(home, journal=True, models=("spring-0123456789ab",))
    (home.root / "checkpoints" / "spring.checkpoint").write_bytes(b"x")
    run(home, "start", "spring")


def test_what_another_study_or_an_unfinished_one_left_asks_for_nothing(home):
    lost(home, models=("spring-tide-0123456789ab", "spring-old", "offspring-0123456789ab"))
    told(home).file("spring").unlink()
    run(home, "start", "spring")


def test_another_draft_is_run_although_the_one_before_was_delivered(home, tmp_path):
    book = StudyBook(home.root)
    book.want("spring")
    book.settle("spring", "stopped", "stopped by the coordinator", delivered="spring-0123456789ab")
    kept = home.root / "studies" / "spring.yaml"
    same = tmp_path / "same.yaml"
    same.write_text("# only a remark\n" + kept.read_text())
    run(home, "propose", str(same))
    assert kept.read_text() == same.read_text() and book.read("spring").delivered == "spring-0123456789ab"
    run(home, "propose", written(tmp_path, title="Another"))
    run(home, "start", "spring")
    record = book.read("spring")
    assert (record.wanted, record.delivered) == ("running", None)


def test_another_draft_of_a_finished_study_still_asks_for_again(home, tmp_path):
    book = StudyBook(home.root)
    book.want("spring")
    book.settle("spring", "finished", delivered="spring-0123456789ab")
    run(home, "propose", written(tmp_path, title="Another"))
    assert book.read("spring").delivered == "spring-0123456789ab"
    assert refused(home, "start", "spring") == "CSL-S804"


def test_stopping(home):
    assert refused(home, "stop", "spring") == "CSL-S802"
    run(home, "start", "spring")
    with ServiceLock(home.run):
        assert "within a few seconds" in run(home, "stop", "spring")
    assert StudyBook(home.root).read("spring").wanted == "stopped"
    assert "is stopped" in run(home, "stop", "spring")
    assert "nothing to stop" in run(home, "stop", "spring")


def told(home: CoordinatorHome) -> StudyBook:
    book = StudyBook(home.root)
    book.want("spring")
    journal = Journal(book.journal("spring"))
    journal(StudySigned("spring", "0" * 64, 10, ("alpha", "beta", "gamma")))
    journal(RosterSettled(("alpha", "beta"), ("gamma",)))
    journal(GrantsReceived(("alpha", "beta"), (1.0, 2.0), ()))
    journal(RoundDone(1, 10, ("alpha",), ("beta",), 1.5, 10, 20))
    return book


def test_the_list_shows_every_study_and_why_it_does_not_run(home, tmp_path):
    run(home, "propose", written(tmp_path, name="autumn"))
    book = told(home)
    book.settle("spring", "stopped", "2 members are connected; it needs 3.", "CSL-S502")
    rows = {row["study"]: row for row in json.loads(run(home, "list", "--json"))}
    assert rows["autumn"]["state"] == "proposed"
    spring = rows["spring"]
    assert (spring["state"], spring["round"], spring["rounds"]) == ("stopped", 1, 10)
    assert spring["members"] == ["alpha", "beta"] and spring["granted"] == 2
    assert "CSL-S502" in spring["reason"] and spring["since"].endswith("+00:00")
    text = run(home, "list")
    assert "1/10" in text and "proposed" in text


def test_a_damaged_record_is_listed_as_such(home):
    told(home).file("spring").write_text("{")
    (row,) = json.loads(run(home, "list", "--json"))
    assert row["state"] == "damaged" and "CSL-S801" in row["reason"]


def test_an_empty_list_says_how_to_begin(home):
    (home.root / "studies" / "spring.yaml").unlink()
    assert "study propose" in run(home, "list")


def test_watching_shows_what_was_and_ends_with_the_study(home):
    assert refused(home, "watch", "spring") == "CSL-S802"
    book = told(home)
    assert "The service does not run" in run(home, "watch", "spring", status=8)
    Journal(book.journal("spring"))(Delivered(("alpha", "beta"), True))
    book.settle("spring", "finished", "the model is published", delivered="spring-1234")
    output = run(home, "watch", "spring")
    assert "round 1/10" in output and "left out: beta" in output and "finished" in output
    lines = [json.loads(line) for line in run(home, "watch", "spring", "--json").splitlines()]
    assert [line["event"] for line in lines][-1] == "Delivered"
    book.want("spring")
    book.settle("spring", "stopped", "2 are there.", "CSL-S502")
    assert "CSL-S502" in run(home, "watch", "spring", status=8)


@pytest.mark.parametrize("word", ["propose", "start", "watch", "stop", "list"])
def test_help_teaches(word):
    result = RUNNER.invoke(app, ["study", word, "--help"])
    assert result.exit_code == 0 and len(result.output) > 300


def test_a_folder_that_is_no_home_is_named(tmp_path):
    error = RUNNER.invoke(app, ["study", "list", "--home", str(tmp_path)]).exception
    assert isinstance(error, ConsilienceError) and error.code == "CSL-S111"
