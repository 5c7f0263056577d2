"""The attacks of the design, played: a coordinator, alone or with colluders, that deviates and then computes all that it can.

Where a rule of an institution stops the attack, the same attack is also played on a careless member without that rule, and works: what is
tested is the rule, and not that the attacker was clumsy.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from federation.errors import ConsilienceError, IntegrityError, PolicyError
from federation.secure import SignedAck, SignedEpochKey
from privacy.secure_aggregation import institution
from privacy.secure_aggregation.derivation import digest_of, self_key, transcript
from privacy.secure_aggregation.epoch import make_keys
from privacy.secure_aggregation.masking import add_streams, from_bytes, from_words, mask, to_bytes, to_words
from tests.privacy.secure_aggregation.attacker import Attacker, View
from tests.privacy.secure_aggregation.federation import (
    COORDINATOR,
    STUDY,
    Coordinator,
    Member,
    federation,
    names_of,
    roster_of,
    set_up,
    signed_as,
    vectors_of,
    with_epoch_key,
)

D = 6


class Forgetful(Member):
    """A member that does not remember which survivors it acknowledged, and opens the sum as often as it is asked to."""

    def ack(self, number, headers):
        state = self.state(number)
        masked = state.masked if isinstance(state, institution.AckedState) else state
        return self.sign(
            SignedAck, self.keep(f"sum {number}", institution.acknowledge(masked, self.roster, headers)).statement
        )

    def reveal(self, number, acks):
        before, vector = self.store[f"sum {number}"], self.vectors[number]
        said = super().reveal(number, acks)
        self.store[f"sum {number}"], self.vectors[number] = before, vector
        return said


class Trusting(Forgetful):
    """A member for whom n_min survivors suffice, however many were asked."""

    def __init__(self, name, roster):
        super().__init__(name, _Few(roster.digest, roster.coordinator, roster.keys, roster.n_min, roster.c))


class _Few(type(roster_of(names_of(3), 3, 0))):
    def survivors_needed(self, asked):
        return self.n_min


class Attack:
    """A coordinator that speaks to each member as it likes, with what it has been told."""

    def __init__(self, n=8, n_min=4, c=0, colluders=(), kind=Member):
        self.roster, self.members = federation(n, n_min, c, kind=kind)
        self.vectors = vectors_of(self.roster.keys, D, 11)
        self.attacker = Attacker({name: self.members[name].epoch for name in colluders})
        self.honest = [name for name in self.members if name not in colluders]

    def readies(self, names=None, **terms):
        offer, signature = Coordinator(self.roster).offer(d=D, **terms)
        names = sorted(self.members if names is None else names)
        return offer, [self.members[name].ready(offer, signature, self.vectors[name]) for name in names]

    def masked(self, offer, readies):
        """Collect everybody's masked vector, and return the transcript with the headers by member."""
        t = transcript(offer, [item.message for item in readies]).hex()
        view = self.attacker.views.setdefault(t, View(tuple(item.message.id for item in readies), offer.w, offer.d))
        headers = {}
        for item in readies:
            name = item.message.id
            headers[name], view.vectors[name] = self.members[name].masked(offer.number, readies)
        return t, headers

    def open(self, t, headers, survivors, number=1):
        """Get acknowledgements and keys of a set of survivors for itself, and nobody refuses."""
        assert self.insist(t, headers, survivors, number) == {}

    def insist(self, t, headers, survivors, number=1):
        """Ask a set of survivors for acknowledgements and keys, whoever refuses; the colluders' own keys are not needed.

        Returns the code of the first refusal by each member that refused.
        """
        refused: dict[str, str] = {}
        shown = [headers[name] for name in sorted(survivors)]
        acks = [self.asked(refused, name, lambda member: member.ack(number, shown)) for name in sorted(survivors)]
        given = [ack for ack in acks if ack is not None]
        for name in (name for name in survivors if name in self.honest):
            said = self.asked(refused, name, lambda member: member.reveal(number, given))
            if said is not None:
                self.attacker.views[t].note(said[0])
        return refused

    def asked(self, refused: dict[str, str], name: str, call: Callable[[Member], Any]) -> Any:
        """Return what a member answers, or None and the code by which it refused."""
        try:
            return call(self.members[name])
        except ConsilienceError as error:
            refused.setdefault(name, error.code)
            return None

    def truth(self, names):
        return sum(self.vectors[name] for name in names)


def test_the_attacker_computes_what_is_open_and_no_more():
    """With drop-outs and colluders: one sum, over the honest survivors."""
    attack = Attack(n=7, n_min=5, c=2, colluders=("member_01", "member_04"))
    t, headers = attack.masked(*attack.readies())
    survivors = [name for name in attack.members if name != "member_06"]
    attack.open(t, headers, survivors)
    honest = frozenset(survivors) - set(attack.attacker.colluders)
    opened = attack.attacker.open(t)
    assert opened.keys() == {honest}
    assert np.array_equal(opened[honest], attack.truth(honest))


def test_before_the_keys_are_shown_nothing_is_open():
    attack = Attack(colluders=("member_01",), c=1)
    t, headers = attack.masked(*attack.readies())
    [attack.members[name].ack(1, list(headers.values())) for name in headers]
    assert attack.attacker.open(t) == {}


def test_a_late_vector_of_a_member_that_dropped_out_stays_hidden():
    """Everybody shows the pairwise keys with it, and its masked vector comes afterwards: its own mask is still on."""
    attack = Attack()
    late = "member_03"
    offer, readies = attack.readies()
    t, headers = attack.masked(offer, readies)
    own = institution.ready_of(attack.members[late].state(1)).b
    attack.open(t, headers, set(attack.members) - {late})
    assert attack.attacker.open(t).keys() == {frozenset(attack.members) - {late}}
    rest = from_bytes(attack.attacker.views[t].vectors[late], 32, D)
    for teller in attack.attacker.views[t].reveals:
        key = attack.attacker.views[t].shown(teller, late)
        add_streams(rest, [(key, 1 if teller < late else -1)])
    assert not (from_words(rest) == attack.vectors[late]).any()
    add_streams(rest, [(self_key(bytes.fromhex(own), bytes.fromhex(t), late), -1)])
    assert np.array_equal(from_words(rest), attack.vectors[late])  # with its own key it would have been open


def only(attack, opened, names):
    """Whether what is open is the sum over these members, and nothing smaller."""
    (part,) = opened
    return part == frozenset(names) and np.array_equal(opened[part], attack.truth(part))


def second_set(attack):
    """Have everybody open the sum over all, and then the sum over all but one: the difference is that one's vector."""
    t, headers = attack.masked(*attack.readies())
    attack.open(t, headers, headers)
    refused = attack.insist(t, headers, set(headers) - {"member_05"})
    return attack.attacker.open(t), refused


def test_a_second_set_of_survivors_is_refused():
    attack = Attack()
    opened, refused = second_set(attack)
    assert refused == dict.fromkeys(set(attack.members) - {"member_05"}, "CSL-P804")
    assert only(attack, opened, attack.members)


def test_a_second_set_before_the_first_was_opened_is_refused_too():
    """Everybody has acknowledged all, and is asked for all but one; the keys are shown afterwards, for the first set alone."""
    attack = Attack()
    t, headers = attack.masked(*attack.readies())
    shown = [headers[name] for name in sorted(headers)]
    acks = [attack.members[name].ack(1, shown) for name in sorted(headers)]
    assert {ack.message.s for ack in acks} == {digest_of([item.message for item in shown])}
    fewer = set(headers) - {"member_05"}
    assert attack.insist(t, headers, fewer) == dict.fromkeys(fewer, "CSL-P804")
    assert attack.attacker.open(t) == {}
    attack.open(t, headers, headers)
    assert only(attack, attack.attacker.open(t), attack.members)
    assert all(said.pairs == () for told in attack.attacker.views[t].reveals.values() for said in told)


def test_without_that_rule_a_second_set_opens_one_vector():
    attack = Attack(kind=Forgetful)
    opened, refused = second_set(attack)
    assert refused == {}
    assert np.array_equal(opened[frozenset({"member_05"})], attack.vectors["member_05"])


def two_halves(attack):
    """Of eight that are ready, show four that they alone survive, and the other four likewise."""
    t, headers = attack.masked(*attack.readies())
    names = sorted(headers)
    refused = attack.insist(t, headers, names[:4]) | attack.insist(t, headers, names[4:])
    return attack.attacker.open(t), refused


def test_two_halves_of_those_who_are_ready_are_refused():
    attack = Attack()
    opened, refused = two_halves(attack)
    assert refused == dict.fromkeys(attack.members, "CSL-P809") and opened == {}


def test_a_larger_half_is_opened_and_the_rest_stays_shut():
    """Five of eight are enough; of the three others nothing opens, with or without those who have spoken."""
    attack = Attack()
    t, headers = attack.masked(*attack.readies())
    names = sorted(headers)
    attack.open(t, headers, names[:5])
    assert attack.insist(t, headers, names[5:]) == dict.fromkeys(names[5:], "CSL-P809")
    assert attack.insist(t, headers, names[3:]).items() >= dict.fromkeys(names[3:5], "CSL-P804").items()
    assert only(attack, attack.attacker.open(t), names[:5])


def test_without_that_rule_two_halves_open_two_sums():
    attack = Attack(kind=Trusting)
    opened, refused = two_halves(attack)
    assert refused == {}
    assert sorted(map(len, opened)) == [4, 4]
    assert all(np.array_equal(total, attack.truth(part)) for part, total in opened.items())


def test_of_two_sets_of_survivors_one_honest_member_at_least_is_in_both():
    """The bound that stops halves, for every number of members and colluders: beside the colluders one is left to refuse."""
    for n in range(3, 51):
        roster = roster_of(names_of(50), 3, 0)
        for c in range(n - 2):
            least = replace(roster, n_min=c + 3, c=c).survivors_needed(n)
            assert 2 * least - n > c  # members in both sets, at least
            assert n - c < c + 3 or least <= max(c + 3, (n + c) // 2 + 1)


def test_different_members_shown_as_ready_make_two_sums_that_share_nobody():
    """Two transcripts of enough members each: two sums, and no vector is in both, for a member masks its vector once in an attempt."""
    attack = Attack()
    offer, readies = attack.readies()
    halves = [attack.masked(offer, readies[:4]), attack.masked(offer, readies[4:])]
    for t, headers in halves:
        attack.open(t, headers, headers)
    opened = [attack.attacker.open(t) for t, _ in halves]
    assert [set(part) for half in opened for part in half] == [set(headers) for _, headers in halves]
    with pytest.raises(IntegrityError, match="CSL-P804"):
        attack.members["member_00"].masked(1, readies)


def test_headers_of_another_transcript_are_refused():
    attack = Attack()
    offer, readies = attack.readies()
    _, first = attack.masked(offer, readies[:4])
    _, second = attack.masked(offer, readies[4:])
    with pytest.raises(IntegrityError, match="CSL-P809"):
        attack.members["member_00"].ack(1, list((first | second).values()))


class Blind(Member):
    """A member that does not look at what the others acknowledged."""

    def reveal(self, number, acks):
        state = self.state(number)
        own = state.statement
        acks = [signed_as(SignedAck, name, own.model_copy(update={"id": name})) for name in state.survivors]
        return super().reveal(number, acks)


def two_stories(attack):
    """Tell one member that all survive, so that it shows its own key, and the others that it is gone, so that they show theirs with it."""
    victim = "member_05"
    t, headers = attack.masked(*attack.readies())
    everybody = [headers[name] for name in sorted(headers)]
    without = [header for header in everybody if header.message.id != victim]
    acks = {name: attack.members[name].ack(1, everybody if name == victim else without) for name in headers}
    others, refused = [acks[name] for name in sorted(acks) if name != victim], {}
    shown = {name: [others] for name in headers} | {
        victim: [[acks[name] for name in sorted(acks)], others, [acks[victim]]]
    }
    for name in headers:
        for told in shown[name]:
            said = attack.asked(refused, name, lambda member, told=told: member.reveal(1, told))
            if said is not None:
                attack.attacker.views[t].note(said[0])
                break
    return attack.attacker.open(t), refused


def test_survivors_who_were_told_two_stories_do_not_show_their_keys():
    """The others open their sum without the victim, as if it had dropped out, and show their keys with it; its own key stays its own."""
    attack = Attack()
    opened, refused = two_stories(attack)
    assert refused == {"member_05": "CSL-P809"}
    assert isinstance(attack.members["member_05"].state(1), institution.AckedState)
    assert only(attack, opened, set(attack.members) - {"member_05"})


def test_without_that_rule_two_stories_open_one_vector():
    attack = Attack(kind=Blind)
    opened, refused = two_stories(attack)
    assert np.array_equal(opened[frozenset({"member_05"})], attack.vectors["member_05"])


@pytest.mark.parametrize("missing", [0, 4, 7])
def test_a_missing_acknowledgement_keeps_the_sum_shut(missing):
    attack = Attack()
    _, headers = attack.masked(*attack.readies())
    acks = [attack.members[name].ack(1, list(headers.values())) for name in headers]
    for name in attack.members:
        with pytest.raises(IntegrityError, match="CSL-P809"):
            attack.members[name].reveal(1, acks[:missing] + acks[missing + 1 :])


def test_a_colluder_cannot_acknowledge_for_somebody_else():
    attack = Attack(c=1, colluders=("member_01",))
    _, headers = attack.masked(*attack.readies())
    acks = [attack.members[name].ack(1, list(headers.values())) for name in headers]
    acks[2] = signed_as(SignedAck, "member_01", acks[2].message)
    with pytest.raises(IntegrityError, match="CSL-F202"):
        attack.members["member_00"].reveal(1, acks)


def test_keys_that_the_coordinator_made_in_place_of_a_members_are_refused():
    roster = roster_of(names_of(4), 3, 0)
    members = {name: Member(name, roster) for name in roster.keys}
    keys = [members[name].epoch_key() for name in sorted(members)]
    made = make_keys(roster.digest, STUDY, "member_01")
    for signer in (COORDINATOR, "member_02"):
        forged = signed_as(SignedEpochKey, signer, made.statement)
        with pytest.raises(IntegrityError, match="CSL-F202"):
            members["member_00"].exchanges([keys[0], forged, *keys[2:]])
    assert isinstance(members["member_00"].load("epoch"), type(made))  # it waits for the true ones


def test_who_makes_a_members_keys_itself_has_its_pairwise_keys():
    """The control: where the pinned key is the attacker's, it takes the member's place, and has the same keys as the others."""
    names = names_of(4)
    roster = roster_of(names, 3, 0)
    forged = replace(roster, keys={**roster.keys, "member_01": roster_of([*names, "stranger"], 3, 0).keys["stranger"]})
    members = {name: Member(name, forged) for name in names}
    members["member_01"].sign = lambda model, statement: signed_as(model, "stranger", statement)
    set_up(members)
    assert members["member_01"].epoch.root("member_00") == members["member_00"].epoch.root("member_01")


def test_keys_of_another_study_are_refused_though_their_member_signed_them():
    roster = roster_of(names_of(4), 3, 0)
    members = {name: Member(name, roster) for name in roster.keys}
    old = members["member_01"].epoch_key(epoch="d" * 64)
    keys = [members[name].epoch_key() for name in sorted(members)]
    for forged in (old, with_epoch_key(keys[1], "member_01", roster="d" * 64)):
        with pytest.raises(IntegrityError, match="CSL-P806"):
            members["member_00"].exchanges([keys[0], forged, *keys[2:]])


def test_older_keys_of_a_member_lead_to_no_pairwise_key():
    """A coordinator that kept a member's keys of a set-up that was begun anew: what is sealed to them is refused by that member."""
    roster = roster_of(names_of(4), 3, 0)
    members = {name: Member(name, roster) for name in roster.keys}
    old = members["member_01"].epoch_key()
    keys = [members[name].epoch_key() for name in sorted(members)]
    to_old = members["member_00"].exchanges([keys[0], old, *keys[2:]])
    sent = {name: members[name].exchanges(keys) for name in ("member_01", "member_02", "member_03")}
    received = [to_old[0], *(next(i for i in sent[n] if i.message.receiver == "member_01") for n in names_of(4)[2:])]
    with pytest.raises(IntegrityError, match="CSL-P806"):
        members["member_01"].finish_epoch(received)


def test_a_ready_of_an_earlier_attempt_is_refused():
    attack = Attack()
    _, first = attack.readies()
    _, second = attack.readies(attempt=2)
    for place in range(8):
        mixed = [*second[:place], first[place], *second[place + 1 :]]
        with pytest.raises(IntegrityError, match="CSL-P809"):
            attack.members["member_00"].masked(1, mixed)


def test_the_same_statements_of_all_others_give_another_transcript_after_a_restart():
    """A nonce of one's own in every attempt: replayed statements of the others never bring the same masks back."""
    attack = Attack()
    t, _ = attack.masked(*attack.readies())
    again, _ = attack.masked(*attack.readies(attempt=2))
    first, second = (from_bytes(attack.attacker.views[key].vectors["member_00"], 32, D) for key in (t, again))
    assert t != again and not (first == second).any()


def test_a_superseded_attempt_can_be_neither_acknowledged_nor_opened():
    """Whoever is asked anew gives up the earlier attempt: its own mask's key is nowhere any more."""
    attack = Attack()
    member = attack.members["member_00"]
    t, headers = attack.masked(*attack.readies())
    acks = [attack.members[name].ack(1, list(headers.values())) for name in headers]
    old = institution.ready_of(member.state(1)).b
    attack.readies(["member_00"], attempt=2)
    assert old.encode() not in b"".join(content for _, content in member.store.values())
    for call in (lambda: member.ack(1, list(headers.values())), lambda: member.reveal(1, acks)):
        with pytest.raises(IntegrityError, match="CSL-P804"):
            call()
    for name in attack.honest[1:]:
        attack.attacker.views[t].note(attack.members[name].reveal(1, acks)[0])
    assert attack.attacker.open(t) == {}


def test_an_attempt_that_some_opened_and_a_second_one_over_the_others():
    """Held-back acknowledgements: some show their keys in the first attempt, the others add up again. The first stays shut for good."""
    attack = Attack(n=9, n_min=4)
    first, headers = attack.masked(*attack.readies())
    acks = [attack.members[name].ack(1, list(headers.values())) for name in headers]
    names = sorted(headers)
    for name in names[:4]:
        attack.attacker.views[first].note(attack.members[name].reveal(1, acks)[0])
    with pytest.raises(PolicyError, match="CSL-P810"):
        attack.readies(names[:1], attempt=2)
    second, headers = attack.masked(*attack.readies(names[4:], attempt=2))
    attack.open(second, headers, headers)
    assert attack.attacker.open(first) == {}
    assert attack.attacker.open(second).keys() == {frozenset(names[4:])}


def test_nothing_is_left_of_an_opened_sum_but_what_was_said():
    attack = Attack()
    t, headers = attack.masked(*attack.readies())
    attack.open(t, headers, headers)
    for name, member in attack.members.items():
        state = member.state(1)
        assert isinstance(state, institution.RevealedState) and 1 not in member.vectors
        assert state.statement == attack.attacker.views[t].reveals[name][0]
        assert set(type(state).model_fields) == {"kind", "offer", "acks", "statement"}


def test_calls_out_of_order_open_nothing():
    attack = Attack()
    offer, readies = attack.readies()
    member = attack.members["member_00"]
    for call in (lambda: member.ack(1, []), lambda: member.reveal(1, [])):
        with pytest.raises(IntegrityError, match="CSL-P804"):
            call()
    t, headers = attack.masked(offer, readies)
    with pytest.raises(IntegrityError, match="CSL-P804"):
        member.reveal(1, [])
    attack.open(t, headers, headers)
    for call in (
        lambda: member.masked(1, readies),
        lambda: member.ack(1, list(headers.values())),
        lambda: member.reveal(1, []),
    ):
        with pytest.raises(IntegrityError, match="CSL-P804"):
            call()


def test_another_vector_is_never_masked_by_the_same_keys():
    """The difference of two vectors under one mask would be open; asked again, a member checks that it sends the same words."""
    attack = Attack()
    offer, readies = attack.readies()
    t, _ = attack.masked(offer, readies)
    member = attack.members["member_00"]
    secrets, state = member.epoch, member.state(1)
    other = to_words(attack.vectors["member_00"] + 5, 32)
    words = mask(
        other,
        bytes.fromhex(state.ready.b),
        state.t,
        "member_00",
        {name: secrets.root(name) for name in secrets.roots},
        [name for name in state.asked if name != "member_00"],
    )
    difference = words - from_bytes(attack.attacker.views[t].vectors["member_00"], 32, D)
    assert from_words(difference).tolist() == [5] * D  # what it would give away
    member.vectors[1] = to_bytes(other)
    with pytest.raises(IntegrityError, match="CSL-P814"):
        member.masked(1, readies)


def fixed(t):
    """A constant vector under fixed keys, and an own key that belongs to transcript `t`: bytes of y."""
    roots = {name: hashlib.sha256(name.encode()).digest() for name in ("a", "c")}
    b = hashlib.sha256(b"b" + t).digest()
    return np.frombuffer(to_bytes(mask(to_words(np.full(100_000, 7), 32), b, t, "b", roots, roots)), dtype=np.uint8)


def test_a_masked_constant_looks_uniform():
    counts = np.bincount(fixed(bytes(32)), minlength=256)
    assert stats.chisquare(counts).pvalue > 1e-4
    words = fixed(bytes(32)).view(np.uint32)
    assert stats.kstest(words / 2.0**32, "uniform").pvalue > 1e-4
    assert stats.chisquare(np.bincount(np.full(400_000, 7, dtype=np.uint8), minlength=256)).pvalue < 1e-4


def test_two_masked_vectors_of_the_same_input_are_unrelated():
    one, other = fixed(bytes(32)), fixed(b"\x01" * 32)
    pairs = np.bincount((one >> 4).astype(int) * 16 + (other >> 4), minlength=256).reshape(16, 16)
    assert stats.chi2_contingency(pairs).pvalue > 1e-4
    assert stats.chisquare(np.bincount(one - other, minlength=256)).pvalue > 1e-4
    same = np.bincount((one >> 4).astype(int) * 16 + (one >> 4), minlength=256).reshape(16, 16)
    assert stats.chi2_contingency(same + 1).pvalue < 1e-4
