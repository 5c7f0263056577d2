"""What an institution refuses, by code, and before any of its secrets is used."""

from dataclasses import replace

import numpy as np
import pytest

from federation.charter import Charter, Declaration, PinnedContract
from federation.charter import Member as Institution
from federation.errors import ConsilienceError, DocumentError, IntegrityError, PolicyError
from federation.secure import SignedAck, SignedEpochKey, SignedExchange, SignedMasked, SignedReady, sign_statement
from federation.signing import public_hex
from privacy.secure_aggregation import coordinator as side
from privacy.secure_aggregation import institution
from privacy.secure_aggregation.epoch import EpochSecrets, check_same_keys
from privacy.secure_aggregation.keys import check_key
from privacy.secure_aggregation.masking import from_bytes, to_words
from privacy.secure_aggregation.roster import Roster, check_terms
from tests.privacy.secure_aggregation.federation import (
    COORDINATOR,
    Coordinator,
    Member,
    federation,
    give_roots,
    key_of,
    names_of,
    roster_of,
    set_up,
    signed_as,
    vectors_of,
)

D = 5


@pytest.fixture
def untouched(monkeypatch):
    """Fail where a secret would be used: masks, and keys that are shown."""

    def used(*_arguments):
        raise AssertionError("a secret was used")

    monkeypatch.setattr(institution, "mask", used)
    monkeypatch.setattr(institution, "pair_key", used)


class Stage:
    """Four members before each call of a sum: `terms` change the offer."""

    def __init__(self, **terms):
        self.roster, self.members = federation(6, 4, 1)
        self.vectors = vectors_of(self.roster.keys, D, 8)
        self.offer, self.signature = Coordinator(self.roster).offer(d=D, **terms)
        self.one = self.members["member_00"]

    def readies(self):
        return [m.ready(self.offer, self.signature, self.vectors[name]) for name, m in self.members.items()]

    def headers(self):
        readies = self.readies()
        return [member.masked(1, readies)[0] for member in self.members.values()]

    def acks(self):
        headers = self.headers()
        return [member.ack(1, headers) for member in self.members.values()]


def refused(code, call, kind=IntegrityError):
    with pytest.raises(kind, match=code):
        call()


@pytest.mark.parametrize(
    "changed",
    [{"roster": "d" * 64}, {"epoch": "d" * 64}, {"n_min": 5}, {"c": 0}, {"n_min": 6, "c": 3}],
)
def test_an_offer_of_another_study_charter_or_terms(changed, untouched):
    stage = Stage(**changed)
    refused("CSL-P808", stage.readies)
    assert "sum 1" not in stage.one.store


@pytest.mark.parametrize("terms", [{"n_min": 3, "c": 1}, {"n_min": 4, "c": 2}, {"n_min": 199, "c": 200}])
def test_an_offer_whose_terms_show_too_much(terms, untouched):
    refused("CSL-P801", Stage(**terms).readies, PolicyError)


def test_an_offer_that_the_coordinator_did_not_sign(untouched):
    stage = Stage()
    for signer in ("member_01", "somebody"):
        forged = sign_statement(key_of(signer), stage.offer)
        refused("CSL-F202", lambda forged=forged: stage.one.ready(stage.offer, forged, stage.vectors["member_00"]))


def test_an_epoch_of_another_study(untouched):
    stage = Stage()
    give_roots(stage.members, epoch="d" * 64)
    refused("CSL-P808", stage.readies)


def test_a_roster_that_shrank_or_changed_its_terms_between_two_calls(untouched):
    """What suffices to open a sum is checked against the roster that the offer was made for, at every call."""
    stage = Stage()
    readies = stage.readies()
    fewer = {name: key for name, key in stage.roster.keys.items() if name != "member_05"}
    for changed in ({"keys": fewer}, {"n_min": 5}, {"c": 0}, {"digest": "d" * 64}):
        stage.one.roster = replace(stage.roster, **changed)
        refused("CSL-P808", lambda: stage.one.masked(1, readies))
    stage.one.roster = replace(stage.roster, keys=fewer)
    refused(
        "CSL-P808", lambda: stage.one.ready(*Coordinator(stage.roster).offer(d=D, number=2), stage.vectors["member_00"])
    )


def test_a_roster_that_changed_its_terms_before_the_last_two_calls():
    stage = Stage()
    headers = stage.headers()
    stage.one.roster = replace(stage.roster, n_min=5)
    refused("CSL-P808", lambda: stage.one.ack(1, headers))
    stage.one.roster = stage.roster
    acks = [member.ack(1, headers) for member in stage.members.values()]
    stage.one.roster = replace(stage.roster, c=0)
    refused("CSL-P808", lambda: stage.one.reveal(1, acks))


def orders(items):
    """Statements that are not sorted, or of which one stands twice."""
    return [items[::-1], [items[0], *items], [*items[:2], items[1], *items[2:]], [items[1], items[0], *items[2:]]]


def test_statements_that_are_not_sorted_or_stand_twice(untouched):
    stage = Stage()
    for shown in orders(stage.readies()):
        refused("CSL-P803", lambda shown=shown: stage.one.masked(1, shown))


def test_headers_and_acknowledgements_that_are_not_sorted_or_stand_twice():
    stage = Stage()
    headers = stage.headers()
    for shown in orders(headers):
        refused("CSL-P803", lambda shown=shown: stage.one.ack(1, shown))
    acks = [member.ack(1, headers) for member in stage.members.values()]
    for shown in orders(acks):
        refused("CSL-P803", lambda shown=shown: stage.one.reveal(1, shown))


def test_a_statement_signed_by_another_member_or_of_a_stranger(untouched):
    stage = Stage()
    readies = stage.readies()
    wrong = signed_as(SignedReady, "member_02", readies[1].message)
    refused("CSL-F202", lambda: stage.one.masked(1, [readies[0], wrong, *readies[2:]]))
    stranger = readies[1].message.model_copy(update={"id": "stranger"})
    refused("CSL-P802", lambda: stage.one.masked(1, [*readies, signed_as(SignedReady, "stranger", stranger)]))
    assert isinstance(stage.one.state(1), institution.ReadyState)


def test_too_few_who_are_ready_or_ones_own_statement_changed(untouched):
    stage = Stage()
    readies = stage.readies()
    refused("CSL-P809", lambda: stage.one.masked(1, readies[:3]))
    refused("CSL-P809", lambda: stage.one.masked(1, readies[1:]))
    own = signed_as(SignedReady, "member_00", readies[0].message.model_copy(update={"nonce": "9" * 64}))
    refused("CSL-P809", lambda: stage.one.masked(1, [own, *readies[1:]]))
    other = signed_as(SignedReady, "member_03", readies[3].message.model_copy(update={"offer": "9" * 64}))
    refused("CSL-P809", lambda: stage.one.masked(1, [*readies[:3], other, *readies[4:]]))


def test_a_vector_that_was_masked_is_not_masked_for_others():
    stage = Stage()
    readies = stage.readies()
    stage.one.masked(1, readies)
    refused("CSL-P804", lambda: stage.one.masked(1, readies[:5]))
    stage.one.masked(1, readies)


def test_a_vector_of_another_shape_than_the_offers(untouched):
    stage = Stage()
    readies = stage.readies()
    state, secrets = stage.one.state(1), stage.one.epoch
    for words in (to_words(np.zeros(D + 1, dtype=np.int64), 32), to_words(np.zeros(D, dtype=np.int64), 64)):
        refused("CSL-P809", lambda words=words: institution.make_masked(state, stage.roster, secrets, words, readies))


@pytest.mark.parametrize("changed", [{"d": D + 1}, {"w": 64}, {"t": "9" * 64}])
def test_a_header_of_another_shape_or_sum(changed):
    stage = Stage()
    headers = stage.headers()
    wrong = signed_as(SignedMasked, "member_01", headers[1].message.model_copy(update=changed))
    refused("CSL-P809", lambda: stage.one.ack(1, [headers[0], wrong, *headers[2:]]))


def test_too_few_survivors_or_one_that_was_not_ready_or_not_oneself():
    stage = Stage()
    readies = stage.readies()
    headers = [stage.members[item.message.id].masked(1, readies[:5])[0] for item in readies[:5]]
    refused("CSL-P809", lambda: stage.one.ack(1, headers[:3]))
    refused("CSL-P809", lambda: stage.one.ack(1, headers[1:]))
    late = signed_as(SignedMasked, "member_05", headers[1].message.model_copy(update={"id": "member_05"}))
    refused("CSL-P809", lambda: stage.one.ack(1, [*headers, late]))


def test_an_acknowledgement_of_another_set_or_sum():
    stage = Stage()
    acks = stage.acks()
    for changed in ({"s": "9" * 64}, {"t": "9" * 64}):
        wrong = signed_as(SignedAck, "member_04", acks[4].message.model_copy(update=changed))
        refused("CSL-P809", lambda wrong=wrong: stage.one.reveal(1, [*acks[:4], wrong, *acks[5:]]))


@pytest.mark.parametrize("changed", [{"d": D + 1}, {"scale": 50.0}, {"request": "9" * 64}, {"share": 5.0}, {"w": 64}])
def test_another_attempt_asks_for_the_same_vector_and_later(changed):
    stage = Stage(attempt=3)
    stage.readies()
    vector = stage.vectors["member_00"]
    coordinator = Coordinator(stage.roster)
    refused("CSL-P811", lambda: stage.one.ready(*coordinator.offer(**{"d": D, "attempt": 4} | changed), vector))
    refused("CSL-P811", lambda: stage.one.ready(*coordinator.offer(**{"d": D, "attempt": 3} | changed), vector))
    refused("CSL-P811", lambda: stage.one.ready(*coordinator.offer(d=D, attempt=2), vector))
    before = stage.one.ready(stage.offer, stage.signature, vector)
    assert before == stage.one.ready(stage.offer, stage.signature, vector)
    after = stage.one.ready(*coordinator.offer(d=D, attempt=4), vector)
    assert after.message.nonce != before.message.nonce


def test_the_same_call_again_has_the_same_answer():
    stage = Stage()
    readies = stage.readies()
    assert readies == stage.readies()
    first = [member.masked(1, readies) for member in stage.members.values()]
    assert first == [member.masked(1, readies) for member in stage.members.values()]
    headers = [header for header, _ in first]
    acks = [member.ack(1, headers) for member in stage.members.values()]
    assert acks == [member.ack(1, headers) for member in stage.members.values()]
    assert stage.one.masked(1, readies) == first[0]
    said = stage.one.reveal(1, acks)
    assert said == stage.one.reveal(1, acks)


def test_a_restored_state_is_that_of_its_canonical_bytes_alone():
    stage = Stage()
    for _ in range(2):
        content = b" " + stage.one.store["epoch"][1]
        refused("CSL-F102", lambda content=content: EpochSecrets.from_canonical(content), DocumentError)
    stage.readies()
    model, content = stage.one.store["sum 1"]
    for wrong in (content.replace(b'":"', b'": "', 1), content[:-1], content.replace(b"ready_state", b"masked_state")):
        refused("CSL-F102", lambda wrong=wrong: model.from_canonical(wrong), DocumentError)


@pytest.mark.parametrize(("n_min", "c"), [(3, 1), (2, 0), (5, 3), (3, -1), (0, 0)])
def test_terms_under_which_fewer_than_three_honest_members_remain(n_min, c):
    refused("CSL-P801", lambda: check_terms(n_min, c), PolicyError)
    refused("CSL-P801", lambda: roster_of(names_of(10), n_min, c), PolicyError)


def test_fewer_members_than_must_survive():
    refused("CSL-P801", lambda: roster_of(names_of(4), 5, 0), PolicyError)


def test_a_roster_is_of_the_charters_members():
    declares = (Declaration(contract="shop", size=1000),)
    names = ("alder", "birch", "cedar", "dogwood")
    charter = Charter(
        federation="test",
        version=1,
        coordinator_key=public_hex(key_of(COORDINATOR)),
        members=tuple(
            Institution(id=name, title=name, key=public_hex(key_of(name)), declares=declares) for name in names
        ),
        contracts=(PinnedContract(name="shop", sha256="f" * 64),),
    )
    roster = Roster.of(charter, ["cedar", "alder", "birch"], 3, 0)
    assert list(roster.keys) == ["alder", "birch", "cedar"]
    assert (roster.digest, roster.coordinator) == (charter.digest(), charter.coordinator_key)
    assert roster.key("birch") == charter.member("birch").key
    refused("CSL-F203", lambda: Roster.of(charter, ["alder", "birch", "elm"], 3, 0))


@pytest.mark.parametrize(
    ("n_min", "c", "asked", "least"), [(3, 0, 3, 3), (4, 1, 7, 5), (4, 1, 8, 5), (5, 2, 8, 6), (10, 0, 12, 10)]
)
def test_how_many_must_survive(n_min, c, asked, least):
    assert roster_of(names_of(20), n_min, c).survivors_needed(asked) == least


# Set-up


def before_exchanges():
    roster = roster_of(names_of(4), 3, 0)
    members = {name: Member(name, roster) for name in roster.keys}
    return members, [members[name].epoch_key() for name in sorted(members)]


def test_keys_that_are_missing_unsorted_twice_or_of_strangers():
    members, keys = before_exchanges()
    one = members["member_00"]
    for shown in orders(keys):
        refused("CSL-P803", lambda shown=shown: one.exchanges(shown))
    refused("CSL-P806", lambda: one.exchanges(keys[:3]))
    refused("CSL-P806", lambda: one.exchanges(keys[1:]))
    stranger = signed_as(SignedEpochKey, "stranger", keys[1].message.model_copy(update={"id": "stranger"}))
    refused("CSL-P802", lambda: one.exchanges([*keys, stranger]))
    own = members["member_00"].epoch_key()  # begun anew: the keys shown are no longer one's own
    assert own != keys[0]
    refused("CSL-P806", lambda: one.exchanges(keys))


@pytest.mark.parametrize("part", ["mlkem", "x25519"])
def test_a_key_that_is_none(part):
    members, keys = before_exchanges()
    nothing = {"mlkem": "ff" * 1184, "x25519": "00" * 32}[part]
    wrong = signed_as(SignedEpochKey, "member_02", keys[2].message.model_copy(update={part: nothing}))
    refused("CSL-P807", lambda: members["member_00"].exchanges([keys[0], keys[1], wrong, keys[3]]))
    refused("CSL-P807  The key of member_02 is none", lambda: check_key(wrong.message))
    check_key(keys[2].message)


def before_the_last_call():
    members, keys = before_exchanges()
    sent = [item for name in sorted(members) for item in members[name].exchanges(keys)]
    return members["member_00"], [item for item in sent if item.message.receiver == "member_00"], sent


def test_exchanges_that_are_missing_unsorted_twice_or_for_somebody_else():
    one, received, sent = before_the_last_call()
    for shown in orders(received):
        refused("CSL-P803", lambda shown=shown: one.finish_epoch(shown))
    refused("CSL-P806", lambda: one.finish_epoch(received[:2]))
    other = next(i for i in sent if (i.message.sender, i.message.receiver) == ("member_01", "member_02"))
    refused("CSL-P806", lambda: one.finish_epoch([other, *received[1:]]))
    for changed in ({"epoch": "d" * 64}, {"roster": "d" * 64}, {"ek": "d" * 64}):
        wrong = signed_as(SignedExchange, "member_01", received[0].message.model_copy(update=changed))
        refused("CSL-P806", lambda wrong=wrong: one.finish_epoch([wrong, *received[1:]]))
    one.finish_epoch(received)


@pytest.mark.parametrize("place", [0, 1000, 1088, 1119, 1120, 1167])
def test_what_was_sealed_and_then_altered(place):
    one, received, _ = before_the_last_call()
    ct = bytearray.fromhex(received[0].message.ct)
    ct[place] ^= 1
    wrong = signed_as(SignedExchange, "member_01", received[0].message.model_copy(update={"ct": ct.hex()}))
    refused("CSL-P807  What member_01 sealed", lambda: one.finish_epoch([wrong, *received[1:]]))
    nothing = signed_as(SignedExchange, "member_01", received[0].message.model_copy(update={"ct": "00" * 1168}))
    refused("CSL-P807", lambda: one.finish_epoch([nothing, *received[1:]]))


def test_an_exchange_is_of_the_member_that_signed_it():
    one, received, _ = before_the_last_call()
    for signer in (COORDINATOR, "member_02"):
        wrong = signed_as(SignedExchange, signer, received[0].message)
        refused("CSL-F202", lambda wrong=wrong: one.finish_epoch([wrong, *received[1:]]))


def test_a_roster_that_changed_within_the_set_up():
    one, received, _ = before_the_last_call()
    one.roster = replace(one.roster, digest="d" * 64)
    refused("CSL-P806", lambda: one.finish_epoch(received))
    one.roster = roster_of(names_of(5), 3, 0)
    refused("CSL-P806", lambda: one.finish_epoch(received))


def test_pairwise_keys_are_common_to_two_and_the_private_keys_are_gone():
    roster = roster_of(names_of(4), 3, 0)
    members = {name: Member(name, roster) for name in roster.keys}
    set_up(members)
    roots = {frozenset((a, b)): members[a].epoch.root(b) for a in members for b in members if a != b}
    assert all(members[b].epoch.root(a) == roots[frozenset((a, b))] for a in members for b in members if a != b)
    assert len(set(roots.values())) == 6
    assert len({member.epoch.keys for member in members.values()}) == 1
    assert members["member_00"].epoch.members == tuple(sorted(members))
    assert set(type(members["member_00"].epoch).model_fields) == {"kind", "roster", "epoch", "me", "keys", "roots"}


def test_the_coordinator_sees_that_members_were_shown_different_keys():
    check_same_keys({"a": "1" * 64, "b": "1" * 64})
    refused("CSL-P804", lambda: check_same_keys({"a": "1" * 64, "b": "2" * 64}))


# The coordinator's own checks: who lies is left out


def test_a_coordinator_takes_no_answer_of_another_sum_or_member():
    stage = Stage()
    readies = {item.message.id: item for item in stage.readies()}
    roster, offer = stage.roster, stage.offer
    one, two = readies["member_00"], readies["member_01"]
    side.check_ready(roster, offer, one, "member_00")
    refused("CSL-P812", lambda: side.check_ready(roster, offer, two, "member_00"))
    other = signed_as(SignedReady, "member_00", one.message.model_copy(update={"offer": "9" * 64}))
    refused("CSL-P812", lambda: side.check_ready(roster, offer, other, "member_00"))
    refused(
        "CSL-F202",
        lambda: side.check_ready(roster, offer, signed_as(SignedReady, "member_01", one.message), "member_00"),
    )
    refused("CSL-P813", lambda: side.gather(roster, offer, dict(list(readies.items())[:3])))


def test_a_coordinator_takes_no_vector_acknowledgement_or_key_of_another_sum_or_member():
    stage = Stage()
    roster, names = stage.roster, list(stage.members)
    gathered = side.gather(roster, stage.offer, {item.message.id: item for item in stage.readies()})
    answers = {name: stage.members[name].masked(1, gathered.readies) for name in names}
    header, content = answers["member_00"]
    for said, vector, name, code in (
        (header, content, "member_01", "CSL-P812"),
        (header, content[:-4] + bytes(4), "member_00", "CSL-P812"),
        (signed_as(SignedMasked, "member_01", header.message), content, "member_00", "CSL-F202"),
    ):
        refused(code, lambda s=said, v=vector, n=name: side.check_masked(roster, gathered, s, v, n))
    fewer = side.gather(roster, stage.offer, {item.message.id: item for item in gathered.readies[:5]})
    late = header.message.model_copy(update={"t": fewer.t.hex(), "id": "member_05"})
    unasked = signed_as(SignedMasked, "member_05", late)
    refused("CSL-P812", lambda: side.check_masked(roster, fewer, unasked, content, "member_05"))
    there = {name: (h, side.check_masked(roster, gathered, h, v, name)) for name, (h, v) in answers.items()}
    refused("CSL-P813", lambda: side.collect(roster, gathered, dict(list(there.items())[:3])))
    del there["member_05"]
    collected = side.collect(roster, gathered, there)
    acks = {name: stage.members[name].ack(1, collected.headers) for name in names[:5]}
    refused("CSL-P812", lambda: side.check_ack(roster, collected, acks["member_01"], "member_00"))
    refused(
        "CSL-F202",
        lambda: side.check_ack(
            roster, collected, signed_as(SignedAck, "member_01", acks["member_00"].message), "member_00"
        ),
    )
    shown = [acks[name] for name in names[:5]]
    said = {name: stage.members[name].reveal(1, shown) for name in names[:5]}
    reveal, signature = said["member_00"]
    for changed in ({"t": "9" * 64}, {"id": "member_01"}, {"pairs": ()}, {"pairs": reveal.pairs * 2}):
        wrong = reveal.model_copy(update=changed)
        refused("CSL-P812", lambda wrong=wrong: side.check_reveal(roster, collected, wrong, signature, "member_00"))
    refused("CSL-F202", lambda: side.check_reveal(roster, collected, reveal, said["member_01"][1], "member_00"))
    reveals = {name: item for name, (item, _) in said.items()}
    for name in names[:5]:
        refused("CSL-P813", lambda name=name: side.open_sum(collected, {n: r for n, r in reveals.items() if n != name}))
    assert np.array_equal(side.open_sum(collected, reveals), sum(stage.vectors[name] for name in names[:5]))


@pytest.mark.parametrize("size", [0, 3, 4 * D - 1, 4 * D + 1, 8 * D])
def test_a_vector_of_another_length(size):
    refused("CSL-P805", lambda: from_bytes(bytes(size), 32, D), DocumentError)


def test_a_width_that_there_is_not():
    refused("CSL-P805", lambda: from_bytes(bytes(2 * D), 16, D), DocumentError)


def test_every_refusal_says_what_to_do():
    with pytest.raises(ConsilienceError) as caught:
        check_terms(3, 1)
    assert caught.value.code == "CSL-P801" and "Raise n_min" in caught.value.action
