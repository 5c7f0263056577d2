"""Witnessing by file, on real homes and ledgers; and the vault's own door to it."""

import json
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from client.home import Home
from client.officer.witness import register
from federation.errors import ConsilienceError
from federation.heads import open_head, origin_of
from federation.messages import CosignedNote, HeadRequest, Hello, LedgerHead, NoteKept, Refusal, pack, unpack
from federation.note import cosign
from privacy.ledger import LedgerReader
from tests.client import vault_home
from tests.client.vault_home import Town

app = typer.Typer()
register(app)


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


def run(town: Town, member: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--home", str(town.homes[member].root)], catch_exceptions=True)


def note_of(town: Town, member: str) -> str:
    found = run(town, member, "checkpoint")
    assert found.exit_code == 0, found.output
    return found.stdout


def code(result: Result) -> str | None:
    return result.exception.code if isinstance(result.exception, ConsilienceError) else None


def grow(town: Town, member: str) -> None:
    with town.ledger(member) as ledger:
        ledger.refuse("CSL-C510", "a test", "a refusal")


def reader(home: Home, town: Town, member: str) -> LedgerReader:
    return LedgerReader.read(home.ledger_file, town.key(member))


def test_a_note_goes_out_is_cosigned_elsewhere_and_comes_home(town: Town, tmp_path: Path) -> None:
    out, back = tmp_path / "alder.note", tmp_path / "cosigned.note"
    assert run(town, "alder", "checkpoint", "--out", str(out)).exit_code == 0
    assert run(town, "birch", "cosign", str(out), "--out", str(back)).exit_code == 0
    assert run(town, "alder", "checkpoint", "--keep", str(back)).exit_code == 0
    kept = json.loads(run(town, "alder", "checkpoint", "--kept", "--json").stdout)
    assert [row["member"] for row in kept] == ["alder"]
    assert list(kept[0]["witnesses"]) == [origin_of(town.charter.federation, "birch")]
    assert "witnessed by" in run(town, "alder", "checkpoint", "--kept").stdout
    assert json.loads(run(town, "birch", "checkpoint", "--kept", "--json").stdout)[0]["member"] == "alder"
    with reader(town.homes["alder"], town, "alder") as ledger:
        last = ledger.entry(ledger.state().size - 1)
        assert last.body.kind == "witness"
        head = open_head(back.read_text(), town.charter)
        assert (head.size, head.root) == (last.body.data.size, last.body.data.root)
        assert head.size == ledger.state().size - 1


def test_a_later_note_needs_its_proof(town: Town, tmp_path: Path) -> None:
    first = tmp_path / "first.note"
    first.write_text(note_of(town, "alder"))
    run(town, "birch", "cosign", str(first))
    grow(town, "alder")
    later = tmp_path / "later.note"
    later.write_text(note_of(town, "alder"))
    assert code(run(town, "birch", "cosign", str(later))) == "CSL-C537"
    proof = tmp_path / "proof"
    assert run(town, "alder", "consistency", str(first), "--out", str(proof)).exit_code == 0
    assert proof.read_text().startswith("old ")
    signed = run(town, "birch", "cosign", str(proof))
    assert signed.exit_code == 0
    size = open_head(first.read_text(), town.charter).size
    assert open_head(signed.stdout, town.charter).size == size + 1


def test_notes_of_others_and_damaged_files_are_refused(town: Town, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(note_of(town, "birch"))
    assert code(run(town, "alder", "consistency", str(file))) == "CSL-C538"
    assert code(run(town, "alder", "checkpoint", "--keep", str(file))) == "CSL-C536"
    assert code(run(town, "birch", "cosign", str(file))) == "CSL-C535"
    for content, expected in ((b"\xff", "CSL-F611"), (b"nonsense", "CSL-F611"), (b"", "CSL-F611")):
        file.write_bytes(content)
        assert code(run(town, "birch", "cosign", str(file))) == expected
    assert code(run(town, "birch", "cosign", str(tmp_path / "missing"))) == "CSL-F618"


def test_nothing_kept_is_said_plainly(town: Town) -> None:
    assert "No witnessed head" in run(town, "cedar", "checkpoint", "--kept").stdout


def test_the_vault_answers_for_its_ledger(town: Town) -> None:
    vault = town.vault()
    request = HeadRequest(nonce="1" * 32, old=1)
    answer, _ = unpack(vault.answer("query.head", pack(town.coordinator, request)), LedgerHead, town.key("alder"))
    head = open_head(answer.note, town.charter)
    note = cosign(head.text, town.coordinator, f"consilience/{town.charter.federation}/the-coordinator", 5)
    reply = vault.answer("query.cosigned", pack(town.coordinator, CosignedNote(note=note)))
    assert unpack(reply, NoteKept, town.key("alder"))[0].size == head.size
    refused = vault.answer("query.head", pack(town.coordinator, HeadRequest(nonce="1" * 32, old=10**6)))
    assert unpack(refused, Refusal, town.key("alder"))[0].member == "alder"
    assert town.vault().member == "alder"


def test_a_vault_on_an_old_copy_of_its_home_refuses_everything(town: Town) -> None:
    home = town.homes["alder"]
    backup = home.ledger_file.read_bytes()
    grow(town, "alder")
    note = cosign(note_of(town, "alder"), town.coordinator, "witness", 5)
    home.ledger_file.write_bytes(backup)
    vault = town.vault()
    hello = pack(town.coordinator, Hello(charter=town.charter.digest(), nonce="1" * 32, note=note))
    asked = (("query.hello", hello), ("query.hello", town.hello()), ("query.offer", town.offer(town.spec())))
    for kind, request in asked:
        assert unpack(vault.answer(kind, request), Refusal, town.key("alder"))[0].member == "alder"
    with pytest.raises(ConsilienceError, match="CSL-C53[23]"):
        town.vault()
