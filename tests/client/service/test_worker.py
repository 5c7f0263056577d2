"""The worker's process: what opens, what does not, and the exit code and words for each."""

import json
import shutil
import socket
import sqlite3
import threading

import pytest

from client.home import Home
from client.service import worker
from client.service.standing import read_standing
from client.service.worker import run
from client.service.worker_exit import WorkerExit
from tests.client import vault_home
from tests.client.service.fakes import FakeDesk, FakeTask
from tests.client.service.test_answering import message
from tests.founding_parts import APP, link


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return vault_home.found(tmp_path_factory.mktemp("town"), link=link())


@pytest.fixture
def home(town, tmp_path):
    shutil.copytree(town.homes["alder"].root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture(autouse=True)
def soft(monkeypatch):
    monkeypatch.setattr(worker, "harden", lambda: None)


def with_passphrase(home, text="correct horse battery staple"):
    """Let the keys be sealed by another passphrase than the file says."""
    from privacy.keys import create_identity

    home.identity_key.unlink()
    create_identity(home.identity_key, passphrase=b"a quite different one")
    secret = home.root / "passphrase"
    secret.write_text(text + "\n")
    secret.chmod(0o600)
    home.node_file.write_text(home.node_file.read_text().replace("plain_keys: true", f"passphrase_file: {secret}"))


def broken_ledger(home):
    with sqlite3.connect(home.ledger_file) as connection:
        connection.execute("UPDATE state SET body = zeroblob(10)")


def taken_port(home):
    busy = socket.socket()
    busy.bind(("127.0.0.1", 0))
    busy.listen()
    text = home.node_file.read_text()
    home.node_file.write_text(f"{text}\nservice: {{metrics_port: {busy.getsockname()[1]}}}\n")
    return busy


@pytest.mark.parametrize(
    ("change", "code", "why"),
    [
        (lambda home: home.node_file.write_text("member: 5"), WorkerExit.CONFIGURATION, "CSL-F1"),
        (lambda home: home.lock_file.write_text(""), WorkerExit.LOCKED, "CSL-C006"),
        (lambda home: home.pin_file.write_text("0" * 64), WorkerExit.CHARTER, "CSL-F204"),
        (lambda home: home.store_key.chmod(0o644), WorkerExit.KEYS, "CSL-P5"),
        (with_passphrase, WorkerExit.KEYS, "CSL-P5"),
        (lambda home: home.runtime_secret.unlink(), WorkerExit.KEYS, "CSL-F311"),
        (broken_ledger, WorkerExit.LEDGER, "CSL-P6"),
        (lambda home: home.ledger_file.unlink(), WorkerExit.LEDGER, "CSL-P"),
        (taken_port, WorkerExit.PORT, "CSL-F371"),
    ],
)
def test_what_only_a_person_can_mend_has_its_exit_code_and_words(home, change, code, why, caplog):
    kept = change(home)
    with caplog.at_level("INFO", "consilience"):
        assert run(home, threading.Event()) == code
    said = read_standing(home.run_folder / "vault.json")
    assert said.phase == "failed" and said.failure.code.startswith(why) and said.failure.action
    assert any("cannot be opened" in record.getMessage() for record in caplog.records)
    del kept


def test_a_vault_that_opens_answers_and_closes_its_ledger(home, town, monkeypatch):
    stop = threading.Event()
    task = FakeTask(message("query.hello", town.hello()), app=APP)
    other = FakeTask(message("query.hello", town.hello()), app="0" * 64)
    seen = {}

    def desk(port, secret, run):
        seen.update(port=port, secret=secret)
        return FakeDesk(stop, task, other)

    monkeypatch.setattr(worker, "SuperNodeDesk", desk)
    assert run(home, stop) == WorkerExit.STOPPED
    assert seen == {"port": 19_100, "secret": home.runtime_secret.read_bytes()}
    assert b"alder" in task.replies[0].content["consilience"]["header"]
    assert b"identity" in task.replies[0].content["consilience"]["header"]
    assert b"refus" in other.replies[0].content["consilience"]["header"]
    said = json.loads((home.run_folder / "vault.json").read_text())
    assert said["phase"] == "stopped" and said["answered"] == 2 and said["last_type"] == "another app"
    assert said["charter"] == home.charter().digest()


def test_its_metrics_say_what_it_did(home, town, monkeypatch):
    from prometheus_client import generate_latest

    from client.metrics import VaultMetrics

    made = []

    class Kept(VaultMetrics):
        def __init__(self):
            super().__init__()
            made.append(self)

    stop, spec = threading.Event(), town.spec()
    tasks = [
        FakeTask(message(kind, records), app=APP)
        for kind, records in (
            ("query.offer", town.offer(spec)),
            ("train", town.train(spec, 1)),
            ("train", town.train(spec, 99)),
            ("query.odd", town.hello()),
        )
    ]
    monkeypatch.setattr(worker, "SuperNodeDesk", lambda port, secret, run: FakeDesk(stop, *tasks))
    monkeypatch.setattr(worker, "VaultMetrics", Kept)
    assert run(home, stop) == WorkerExit.STOPPED
    text = generate_latest(made[0].registry).decode()
    assert 'releases_total{account="training"} 1.0' in text and 'refusals_total{code="CSL-C512"} 1.0' in text
    assert "consilience_vault_studies_open 1.0" in text and 'type="other"' in text
    assert "odd" not in text


def test_a_request_that_the_vault_could_not_answer_at_all_has_failed(home):
    from client.metrics import VaultMetrics
    from client.service.meter import VaultMeter
    from privacy.keys import read_public

    meter = VaultMeter(VaultMetrics(), home, read_public(home.identity_key))
    assert meter.done(0.5) == "other"
    home.ledger_file.unlink()
    meter.refresh()
