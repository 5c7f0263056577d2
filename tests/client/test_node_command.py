"""What an institution sees: `consilience node`."""

import json
import shutil

import pytest

from client.home import Home
from client.install import install
from federation.command import run
from federation.errors import ExitCode, StorageError
from tests.client import vault_home


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = vault_home.found(tmp_path_factory.mktemp("town"))
    vault, spec = town.vault(), town.spec()
    vault.answer("query.offer", town.offer(spec))
    vault.answer("train", town.train(spec, 1))
    model = town.weights(spec, 0.1)
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    return town


def test_init_makes_a_home_and_never_twice(tmp_path, capsys):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    home = tmp_path / "home"
    arguments = ["node", "init", str(home), "--member", "alder", "--passphrase-file", str(secret)]
    assert run(arguments) == 0
    assert "Public key of alder" in capsys.readouterr().out
    assert (home / "ledger.sqlite").stat().st_mode & 0o077 == 0
    assert home.stat().st_mode & 0o077 == 0
    assert run(arguments) == ExitCode.STORAGE


def test_init_refuses_a_name_that_no_charter_can_hold_before_it_makes_anything(tmp_path, capsys):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    arguments = ["node", "init", str(tmp_path / "home"), "--passphrase-file", str(secret), "--member"]
    assert run([*arguments, "Alder & Co"]) == ExitCode.DOCUMENT
    assert "CSL-C617" in capsys.readouterr().err and not (tmp_path / "home").exists()
    (tmp_path / "home").write_text("a file")
    assert run([*arguments, "alder"]) == ExitCode.STORAGE
    assert "CSL-C002" in capsys.readouterr().err


def test_init_that_fails_leaves_no_key_in_the_way_of_the_next_try(tmp_path, monkeypatch):
    def full(*arguments, **named):
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    home = Home(tmp_path / "home")
    with monkeypatch.context() as patch:
        patch.setattr("client.install.Ledger.create", full)
        with pytest.raises(StorageError, match="CSL-P511"):
            install(home, "alder", allow_plain=True)
    assert not list(home.folder("keys").iterdir())
    install(home, "alder", allow_plain=True)
    before = home.identity_key.read_bytes()
    with pytest.raises(StorageError, match="CSL-P501"):
        install(home, "alder", allow_plain=True)
    assert home.identity_key.read_bytes() == before and home.ledger_file.exists()


def test_a_pin_that_is_no_text_is_not_the_charters(town, tmp_path, capsys):
    home = tmp_path / "home"
    shutil.copytree(town.homes["alder"].root, home)
    (home / "charter.digest").write_bytes(b"\xff\xfe")
    assert run(["node", "check", str(home)]) == ExitCode.INTEGRITY
    assert "CSL-F204" in capsys.readouterr().err


def test_check_shows_counts_and_stays_at_home(town, capsys):
    home = str(town.homes["alder"].root)
    assert run(["node", "check", home, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)[0]
    assert report["ok"] and report["member"] == "alder"
    assert run(["node", "check", home]) == 0
    assert "seen at this institution only" in capsys.readouterr().out


def test_check_fails_with_its_own_exit_code(town, capsys):
    home = town.homes["cedar"].root
    (home / "customers.csv").unlink()
    assert run(["node", "check", str(home)]) == ExitCode.DATA
    assert "CSL-C612" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ("capacity: {bank_campain: {kind: top, customers: 5}}\n", "CSL-C618"),
        ("capacity: {CONTRACT: {kind: worthwhile, cost: 4.0, success_rate: 0.1}}\n", "CSL-C619"),
        ("capacity: {CONTRACT: {kind: top, customer: 5}}\n", "CSL-F105"),
    ],
)
def test_check_finds_what_would_keep_a_list_from_being_written(town, tmp_path, capsys, rules, code):
    home = tmp_path / "home"
    shutil.copytree(town.homes["alder"].root, home)
    contract = next((home / "contracts").glob("*.yaml")).stem
    (home / "lists.yaml").write_text(rules.replace("CONTRACT", contract))
    assert run(["node", "check", str(home)]) != 0
    assert code in capsys.readouterr().err
    (home / "lists.yaml").write_text(f"capacity: {{{contract}: {{kind: top, customers: 5}}}}\n")
    assert run(["node", "check", str(home)]) == 0


def test_check_of_a_contract_that_the_policy_does_not_know(town, capsys):
    assert run(["node", "check", str(town.homes["alder"].root), "--contract", "rfm"]) == ExitCode.DATA
    assert "CSL-C614" in capsys.readouterr().err


def test_status_and_names(town, capsys):
    home = str(town.homes["alder"].root)
    assert run(["node", "status", home, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)
    assert status["studies"][0]["released"] == 1 and status["studies"][0]["model"] == "in use"
    assert run(["node", "status", home]) == 0
    assert "propensity" in capsys.readouterr().out
    assert run(["node", "names", home, "--top", "3", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == 3
    assert run(["node", "names", home]) == 0
    assert "decile" in capsys.readouterr().out


def test_names_before_there_is_a_list(town, capsys):
    assert run(["node", "names", str(town.homes["birch"].root)]) == ExitCode.STORAGE
    assert "CSL-C613" in capsys.readouterr().err


def test_shapes_of_the_adopted_model(town, tmp_path, capsys):
    home = str(town.homes["alder"].root)
    for name, start in (("a.svg", b"<svg"), ("a.png", b"\x89PNG")):
        assert run(["node", "shapes", home, "--study", "propensity", "--out", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    assert run(["node", "shapes", home, "--study", "propensity", "--out", str(tmp_path / "a.doc")]) == ExitCode.DOCUMENT
    assert run(["node", "shapes", home, "--study", "other", "--out", str(tmp_path / "a.svg")]) == ExitCode.STORAGE
    assert "CSL-C615" in capsys.readouterr().err
