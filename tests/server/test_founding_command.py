"""What a coordinator types to found a federation, from an empty folder to a pinned charter, and what it is told when something is wrong."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from federation.charter import SealedCharter, open_charter
from federation.errors import ConsilienceError
from federation.founding import CharterFile, sign_charter
from federation.words import words_of
from server.command import app
from server.home import CoordinatorHome
from tests.founding_parts import APP, LOG, SHOP, card, key_of, member

RUNNER = CliRunner()


@pytest.fixture(autouse=True)
def _app_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.founding_command.app_digest", lambda: APP)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """Lay out a folder with a passphrase, contracts and cards."""
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    (tmp_path / "passphrase").chmod(0o600)
    for contract in (SHOP, LOG):
        (tmp_path / f"{contract.name}.yaml").write_text(yaml.safe_dump(contract.model_dump(mode="json")))
    for name in ("alder", "birch", "cedar"):
        (tmp_path / f"{name}.card").write_bytes(card(member(name)).canonical())
    return tmp_path


def call(*arguments: object) -> str:
    result = RUNNER.invoke(app, [str(item) for item in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def refused(code: str, *arguments: object) -> ConsilienceError:
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value


def init(desk: Path, *more: object) -> str:
    basics = ("--federation", "test", "--address", "127.0.0.1:18443", "--passphrase-file", desk / "passphrase")
    return call("init", desk / "home", *basics, *more)


def sign(desk: Path, *names: str) -> list[Path]:
    draft = CharterFile.from_canonical((desk / "home" / "charter" / "draft.json").read_bytes())
    for name in names:
        (desk / f"{name}.sig").write_bytes(sign_charter(key_of(name), draft.charter, name).canonical())
    return [desk / f"{name}.sig" for name in names]


def test_a_federation_is_founded_and_grows(desk, monkeypatch):
    told = init(desk, "--name", "coord.example.org")
    home = CoordinatorHome(desk / "home")
    assert "coord.example.org" in told and "charter draft" in told
    monkeypatch.setenv("CONSILIENCE_COORDINATOR", str(home.root))
    assert "No members yet" in call("charter", "draft", "--contract", desk / "shop.yaml")
    assert "No members yet" in call("charter", "show")
    call("charter", "add-member", desk / "alder.card")
    call("charter", "add-member", desk / "cedar.card")
    assert "cedar is not in the draft" in call("charter", "remove-member", "cedar")
    added = json.loads(call("charter", "add-member", desk / "birch.card", "--json"))
    assert added["members"] == ["alder", "birch"] and added["version"] == 1
    shown = json.loads(call("charter", "show", "--json"))
    assert shown["words"] == list(words_of(added["digest"])) and shown["missing"] == ["alder", "birch", "coordinator"]
    assert "Missing: birch" in call("charter", "seal", *sign(desk, "alder"))
    assert "Signed by   alder, coordinator" in call("charter", "show")
    sealed = json.loads(call("charter", "seal", *sign(desk, "birch"), "--json"))
    assert sealed["state"] == "sealed" and sealed["missing"] == [] and sealed["words"] == shown["words"]
    assert home.charter().digest() == sealed["digest"]
    open_charter(SealedCharter.from_canonical(home.charter_file.read_bytes()), sealed["digest"])

    refused("CSL-S150", "charter", "add-member", desk / "cedar.card")
    call("charter", "draft", "--leave", "alder", "--contract", desk / "log.yaml")
    call("charter", "add-member", desk / "cedar.card")
    text = call("charter", "show")
    for part in ("version 2", "alder (The Alder) leaves", "cedar (The Cedar) joins", "contract log is new"):
        assert part in text
    assert "version 1" in call("charter", "show", home.sealed_file)
    assert "Sealed: version 2" in call("charter", "seal", *sign(desk, "birch", "cedar"))
    assert [item.id for item in home.charter().members] == ["birch", "cedar"]


def test_another_key_of_a_member_is_told_loudly(desk):
    init(desk)
    at = ("--home", desk / "home")
    call("charter", "draft", "--contract", desk / "shop.yaml", *at)
    call("charter", "add-member", desk / "alder.card", *at)
    assert "ANOTHER" not in call("charter", "add-member", desk / "alder.card", *at)
    lost = member("alder", key=member("dogwood").key)
    (desk / "alder.card").write_bytes(card(lost, signer="dogwood").canonical())
    assert "ANOTHER identity key" in call("charter", "add-member", desk / "alder.card", *at)


def test_certificates_are_shown_and_renewed(desk):
    init(desk)
    home = CoordinatorHome(desk / "home")
    at = ("--home", home.root)
    before = json.loads(call("certificate", "show", *at, "--json"))
    assert before["server"]["days_left"] == 823 or before["server"]["days_left"] == 824
    assert "127.0.0.1" in call("certificate", "show", *at)
    home.config_file.write_text(home.config_file.read_text().replace("names: []", "names: ['coord.example.org']"))
    assert "coord.example.org" in refused("CSL-S122", "certificate", "show", *at).cause
    assert "coord.example.org" in call("certificate", "renew", *at)
    after = json.loads(call("certificate", "show", *at, "--json"))
    assert "coord.example.org" in after["server"]["hosts"] and after["server"]["sha256"] != before["server"]["sha256"]
    assert after["authority"]["sha256"] == before["authority"]["sha256"]
    assert json.loads(call("certificate", "renew", *at, "--json"))["server"]["days_left"] >= 823


def test_a_certificate_that_ends_soon_is_told(desk, monkeypatch):
    init(desk)
    assert "Renew it" not in call("certificate", "show", "--home", desk / "home")
    monkeypatch.setattr("server.founding_command.WARN_DAYS", 900)
    assert "certificate renew" in call("certificate", "show", "--home", desk / "home")


@pytest.mark.parametrize(
    ("address", "options", "proxy", "link_port"),
    [
        ("127.0.0.1:18443", (), "none", 18443),
        ("coord.example.org:443", (), "nginx", 18000),
        ("coord.example.org:443", ("--link-port", "19000"), "nginx", 19000),
        ("127.0.0.1:443", ("--proxy", "nginx"), "nginx", 18000),
        ("[::1]:444", (), "none", 444),
    ],
)
def test_what_stands_before_the_link(tmp_path, address, options, proxy, link_port):
    arguments = ("--federation", "test", "--address", address, "--plain-keys", "--json", *options)
    made = json.loads(call("init", tmp_path / "home", *arguments))
    config = CoordinatorHome(tmp_path / "home").config()
    assert (config.proxy, config.link_port, config.plain_keys) == (proxy, link_port, True)
    assert made["federation"] == "test" and len(made["key"]) == 64


def test_a_passphrase_inside_the_home_is_named_from_there(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "secret").write_text("correct horse battery staple")
    (home / "secret").chmod(0o600)
    call("init", home, "--federation", "test", "--address", "127.0.0.1:1", "--passphrase-file", home / "secret")
    assert CoordinatorHome(home).config().passphrase_file == "secret"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--federation", "test", "--address", "127.0.0.1:1"), "CSL-S124"),
        (("--federation", "test", "--address", "127.0.0.1:1", "--plain-keys", "--passphrase-file", "x"), "CSL-S124"),
        (("--federation", "Not Good", "--address", "127.0.0.1:1", "--plain-keys"), "CSL-S123"),
        (("--federation", "test", "--address", "nowhere", "--plain-keys"), "CSL-S123"),
        (("--federation", "test", "--address", "a.org:1", "--name", "b:2", "--plain-keys"), "CSL-S123"),
        (("--federation", "test", "--address", "a.org:18000", "--plain-keys"), "CSL-S123"),
        (("--federation", "test", "--address", "127.0.0.1:1", "--passphrase-file", "/none/such"), "CSL-P502"),
    ],
)
def test_wrong_options_leave_nothing_behind(tmp_path, arguments, code):
    refused(code, "init", tmp_path / "home", *arguments)
    assert not (tmp_path / "home").exists()


def test_an_open_passphrase_file_is_refused(desk):
    (desk / "passphrase").chmod(0o640)
    with pytest.raises(ConsilienceError, match="CSL-P505"):
        init(desk)
    assert not (desk / "home").exists()


def test_wrong_papers_are_named(desk, tmp_path):
    init(desk)
    at = ("--home", desk / "home")
    refused("CSL-S111", "charter", "show", "--home", tmp_path)
    refused("CSL-S150", "charter", "show", *at)
    refused("CSL-S161", "charter", "draft", *at)
    call("charter", "draft", "--contract", desk / "shop.yaml", *at)
    refused("CSL-S164", "charter", "draft", "--contract", desk / "shop.yaml", *at)
    call("charter", "draft", "--again", "--contract", desk / "log.yaml", *at)
    refused("CSL-S151", "charter", "seal", *at)
    refused("CSL-F214", "charter", "add-member", desk / "none.card", *at)
    refused("CSL-F216", "charter", "add-member", desk / "shop.yaml", *at)
    (desk / "forged.card").write_bytes(card(member("alder"), signer="birch").canonical())
    refused("CSL-F201", "charter", "add-member", desk / "forged.card", *at)
    call("charter", "add-member", desk / "alder.card", *at)
    refused("CSL-F216", "charter", "seal", desk / "alder.card", *at)
    refused("CSL-S155", "charter", "remove-member", "zelkova", *at)
    stranger = sign(desk, "birch")[0]
    refused("CSL-F212", "charter", "seal", stranger, *at)
    assert json.loads(call("charter", "remove-member", "alder", "--json", *at)) == {
        "version": None,
        "digest": None,
        "members": [],
        "file": None,
    }


@pytest.mark.parametrize(
    "command",
    [
        ("init",),
        ("certificate", "show"),
        ("certificate", "renew"),
        *(("charter", name) for name in ("draft", "add-member", "remove-member", "show", "seal")),
    ],
)
def test_every_command_teaches_itself(command):
    text = call(*command, "--help")
    assert "--json" in text and len(text.split()) > 60
