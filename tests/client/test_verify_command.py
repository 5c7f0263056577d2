"""`officer evidence`, `officer verify` and `consilience verify`, as people call them."""

import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from client.officer_command import app as officer_app
from client.verify_command import app, read_key
from federation import command
from federation.errors import ConsilienceError, DocumentError, ExitCode, IntegrityError, PolicyError
from federation.signing import public_hex
from tests.client.evidence_home import live

OTHER = Ed25519PrivateKey.from_private_bytes(b"other".ljust(32, b"."))


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    past = live(tmp_path_factory.mktemp("town"))
    past.run(past.spec("spring"))
    past.note()
    past.ledger.refuse("CSL-P201", "cross_sell", "unknown purpose")
    return past


def run(target_app, *arguments, code=0):
    result = CliRunner().invoke(target_app, [str(item) for item in arguments], env={"COLUMNS": "200"})
    if isinstance(result.exception, ConsilienceError):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture(scope="module")
def pack(past, tmp_path_factory):
    path = tmp_path_factory.mktemp("packs") / "pack.zip"
    run(officer_app, "evidence", "--home", past.home.root, "--out", path)
    return path


@pytest.fixture(scope="module")
def ledger(past, tmp_path_factory):
    path = tmp_path_factory.mktemp("ledgers") / "ledger.sqlite"
    past.ledger.copy_to(path)
    return path


def test_evidence_says_what_it_wrote(past, tmp_path):
    path = tmp_path / "pack.zip"
    output = run(officer_app, "evidence", "--home", past.home.root, "--out", path)
    assert "the whole ledger" in output and "no customer's data" in output and f"consilience verify {path}" in output
    assert path.stat().st_mode & 0o077 == 0
    value = json.loads(
        run(
            officer_app,
            "evidence",
            "--home",
            past.home.root,
            "--out",
            tmp_path / "b.zip",
            "--from",
            "2026-01-01",
            "--json",
        )
    )
    assert value["first"] == 0 and value["end"] == value["size"] and value["key"] == public_hex(past.key)


def test_evidence_refuses_bad_ranges_and_people_without_the_role(past, tmp_path):
    for arguments, code in (
        (("--from", "2026-02-01", "--to", "2026-01-01"), "CSL-C686"),
        (("--from", "2031-01-01"), "CSL-C681"),
    ):
        with pytest.raises(ConsilienceError, match=code):
            run(officer_app, "evidence", "--home", past.home.root, "--out", tmp_path / "a.zip", *arguments)
    run(officer_app, "evidence", "--home", past.home.root, "--out", tmp_path / "a.zip", "--from", "soon", code=2)
    past.home.roles_file.write_text("officers: [nobody_here]\n")
    past.home.roles_file.chmod(0o600)
    try:
        with pytest.raises(PolicyError, match="CSL-C542"):
            run(officer_app, "evidence", "--home", past.home.root, "--out", tmp_path / "a.zip")
    finally:
        past.home.roles_file.unlink()
    assert not list(tmp_path.iterdir())


def test_verify_a_pack_without_and_with_a_key(past, pack):
    output = run(app, pack)
    assert output.startswith("Valid: ") and public_hex(past.key) in output and "--charter" in output
    assert "Witnessed by consilience/test/birch" in output
    (remark,) = json.loads(run(app, pack, "--key", public_hex(past.key), "--json"))["remarks"]
    assert past.town.charter.digest() in remark
    charter = ("--charter", past.home.charter_file, "--digest", past.town.charter.digest())
    assert "Note:" not in run(app, pack, *charter)
    assert past.town.charter.digest() in run(app, pack, *charter[:2])
    note = past.home.root / "witness" / "own.note"
    assert json.loads(run(app, pack, *charter, "--note", note, "--json"))["valid"]
    assert run(officer_app, "verify", pack, "--key", public_hex(past.key)).startswith("Valid: ")


def test_verify_says_what_is_wrong_with_a_pack(pack, tmp_path):
    changed = tmp_path / "changed.zip"
    changed.write_bytes(pack.read_bytes().replace(b"cross_sell", b"cross_buy_", 1))
    output = run(app, changed, code=int(ExitCode.INTEGRITY))
    assert output.startswith("NOT valid: ") and re.search(r"CSL-C803  archive: \S+ was changed", output)
    value = json.loads(run(app, changed, "--json", code=int(ExitCode.INTEGRITY)))
    assert not value["valid"] and value["findings"][0]["code"] == "CSL-C803"
    output = run(app, pack, "--key", public_hex(OTHER), code=int(ExitCode.INTEGRITY))
    assert "CSL-P624" in output


def test_a_file_that_is_no_pack_has_an_exit_code_of_its_own(tmp_path, monkeypatch):
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir")
    with pytest.raises(DocumentError, match="CSL-C690") as caught:
        run(app, path)
    assert caught.value.exit_code == ExitCode.DOCUMENT
    with pytest.raises(ConsilienceError, match="CSL-C692"):
        run(app, tmp_path / "missing.zip")


def test_verify_a_ledger_by_key_by_charter_and_by_heads(past, ledger):
    with pytest.raises(DocumentError, match="CSL-C602"):
        run(app, ledger)
    with pytest.raises(IntegrityError, match="CSL-C603"):
        run(app, ledger, "--key", public_hex(OTHER))
    output = run(app, ledger, "--key", public_hex(past.key))
    assert output.startswith("Valid: ") and "the ledger's newest key" in output
    charter = ("--charter", past.home.charter_file, "--digest", past.town.charter.digest())
    note = past.home.root / "witness" / "own.note"
    value = json.loads(run(app, ledger, *charter, "--note", note, "--json"))
    assert value["valid"] and len(value["witnesses"]) == 2
    output = run(app, ledger, "--key", public_hex(past.key), "--head", note)
    assert "Who else signed the note was not checked" in output
    head = past.ledger.tree_head()
    assert run(app, ledger, "--key", public_hex(past.key), "--head", f"{head.size}:{head.root}").startswith("Valid")
    wrong = run(app, ledger, "--key", public_hex(past.key), "--head", f"{head.size + 1}:{head.root}", code=6)
    assert "CSL-P625" in wrong


def test_a_note_of_another_ledger_proves_nothing(past, ledger, tmp_path):
    from federation.note import Checkpoint, sign_checkpoint

    note = tmp_path / "other.note"
    note.write_text(sign_checkpoint(OTHER, Checkpoint("consilience/test/alder", 3, "0" * 64)))
    with pytest.raises(IntegrityError, match="CSL-C694"):
        run(app, ledger, "--key", public_hex(past.key), "--note", note)
    charter = ("--charter", past.home.charter_file, "--digest", past.town.charter.digest())
    with pytest.raises(IntegrityError, match="CSL-F612|CSL-F613"):
        run(app, ledger, *charter, "--note", note)


def test_the_home_is_verified_with_the_note_that_it_keeps(past):
    output = run(officer_app, "verify", "--home", past.home.root)
    assert output.startswith("Valid: ") and "Witnessed by consilience/test/birch" in output
    assert json.loads(run(officer_app, "verify", past.home.root, "--json"))["witnesses"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--head", "7:abc"), "CSL-C601"),
        (("--digest", "0" * 64), "CSL-C691"),
        (("--charter", "missing.json", "--digest", "0" * 64), "CSL-C692"),
        (("--note", "a.note", "--head", "3:" + "0" * 64), "CSL-C693"),
        (("--note", "missing.note"), "CSL-F618"),
        (("--key", "missing.key"), "CSL-P502"),
    ],
)
def test_what_a_verifier_gives_wrongly(pack, arguments, code):
    with pytest.raises(ConsilienceError, match=code):
        run(app, pack, *arguments)


def test_a_key_is_digits_a_file_of_digits_or_a_key_file(past, tmp_path):
    digits = public_hex(past.key)
    path = tmp_path / "alder.pub"
    path.write_text(digits + "\n")
    assert read_key(digits) == read_key(str(path)) == read_key(str(past.home.identity_key)) == digits


def test_the_command_is_one_word(pack, capsys):
    assert command.run(["verify", str(pack)]) == 0
    assert capsys.readouterr().out.startswith("Valid: ")
    assert command.run(["verify", __file__]) == int(ExitCode.DOCUMENT)
    assert "CSL-C690" in capsys.readouterr().err
