"""How an institution joins a federation: its card, what it checks before it signs, and what it needs before it pins."""

import base64
import io
import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import rotation
from client.founding import Membership, own_of
from client.home import Home
from client.unlock import Opener, unlock
from client.vault import Vault
from federation.charter import Declaration, PinnedContract
from federation.document import load_yaml
from federation.errors import ConsilienceError, ExitCode
from federation.founding import (
    CharterFile,
    CharterSignature,
    SignedCard,
    check_file,
    check_signature,
    open_card,
    parse_paper,
    read_paper,
    sealed,
    sign_charter,
)
from federation.words import words_of
from privacy.keys import load_identity, read_public
from privacy.ledger import Ledger
from tests.client import founding_town
from tests.client.founding_town import Founding, altered, node
from tests.client.vault_home import CONTRACT

PLAIN = Opener(None, True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return founding_town.found(tmp_path_factory.mktemp("founding"))


@pytest.fixture
def town(made, tmp_path):
    """A copy of two homes that no charter joins yet."""
    homes = {name: Home(tmp_path / name) for name in made.homes}
    for name, home in made.homes.items():
        shutil.copytree(home.root, homes[name].root)
    return Founding(tmp_path, made.coordinator, homes)


@pytest.fixture
def alder(town):
    return town.homes["alder"]


@pytest.fixture
def first(town):
    return town.charter("alder", "birch")


def refused(capsys, code, exit_code, home, *arguments):
    assert node(home, *arguments) == exit_code, capsys.readouterr()
    assert code in capsys.readouterr().err


def accepted(town, charter, member="alder"):
    """Let a member accept a charter that all have signed."""
    path = town.write(town.seal(town.draft(charter)), f"{member}-{charter.version}.json")
    assert node(town.homes[member], "charter", "accept", path, "--digest", charter.digest()) == 0
    return path


# The card


def test_a_card_names_the_public_parts_and_is_signed(town, alder, tmp_path, capsys):
    assert node(alder, "card", "--federation", "town", "--out", tmp_path / "card.json") == 0
    out = capsys.readouterr().out
    card = open_card(read_paper(tmp_path / "card.json", SignedCard))
    own = own_of(alder)
    assert (card.federation, card.member.id, card.member.title) == ("town", "alder", "Alder")
    assert (card.member.key, card.member.node_key) == (own.identity, own.node_key)
    assert card.member.declares == (Declaration(contract="shop", size=400),)
    assert own.identity in out and "SHA256:" in out and "made now" not in out
    content = (tmp_path / "card.json").read_bytes()
    for path in (alder.root / "keys").iterdir():
        assert path.read_bytes() not in content
    secret = json.loads(alder.identity_key.read_text())["secret"]
    assert secret.encode() not in content and b"PRIVATE" not in content
    refused(
        capsys, "CSL-C466", ExitCode.STORAGE, alder, "card", "--federation", "town", "--out", tmp_path / "card.json"
    )
    refused(capsys, "CSL-C466", ExitCode.STORAGE, alder, "card", "--federation", "town", "--out", tmp_path / "no" / "c")


def test_a_card_from_another_file_keeps_that_file_in_the_home(alder, tmp_path, capsys):
    source = tmp_path / "bank.yaml"
    source.write_text(founding_town.MEMBERSHIP.format(title="Alder Bank"))
    arguments = ("card", "--federation", "town", "--from", source, "--out", tmp_path / "card.json", "--json")
    assert node(alder, *arguments) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["member"] == "alder" and shown["key"] == read_public(alder.identity_key)
    assert alder.membership_file.read_bytes() == source.read_bytes()
    assert alder.membership_file.stat().st_mode & 0o777 == 0o600
    source.write_text("title: Alder\ndeclares: []\n")
    arguments = ("card", "--federation", "town", "--from", source, "--out", tmp_path / "other.json")
    refused(capsys, "CSL-F105", ExitCode.DOCUMENT, alder, *arguments)
    assert "Alder Bank" in alder.membership_file.read_text() and not (tmp_path / "other.json").exists()


def test_a_card_needs_a_federation_that_is_the_pinned_one(town, alder, first, tmp_path, capsys):
    refused(capsys, "CSL-C456", ExitCode.DOCUMENT, alder, "card", "--out", tmp_path / "a")
    accepted(town, first)
    arguments = ("card", "--federation", "village", "--out", tmp_path / "a")
    refused(capsys, "CSL-C457", ExitCode.DOCUMENT, alder, *arguments)
    assert node(alder, "card", "--out", tmp_path / "a") == 0
    assert read_paper(tmp_path / "a", SignedCard).card.federation == "town"


def test_a_card_makes_a_node_key_only_where_there_is_none(alder, tmp_path, capsys):
    before = own_of(alder).node_key
    alder.node_key.rename(tmp_path / "lost.key")
    assert node(alder, "card", "--federation", "town", "--out", tmp_path / "a") == 0
    assert "made now" in capsys.readouterr().out and own_of(alder).node_key != before
    assert alder.node_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["node.key", "identity.key"])
def test_a_key_with_open_rights_signs_nothing(alder, tmp_path, capsys, name):
    (alder.root / "keys" / name).chmod(0o644)
    code = "CSL-F312" if name == "node.key" else "CSL-P505"
    refused(capsys, code, ExitCode.STORAGE, alder, "card", "--federation", "town", "--out", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_papers_go_through_pipes(town, alder, first, tmp_path, monkeypatch, capsys):
    def piped(*arguments, given=b""):
        pipe = io.BytesIO()
        wrapper = io.TextIOWrapper(pipe)  # kept: when it goes, it closes the pipe
        with monkeypatch.context() as patch:
            patch.setattr("client.node.founding.sys.stdout", wrapper)
            patch.setattr("client.node.founding.sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
            assert node(alder, *arguments) == 0
        wrapper.flush()
        return pipe.getvalue()

    (tmp_path / "card").write_bytes(piped("card", "--federation", "town", "--out", "-"))
    assert open_card(read_paper(tmp_path / "card", SignedCard)).member.id == "alder"
    draft = town.draft(first)
    (tmp_path / "sig").write_bytes(piped("charter", "sign", "-", "--yes", "--out", "-", given=draft.canonical()))
    check_signature(first, read_paper(tmp_path / "sig", CharterSignature))
    piped("charter", "accept", "-", "--digest", first.digest(), given=town.seal(draft).canonical() + b"\n")
    assert alder.charter() == first
    assert "Signed version 1" in capsys.readouterr().err


# Signing


def test_sign_shows_everything_and_signs_the_draft(town, alder, first, tmp_path, capsys):
    path = town.write(town.draft(first))
    assert node(alder, "charter", "sign", path, "--yes", "--out", tmp_path / "sig") == 0
    captured = capsys.readouterr()
    for text in ("this would be the first", "birch", "A small contract", *words_of(first.digest())[:6], first.digest()):
        assert text in captured.err
    assert "Signed version 1 as alder" in captured.out
    signature = read_paper(tmp_path / "sig", CharterSignature)
    assert signature.party == "alder"
    check_signature(first, signature)
    assert not alder.pin_file.exists(), "a signature pins nothing"


def test_sign_asks(town, alder, first, tmp_path, monkeypatch, capsys):
    path = town.write(town.draft(first))
    refused(capsys, "CSL-C630", ExitCode.DOCUMENT, alder, "charter", "sign", path, "--out", tmp_path / "sig")
    assert not (tmp_path / "sig").exists()
    monkeypatch.setattr("client.node.founding.sys.stdin", SimpleTerminal())
    for answer, code in ((False, ExitCode.INTERRUPTED), (True, 0)):
        monkeypatch.setattr("client.node.founding.typer.confirm", lambda question, err, answer=answer: answer)
        assert node(alder, "charter", "sign", path, "--out", tmp_path / "sig", "--json") == code
        assert (tmp_path / "sig").exists() is answer
    assert json.loads(capsys.readouterr().out)["charter"] == first.digest()


class SimpleTerminal:
    def isatty(self):
        return True


def test_sign_says_what_changes_against_the_pinned_charter(town, alder, first, tmp_path, capsys):
    accepted(town, first)
    town.join("cedar")
    second = town.charter("alder", "birch", "cedar", prev=first)
    capsys.readouterr()
    assert node(alder, "charter", "sign", town.write(town.draft(second)), "--yes", "--out", tmp_path / "sig") == 0
    shown = capsys.readouterr().err
    assert "Version 1 is pinned here" in shown and "cedar (Cedar) joins" in shown


def test_sign_refuses_another_row_than_its_own(town, alder, first, tmp_path, capsys):
    row, other = first.members
    strange = {
        "CSL-C459": first.model_copy(update={"members": (other,)}),
        "CSL-C460": town.charter("alder", "birch", members=(row.model_copy(update={"key": "1" * 64}), other)),
        "CSL-C461": town.charter(
            "birch", members=(row.model_copy(update={"node_key": _another_node_key(town)}), other)
        ),
        "CSL-C462": town.charter("birch", members=(row.model_copy(update={"title": "Alder & Co"}), other)),
    }
    for code, charter in strange.items():
        arguments = ("charter", "sign", town.write(town.draft(charter)), "--yes", "--out", tmp_path / "sig")
        refused(capsys, code, ExitCode.INTEGRITY, alder, *arguments)
    more = row.model_copy(update={"declares": (Declaration(contract="shop", size=40_000),)})
    inflated = town.write(town.draft(town.charter("birch", members=(more, other))))
    refused(
        capsys, "CSL-C462", ExitCode.INTEGRITY, alder, "charter", "sign", inflated, "--yes", "--out", tmp_path / "sig"
    )
    altered(alder, declares=[{"contract": "shop", "size": 40_000}])
    assert node(alder, "charter", "sign", inflated, "--yes", "--out", tmp_path / "sig") == 0


def _another_node_key(town):
    if "dogwood" not in town.homes:
        town.join("dogwood")
    return own_of(town.homes["dogwood"]).node_key


def test_sign_refuses_what_does_not_follow(town, alder, first, tmp_path, capsys):
    accepted(town, first)
    second = town.charter("alder", "birch", prev=first)
    for charter in (
        town.charter("alder", "birch", prev=second),
        second.model_copy(update={"prev": "0" * 64}),
        second.model_copy(update={"federation": "village"}),
        first.model_copy(update={"contracts": second.contracts, "coordinator_key": "2" * 64}),
    ):
        arguments = ("charter", "sign", town.write(town.draft(charter)), "--yes", "--out", tmp_path / "sig")
        refused(capsys, "CSL-F210", ExitCode.INTEGRITY, alder, *arguments)
    simulated = town.charter("alder", "birch", link=None)
    arguments = ("charter", "sign", town.write(town.draft(simulated)), "--yes", "--out", tmp_path / "sig")
    refused(capsys, "CSL-C458", ExitCode.DOCUMENT, alder, *arguments)


def test_sign_refuses_other_contracts_than_the_pinned_ones(town, alder, first, tmp_path, capsys):
    other = town.draft(first, CONTRACT.model_copy(update={"version": 2}))
    arguments = ("charter", "sign", town.write(other), "--yes", "--out", tmp_path / "sig")
    refused(capsys, "CSL-F211", ExitCode.INTEGRITY, alder, *arguments)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe", b'{"charter":1}', b"[" * 5000])
def test_what_is_no_charter_is_said_to_be_none(alder, tmp_path, capsys, content):
    path = tmp_path / "charter.json"
    path.write_bytes(content)
    for command in (("sign", path, "--yes", "--out", tmp_path / "sig"), ("accept", path, "--digest", "0" * 64)):
        refused(capsys, "CSL-F216", ExitCode.DOCUMENT, alder, "charter", *command)
    refused(capsys, "CSL-F214", ExitCode.STORAGE, alder, "charter", "show", tmp_path / "none.json")


# Accepting


def test_accept_pins_what_all_signed(town, alder, first, capsys):
    path = town.write(town.seal(town.draft(first)))
    words = " ".join(words_of(first.digest())).upper()
    assert node(alder, "charter", "accept", path, "--words", words) == 0
    assert "Pinned version 1 of town" in capsys.readouterr().out
    assert alder.charter() == first and alder.pin_file.read_text() == f"{first.digest()}\n"
    text = (alder.root / "contracts" / "shop.yaml").read_text()
    assert "name: age" in text and alder.contract(first, "shop") == CONTRACT
    for file in (alder.charter_file, alder.pin_file, alder.accepted_file(first.digest())):
        assert file.stat().st_mode & 0o777 == 0o600
    assert node(alder, "charter", "accept", path, "--words", words) == 0, "the same again changes nothing"
    assert node(alder, "charter", "show", "--json") == 0
    out = capsys.readouterr().out
    shown = json.loads(out[out.index("{") :])
    assert shown["digest"] == shown["pinned"] == first.digest() and shown["missing"] == [] and shown["changes"] is None


def test_accept_refuses_wrong_words_and_pins_nothing(town, alder, first, capsys):
    path = town.write(town.seal(town.draft(first)))
    other = town.charter("alder", "birch", prev=first).digest()
    words = list(words_of(first.digest()))
    for flags, code in (
        (("--digest", other), "CSL-C463"),
        (("--words", " ".join(words_of(other))), "CSL-C463"),
        (("--words", " ".join(words[:23])), "CSL-F220"),
        (("--words", " ".join([*words[:23], "bananas"])), "CSL-F221"),
        (("--words", " ".join([words[1], words[0], *words[2:]])), "CSL-F222"),
        (("--words", " ".join(words), "--digest", first.digest()), "CSL-C464"),
        ((), "CSL-C465"),
    ):
        exit_code = ExitCode.INTEGRITY if code == "CSL-C463" else ExitCode.DOCUMENT
        refused(capsys, code, exit_code, alder, "charter", "accept", path, *flags)
    assert not alder.pin_file.exists() and not alder.charter_file.exists()


def test_accept_asks_for_the_words_without_showing_them(town, alder, first, monkeypatch, capsys):
    path = town.write(town.seal(town.draft(first)))
    answers = ["what words", " ".join(words_of(first.digest()))]
    monkeypatch.setattr("client.node.founding.sys.stdin", SimpleTerminal())
    monkeypatch.setattr("client.node.founding.typer.prompt", lambda question, err: answers.pop(0))
    assert node(alder, "charter", "accept", path) == 0 and answers == []
    err = capsys.readouterr().err
    assert "has 2 words" in err and "birch: Birch" in err and first.digest() not in err
    monkeypatch.setattr("client.node.founding.typer.prompt", lambda question, err: "nothing")
    refused(capsys, "CSL-F220", ExitCode.DOCUMENT, alder, "charter", "accept", path)


def test_accept_needs_every_signature(town, alder, first, capsys):
    for without in ("birch", "coordinator", "alder"):
        path = town.write(town.seal(town.draft(first), without))
        arguments = ("charter", "accept", path, "--digest", first.digest())
        refused(capsys, "CSL-F213", ExitCode.INTEGRITY, alder, *arguments)
    forged = sign_charter(load_identity(alder.identity_key, allow_plain=True), first, "birch")
    whole = town.seal(town.draft(first))
    tampered = whole.model_copy(
        update={"signatures": tuple(forged if item.party == "birch" else item for item in whole.signatures)}
    )
    arguments = ("charter", "accept", town.write(tampered), "--digest", first.digest())
    refused(capsys, "CSL-F201", ExitCode.INTEGRITY, alder, *arguments)
    assert not alder.pin_file.exists()


def test_accept_refuses_a_charter_without_oneself(town, alder, first, capsys):
    accepted(town, first)
    town.join("cedar")
    second = town.charter("birch", "cedar", prev=first)
    path = town.write(town.seal(town.draft(second)))
    refused(
        capsys, "no longer names", ExitCode.INTEGRITY, alder, "charter", "accept", path, "--digest", second.digest()
    )
    assert alder.charter() == first
    refused(
        capsys,
        "does not name",
        ExitCode.INTEGRITY,
        town.join("dogwood"),
        *("charter", "accept", path, "--digest", second.digest()),
    )
    assert node(town.homes["cedar"], "charter", "accept", path, "--digest", second.digest()) == 0, (
        "its first is the second"
    )


def test_accept_takes_the_versions_in_their_order(town, alder, first, capsys):
    accepted(town, first)
    second = town.charter("alder", "birch", prev=first)
    third = town.charter("alder", "birch", prev=second)
    path = town.write(town.seal(town.draft(third)))
    refused(capsys, "CSL-F210", ExitCode.INTEGRITY, alder, "charter", "accept", path, "--digest", third.digest())
    accepted(town, second)
    accepted(town, third)
    assert alder.charter() == third
    refused(
        capsys,
        "CSL-F210",
        ExitCode.INTEGRITY,
        alder,
        *("charter", "accept", town.write(town.seal(town.draft(first))), "--digest", first.digest()),
    )


def test_after_a_rotation_the_card_names_the_new_key(town, alder, first, tmp_path, capsys):
    accepted(town, first)
    old = read_public(alder.identity_key)
    upcoming = rotation.prepare(alder, PLAIN)
    assert node(alder, "card", "--out", tmp_path / "card") == 0
    assert "the next one" in capsys.readouterr().out
    assert open_card(read_paper(tmp_path / "card", SignedCard)).member.key == upcoming != old
    second = town.charter("alder", "birch", prev=first)
    draft = town.draft(second)
    assert node(alder, "charter", "sign", town.write(draft), "--yes", "--out", tmp_path / "sig") == 0
    check_signature(second, read_paper(tmp_path / "sig", CharterSignature))
    key = load_identity(rotation.next_key_file(alder), allow_plain=True)
    whole = town.seal(draft, "alder")
    whole = whole.model_copy(update={"signatures": (sign_charter(key, second, "alder"), *whole.signatures)})
    capsys.readouterr()
    assert node(alder, "charter", "accept", town.write(whole), "--digest", second.digest()) == 0
    assert "officer rotate" in capsys.readouterr().out
    rotation.rotate(alder, PLAIN, "Yearly")
    assert own_of(alder).identity == upcoming and own_of(alder).upcoming is None
    assert node(alder, "card", "--out", tmp_path / "after") == 0
    assert read_paper(tmp_path / "after", SignedCard).card.member.key == upcoming
    stale = town.write(town.draft(town.charter("birch", prev=second, members=first.members)))
    refused(capsys, "CSL-C460", ExitCode.INTEGRITY, alder, "charter", "sign", stale, "--yes", "--out", tmp_path / "no")


def test_a_new_contract_comes_with_the_charter_that_pins_it(town, alder, first):
    accepted(town, first)
    changed = CONTRACT.model_copy(update={"version": 2})
    pins = (PinnedContract(name="shop", sha256=changed.digest()),)
    second = town.charter("alder", "birch", prev=first, contracts=pins)
    path = town.write(town.seal(town.draft(second, changed)))
    assert node(alder, "charter", "accept", path, "--digest", second.digest()) == 0
    assert alder.contract(alder.charter(), "shop").version == 2
    assert alder.contract(first, "shop").version == 1, "a vault that still runs by the old charter goes on"


@pytest.mark.parametrize(
    "command",
    [
        ["card", "--federation", "town", "--out", "OUT"],
        ["charter", "show", "FILE"],
        ["charter", "sign", "FILE", "--yes", "--out", "OUT"],
        ["charter", "accept", "FILE", "--digest", "DIGEST"],
    ],
)
def test_without_a_role_nothing_is_done(town, alder, first, tmp_path, capsys, command):
    path = town.write(town.seal(town.draft(first)))
    alder.roles_file.write_text("analysts: [somebody_else]\n")
    alder.roles_file.chmod(0o600)
    places = {"FILE": str(path), "OUT": str(tmp_path / "out"), "DIGEST": first.digest()}
    refused(capsys, "CSL-C542", ExitCode.POLICY, alder, *(places.get(word, word) for word in command))
    assert not (tmp_path / "out").exists() and not alder.pin_file.exists()


@pytest.mark.parametrize("command", [["card", "--federation", "town"], ["charter", "sign", "FILE", "--yes"]])
def test_a_home_that_is_being_restored_signs_nothing(town, alder, first, tmp_path, capsys, command):
    alder.lock_file.write_text("")
    path = str(town.write(town.draft(first)))
    words = [path if word == "FILE" else word for word in command]
    refused(capsys, "CSL-C006", ExitCode.INTEGRITY, alder, *words, "--out", tmp_path / "out")


def test_the_vault_opens_by_the_accepted_charter(town, alder, first):
    accepted(town, first)
    vault = Vault.open(alder.root, unlock(alder))
    assert vault.member == "alder"
    with Ledger.open(alder.ledger_file, unlock(alder).identity) as ledger:
        assert ledger.state().member == "alder"


# membership.yaml


def test_the_examples_are_read_as_they_are():
    folder = Path(__file__).parents[2] / "configs" / "members"
    bank = load_yaml(folder / "bank.yaml", Membership)
    shop = load_yaml(folder / "shop.yaml", Membership)
    assert (bank.title, bank.declares[0].contract) == ("Northbank", "bank_campaign")
    assert shop.declares[0].as_of == date(2024, 10, 1) and shop.declares[0].horizon_days == 90


@pytest.mark.parametrize(
    "changes",
    [
        {"declares": []},
        {"declares": [{"contract": "shop", "size": 0}]},
        {"declares": [{"contract": "shop", "size": 1}, {"contract": "shop", "size": 2}]},
        {"title": "a\x1b[2Jb"},
        {"members": 3},
    ],
)
def test_a_membership_that_says_nothing_sound_makes_no_card(alder, tmp_path, capsys, changes):
    altered(alder, **changes)
    refused(capsys, "CSL-F105", ExitCode.DOCUMENT, alder, "card", "--federation", "town", "--out", tmp_path / "a")


@given(st.data())
def test_no_byte_of_a_sealed_charter_can_be_changed(made, data):
    """Whatever single byte is altered: the file is no charter file any more, or a check of it fails."""
    charter = made.charter("alder", "birch")
    content = bytearray(made.seal(made.draft(charter)).canonical())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda value: value != content[place]))
    with pytest.raises(ConsilienceError):
        file = parse_paper(bytes(content), CharterFile, "it")
        check_file(file)
        sealed(file)
        assert file.charter.digest() == charter.digest(), "another charter needs other signatures"


def test_public_lines_are_what_ssh_prints(alder):
    kind, blob = own_of(alder).node_key.split()
    assert kind == "ecdsa-sha2-nistp384" and len(base64.b64decode(blob)) == 136
