"""What secure aggregation costs: masks, set-up, a round's control and its bytes, beside Flower's SecAgg+ in the same run.

Usage: `python benchmarks/secure_aggregation.py [--quick]`. One process and one thread; milliseconds are of its processor time, which on
an idle machine is the time on the clock. Within one run the ways take turns, and medians over the turns are compared, so that another
program on the machine slows all of them alike.

- *mask*: `privacy.secure_aggregation.masking.mask`, keys derived included, uint32;
- *unmask*: `unmask` at the coordinator, nobody dropped out, and every tenth member (one at least);
- *Flower*: what flwr 1.41.0's `secaggplus_mod` does between training and its reply, by its own functions: one mask for itself and one for
  each other member, added to the vector, and the remainder. Its agreement on each key, its quantising and its sharing of secrets are left
  out, to its favour.

A second table says how many bytes a member sends and receives, by the messages' own encoding, and how long its set-up and the control of a
sum take: signatures, canonical JSON, HPKE, without masks.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import RecordDict
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

from federation.document import Document
from federation.messages import RECORD, pack, unpack
from federation.secure import (
    EpochExchanges,
    EpochKeys,
    EpochReady,
    Exchanges,
    KeyExchange,
    SignedAck,
    SignedEpochKey,
    SignedExchange,
    SignedMasked,
    SignedReady,
    Statement,
    SumAcks,
    SumHeaders,
    SumOffer,
    SumReadies,
    sign_statement,
)
from federation.signing import public_hex
from privacy.secure_aggregation.derivation import pair_key
from privacy.secure_aggregation.epoch import EpochSecrets, derive_roots, make_keys, send_keys
from privacy.secure_aggregation.institution import MaskedState, acknowledge, make_masked, make_ready, reveal
from privacy.secure_aggregation.masking import mask, to_bytes, to_words, unmask
from privacy.secure_aggregation.roster import Roster

S = TypeVar("S")
D = TypeVar("D", bound=Document)
DIMENSIONS = (1_000, 100_000, 10_000_000)
MEMBERS = (5, 20, 50)
PEER_DIMENSION = 100_000
PEER_LIMIT = 5.0  # Flower's masks against ours
SLACK = 1.3
BYTES_LIMIT = 1.05  # of a masked vector, against its bare words
MODULUS = 1 << 32
# Milliseconds of a first version on two cores (mask, unmask, unmask where every tenth dropped out), by dimension and members.
FIRST = {
    (1_000, 5): (0.24, 0.22, 0.3),
    (1_000, 20): (0.85, 0.8, 1.9),
    (1_000, 50): (2.0, 1.7, 6.4),
    (100_000, 5): (1.6, 1.3, 1.9),
    (100_000, 20): (5.3, 4.2, 11.0),
    (100_000, 50): (9.7, 9.1, 48.0),
    (10_000_000, 5): (105.0, 101.0, 134.0),
    (10_000_000, 20): (343.0, 331.0, 794.0),
    (10_000_000, 50): (810.0, 760.0, 4757.0),
}
FIRST_SETUP = 103.0  # milliseconds for each of 50
FIRST_CONTROL = 44.0
TURNS = {1_000: 101, 100_000: 31, 10_000_000: 3}
T, STUDY = bytes(32), "e" * 64


@dataclass(frozen=True)
class Row:
    """Median milliseconds for one dimension and number of members; `flower` is None where it was not measured."""

    dimension: int
    members: int
    mask: float
    unmask: float
    dropped: float
    flower: float | None

    def failures(self) -> list[str]:
        """What misses its target."""
        found = []
        where = f"d = {self.dimension:,}, n = {self.members}"
        for name, took, first in zip(
            ("mask", "unmask", "unmask with drop-outs"),
            (self.mask, self.unmask, self.dropped),
            FIRST[self.dimension, self.members],
            strict=True,
        ):
            if took > SLACK * first:
                found.append(f"{where}: {name} {took:.2f} ms, target {SLACK * first:.2f}")
        if self.flower is not None and self.flower < PEER_LIMIT * self.mask:
            found.append(f"{where}: {self.flower / self.mask:.1f} x faster than Flower, target {PEER_LIMIT:g}")
        return found


def names_of(n: int) -> list[str]:
    """Return names of members, sorted."""
    return [f"member_{place:02d}" for place in range(n)]


def our_mask(d: int, n: int) -> Callable[[], object]:
    """Mask a vector of one member in the middle, for all the others."""
    names = names_of(n)
    me = names[n // 2]
    roots = {name: os.urandom(32) for name in names if name != me}
    vector, b = to_words(np.arange(d, dtype=np.int64), 32), os.urandom(32)
    return lambda: mask(vector, b, T, me, roots, roots)


def our_unmask(d: int, n: int, dropped: int) -> Callable[[], object]:
    """Take the masks off a sum of which the last `dropped` members are missing; keys are as they were revealed."""
    names = names_of(n)
    survivors, gone = names[: n - dropped], names[n - dropped :]
    own = {name: os.urandom(32) for name in survivors}
    pairs = {name: {other: pair_key(os.urandom(32), T, name, other) for other in gone} for name in survivors}
    total = to_words(np.arange(d, dtype=np.int64), 32)
    return lambda: unmask(total, T, own, pairs)


def flower_mask(d: int, n: int) -> Callable[[], object]:
    """Mask as Flower's client does: its pseudo-random vectors, added and subtracted as int64, and the remainder."""
    vector = [np.arange(d, dtype=np.int64)]
    seeds = [os.urandom(32) for _ in range(n)]

    def run() -> None:
        masked = parameters_addition(vector, pseudo_rand_gen(seeds[0], MODULUS, [(d,)]))
        for place, seed in enumerate(seeds[1:]):
            change = parameters_addition if place % 2 else parameters_subtraction
            masked = change(masked, pseudo_rand_gen(seed, MODULUS, [(d,)]))
        parameters_mod(masked, MODULUS)

    return run


def measure(d: int, n: int, turns: int) -> Row:
    """Let the ways take turns, and return their medians."""
    ways = {
        "mask": our_mask(d, n),
        "unmask": our_unmask(d, n, 0),
        "dropped": our_unmask(d, n, max(1, n // 10)),
    }
    if d == PEER_DIMENSION:
        ways["flower"] = flower_mask(d, n)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, run in ways.items():
            start = time.process_time()
            run()
            if turn:  # the first turn warms up
                times[name].append(1e3 * (time.process_time() - start))
    median = {name: statistics.median(taken) for name, taken in times.items()}
    return Row(d, n, median["mask"], median["unmask"], median["dropped"], median.get("flower"))


class Member:
    """The first of `n` members: what it sends and receives in bytes, and how long its own steps take in seconds."""

    def __init__(self, n: int) -> None:
        self.names = names_of(n)
        self.me = self.names[0]
        self.keys = {name: Ed25519PrivateKey.generate() for name in [*self.names, "coordinator"]}
        public = {name: public_hex(self.keys[name]) for name in self.names}
        # Four fifths must survive, three at least.
        self.roster = Roster("c" * 64, public_hex(self.keys["coordinator"]), public, max(3, 4 * n // 5), 0)
        self.seconds, self.sent, self.received = 0.0, 0, 0

    def signature(self, name: str, statement: Statement) -> str:
        """Return a member's signature of a statement."""
        return sign_statement(self.keys[name], statement)

    def timed(self, run: Callable[[], S]) -> S:
        """Return a step's result, and add the seconds that it takes."""
        start = time.process_time()
        result = run()
        self.seconds += time.process_time() - start
        return result

    def answer(self, statement: Document, payload: bytes = b"") -> int:
        """Sign and count what it sends; return its bytes."""
        records = self.timed(lambda: pack(self.keys[self.me], statement, payload))
        self.sent += _size(records)
        return _size(records)

    def take(self, message: D) -> D:
        """Count what it is sent, and read it as it came."""
        records = pack(self.keys["coordinator"], message)
        self.received += _size(records)
        key = public_hex(self.keys["coordinator"])
        return self.timed(lambda: unpack(records, type(message), key)[0])


def set_up(n: int) -> Member:
    """Agree on pairwise keys; return what it took the first member."""
    group = Member(n)
    made = {name: make_keys(group.roster.digest, STUDY, name) for name in group.names[1:]}
    made[group.me] = group.timed(lambda: make_keys(group.roster.digest, STUDY, group.me))
    group.answer(made[group.me].statement)
    keys = tuple(
        SignedEpochKey(message=made[name].statement, signature=group.signature(name, made[name].statement))
        for name in group.names
    )
    shown = group.take(EpochKeys(study=STUDY, attempt=1, keys=keys)).keys
    sent = {name: send_keys(made[name], group.roster, keys) for name in group.names[1:]}
    mine = group.timed(lambda: send_keys(made[group.me], group.roster, shown))
    outgoing = group.timed(lambda: _signed(group, mine.exchanges))
    group.answer(Exchanges(study=STUDY, member=group.me, exchanges=outgoing))
    incoming = [item for name in group.names[1:] for item in sent[name].exchanges if item.receiver == group.me]
    received = group.take(EpochExchanges(study=STUDY, attempt=1, exchanges=_signed(group, incoming))).exchanges
    secrets = group.timed(lambda: derive_roots(mine, group.roster, received))
    group.answer(EpochReady(study=STUDY, member=group.me, keys=secrets.keys))
    return group


def one_sum(n: int, d: int) -> tuple[Member, float]:
    """Go through a sum's four calls over `d` words; return what it took the first member, and a masked vector's bytes over its words'."""
    group = Member(n)
    roots = {name: os.urandom(32).hex() for name in group.names[1:]}
    epoch = EpochSecrets(roster=group.roster.digest, epoch=STUDY, me=group.me, keys="b" * 64, roots=roots)
    terms = {"n_min": group.roster.n_min, "c": 0, "d": d, "w": 32, "scale": 100.0, "share": 16384.0}
    base = {"roster": group.roster.digest, "epoch": STUDY, "request": "a" * 64, "number": 1, "attempt": 1}
    offer = SumOffer.model_validate(base | terms)
    seal = group.signature("coordinator", offer)
    vector, where = to_words(np.arange(d, dtype=np.int64), 32), {"study": STUDY, "number": 1, "attempt": 1}
    ready = group.timed(lambda: make_ready(group.roster, epoch, offer, seal, os.urandom(32), os.urandom(32)))
    group.answer(ready.statement)
    said = [ready.statement.model_copy(update={"id": name}) for name in group.names]
    signed = tuple(SignedReady(message=item, signature=group.signature(item.id, item)) for item in said)
    readies = group.take(SumReadies.model_validate(where | {"readies": signed})).readies
    masked, words = group.timed(lambda: make_masked(ready, group.roster, epoch, vector, readies))
    assert isinstance(masked, MaskedState)
    payload = to_bytes(words)
    share = group.answer(masked.statement, payload) / len(payload)
    headers = [masked.statement.model_copy(update={"id": name}) for name in group.names]
    shown = tuple(SignedMasked(message=item, signature=group.signature(item.id, item)) for item in headers)
    heads = group.take(SumHeaders.model_validate(where | {"headers": shown})).headers
    acked = group.timed(lambda: acknowledge(masked, group.roster, heads))
    group.answer(acked.statement)
    acks = [acked.statement.model_copy(update={"id": name}) for name in group.names]
    seen = tuple(SignedAck(message=item, signature=group.signature(item.id, item)) for item in acks)
    unanimous = group.take(SumAcks.model_validate(where | {"acks": seen})).acks
    group.answer(group.timed(lambda: reveal(acked, group.roster, epoch, unanimous)).statement)
    group.sent -= len(payload)
    return group, share


def print_masks(quick: bool) -> list[str]:
    """Print the table of masks, and return what misses its target."""
    print(f"{'d':>12}{'n':>4}{'mask ms':>10}{'unmask ms':>11}{'10% gone ms':>13}{'Flower ms':>11}{'Flower/mask':>13}")
    failures: list[str] = []
    for d in DIMENSIONS[: 2 if quick else 3]:
        for n in MEMBERS:
            row = measure(d, n, 2 if quick else TURNS[d])
            failures += row.failures()
            flower = f"{row.flower:>11.1f}{row.flower / row.mask:>13.1f}" if row.flower is not None else ""
            print(f"{d:>12,}{n:>4}{row.mask:>10.2f}{row.unmask:>11.2f}{row.dropped:>13.2f}{flower}", flush=True)
    return failures


def print_messages(quick: bool) -> list[str]:
    """Print what set-up and control take one member, and return what misses its target."""
    print("\nOne member: set-up once for a study, control of each sum, and a masked vector against its bare words")
    print(
        f"{'n':>4}{'set-up ms':>11}{'sent':>10}{'received':>10}{'control ms':>12}{'sent':>8}{'received':>10}{'vector':>9}"
    )
    failures: list[str] = []
    for n in MEMBERS[: 2 if quick else 3]:
        turns = [(set_up(n), one_sum(n, 1)[0]) for _ in range(2 if quick else 7)]
        (_, share), (begun, summed) = one_sum(n, PEER_DIMENSION), turns[-1]
        setup = 1e3 * statistics.median(one.seconds for one, _ in turns)
        control = 1e3 * statistics.median(other.seconds for _, other in turns)
        print(
            f"{n:>4}{setup:>11.1f}{begun.sent:>10,}{begun.received:>10,}{control:>12.1f}{summed.sent:>8,}"
            f"{summed.received:>10,}{share:>9.4f}",
            flush=True,
        )
        if share > BYTES_LIMIT:
            failures.append(f"n = {n}: a masked vector takes {share:.3f} of its words, target {BYTES_LIMIT}")
        if n == MEMBERS[-1] and setup > SLACK * FIRST_SETUP:
            failures.append(f"set-up of {n}: {setup:.0f} ms, target {SLACK * FIRST_SETUP:.0f}")
        if n == MEMBERS[-1] and control > SLACK * FIRST_CONTROL:
            failures.append(f"control of a sum over {n}: {control:.0f} ms, target {SLACK * FIRST_CONTROL:.0f}")
    return failures


def main() -> None:
    """Print the tables; exit with 1 when a target is missed (not with `--quick`, whose medians are too few)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 turns, no 10 million words: shows that it runs")
    quick: bool = parser.parse_args().quick
    print("Secure aggregation, words of 32 bits; milliseconds of processor time, medians of interleaved turns\n")
    failures = print_masks(quick) + print_messages(quick)
    if not quick:
        print("\n" + ("\n".join(failures) if failures else "Every target is met."))
        raise SystemExit(bool(failures))


def _signed(group: Member, items: Sequence[KeyExchange]) -> tuple[SignedExchange, ...]:
    return tuple(SignedExchange(message=item, signature=group.signature(item.sender, item)) for item in items)


def _size(records: RecordDict) -> int:
    """Return the bytes of header, signature and payload."""
    return sum(len(content) for content in records[RECORD].values() if isinstance(content, bytes))


if __name__ == "__main__":
    main()
