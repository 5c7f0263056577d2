"""One study's process: every way to end is written down in plain words, and nothing that is paid for is asked for twice."""

import io
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from federation.charter import seal
from federation.errors import FederationError, OfflineError, StorageError
from privacy.keys import create_identity
from server.events import Delivered, Published, StudySigned
from server.home import CoordinatorHome
from server.journal import read_journal
from server.registry import Registry
from server.service import study_process
from server.service.studies import StudyBook
from server.service.study_process import Interrupted, Stop, StudyProcess, only_one
from tests.server.fakes import FakeFederation, draft, key_of


@dataclass
class FakeTask:
    grid: object = None
    run_config: dict[str, object] = field(default_factory=lambda: {"study": "spring"})
    finished: list[tuple[bool, str]] = field(default_factory=list)
    closed: int = 0
    deaf: bool = False

    def finish(self, ok: bool, details: str) -> None:
        if self.deaf:
            raise httpx.ConnectError("away")
        self.finished.append((ok, details))

    def close(self) -> None:
        self.closed += 1


class Town:
    """A coordinator's home with fake vaults, and a process for its study."""

    def __init__(self, folder: Path) -> None:
        self.federation = FakeFederation.make(folder)
        self.home = CoordinatorHome(folder)
        for name in ("contracts", "studies", "keys", "checkpoints", "logs"):
            (folder / name).mkdir(exist_ok=True)
        sealed = seal(
            self.federation.charter, {name: key_of(name) for name in self.federation.vaults}, key_of("coordinator")
        )
        self.home.charter_file.write_bytes(sealed.canonical())
        self.home.pin_file.write_text(self.federation.charter.digest())
        self.home.config_file.write_text(
            yaml.safe_dump({"federation": "town", "address": "127.0.0.1:18000", "plain_keys": True})
        )
        contract = folder / "contracts" / "shoppers.yaml"
        contract.write_text(yaml.safe_dump(self.federation.contract.model_dump(mode="json")))
        self.keep(rounds=10)
        seed = key_of("coordinator").private_bytes_raw()
        create_identity(self.home.identity_key, allow_plain=True, random=lambda count: seed[:count])
        self.book = StudyBook(folder)
        self.book.want("spring")
        self.task, self.stop = FakeTask(), Stop()
        self.book.settle("spring", "running", run_id=7)

    def keep(self, **changes: object) -> None:
        path = self.home.root / "studies" / "spring.yaml"
        path.write_text(yaml.safe_dump(draft(**changes).model_dump(mode="json")))

    def process(self, run: Callable[..., object] | None = None) -> StudyProcess:
        more = {} if run is None else {"run": run}
        return StudyProcess(self.home, "spring", lambda asked: self.task, stop=self.stop, address="here", **more)  # type: ignore[arg-type]

    def raising(self, error: BaseException) -> StudyProcess:
        def run(*arguments: object, **options: object) -> None:
            raise error

        return self.process(run)


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def test_a_study_of_ten_rounds_runs_to_its_model(town: Town):
    with town.federation.grid() as grid:
        town.task.grid = grid
        outcome = town.process().run()
    record = town.book.read("spring")
    assert outcome.state == record.state == "finished" and record.wanted == "stopped"
    assert town.task.finished == [(True, "")] and town.task.closed == 1
    events = [line.event for line in read_journal(town.book.journal("spring"))]
    assert sum(type(event).__name__ == "RoundDone" for event in events) == 10
    published = next(event for event in events if isinstance(event, Published))
    assert record.delivered == published.name
    card = Registry(town.home.registry).load(published.name).card
    assert card.rounds == 10 and card.spec.training.steps == 10


@pytest.mark.parametrize("code", ["CSL-S501", "CSL-S502", "CSL-S503", "CSL-S221", "CSL-S222", "CSL-S223"])
@pytest.mark.parametrize("keep_trying", [False, True])
def test_too_few_partners_stop_a_study_unless_it_is_to_keep_trying(town: Town, code: str, keep_trying: bool):
    town.book.want("spring", keep_trying=keep_trying)
    town.raising(FederationError(code, "2 are there; it needs 3.", "Ask the others.")).run()
    record = town.book.read("spring")
    wanted = ("waiting", "running") if keep_trying else ("stopped", "stopped")
    assert (record.state, record.wanted) == wanted and record.code == code
    assert record.reason == "2 are there; it needs 3. Ask the others."
    assert town.task.finished == [(False, code)]


@pytest.mark.parametrize(
    "error",
    [StorageError("CSL-S402", "x", "y"), FederationError("CSL-S601", "x", "y"), StorageError("CSL-F301", "x", "y")],
)
def test_what_needs_a_persons_hand_fails(town: Town, error: Exception):
    town.raising(error).run()
    record = town.book.read("spring")
    assert (record.state, record.wanted) == ("failed", "stopped") and record.reason == "x y"


@pytest.mark.parametrize("error", [httpx.ConnectError("away"), OfflineError("CSL-F331", "x", "y")])
def test_a_link_that_ends_the_run_is_no_end_of_the_study(town: Town, error: Exception):
    town.raising(error).run()
    record = town.book.read("spring")
    assert (record.state, record.wanted) == ("waiting", "running") and "goes on" in record.reason


def test_a_task_that_cannot_be_opened_is_the_links_matter(town: Town):
    def refuse(asked: Callable[[], bool]) -> FakeTask:
        raise httpx.ConnectError("away")

    StudyProcess(town.home, "spring", refuse, address="here").run()
    assert town.book.read("spring").state == "waiting"


def test_a_fault_of_the_program_leaves_the_record_to_the_executor(town: Town):
    with pytest.raises(ZeroDivisionError):
        town.raising(ZeroDivisionError()).run()
    assert town.book.read("spring").state == "running"


def test_a_link_that_is_not_told_of_the_end_changes_nothing(town: Town):
    town.task.deaf = True
    town.process(lambda *arguments, **options: None).run()
    assert town.book.read("spring").state == "finished" and town.task.closed == 1


@pytest.mark.parametrize(("wanted", "state"), [("running", "waiting"), ("stopped", "stopped")])
def test_a_signal_ends_it_between_two_steps(town: Town, wanted: str, state: str):
    if wanted == "stopped":
        town.book.unwant("spring")
    town.stop.tell()
    with town.federation.grid() as grid:
        town.task.grid = grid
        town.process().run()
    record = town.book.read("spring")
    assert (record.state, record.wanted) == (state, wanted)


def test_told_to_stop_while_the_link_is_away_it_was_stopped_and_not_lost(town: Town):
    town.book.unwant("spring")
    town.stop.tell()
    town.raising(httpx.ConnectError("away")).run()
    assert town.book.read("spring").state == "stopped"


def test_interrupted_in_the_middle_it_goes_on_as_the_same_study(town: Town):
    seen = []

    def stop_after_four(event: object) -> None:
        seen.append(type(event).__name__)
        if seen.count("RoundDone") == 4:
            town.stop.tell()

    first = town.process()
    inner = first._on_event
    first._on_event = lambda: _both(inner(), stop_after_four)  # type: ignore[method-assign]
    with town.federation.grid() as grid:
        town.task.grid = grid
        assert first.run().state == "waiting"
        town.stop = Stop()
        assert town.process().run().state == "finished"
    events = [line.event for line in read_journal(town.book.journal("spring"))]
    rounds = [event.round for event in events if type(event).__name__ == "RoundDone"]
    assert sorted(rounds) == list(range(1, 11))
    assert sum(isinstance(event, StudySigned) for event in events) == 1
    for vault in town.federation.vaults.values():
        assert vault.work.count("train") == 10 and vault.work.count("query.offer") == 1


def _both(first: Callable[[object], None], second: Callable[[object], None]) -> Callable[[object], None]:
    def on_event(event: object) -> None:
        first(event)
        second(event)

    return on_event


def test_what_was_delivered_is_not_begun_anew_at_everybodys_cost(town: Town):
    """Killed after the checkpoint was dropped, while ledger heads were exchanged: a run would sign a new study."""

    def run(*arguments: object, on_event: Callable[[object], None], **options: object) -> None:
        on_event(Published("spring-1234", Path("x"), "0" * 64))
        on_event(Delivered(("alpha",), True))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        town.process(run).run()
    assert town.book.read("spring").delivered == "spring-1234"

    def never(*arguments: object, **options: object) -> None:
        pytest.fail("a new study would be signed")

    assert town.process(never).run().state == "finished"


def test_delivery_that_was_interrupted_before_the_checkpoint_went_is_repeated(town: Town):
    town.book.settle("spring", "running", delivered="spring-1234")
    (town.home.root / "checkpoints" / "spring.checkpoint").write_bytes(b"x")
    asked = []
    town.process(lambda *arguments, **options: asked.append(1)).run()
    assert asked == [1]


def test_a_task_for_another_study_is_refused(town: Town):
    town.task.run_config = {"study": "autumn"}
    town.process().run()
    record = town.book.read("spring")
    assert (record.state, record.code) == ("failed", "CSL-S811")


def test_the_patience_is_the_records(town: Town):
    town.book.want("spring", roster_seconds=3.0, grant_seconds=4.0)
    seen: dict[str, object] = {}
    town.process(lambda *arguments, **options: seen.update(options)).run()
    assert (seen["roster_seconds"], seen["grant_seconds"]) == (3.0, 4.0)


def test_two_processes_never_run_one_study(tmp_path: Path):
    path = tmp_path / "run" / "spring.lock"
    with only_one(path), pytest.raises(FederationError, match="CSL-S812"), only_one(path, seconds=0.2):
        pass
    with only_one(path, seconds=0):
        pass


def test_waiting_ends_at_once_when_the_end_is_asked_for():
    stop = Stop()
    threading.Timer(0.1, stop.tell).start()
    with pytest.raises(Interrupted):
        stop.sleep(60)
    with pytest.raises(Interrupted):
        stop.now()


def test_the_process_needs_its_token_and_says_by_its_status_what_failed(town: Town, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("token\n"))
    opened = []

    def open_task(address: str, authority: bytes, token: str, asked: Callable[[], bool]) -> FakeTask:
        opened.append((address, token))
        raise httpx.ConnectError("away")

    monkeypatch.setattr(study_process.ServerTask, "open", open_task)
    monkeypatch.setattr(study_process.signal, "signal", lambda number, handler: None)
    arguments = ["--home", str(town.home.root), "--study", "spring"]
    assert study_process.main(arguments) == 9
    assert town.book.read("spring").code == "CSL-S814"  # no authority's certificate in this home
    town.book.want("spring")
    monkeypatch.setattr(sys, "stdin", io.StringIO("token\n"))
    town.home.authority_file.parent.mkdir()
    town.home.authority_file.write_text("pem")
    assert study_process.main(arguments) == 0
    assert opened == [("127.0.0.1:18000", "token")] and town.book.read("spring").state == "waiting"
    assert "CSL-S814" in town.book.log("spring").read_text()


@pytest.mark.e2e
def test_the_module_runs_by_itself(tmp_path: Path):
    result = subprocess.run(
        [sys.executable, "-m", "server.service.study_process", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--study" in result.stdout
