"""What the node runs, and what each of its processes is given."""

import os
import stat

import pytest

from client.config import load_node
from client.home import Home
from client.service import start
from client.service.start import Story, children, main, passed_on, prepare, serve
from federation.errors import ConsilienceError, ExitCode
from tests.client import vault_home
from tests.founding_parts import link

SECRETS = ("identity.key", "holdout.key", "store.key", "ledger.sqlite", "passphrase", "node.yaml")


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return vault_home.found(tmp_path_factory.mktemp("town"), link=link())


@pytest.fixture
def home(town):
    return town.homes["alder"]


def processes(home, **variables):
    supernode, vault = children(home, load_node(home.node_file), home.charter(), variables)
    return supernode, vault


def test_the_supernode_gets_its_own_key_and_nothing_else_of_the_home(home):
    supernode, _ = processes(home, DB_PASSWORD="hunter2")
    words = list(supernode.command) + [f"{name}={text}" for name, text in supernode.environment.items()]
    assert str(home.node_key.resolve()) in words and "--node-config" not in words
    assert not [word for word in words if any(secret in word for secret in SECRETS) or "hunter2" in word]
    assert words[words.index("--host") + 1] == "127.0.0.1" and words[words.index("--isolation") + 1] == "process"
    assert words[words.index("--superlink") + 1] == home.charter().link.address
    assert supernode.environment["FLWR_TELEMETRY_ENABLED"] == "0"


def test_the_vault_keeps_the_variables_and_names_no_key(home):
    _, vault = processes(home, DB_PASSWORD="hunter2")
    assert vault.environment["DB_PASSWORD"] == "hunter2" and vault.environment["PYTHONSAFEPATH"] == "1"
    assert not any(secret in word for word in vault.command for secret in SECRETS)


def test_another_way_to_the_coordinator_comes_from_node_yaml(home, tmp_path):
    node = load_node(home.node_file)
    service = node.service.model_copy(update={"link": "gateway.example:8443", "runtime_port": 20_000})
    supernode, _ = children(home, node.model_copy(update={"service": service}), home.charter(), {})
    assert "gateway.example:8443" in supernode.command and "20000" in supernode.command


def test_only_what_every_process_needs_is_passed_on():
    given = {"PATH": "/bin", "LC_ALL": "C", "PGPASSWORD": "x", "DB_URL": "y", "https_proxy": "z", "AWS_SECRET": "w"}
    assert passed_on(given) == {"PATH": "/bin", "LC_ALL": "C", "https_proxy": "z"}


def test_the_supervisor_gives_up_its_variables_before_it_starts_anybody(home, monkeypatch):
    seen = {}

    class Fake:
        def __init__(self, folder, processes, pace, on_event):
            seen.update(folder=folder, processes=processes, pace=pace)

        def run(self):
            seen["left"] = set(variables)
            return 0

    variables = {"PATH": "/bin", "DB_URL": "secret"}
    monkeypatch.setattr(start, "Supervisor", Fake)
    monkeypatch.setattr(start, "harden", lambda: None)
    assert serve(home, variables) == 0
    assert seen["pace"].longest == 5.0  # a SuperNode that was killed is let in again a minute later, and asks often
    assert seen["left"] == {"PATH"} and seen["processes"][1].environment["DB_URL"] == "secret"
    authority = home.run_folder / "authority.pem"
    assert authority.read_text() == home.charter().link.authority
    assert stat.S_IMODE(authority.stat().st_mode) == 0o600


def test_a_stop_is_no_refusal_of_the_link():
    story = Story()
    tail = "SuperNode terminated gracefully."
    assert "clock" in story.of_supernode(0, tail)
    story("service_stopping")
    assert story.of_supernode(0, tail) == "It was stopped."


def altered(home, tmp_path, change):
    import shutil

    root = tmp_path / "home"
    shutil.copytree(home.root, root)
    change(Home(root))
    return Home(root)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda home: home.node_key.unlink(), "CSL-F311"),
        (lambda home: home.node_key.chmod(0o644), "CSL-F312"),
        (lambda home: home.lock_file.write_text(""), "CSL-C006"),
        (lambda home: home.pin_file.write_text("0" * 64), "CSL-F204"),
        (lambda home: home.runtime_secret.write_bytes(b"short"), "CSL-C453"),
    ],
)
def test_what_a_person_must_mend_is_said_before_anything_runs(home, tmp_path, change, code):
    with pytest.raises(ConsilienceError) as raised:
        prepare(altered(home, tmp_path, change))
    assert raised.value.code == code


def test_a_charter_without_a_link_runs_no_node(tmp_path, capsys, monkeypatch):
    town = vault_home.found(tmp_path, active=False)
    monkeypatch.setattr(start, "harden", lambda: None)
    assert main(["--home", str(town.homes["alder"].root)]) == ExitCode.DOCUMENT
    err = capsys.readouterr().err
    assert "CSL-C411" in err and "the node cannot start" in err


def test_hardening_is_for_the_rest_of_a_process(tmp_path):
    from client.service.hardening import harden

    child = os.fork()
    if child == 0:
        try:
            import ctypes
            import resource

            harden()
            safe = resource.getrlimit(resource.RLIMIT_CORE)[0] == 0 and ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0
            (tmp_path / "file").write_text("x")
            os._exit(0 if safe and not (tmp_path / "file").stat().st_mode & 0o077 else 3)
        finally:
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_system_that_does_not_let_it_is_said(monkeypatch):
    from client.service import hardening

    def refuse(*_):
        raise ValueError("not allowed")

    monkeypatch.setattr(hardening.resource, "setrlimit", refuse)
    monkeypatch.setattr(hardening.os, "umask", lambda mask: mask)
    with pytest.raises(ConsilienceError, match="CSL-C410"):
        hardening.harden()
