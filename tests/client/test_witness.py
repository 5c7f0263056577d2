"""The vault as a witness: sound towards its own past and others', whatever the coordinator says."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client.home import Home
from client.witness import Witness
from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.errors import ConsilienceError, DocumentError, IntegrityError, PolicyError
from federation.heads import coordinator_name, cosignature_of, open_head, origin_of
from federation.merkle import consistency_proof, tree_root
from federation.messages import (
    Cosignature,
    CosignedNote,
    CosignRequest,
    HeadRequest,
    LedgerHead,
    NoteKept,
    pack,
    unpack,
)
from federation.note import (
    Checkpoint,
    Submission,
    cosign,
    dump_submission,
    gather,
    open_note,
    parse_note,
    parse_submission,
    sign_checkpoint,
)
from federation.signing import public_hex
from tests.logs import FakeLog

TIME = 1_800_000_000
FOREST = "forest"


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


COORDINATOR = key_of("coordinator")
CHARTER = Charter(
    federation=FOREST,
    version=1,
    coordinator_key=public_hex(COORDINATOR),
    members=tuple(
        Member(
            id=name,
            title=name.title(),
            key=public_hex(key_of(name)),
            declares=(Declaration(contract="shop", size=9, as_of=date(2026, 1, 1), window_days=9, horizon_days=9),),
        )
        for name in ("alder", "birch", "own")
    ),
    contracts=(PinnedContract(name="shop", sha256="0" * 64),),
)


@dataclass
class House:
    """A member with its home, its ledger and its vault's witness; `open` starts the vault anew."""

    folder: Path
    name: str
    log: FakeLog
    witness: Witness

    def open(self) -> Witness:
        key = key_of(self.name)
        self.witness = Witness(Home(self.folder), self.log, CHARTER, key, self.name, lambda: TIME)
        self.witness.check_start()
        return self.witness

    def note(self, size: int | None = None) -> str:
        return self.witness.prove(0, size)[0]

    def cosigned(self, size: int | None = None) -> str:
        return cosign(self.note(size), COORDINATOR, coordinator_name(FOREST), TIME)

    def submission(self, old: int = 0, size: int | None = None) -> Submission:
        note, proof = self.witness.prove(old, size)
        return Submission(old, proof, note)


def house(folder: Path, name: str, entries: int = 10) -> House:
    log = FakeLog(name, (public_hex(key_of(name)),))
    log.write(entries)
    made = House(folder / name, name, log, None)  # type: ignore[arg-type]
    made.open()
    return made


@pytest.fixture
def alder(tmp_path) -> House:
    return house(tmp_path, "alder")


@pytest.fixture
def birch(tmp_path) -> House:
    return house(tmp_path, "birch")


def code(act: Callable[[], object]) -> str:
    with pytest.raises(ConsilienceError) as caught:
        act()
    return caught.value.code


def ask_head(old: int = 0, size: int | None = None, key: Ed25519PrivateKey = COORDINATOR) -> RecordDict:
    return pack(key, HeadRequest(nonce="1" * 32, old=old, size=size))


def ask_cosign(subject: str, submission: Submission, key: Ed25519PrivateKey = COORDINATOR) -> RecordDict:
    proof = tuple(node.hex() for node in submission.proof)
    return pack(key, CosignRequest(subject=subject, note=submission.note, old=submission.old, proof=proof))


def answer(reply: RecordDict, name: str) -> Cosignature:
    return unpack(reply, Cosignature, public_hex(key_of(name)))[0]


# What a vault says of its own ledger


def test_a_head_is_signed_and_proved_from_the_size_that_is_asked_for(alder):
    old = open_head(alder.note(), CHARTER)
    alder.log.write(7)
    header, _ = unpack(alder.witness.head(ask_head(10)), LedgerHead, public_hex(key_of("alder")))
    head = open_head(header.note, CHARTER)
    assert (head.member, head.size, head.root) == ("alder", 17, tree_root(alder.log.hashes, 17).hex())
    proof = consistency_proof(alder.log.hashes, 10, 17)
    assert tuple(bytes.fromhex(node) for node in header.proof) == proof and header.nonce == "1" * 32
    assert open_head(alder.note(10), CHARTER).root == old.root


@pytest.mark.parametrize(("old", "size"), [(11, None), (0, 11), (7, 6)])
def test_a_size_that_the_ledger_does_not_have_is_refused(alder, old, size):
    assert code(lambda: alder.witness.head(ask_head(old, size))) == "CSL-C534"


def test_only_the_coordinator_is_answered(alder, birch):
    stranger = key_of("stranger")
    for act in (
        lambda: alder.witness.head(ask_head(key=stranger)),
        lambda: alder.witness.cosign(ask_cosign("birch", birch.submission(), stranger)),
        lambda: alder.witness.keep(pack(stranger, CosignedNote(note=alder.cosigned()))),
    ):
        assert code(act) == "CSL-F202"


# What comes back


def test_a_cosigned_head_is_kept_and_written_into_the_ledger_once(alder):
    request = pack(COORDINATOR, CosignedNote(note=alder.cosigned()))
    for _ in range(2):
        kept, _ = unpack(alder.witness.keep(request), NoteKept, public_hex(key_of("alder")))
        assert kept == NoteKept(member="alder", size=10)
    assert alder.log.heard == [(10, (coordinator_name(FOREST),))] and len(alder.log.hashes) == 11
    assert (alder.folder / "witness" / "own.note").stat().st_mode & 0o777 == 0o600
    # the entry that says so is no news of its own
    alder.witness.keep(pack(COORDINATOR, CosignedNote(note=alder.cosigned())))
    assert len(alder.log.heard) == 1 and alder.witness.own().size == 11


def test_another_witness_of_the_same_head_is_added(alder, birch):
    alder.witness.keep_own(alder.cosigned())
    alder.witness.keep_own(birch.witness.witness(alder.submission(size=10)))
    head = open_head(alder.witness.own().text, CHARTER)
    assert set(head.cosigners) == {coordinator_name(FOREST), origin_of(FOREST, "birch")}
    assert alder.log.heard[1] == (10, (origin_of(FOREST, "birch"),))


def test_an_older_note_does_not_replace_a_newer_one(alder):
    old = alder.cosigned()
    alder.log.write(5)
    alder.witness.keep_own(alder.cosigned())
    alder.witness.keep_own(old)
    assert alder.witness.own().size == 15


def test_a_vault_on_an_older_copy_does_not_start(alder):
    alder.witness.keep_own(alder.cosigned())
    del alder.log.hashes[9:]
    assert code(alder.open) == "CSL-C532"


def test_a_vault_on_another_ledger_does_not_start(alder):
    alder.witness.keep_own(alder.cosigned())
    alder.log.hashes[3] = alder.log.hashes[4]
    assert code(alder.open) == "CSL-C533"


@pytest.mark.parametrize("content", [b"", b"\xff", b"something else"])
def test_a_damaged_note_keeps_the_vault_shut(alder, content):
    alder.witness.keep_own(alder.cosigned())
    (alder.folder / "witness" / "own.note").write_bytes(content)
    assert code(alder.open) in {"CSL-C531", "CSL-F611"}


def test_anothers_note_in_place_of_the_own_keeps_the_vault_shut(alder, birch):
    (alder.folder / "witness" / "own.note").write_text(birch.note())
    assert code(alder.open) == "CSL-C531"


def test_hello_locks_a_vault_that_was_restored_from_an_old_copy(alder, birch):
    """The whole home came back from a backup, the note in it too: only the coordinator knows better."""
    note = alder.cosigned()
    del alder.log.hashes[8:]
    witness = alder.open()
    assert not witness.locked
    assert code(lambda: witness.compare(note)) == "CSL-C532"
    assert witness.locked
    for act in (
        witness.check_open,
        lambda: witness.compare(None),
        lambda: witness.head(ask_head()),
        lambda: witness.cosign(ask_cosign("birch", birch.submission())),
        lambda: witness.keep(pack(COORDINATOR, CosignedNote(note=note))),
    ):
        assert code(act) == "CSL-C532"
    assert code(alder.open) == "CSL-C532"  # a restart does not help


def test_hello_locks_a_vault_whose_ledger_was_written_anew(alder):
    note = alder.cosigned()
    alder.log.hashes[0] = alder.log.hashes[1]
    alder.log.write(5)
    assert code(lambda: alder.open().compare(note)) == "CSL-C533"
    assert code(alder.open) == "CSL-C533"


def test_a_restoration_with_losses_opens_the_vault_under_a_new_origin(alder, birch):
    note = alder.cosigned()
    del alder.log.hashes[5:]
    assert code(lambda: alder.open().compare(note)) == "CSL-C532"
    alder.log.restores = 1
    alder.log.write(1)
    witness = alder.open()
    assert witness.compare(note)
    assert parse_note(alder.note()).checkpoint.origin == "consilience/forest/alder/1"
    witness.keep_own(alder.cosigned())
    # and the copy from before that restoration is an older one again
    alder.log.restores = 0
    assert code(alder.open) == "CSL-C532"


def lies(alder: House, birch: House) -> list[str]:
    """What a coordinator can send without the vault's key."""
    head = parse_note(alder.note()).checkpoint
    larger = Checkpoint(head.origin, head.size + 5, "a" * 64)
    other = Checkpoint(head.origin, head.size, "b" * 64)
    later = Checkpoint(origin_of(FOREST, "alder", 3), 1, "c" * 64)
    forged = [sign_checkpoint(key, item) for key in (COORDINATOR, key_of("birch")) for item in (larger, other, later)]
    grafted = [alder.note().replace(f"\n{head.size}\n", "\n15\n"), larger.body + "\n" + alder.note().split("\n\n")[1]]
    own_cosignature = cosign(birch.note(), key_of("alder"), origin_of(FOREST, "alder"), TIME)
    relabelled = own_cosignature.replace("/birch\n", "/alder\n")
    return [*forged, *grafted, own_cosignature, relabelled, birch.note(), "", "nonsense", "\ud800"]


def test_no_lie_of_the_coordinator_locks_a_vault(alder, birch):
    alder.witness.keep_own(alder.cosigned())
    before = alder.witness.own()
    for note in lies(alder, birch):
        assert not alder.witness.compare(note)
        if note and note != "\ud800":
            assert code(lambda note=note: alder.witness.keep(pack(COORDINATOR, CosignedNote(note=note)))) == "CSL-C536"
    alder.witness.check_open()
    assert alder.open().own() == before


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_altered_note_locks_a_vault(alder, data):
    """Every true note may be sent, in any order; what is changed in it passes over the vault."""
    size = data.draw(st.integers(0, 10))
    content = bytearray(alder.cosigned(size).encode())
    for place in data.draw(st.lists(st.integers(0, 8 * len(content) - 1), max_size=2)):
        content[place // 8] ^= 1 << place % 8
    alder.witness.compare(content.decode("utf-8", "replace"))
    alder.witness.check_open()
    alder.open()
    assert parse_note(alder.note()).checkpoint.size == len(alder.log.hashes)


def test_notes_under_an_earlier_key_still_count(alder):
    note = alder.cosigned()
    old = alder.log.keys
    alder.log.keys = (public_hex(key_of("older")), *old)
    assert alder.open().compare(note)
    alder.log.keys = (*old, public_hex(key_of("newer")))
    del alder.log.hashes[9:]
    (alder.folder / "witness" / "own.note").unlink()
    assert code(lambda: alder.open().compare(note)) == "CSL-C532"
    # a key that was never the ledger's says nothing
    alder.log.keys = (public_hex(key_of("newer")),)
    (alder.folder / "witness" / "conflict.note").unlink()
    assert not alder.open().compare(note)


# Witnessing others


def test_a_first_head_is_cosigned_and_kept_before_the_answer(alder, birch):
    reply = answer(birch.witness.cosign(ask_cosign("alder", alder.submission())), "birch")
    assert cosignature_of(reply.note, CHARTER, origin_of(FOREST, "birch")).cosigners[origin_of(FOREST, "birch")] == TIME
    assert [(head.member, head.size) for head in birch.witness.others()] == [("alder", 10)]
    assert birch.open().others()[0].text == reply.note


def test_a_later_head_needs_the_proof_from_the_one_that_is_kept(alder, birch):
    birch.witness.witness(alder.submission())
    alder.log.write(9)
    reply = answer(birch.witness.cosign(ask_cosign("alder", alder.submission())), "birch")
    assert (reply.note, reply.held) == (None, 10)
    reply = answer(birch.witness.cosign(ask_cosign("alder", alder.submission(10))), "birch")
    assert reply.note is not None and reply.held == 19
    assert code(lambda: birch.witness.witness(alder.submission(10))) == "CSL-C537"


def test_the_same_head_is_cosigned_again(alder, birch):
    birch.witness.witness(alder.submission())
    assert birch.witness.witness(alder.submission(10)) == birch.open().others()[0].text


def test_a_witness_never_goes_back(alder, birch):
    early = alder.submission(size=6)
    birch.witness.witness(alder.submission())
    assert code(lambda: birch.witness.witness(early)) == "CSL-F615"
    assert birch.witness.others()[0].size == 10


def test_a_witness_never_signs_two_histories(alder, birch, tmp_path):
    birch.witness.witness(alder.submission())
    other = house(tmp_path / "twin", "alder")
    other.log.hashes[4] = other.log.hashes[5]
    assert code(lambda: birch.witness.witness(other.submission())) == "CSL-F616"
    conflict = birch.folder / "witness" / "others" / "alder.conflict.note"
    assert open_head(conflict.read_text(), CHARTER).root != birch.witness.others()[0].root
    other.log.write(5)
    for old in (0, 10):
        assert code(lambda old=old: birch.witness.witness(other.submission(old))) in {"CSL-F617", "CSL-C537"}
    alder.log.write(5)
    crossed = Submission(10, alder.submission(10).proof, other.note())
    assert code(lambda: birch.witness.witness(crossed)) == "CSL-F617"
    assert birch.witness.others()[0].size == 10


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12), st.integers(0, 14), st.booleans()), max_size=12))
def test_all_that_a_witness_ever_signed_is_one_history(tmp_path_factory, steps):
    """A coordinator and a ledger's owner together, with two ledgers and any proofs: the witness signs one line of heads only."""
    folder = tmp_path_factory.mktemp("houses")
    birch, one = house(folder, "birch"), house(folder, "alder", 14)
    two = House(folder / "twin", "alder", copy.deepcopy(one.log), one.witness)
    two.log.hashes[7:] = [bytes(reversed(leaf)) for leaf in two.log.hashes[7:]]
    two.open()
    signed: list[tuple[int, str]] = []
    for first, old, size, crossed in steps:
        if old > size:
            continue
        source, donor = (one, two) if first else (two, one)
        proof = (donor if crossed else source).submission(old, size).proof
        try:
            note = birch.witness.witness(Submission(old, proof, source.note(size)))
        except IntegrityError:
            continue
        checkpoint = parse_note(note).checkpoint
        signed.append((checkpoint.size, checkpoint.root))
    assert signed == sorted(signed, key=lambda item: item[0])
    histories = [
        all(tree_root(house_.log.hashes, size).hex() == root for size, root in signed) for house_ in (one, two)
    ]
    assert any(histories)


def test_a_new_generation_begins_a_new_log_and_the_old_one_stays_beside(alder, birch):
    birch.witness.witness(alder.submission())
    del alder.log.hashes[4:]
    alder.log.restores = 1
    alder.open()
    assert code(lambda: birch.witness.witness(alder.submission(2))) == "CSL-C537"
    birch.witness.witness(alder.submission())
    assert [(head.generation, head.size) for head in birch.witness.others()] == [(1, 4)]
    assert "\n10\n" in (birch.folder / "witness" / "others" / "alder.0.note").read_text()
    alder.log.restores = 0
    alder.log.write(20)
    assert code(lambda: birch.witness.witness(alder.submission())) == "CSL-F615"


def test_a_witness_signs_only_the_subject_and_never_itself(alder, birch):
    for subject in (alder, birch):
        assert (
            code(lambda subject=subject: birch.witness.cosign(ask_cosign("birch", subject.submission()))) == "CSL-C535"
        )


def test_a_forged_note_is_not_cosigned(alder, birch):
    head = parse_note(alder.note()).checkpoint
    for text in (
        sign_checkpoint(COORDINATOR, head),
        cosign(birch.note(), COORDINATOR, coordinator_name(FOREST), TIME).replace("/birch\n", "/alder\n"),
        alder.note().replace("\n10\n", "\n11\n"),
        alder.note().replace("forest", "desert"),
    ):
        assert code(lambda text=text: birch.witness.witness(Submission(0, (), text))) in {
            "CSL-F612",
            "CSL-F613",
            "CSL-F614",
        }
    assert birch.witness.others() == ()


def test_a_witness_that_lost_its_memory_signs_nothing(alder, birch):
    birch.witness.witness(alder.submission())
    path = birch.folder / "witness" / "others" / "alder.note"
    for content in (b"", birch.note().encode(), path.read_bytes()[:-1]):
        path.write_bytes(content)
        assert code(lambda: birch.witness.witness(alder.submission(10))) == "CSL-F619"


def test_a_member_may_be_called_like_a_file_of_ours(tmp_path, alder):
    own = house(tmp_path, "own")
    alder.witness.witness(own.submission())
    alder.witness.keep_own(alder.cosigned())
    assert alder.open().own().member == "alder" and alder.witness.others()[0].member == "own"


def test_strangers_signatures_are_not_passed_on(alder, birch):
    bloated = alder.note()
    for number in range(40):
        bloated = cosign(bloated, key_of("stranger"), f"stranger-{number}", TIME)
    submission = Submission(0, (), bloated)
    assert len(parse_note(birch.witness.witness(submission)).lines) == 2


def test_a_disk_that_is_full_gives_no_cosignature(alder, birch, monkeypatch):
    birch.witness.witness(alder.submission())
    alder.log.write(1)
    submission = alder.submission(10)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert code(lambda: birch.witness.witness(submission)) == "CSL-F301"
    monkeypatch.undo()
    assert birch.witness.others()[0].size == 10


def test_a_cosigned_note_shows_its_tree_head_and_no_other(alder):
    note = alder.cosigned()
    found = open_head(note, CHARTER)
    assert (found.size, found.root, found.generation) == (10, tree_root(alder.log.hashes, 10).hex(), 0)
    with pytest.raises(IntegrityError, match="CSL-F613"):
        open_note(note, {"consilience/forest/nobody": public_hex(COORDINATOR)})
    with pytest.raises(IntegrityError, match="CSL-F612"):
        open_head(note.replace("\n10\n", "\n11\n"), CHARTER)


def test_a_proof_travels_as_a_file(alder, birch):
    birch.witness.witness(parse_submission(alder.note()))
    alder.log.write(3)
    text = dump_submission(alder.submission(10))
    note = birch.witness.witness(parse_submission(text))
    assert alder.witness.keep_own(note).size == 13
    with pytest.raises(DocumentError):
        gather(note, [birch.note()])
    with pytest.raises(PolicyError):
        alder.submission(15)
