"""Witnessing over the grid: whose head is kept, by whom it is cosigned, and what goes wrong on the way."""

import json
from pathlib import Path

import pytest
from flwr.app import RecordDict
from hypothesis import given
from hypothesis import strategies as st

from federation.errors import ConsilienceError
from federation.heads import coordinator_name, open_head, origin_of
from federation.merkle import leaf_hash
from federation.messages import RECORD, Cosignature, CosignRequest, LedgerHead, NoteKept, pack
from federation.note import cosign
from server.coordinator import run_study
from server.events import LeftOut, RosterSettled, Witnessed
from server.exchange import send, sort_replies
from server.witness import WITNESSES, WitnessDesk, witnesses_of
from simulations.local_grid import Fault
from tests.server.fakes import ENTRIES, TIME, FakeFederation, FakeVault, draft, key_of, refuse, short

NAMES = ["alpha", "beta", "delta", "gamma"]


@pytest.fixture
def federation(tmp_path: Path) -> FakeFederation:
    return FakeFederation.make(tmp_path)


def notes(federation: FakeFederation) -> Path:
    return federation.folder / "witness"


def go(federation: FakeFederation, faults=None, seconds: float = 20.0, members=NAMES) -> None:
    """Witness once, among some members; earlier events are forgotten."""
    federation.events.clear()
    for vault in federation.vaults.values():
        vault.kept.clear()
        vault.work.clear()
    desk = WitnessDesk(federation.charter, key_of("coordinator"), notes(federation), lambda: TIME)
    with federation.grid(faults) as grid:

        def ask(messages):
            asked = list(messages.values())
            answers = sort_replies(asked, send(grid, asked, seconds), seconds)
            return {member: answers[message.metadata.dst_node_id] for member, message in messages.items()}

        desk.run({name: federation.node(name) for name in members}, ask, lambda: "ab" * 16, federation.events.append)


def grow(federation: FakeFederation, entries: int = 5) -> None:
    for vault in federation.vaults.values():
        vault.log.write(entries)


def troubles(federation: FakeFederation) -> dict[str, str]:
    assert all(event.phase == "witness" for event in federation.happened(LeftOut))
    return {event.who: event.code for event in federation.happened(LeftOut)}


def witnessed(federation: FakeFederation) -> dict[str, tuple[int, tuple[str, ...], bool]]:
    return {event.member: (event.size, event.witnesses, event.returned) for event in federation.happened(Witnessed)}


def kept(federation: FakeFederation, member: str) -> str:
    return (notes(federation) / f"{member}.note").read_text()


@given(st.lists(st.from_regex(r"[a-z]{1,4}", fullmatch=True), min_size=1, max_size=9, unique=True))
def test_everybody_is_witnessed_by_two_others_and_witnesses_two(names):
    chosen = {name: witnesses_of(name, names) for name in names}
    assert all(len(set(others)) == min(WITNESSES, len(names) - 1) for others in chosen.values())
    assert all(name not in others for name, others in chosen.items())
    load = [other for others in chosen.values() for other in others]
    assert {load.count(name) for name in names} == {min(WITNESSES, len(names) - 1)}


def test_every_head_is_cosigned_by_coordinator_and_two_members_and_comes_home(federation):
    go(federation)
    assert troubles(federation) == {}
    others = {
        "alpha": ("beta", "delta"),
        "beta": ("delta", "gamma"),
        "delta": ("gamma", "alpha"),
        "gamma": ("alpha", "beta"),
    }
    assert witnessed(federation) == {name: (ENTRIES, others[name], True) for name in NAMES}
    for name in NAMES:
        head = open_head(kept(federation, name), federation.charter)
        expected = {coordinator_name("test"), *(origin_of("test", other) for other in others[name])}
        assert set(head.cosigners) == expected and set(head.cosigners.values()) == {TIME}
        vault = federation.vaults[name]
        assert (vault.home / "witness" / "own.note").read_text() == kept(federation, name)
        assert vault.log.heard == [(ENTRIES, tuple(sorted(expected)))]


def test_the_next_head_goes_the_short_way(federation):
    go(federation)
    grow(federation)
    go(federation)
    assert troubles(federation) == {} and witnessed(federation)["beta"][0] == ENTRIES + 6
    for vault in federation.vaults.values():
        assert vault.work == ["query.head", "query.cosign", "query.cosign", "query.cosigned"]


def test_nothing_new_is_witnessed_again(federation):
    go(federation)
    go(federation)
    go(federation)
    assert troubles(federation) == {} and witnessed(federation)["alpha"] == (ENTRIES + 1, ("beta", "delta"), True)
    assert {len(vault.log.heard) for vault in federation.vaults.values()} == {1}


@pytest.mark.parametrize("members", [["alpha"], ["alpha", "gamma"], ["beta", "delta", "gamma"]])
def test_fewer_members_have_fewer_witnesses(federation, members):
    go(federation, members=members)
    assert troubles(federation) == {}
    assert {len(found[1]) for found in witnessed(federation).values()} == {min(2, len(members) - 1)}


def test_a_witness_that_keeps_another_head_gets_the_proof_from_it(federation):
    go(federation)
    grow(federation)
    go(federation, members=["alpha", "gamma"])  # beta and delta still keep the first head of alpha
    grow(federation)
    go(federation)
    assert troubles(federation) == {} and witnessed(federation)["alpha"][1:] == (("beta", "delta"), True)
    assert federation.vaults["beta"].work.count("query.cosign") == 4  # alpha and gamma, each twice
    assert federation.vaults["alpha"].work.count("query.head") == 2


def test_a_coordinator_that_lost_its_notes_begins_anew_and_its_witnesses_do_not(federation):
    go(federation)
    for path in notes(federation).glob("*.note"):
        path.unlink()
    grow(federation)
    go(federation)
    assert troubles(federation) == {} and witnessed(federation)["delta"][1:] == (("gamma", "alpha"), True)
    twin = federation.vaults["alpha"]
    twin.log.hashes[2] = leaf_hash(b"written anew")
    twin.witness._folder.joinpath("own.note").unlink()
    for path in notes(federation).glob("*.note"):
        path.unlink()
    go(federation)
    assert troubles(federation) == {"beta": "CSL-S702", "delta": "CSL-S702"}
    assert witnessed(federation)["alpha"][1] == ()


@pytest.mark.parametrize(("kind", "code"), [("fail", "CSL-S204"), ("unreachable", "CSL-S205"), ("hang", "CSL-S202")])
@pytest.mark.parametrize("step", ["query.head", "query.cosign", "query.cosigned"])
def test_a_node_that_fails_is_reported_and_the_others_go_on(federation, kind, code, step):
    go(federation, {"beta": (Fault(kind, types=frozenset({step})),)}, seconds=1.0)
    assert troubles(federation) == {"beta": code}
    found = witnessed(federation)
    assert {"alpha", "delta", "gamma"} <= set(found) and found["gamma"][2]
    # whoever is silent is asked once
    assert ("beta" in found) == (step == "query.cosigned") and not found.get("beta", (0, (), False))[2]


def test_a_ledger_that_was_written_anew_is_not_cosigned_and_the_evidence_is_kept(federation):
    go(federation)
    before = kept(federation, "alpha")
    vault = federation.vaults["alpha"]
    vault.log.hashes[1] = leaf_hash(b"written anew")
    (vault.home / "witness" / "own.note").unlink()
    vault.open()
    vault.log.write(3)
    go(federation)
    assert troubles(federation) == {"alpha": "CSL-S704"} and "alpha" not in witnessed(federation)
    assert kept(federation, "alpha") == before
    del vault.log.hashes[ENTRIES:]
    go(federation)
    assert troubles(federation) == {"alpha": "CSL-S704"} and kept(federation, "alpha") == before
    conflict = open_head((notes(federation) / "alpha.conflict.note").read_text(), federation.charter)
    assert (conflict.size, conflict.root) != (ENTRIES, open_head(before, federation.charter).root)


def test_a_shorter_ledger_is_older(federation):
    go(federation)
    vault = federation.vaults["alpha"]
    del vault.log.hashes[ENTRIES - 1 :]
    (vault.home / "witness" / "own.note").unlink()
    vault.open()
    go(federation)
    assert troubles(federation) == {"alpha": "CSL-S704"}
    assert any("F615" in event.reason for event in federation.happened(LeftOut))


def test_a_restored_ledger_begins_a_new_log(federation):
    go(federation)
    vault = federation.vaults["alpha"]
    del vault.log.hashes[3:]
    vault.log.restores = 1
    vault.open()
    go(federation)
    assert troubles(federation) == {} and witnessed(federation)["alpha"] == (3, ("beta", "delta"), True)
    assert kept(federation, "alpha").startswith("consilience/test/alpha/1\n3\n")
    assert (notes(federation) / "alpha.0.note").read_text().startswith(f"consilience/test/alpha\n{ENTRIES}\n")


def _fields(reply: RecordDict) -> dict:
    return json.loads(bytes(reply[RECORD]["header"]))


def _head(vault: FakeVault, reply: RecordDict, **changes: object) -> RecordDict:
    return pack(vault.key, LedgerHead(**{**_fields(reply), "proof": (), **changes}))


def _cosignature(vault: FakeVault, reply: RecordDict, **changes: object) -> RecordDict:
    return pack(vault.key, Cosignature(**{**_fields(reply), **changes}))


def _forged(vault: FakeVault, reply: RecordDict) -> str:
    """The note under a signature that somebody else made in the witness's name."""
    plain = _fields(reply)["note"].split("\n")
    plain = "\n".join(line for line in plain if f"/{vault.member} " not in line)
    return cosign(plain, key_of("nobody"), origin_of("test", vault.member), TIME)


LIES = {
    "another nonce": ("query.head", lambda v, q, r: _head(v, r, nonce="0" * 32), "CSL-S704"),
    "another member": ("query.head", lambda v, q, r: _head(v, r, member="alpha"), "CSL-S704"),
    "a note of nobody": ("query.head", lambda v, q, r: _head(v, r, note="nonsense"), "CSL-S704"),
    "another size": (
        "query.head",
        lambda v, q, r: _head(v, r, note=_fields(r)["note"].replace("6", "7", 1)),
        "CSL-S704",
    ),
    "an unasked proof": ("query.head", lambda v, q, r: _head(v, r, proof=("0" * 64,)), "CSL-S704"),
    "no head": ("query.head", lambda v, q, r: RecordDict(), "CSL-S704"),
    "no head given": ("query.head", refuse, "CSL-S702"),
    "no cosignature": ("query.cosign", lambda v, q, r: _cosignature(v, r, note=v.witness.prove()[0]), "CSL-S704"),
    "another's cosignature": ("query.cosign", lambda v, q, r: _cosignature(v, r, note=_forged(v, r)), "CSL-S704"),
    "another subject": ("query.cosign", lambda v, q, r: _cosignature(v, r, subject=v.member), "CSL-S704"),
    "a size beyond": ("query.cosign", lambda v, q, r: _cosignature(v, r, note=None, held=1 << 50), "CSL-S704"),
    "ever another size": ("query.cosign", lambda v, q, r: _cosignature(v, r, note=None, held=2), "CSL-S703"),
    "not cosigned": ("query.cosign", refuse, "CSL-S702"),
    "another receipt": ("query.cosigned", lambda v, q, r: pack(v.key, NoteKept(member="alpha", size=6)), "CSL-S207"),
    "no receipt": ("query.cosigned", lambda v, q, r: RecordDict(), "CSL-S207"),
    "not kept": ("query.cosigned", refuse, "CSL-S702"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_vault_that_answers_wrongly_is_left_out_with_a_reason(federation, name):
    step, lie, code = LIES[name]
    federation.vaults["beta"].edits[step] = lie
    go(federation)
    assert troubles(federation) == {"beta": code}
    found = witnessed(federation)
    assert {"alpha", "delta", "gamma"} <= set(found) and found["delta"] == (ENTRIES, ("gamma", "alpha"), True)
    assert all("beta" not in others for _, others, _ in found.values()) or step != "query.cosign"


def test_a_folder_that_cannot_be_written_is_reported(federation):
    notes(federation).write_text("a file")
    go(federation)
    assert troubles(federation) == dict.fromkeys(NAMES, "CSL-S705") and witnessed(federation) == {}


def test_a_damaged_note_is_reported_and_not_replaced(federation):
    go(federation)
    (notes(federation) / "alpha.note").write_text("damaged")
    go(federation)
    assert troubles(federation) == {"alpha": "CSL-S704"} and kept(federation, "alpha") == "damaged"


def test_a_newer_head_that_another_study_brought_is_not_replaced(federation):
    go(federation)
    desk = WitnessDesk(federation.charter, key_of("coordinator"), notes(federation), lambda: TIME)
    earlier, vault = desk.last("alpha"), federation.vaults["beta"]
    vault.log.write(1)
    request = CosignRequest(subject="alpha", note=earlier.text, old=ENTRIES, proof=())
    late = vault.witness.cosign(pack(key_of("coordinator"), request))
    grow(federation)
    go(federation)
    newer = kept(federation, "alpha")
    assert desk.add(earlier, late, "beta")[0].size == ENTRIES
    assert kept(federation, "alpha") == newer and desk.last("alpha").size > ENTRIES


# In a study


def study(federation: FakeFederation, faults=None, **changes: object) -> None:
    for vault in federation.vaults.values():
        vault.kept.clear()
    with federation.grid(faults) as grid:
        run_study(
            grid,
            draft(**changes),
            federation.office,
            derive=short(2),
            on_event=federation.events.append,
            roster_seconds=1.5,
        )


def test_a_study_ends_with_witnessed_ledgers_and_the_next_one_shows_them(federation):
    study(federation)
    assert set(witnessed(federation)) == set(NAMES) and troubles(federation) == {}
    grow(federation)
    study(federation, name="summer")
    assert all(vault.work.count("query.hello") == 3 for vault in federation.vaults.values())
    assert witnessed(federation)["gamma"][0] > ENTRIES and troubles(federation) == {}


def test_a_vault_on_an_older_copy_takes_no_part_in_the_next_study(federation):
    study(federation)
    vault = federation.vaults["alpha"]
    del vault.log.hashes[ENTRIES - 2 :]
    (vault.home / "witness" / "own.note").unlink()  # the whole home came back from the backup
    vault.open()
    vault.work.clear()
    federation.events.clear()
    study(federation, name="summer")
    assert federation.happened(RosterSettled)[0].missing == ("alpha",)
    assert [(event.who, event.code) for event in federation.happened(LeftOut)] == [("alpha", "CSL-S706")]
    assert vault.work == ["query.hello", "query.hello"]
    with pytest.raises(ConsilienceError, match="CSL-C532"):
        vault.witness.check_open()


def test_witnessing_never_fails_a_study(federation):
    notes(federation).write_text("a file")
    faults = {name: (Fault("fail", types=frozenset({"query.cosign"})),) for name in ("alpha", "beta")}
    study(federation, faults)
    assert not list((federation.folder / "checkpoints").iterdir())
    assert set(troubles(federation)) == set(NAMES)
