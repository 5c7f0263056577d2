"""What an institution sees: `consilience node`."""

import csv
import io
import json
import shutil

import pyarrow.parquet as pq
import pytest

from client.home import Home
from client.install import install
from client.lists import ListRecord
from client.unlock import unlock
from client.withdrawal import Withdrawals, register
from federation.command import run
from federation.errors import ExitCode, StorageError
from privacy.ledger import Ledger
from privacy.ledger.entries import Access
from tests.client import vault_home
from tests.client.vault_home import CANARY


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = vault_home.found(tmp_path_factory.mktemp("town"))
    vault, spec = town.vault(), town.ranking()
    vault.answer("query.offer", town.offer(spec))
    vault.answer("train", town.train(spec, 1))
    model = town.weights(spec, 1.0)
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    return town


@pytest.fixture
def home(town, tmp_path):
    root = tmp_path / "home"
    shutil.copytree(town.homes["alder"].root, root)
    return Home(root)


def node(home, command, *arguments):
    return run(["node", command, "--home", str(home.root), *arguments])


def looks(home):
    """What stands in the ledger about looks at lists: (action, what, actor's role, rows)."""
    with Ledger.open(home.ledger_file, unlock(home).identity) as ledger:
        bodies = [entry.body for entry in ledger.entries()]
    return [
        (body.data.action, body.data.what, body.data.role, body.data.count)
        for body in bodies
        if isinstance(body, Access)
    ]


def test_init_makes_a_home_and_never_twice(tmp_path, capsys):
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    secret.chmod(0o600)
    home = tmp_path / "home"
    arguments = ["node", "init", str(home), "--member", "alder", "--passphrase-file", str(secret)]
    assert run(arguments) == 0
    assert "Public key of alder" in capsys.readouterr().out
    keys = ("keys/store.key", "keys/identity.key", "keys/holdout.key", "keys/node.key", "keys/runtime.secret")
    for name in ("ledger.sqlite", "withdrawn.bin", *keys):
        assert (home / name).stat().st_mode & 0o077 == 0
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
    assert not list(home.folder("keys").iterdir()) and not home.withdrawn_file.exists()
    install(home, "alder", allow_plain=True)
    before = home.identity_key.read_bytes()
    with pytest.raises(StorageError, match="CSL-C450"):
        install(home, "alder", allow_plain=True)
    assert home.identity_key.read_bytes() == before and home.ledger_file.exists()


def test_a_pin_that_is_no_text_is_not_the_charters(home, capsys):
    home.pin_file.write_bytes(b"\xff\xfe")
    assert node(home, "check") == ExitCode.INTEGRITY
    assert "CSL-F204" in capsys.readouterr().err


def test_the_home_comes_from_the_option_the_environment_or_the_current_folder(home, tmp_path, monkeypatch, capsys):
    assert node(Home(tmp_path), "status") == ExitCode.STORAGE
    assert "CSL-C005" in capsys.readouterr().err
    monkeypatch.setenv("CONSILIENCE_HOME", str(home.root))
    assert run(["node", "status"]) == 0
    monkeypatch.delenv("CONSILIENCE_HOME")
    monkeypatch.chdir(home.root)
    assert run(["node", "status"]) == 0


def test_check_shows_counts_and_stays_at_home(home, capsys):
    assert node(home, "check", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["reports"][0]["ok"] and found["reports"][0]["member"] == "alder"
    assert len(found["warnings"]) == 1 and "plain_keys" in found["warnings"][0]
    assert node(home, "check") == 0
    out = capsys.readouterr().out
    assert "seen at this institution only" in out and "Warning: node.yaml says plain_keys" in out


def test_check_fails_with_its_own_exit_code(home, capsys):
    (home.root / "customers.csv").unlink()
    assert node(home, "check") == ExitCode.DATA
    assert "CSL-C612" in capsys.readouterr().err


def test_check_counts_who_withdrew_as_without_consent(home, capsys):
    def used():
        assert node(home, "check", "--json") == 0
        report = json.loads(capsys.readouterr().out)["reports"][0]
        return report["learn"]["used"], report["learn"]["without_consent"]

    before = used()
    register(home, unlock(home).store, [f"{CANARY}-alder-1", f"{CANARY}-alder-2", f"{CANARY}-alder-10"])
    assert used() == (before[0] - 2, before[1] + 2)  # number 10 never agreed


def test_check_compares_policy_yaml_with_the_policy_in_force(town, home, capsys):
    def warnings():
        assert node(home, "check", "--json") == 0
        return " ".join(json.loads(capsys.readouterr().out)["warnings"])

    assert "policy.yaml" not in warnings()
    text = home.policy_file.read_text()
    home.policy_file.write_text(text.replace('"smallest_cohort":100', '"smallest_cohort":200'))
    assert "not in force" in warnings() and "could not come into force: CSL-P3" in warnings()
    home.policy_file.unlink()
    assert "policy.yaml" not in warnings()
    home.policy_file.write_text("institution: alder\n")
    assert node(home, "check") == ExitCode.DOCUMENT


def test_check_before_any_policy(tmp_path, capsys):
    town = vault_home.found(tmp_path / "town", active=False)
    home = town.homes["alder"]
    assert node(home, "check", "--json") == 0
    assert "no policy is" in json.loads(capsys.readouterr().out)["warnings"][0]
    home.policy_file.unlink()
    assert node(home, "check") == ExitCode.POLICY
    assert "CSL-C556" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "code"),
    [
        ("capacity: {bank_campain: {kind: top, customers: 5}}\n", "CSL-C618"),
        ("capacity: {CONTRACT: {kind: worthwhile, cost: 4.0, success_rate: 0.1}}\n", "CSL-C619"),
        ("capacity: {CONTRACT: {kind: top, customer: 5}}\n", "CSL-F105"),
    ],
)
def test_check_finds_what_would_keep_a_list_from_being_written(home, capsys, rules, code):
    contract = next((home.root / "contracts").glob("*.yaml")).stem
    (home.root / "lists.yaml").write_text(rules.replace("CONTRACT", contract))
    assert node(home, "check") != 0
    assert code in capsys.readouterr().err
    (home.root / "lists.yaml").write_text(f"capacity: {{{contract}: {{kind: top, customers: 5}}}}\n")
    assert node(home, "check") == 0


def test_check_of_a_contract_that_the_policy_does_not_know(home, capsys):
    assert node(home, "check", "--contract", "rfm") == ExitCode.DATA
    assert "CSL-C614" in capsys.readouterr().err


def test_status(home, capsys):
    assert node(home, "status", "--json") == 0
    status = json.loads(capsys.readouterr().out)
    assert status["studies"][0]["released"] == 1 and status["studies"][0]["model"] == "in use"
    assert status["withdrawn"] == 0
    assert node(home, "status") == 0
    assert "propensity" in capsys.readouterr().out


def test_every_look_at_a_list_is_in_the_ledger(home, capsys):
    assert node(home, "names", "--top", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["rows"]) == 3 and found["rows"][0]["customer"].startswith(CANARY)
    assert node(home, "names", "--study", "propensity") == 0
    assert "decile" in capsys.readouterr().out
    what = f"name list {found['list']}"
    assert looks(home) == [("view", what, "analyst", 3), ("view", what, "analyst", 10)]


def test_what_the_ledger_cannot_note_is_not_shown(home, tmp_path, monkeypatch, capsys):
    def full(*arguments, **named):
        raise StorageError("CSL-P511", "The disk is full.", "Free space.")

    with monkeypatch.context() as patch:
        patch.setattr("client.node.lists.Ledger.access", full)
        for arguments in (["names"], ["names", "--json"], ["export", str(tmp_path / "out.csv")]):
            assert node(home, *arguments) == ExitCode.STORAGE
    assert CANARY not in capsys.readouterr().out and not (tmp_path / "out.csv").exists()


def test_an_export_is_in_clear_private_and_noted(home, tmp_path, monkeypatch, capsys):
    out = {suffix: tmp_path / f"out.{suffix}" for suffix in ("csv", "parquet", "json")}
    for path in out.values():
        assert node(home, "export", str(path), "--json") == 0
        assert path.stat().st_mode & 0o777 == 0o600
        rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(list(csv.DictReader(io.StringIO(out["csv"].read_text())))) == rows
    assert pq.read_table(out["parquet"]).num_rows == rows
    assert ListRecord.model_validate_json(out["json"].read_bytes()).counts.listed == rows
    assert [(action, count) for action, _, _, count in looks(home)] == [
        ("export", rows),
        ("export", rows),
        ("export", 0),
    ]
    pipe = io.BytesIO()
    wrapper = io.TextIOWrapper(pipe)
    with monkeypatch.context() as patch:
        patch.setattr("client.node.lists.sys.stdout", wrapper)
        assert node(home, "export", "-") == 0
    assert pipe.getvalue() == out["csv"].read_bytes() and looks(home)[-1][3] == rows
    assert node(home, "export", str(out["csv"])) == ExitCode.STORAGE
    assert "CSL-C553" in capsys.readouterr().err
    assert node(home, "export", str(tmp_path / "out.xlsx")) == ExitCode.DOCUMENT
    assert node(home, "export", str(tmp_path / "none" / "out.csv")) == ExitCode.STORAGE
    assert len(looks(home)) == 4


def test_who_withdrew_is_not_shown_even_where_a_list_still_holds_her(home, tmp_path, capsys):
    assert node(home, "names", "--top", "1", "--json") == 0
    first = json.loads(capsys.readouterr().out)["rows"][0]["customer"]
    register(home, unlock(home).store, [first])  # and a crash before the lists are rewritten
    assert node(home, "names", "--top", "1000") == 0
    assert node(home, "export", str(tmp_path / "out.csv")) == 0
    assert first not in capsys.readouterr().out.split() and first not in [
        row["customer"] for row in csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text()))
    ]


def test_a_list_that_was_altered_is_not_shown(home, capsys):
    path = next(home.folder("lists").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert node(home, "names") == ExitCode.INTEGRITY
    assert "CSL-P522" in capsys.readouterr().err and looks(home) == []


def test_names_before_there_is_a_list(town, capsys):
    assert node(town.homes["birch"], "names") == ExitCode.STORAGE
    assert "CSL-C613" in capsys.readouterr().err


def test_purge_by_the_policys_retention(town, home, capsys):
    assert node(home, "purge", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"dry_run": False, "deleted": []}
    (old,) = {path.stem for path in home.folder("lists").iterdir()}
    for path in list(home.folder("lists").iterdir()):
        path.rename(home.folder("lists") / f"propensity-2020-01-01-00000000{path.suffix}")
    assert node(home, "purge", "--dry-run") == 0
    assert "Would be deleted" in capsys.readouterr().out and len(list(home.folder("lists").iterdir())) == 3
    assert node(home, "purge") == 0
    assert "Deleted" in capsys.readouterr().out and list(home.folder("lists").iterdir()) == []
    assert looks(home) == [("erase", "name list propensity-2020-01-01-00000000", "operator", 3)]


def test_purge_without_a_policy_deletes_nothing(tmp_path, capsys):
    town = vault_home.found(tmp_path / "town", active=False)
    assert node(town.homes["alder"], "purge") == ExitCode.POLICY
    assert "CSL-C555" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["check"], ["status"], ["names"], ["export", "out.csv"], ["purge"], ["shapes"]])
def test_without_a_role_no_command_runs(home, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    home.roles_file.write_text("officers: [somebody_else]\n")
    home.roles_file.chmod(0o600)
    more = ["--study", "propensity", "--out", "a.svg"] if command == ["shapes"] else []
    assert node(home, *command, *more) == ExitCode.POLICY
    assert "CSL-C542" in capsys.readouterr().err and len(Withdrawals.load(home, unlock(home).store)) == 0


@pytest.mark.parametrize("command", [["names"], ["export", "out.csv"], ["purge"]])
def test_nothing_is_written_into_a_ledger_that_is_being_restored(home, tmp_path, monkeypatch, capsys, command):
    monkeypatch.chdir(tmp_path)
    home.lock_file.write_text("")
    before = home.ledger_file.read_bytes()
    assert node(home, *command) == ExitCode.INTEGRITY
    assert "CSL-C006" in capsys.readouterr().err and home.ledger_file.read_bytes() == before


def test_shapes_of_the_adopted_model(home, tmp_path, capsys):
    for name, start in (("a.svg", b"<svg"), ("a.png", b"\x89PNG")):
        assert node(home, "shapes", "--study", "propensity", "--out", str(tmp_path / name)) == 0
        assert (tmp_path / name).read_bytes().startswith(start)
    assert node(home, "shapes", "--study", "propensity", "--out", str(tmp_path / "a.doc")) == ExitCode.DOCUMENT
    assert node(home, "shapes", "--study", "other", "--out", str(tmp_path / "a.svg")) == ExitCode.STORAGE
    assert "CSL-C615" in capsys.readouterr().err


def shapes_told(home, tmp_path, capsys, *more):
    capsys.readouterr()
    out = str(tmp_path / "own.svg")
    assert node(home, "shapes", "--study", "propensity", "--out", out, "--json", *more) == 0
    return json.loads(capsys.readouterr().out)


def test_shapes_tell_a_machine_what_matters_and_how_noisy_it_is(home, tmp_path, capsys):
    plain = shapes_told(home, tmp_path, capsys)
    assert {term["term"] for term in plain["terms"]} == {"age", "job", "loan"} and plain["own"] is False
    importance = [term["importance"] for term in plain["terms"]]
    assert importance == sorted(importance, reverse=True)
    assert all(term["band"] is None for term in plain["terms"])
    (card,) = home.folder("models").glob("*.card.json")
    noise = [{"term": "age", "deviations": [0.1, 0.2, 0.3, 0.4], "missing": 0.5}]
    card.write_text(json.dumps({"shape_noise": noise}))
    told = {term["term"]: term for term in shapes_told(home, tmp_path, capsys)["terms"]}
    assert told["age"]["band"] == pytest.approx([0.196, 0.392, 0.588, 0.784]) and told["job"]["band"] is None
    card.write_text('{"shape_noise": [{"term": "age", "deviations": [-1.0], "missing": 0.5}]}')
    out = str(tmp_path / "own.svg")
    assert node(home, "shapes", "--study", "propensity", "--out", out) == ExitCode.INTEGRITY
    assert "CSL-C750" in capsys.readouterr().err


def test_shapes_over_own_customers_are_for_analysts_and_leave_a_trace(home, tmp_path, capsys):
    told = shapes_told(home, tmp_path, capsys, "--own")
    assert told["own"] is True and told["terms"][0]["importance"] > 0
    assert [(action, role) for action, _, role, count in looks(home) if count] == [("view", "analyst")]
