"""A coordinator that says anything to anybody in any order, with colluders: whatever it does, it opens only what is promised.

Promised: every sum that it can open is over at least n_min - c honest members, and no honest vector stands in two of them.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from federation.errors import ConsilienceError
from federation.secure import Ack, Masked, Ready, SignedAck, SignedMasked, SignedReady
from privacy.secure_aggregation.derivation import digest_of, transcript
from tests.privacy.secure_aggregation.attacker import Attacker, View
from tests.privacy.secure_aggregation.federation import Coordinator, federation, names_of, signed_as, vectors_of

N, N_MIN, C, D = 7, 4, 1, 3
COLLUDER = "member_02"
HONEST = [name for name in names_of(N) if name != COLLUDER]
NOBODY: frozenset[str] = frozenset()
SOME = st.one_of(
    st.just(NOBODY),
    st.sampled_from(names_of(N)).map(lambda name: frozenset({name})),
    st.sampled_from([frozenset(HONEST[:3]), frozenset(HONEST[3:])]),
    st.frozensets(st.sampled_from(names_of(N)), max_size=3),
)
LATELY = st.integers(0, 2)  # how many back


def late(things: Iterable[Any], back: int) -> Any:
    """Return one of the last things, in the order in which they came."""
    known = list(things)
    return known[max(0, len(known) - 1 - back)]


class AnyCoordinator(RuleBasedStateMachine):
    """`without` leaves members out of what is shown; `skip` leaves out members to whom it is not shown; `back` takes what came earlier."""

    @initialize()
    def begin(self) -> None:
        self.roster, self.members = federation(N, N_MIN, C)
        self.vectors = vectors_of(self.roster.keys, D, 5)
        self.attacker = Attacker({COLLUDER: self.members[COLLUDER].epoch})
        self.offers: list[Any] = []
        self.readies: list[dict[str, SignedReady]] = []
        self.headers: dict[str, dict[str, SignedMasked]] = {}
        self.acks: dict[tuple[str, str], dict[str, SignedAck]] = {}
        self.numbers: dict[str, int] = {}

    def ask(self, name: str, call: Any, *arguments: Any) -> Any:
        try:
            return call(self.members[name], *arguments)
        except ConsilienceError:
            return None

    @rule(anew=st.booleans(), skip=SOME)
    def offer(self, anew: bool, skip: frozenset[str]) -> None:
        """Begin another sum, or the last one as a later attempt."""
        number = self.offers[-1].number if self.offers else 0
        offer, signature = Coordinator(self.roster).offer(
            d=D, number=number + (anew or number == 0), attempt=len(self.offers) + 1
        )
        self.offers.append(offer)
        mine = signed_as(SignedReady, COLLUDER, Ready(offer=offer.digest(), id=COLLUDER, nonce="7" * 64))
        self.readies.append({COLLUDER: mine})
        for name in (name for name in HONEST if name not in skip):
            said = self.ask(name, lambda m, name=name: m.ready(offer, signature, self.vectors[name]))
            if said is not None:
                self.readies[-1][name] = said

    @precondition(lambda self: self.offers)
    @rule(back=LATELY, without=SOME, skip=SOME)
    def show_readies(self, back: int, without: frozenset[str], skip: frozenset[str]) -> None:
        offer, there = late(self.offers, back), late(self.readies, back)
        shown = [there[name] for name in sorted(there) if name not in without]
        t = transcript(offer, [item.message for item in shown]).hex()
        view = self.attacker.views.get(t, View(tuple(item.message.id for item in shown), offer.w, D))
        headers = self.headers.get(t, {})
        for name in (name for name in HONEST if name not in skip):
            said = self.ask(name, lambda m: m.masked(offer.number, shown))
            if said is not None:
                headers[name], view.vectors[name] = said
        if headers:
            self.headers[t], self.attacker.views[t], self.numbers[t] = headers, view, offer.number
            lie = Masked(t=t, id=COLLUDER, w=32, d=D, y="0" * 64)
            headers[COLLUDER] = signed_as(SignedMasked, COLLUDER, lie)

    @precondition(lambda self: self.headers)
    @rule(back=LATELY, without=SOME, skip=SOME)
    def show_headers(self, back: int, without: frozenset[str], skip: frozenset[str]) -> None:
        t = late(self.headers, back)
        there = self.headers[t]
        shown = [there[name] for name in sorted(there) if name not in without]
        s = digest_of([item.message for item in shown])
        mine = {COLLUDER: signed_as(SignedAck, COLLUDER, Ack(t=t, s=s, id=COLLUDER))}
        if COLLUDER in without:
            mine = {}
        acks = self.acks.setdefault((t, s), mine)
        for name in (name for name in HONEST if name not in skip):
            said = self.ask(name, lambda m: m.ack(self.numbers[t], shown))
            if said is not None and (said.message.t, said.message.s) == (t, s):
                acks[name] = said

    @precondition(lambda self: self.acks)
    @rule(back=LATELY, without=SOME, mixed=st.none() | LATELY, skip=SOME)
    def show_acks(self, back: int, without: frozenset[str], mixed: int | None, skip: frozenset[str]) -> None:
        """Show the acknowledgements of one set, and of who gave none of it those of another one."""
        t, _ = late(self.acks, back)
        there = self.acks[late(self.acks, back)]
        others = {} if mixed is None else self.acks[late(self.acks, mixed)]
        said_by = {name: said for name, said in (others | there).items() if name not in without}
        shown = [said_by[name] for name in sorted(said_by)]
        for name in (name for name in HONEST if name not in skip):
            said = self.ask(name, lambda m: m.reveal(self.numbers[t], shown))
            if said is not None:
                self.attacker.views[said[0].t].note(said[0])

    @rule(first=SOME, second=SOME, third=SOME)
    def whole(self, first: frozenset[str], second: frozenset[str], third: frozenset[str]) -> None:
        """Go through all four calls, with some left out at each."""
        self.offer(True, NOBODY)
        self.show_readies(0, first, NOBODY)
        if self.headers:
            self.show_headers(0, second, third)
            self.show_acks(0, NOBODY, None, NOBODY)

    @rule(victims=SOME, gone=SOME, everybody=st.booleans(), mix=st.booleans())
    def two_stories(self, victims: frozenset[str], gone: frozenset[str], everybody: bool, mix: bool) -> None:
        """Tell the victims, or everybody, that others are gone, and the rest that the victims are; then ask all to open both sums."""
        self.offer(True, NOBODY)
        self.show_readies(0, NOBODY, NOBODY)
        if self.headers:
            self.show_headers(0, gone, NOBODY if everybody else frozenset(HONEST) - victims)
            self.show_headers(0, victims, NOBODY if everybody else victims)
            for back in (0, 1):
                self.show_acks(back, NOBODY, 1 - back if mix else None, NOBODY)

    @invariant()
    def only_large_sums_are_open(self) -> None:
        seen: set[tuple[int, str]] = set()
        for t, number in self.numbers.items():
            for part, total in self.attacker.open(t).items():
                assert len(part) >= N_MIN - C
                assert np.array_equal(total, sum(self.vectors[name] for name in part))
                assert seen.isdisjoint((number, name) for name in part)
                seen |= {(number, name) for name in part}

    @invariant()
    def nobody_shows_both_keys(self) -> None:
        """Nobody's own key and a pairwise key with it are both known for one transcript, nor own keys for two of one sum."""
        own: set[tuple[int, str]] = set()
        for t, number in self.numbers.items():
            view = self.attacker.views[t]
            told = [name for name in view.reveals if name in HONEST]
            assert not any(view.shown(one, other) for one in told for other in told if one < other)
            assert own.isdisjoint((number, name) for name in told)
            own |= {(number, name) for name in told}


TestAnyCoordinator = AnyCoordinator.TestCase
TestAnyCoordinator.settings = settings(max_examples=20, stateful_step_count=12)


def test_the_rules_reach_opened_sums():
    """What the machine asserts is not empty: its calls, with nobody in the way, open a sum."""
    machine = AnyCoordinator()
    machine.begin()
    machine.whole(NOBODY, frozenset({"member_05"}), NOBODY)
    opened = machine.attacker.open(next(iter(machine.headers)))
    assert opened.keys() == {frozenset(HONEST) - {"member_05"}}
    machine.only_large_sums_are_open()
    machine.nobody_shows_both_keys()
