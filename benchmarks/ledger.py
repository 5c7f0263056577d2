"""The budget ledger against its targets: a durable decision, whatever stands in the ledger already, and a stranger's verification.

Usage: `python benchmarks/ledger.py [--quick] [--largest N] [--folder FOLDER]`. Ledgers of 10 to 1,000,000 entries are made by the ledger's
own rules and signatures, in one transaction each. On each of the first three sizes:

- *decide*: policy and charter are asked (`privacy.decision.decide`), the warm price is looked up, and the study is reserved, durably;
- *release*: one reply is written down, durably, as before each reply leaves;
- *bare SQLite*: the peer. A plain table on the same disk gets the same bytes (entry, leaf, signature, running totals) in one transaction,
  with the same durability (journal DELETE, synchronous EXTRA), and nothing is decided, checked or signed.

The three take turns, so that another program on the machine slows all of them alike. Verification runs in a process of its own, whose peak
memory is read from the operating system; the seconds include every signature and price.
"""

import argparse
import datetime
import json
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.charter import Charter, Declaration, Member, PinnedContract
from federation.merkle import leaf_hash
from federation.signing import public_hex, sign
from federation.study import AdditiveModel, HashHoldout, StudyDraft, StudySpec, Training
from privacy.decision import decide
from privacy.events import DiscreteGaussianHistogram, PrivacyEvent, SubsampledGaussian
from privacy.filter import price
from privacy.ledger import Account, Ledger, LedgerReader, Reservation, verify
from privacy.ledger.entries import (
    SIGNING_PREFIX,
    UNKNOWN,
    AccountCharge,
    Body,
    Close,
    CloseData,
    Known,
    Refuse,
    RefuseData,
    Release,
    ReleaseData,
    Reserve,
    ReserveData,
)
from privacy.ledger.reader import STATE_PREFIX
from privacy.ledger.rules import advance
from privacy.ledger.state import State
from privacy.ledger.store import Store
from privacy.policy import CONTEXT, Policy

DECISIONS = (10, 1_000, 100_000)
VERIFICATIONS = (10_000, 100_000, 1_000_000)
DECISION_MS = 25.0
FLAT = 2.0  # the largest ledger against the smallest, which has no year of daily totals yet; each in units of bare SQLite beside it
VERIFY_SECONDS = 600.0  # of a million entries
GROWTH_MIB = 64.0  # of the peak memory, from the smallest ledger to the largest
KEY = Ed25519PrivateKey.from_private_bytes(b"bench".ljust(32, b"."))
OFFICERS = tuple(Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))
NOW = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp() * 1000)
PURPOSE = "marketing.churn"
ROUNDS = 12
SHAPES = 64  # different kinds of studies: each is priced once
A_DAY = 86_400_000
STUDIES_A_DAY = 16  # so that the largest ledgers hold a total of each day of the longest period
POLICY = Policy.model_validate(
    {
        "institution": "bench",
        "version": 1,
        "issued": "2020-01-01",
        "expires": "2100-01-01",
        "officers": [{"id": f"officer{number}", "key": public_hex(key)} for number, key in enumerate(OFFICERS)],
        "approval": {"eyes": 2},
        "purposes": [{"id": PURPOSE, "meaning": "Keep customers", "consent": "profiling"}],
        "contact_consent": "contact",
        "studies": [
            {
                "contract": "shop",
                "purposes": [PURPOSE],
                "models": ["additive"],
                "modes": ["fedsgd"],
                "max_epsilon": 1.0,
                "max_delta": 1e-6,
                "automatic_epsilon": 1.0,
                "holdout": {"kind": "hash", "share": 0.2},
            }
        ],
        "budget": {
            "mode": "open",
            "unit": "customer",
            "neighbours": "add_or_remove_one",
            "period": {"days": 366, "epsilon": 50.0, "delta": 1e-2},
            "life": {"epsilon": 50.0, "delta": 1e-2},
        },
        "smallest_cohort": 1,
        "smallest_partners": 1,
        "aggregation": "plain",
        "reply_grid_seconds": 1.0,
        "retention": {"name_lists_days": 90, "replies_days": 30, "participation_days": 3650},
    },
    strict=False,
)


def charges(shape: int) -> dict[Account, tuple[PrivacyEvent, ...]]:
    """Return what a small study of one of the shapes costs."""
    return {
        "training": (SubsampledGaussian(noise_multiplier=3000.0 + 50.0 * shape, sampling_rate=1.0, steps=ROUNDS),),
        "holdout": (DiscreteGaussianHistogram(sigma=200.0 + shape, count=1),),
    }


def create(path: Path) -> None:
    """Make a ledger with the benchmark's policy in force."""
    with Ledger.create(path, KEY, member="bench", holdout_key=b"h" * 32, clock=lambda: NOW) as ledger:
        ledger.activate(POLICY, [sign(key, CONTEXT, POLICY) for key in OFFICERS])


def grow(path: Path, size: int) -> None:
    """Append whole studies until the ledger has at least `size` entries: valid and signed, in one transaction."""
    with LedgerReader.read(path, public_hex(KEY)) as reader:
        state = reader.state()
    store = Store.open(path, write=True)
    try:
        with store.transaction():
            number = state.size
            while state.size < size:
                for kind, rid, data, known in _study(number, state):
                    ts = state.ts + A_DAY // STUDIES_A_DAY if kind is Reserve else state.ts
                    body = kind.model_validate(
                        {"seq": state.size, "prev": state.head, "ts": ts, "rid": rid, "data": data}
                    )
                    state = _append(store, state, body, known)
                number += 1
            totals = state.canonical()
            store.put_state(totals, KEY.sign(STATE_PREFIX + totals))
    finally:
        store.close()


def _append(store: Store, state: State, body: Body, known: Known) -> State:
    content = body.canonical()
    leaf = leaf_hash(content)
    released = (body.rid, body.data.number, body.data.account, body.seq) if isinstance(body, Release) else None
    store.insert((body.seq, body.kind, body.rid, content, leaf, KEY.sign(SIGNING_PREFIX + content)), released)
    return advance(state, body, leaf, known)


def _study(number: int, state: State) -> Iterator[tuple[type[Body], str | None, object, Known]]:
    """Yield a study's entries: reserve, a release for each round and one of the evaluation, close, and a refusal of another."""
    assert state.limits is not None and state.policy_digest is not None
    rid, events = f"{number:064x}", charges(number % SHAPES)
    lines = tuple(
        AccountCharge(
            account=name,
            events=events[name],
            releases=ROUNDS if name == "training" else 1,
            cost=price(events[name], state.limits, PURPOSE),
        )
        for name in ("training", "holdout")
    )
    data = ReserveData(
        study="churn_study",
        purpose=PURPOSE,
        contract="shop",
        policy=state.policy_digest,
        epsilon=1.0,
        delta=1e-6,
        library="dp-accounting",
        charges=lines,
    )
    yield Reserve, rid, data, UNKNOWN
    released = {"training": 0, "holdout": 0}
    for place in range(1, ROUNDS + 2):
        account: Account = "training" if place <= ROUNDS else "holdout"
        what = f"round {place} of {ROUNDS}" if place <= ROUNDS else "score histograms of held-out customers"
        reply = ReleaseData(number=place, account=account, what=what, sha256=f"{place:064x}", bytes=20_000)
        yield Release, rid, reply, Known(reservation=Reservation(rid, data, dict(released)))
        released[account] += 1
    over = Known(reservation=Reservation(rid, data, released))
    yield Close, rid, CloseData(reason="the study ended", returned=()), over
    refusal = RefuseData(code="CSL-P202", study="other_study", why="The policy allows no study on contract other.")
    yield Refuse, None, refusal, UNKNOWN


class Bare:
    """The peer: a plain SQLite table that is as durable as the ledger."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "PRAGMA journal_mode = DELETE",
            "PRAGMA synchronous = EXTRA",
            "CREATE TABLE entry(seq INTEGER PRIMARY KEY, body BLOB, leaf BLOB, sig BLOB)",
            "CREATE TABLE state(id INTEGER PRIMARY KEY, body BLOB, sig BLOB)",
        ):
            self._connection.execute(statement)

    def append(self, body: bytes, state: bytes) -> None:
        """Append an entry and replace the totals."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("INSERT INTO entry(body, leaf, sig) VALUES (?, ?, ?)", (body, bytes(32), bytes(64)))
        self._connection.execute("INSERT OR REPLACE INTO state VALUES (0, ?, ?)", (state, bytes(64)))
        self._connection.execute("COMMIT")


def study_of(number: int) -> tuple[StudySpec, Charter]:
    """Return a study that the policy allows, and its charter."""
    members = tuple(
        Member(id=name, title=name, key=f"{place:064x}", declares=(Declaration(contract="shop", size=1),))
        for place, name in enumerate(("bench", "birch", "cedar"), 1)
    )
    charter = Charter(
        federation="bench",
        version=1,
        coordinator_key="f" * 64,
        members=members,
        contracts=(PinnedContract(name="shop", sha256="0" * 64),),
    )
    draft = StudyDraft(
        name="churn_study",
        title="A study",
        purpose=PURPOSE,
        contract="shop",
        model=AdditiveModel(),
        mode="fedsgd",
        holdout=HashHoldout(kind="hash", share=0.2),
        intended_use="Measured",
        limits="None",
    )
    spec = StudySpec(
        draft=draft,
        federation="bench",
        charter=charter.digest(),
        contract_digest="0" * 64,
        training=Training(mode="fedsgd", rounds=ROUNDS, steps=ROUNDS, sampling_rate=1.0),
        nonce=f"{number:032x}",
    )
    return spec, charter


@dataclass(frozen=True)
class Turn:
    """Median milliseconds on a ledger of `size` entries."""

    size: int
    decide: float
    release: float
    bare: float


def measure(path: Path, size: int, repeats: int) -> Turn:
    """Let the three take turns on a ledger, and return their medians over the turns in which every price is known."""
    bare = Bare(path.with_suffix(".bare"))
    times: dict[str, list[float]] = {"decide": [], "release": [], "bare": []}

    def timed(name: str, call: Callable[[], object]) -> None:
        begun = time.perf_counter()
        call()
        times[name].append(1e3 * (time.perf_counter() - begun))

    with Ledger.open(path, KEY, clock=lambda: NOW) as ledger:
        for number in range(repeats + 1):
            spec, charter = study_of(number)
            rid = spec.digest()
            timed("decide", partial(_reserve, ledger, spec, charter, charges(number % SHAPES)))
            timed("release", partial(ledger.release, rid, 1, "training", "0" * 64, 20_000, what="round 1 of 12"))
            state = ledger.state()
            timed("bare", partial(bare.append, ledger.entry(state.size - 2).content, state.canonical()))
    return Turn(size, *(statistics.median(times[name][SHAPES:]) for name in ("decide", "release", "bare")))


def _reserve(
    ledger: Ledger, spec: StudySpec, charter: Charter, events: dict[Account, tuple[PrivacyEvent, ...]]
) -> None:
    terms = decide(POLICY, spec, charter, "bench", ledger.today())
    releases: dict[Account, int] = {"training": ROUNDS, "holdout": 1}
    ledger.reserve(spec.digest(), study=spec.draft.name, charges=events, releases=releases, terms=terms)


@dataclass(frozen=True)
class Verified:
    """Seconds and peak memory (MiB) of verifying a ledger in a process of its own."""

    size: int
    seconds: float
    peak: float


def verify_apart(path: Path) -> Verified:
    """Verify a ledger in a process of its own."""
    command = [sys.executable, __file__, "--verify", str(path)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return Verified(int(found["size"]), float(found["seconds"]), float(found["peak"]))


def verify_here(path: Path) -> NoReturn:
    """Verify a ledger, print what was found as JSON, and end."""
    begun = time.perf_counter()
    result = verify(path, public_hex(KEY))
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"size": result.head.size, "seconds": seconds, "peak": peak}))
    raise SystemExit(not result.valid)


def late(turns: list[Turn], verified: list[Verified]) -> list[str]:
    """Return the targets of time that are missed, in words."""
    found = [
        f"a decision at {turn.size:,} entries takes {turn.decide:.1f} ms, target {DECISION_MS:g}"
        for turn in turns
        if turn.decide >= DECISION_MS
    ]
    first, last = (turn.decide / turn.bare for turn in (turns[0], turns[-1]))
    if last > FLAT * first:
        found.append(f"decisions are not flat: {first:.1f} to {last:.1f} times bare SQLite, target {FLAT} x")
    for item in verified:
        limit = VERIFY_SECONDS * item.size / VERIFICATIONS[-1] + 10
        if item.seconds > limit:
            found.append(f"verifying {item.size:,} entries takes {item.seconds:.0f} s, target {limit:.0f}")
    return found


def large(verified: list[Verified]) -> list[str]:
    """Return the targets of memory that are missed, in words."""
    if verified[-1].peak > verified[0].peak + GROWTH_MIB:
        return [f"peak memory grows from {verified[0].peak:.0f} to {verified[-1].peak:.0f} MiB"]
    return []


def main() -> NoReturn:
    """Print the tables; exit with 1 when a target is missed (with `--quick` of memory only: its turns are few)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="to 10,000 entries and 30 turns: shows that it runs")
    parser.add_argument("--largest", type=int, default=VERIFICATIONS[-1], help="entries of the largest ledger")
    parser.add_argument("--folder", type=Path, help="a folder on the disk to measure; the temporary folder otherwise")
    parser.add_argument("--verify", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.verify is not None:
        verify_here(options.verify)
    largest = 10_000 if options.quick else options.largest
    sizes = [size for size in DECISIONS if size <= largest]
    depths = sorted({min(size, largest) for size in ((1_000, largest) if options.quick else VERIFICATIONS)})
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        turns, verified = _tables(Path(name), sizes, depths, SHAPES + (30 if options.quick else 200))
    failures = large(verified) + ([] if options.quick else late(turns, verified))
    print("\n" + ("\n".join(failures) if failures else "Every target is met."))
    raise SystemExit(bool(failures))


def _tables(folder: Path, sizes: list[int], depths: list[int], repeats: int) -> tuple[list[Turn], list[Verified]]:
    path, turns, verified = folder / "ledger.sqlite", [], []
    create(path)
    print(f"{'entries':>10}{'decide ms':>12}{'release ms':>12}{'bare SQLite ms':>16}{'decide/bare':>13}", flush=True)
    for size in sizes:
        grow(path, size)
        copy = folder / f"{size}.sqlite"
        shutil.copy(path, copy)
        turn = measure(copy, size, repeats)
        turns.append(turn)
        ratio = turn.decide / turn.bare
        print(f"{size:>10,}{turn.decide:>12.2f}{turn.release:>12.2f}{turn.bare:>16.2f}{ratio:>13.2f}", flush=True)
    print(f"\n{'entries':>10}{'verified in s':>15}{'peak MiB':>10}{'entries/s':>11}", flush=True)
    for depth in depths:
        apart = path
        if depth < sizes[-1]:  # the decisions went further: begin anew
            apart = folder / f"{depth}-anew.sqlite"
            create(apart)
        grow(apart, depth)
        item = verify_apart(apart)
        verified.append(item)
        rate = item.size / item.seconds
        print(f"{item.size:>10,}{item.seconds:>15.1f}{item.peak:>10.0f}{rate:>11,.0f}", flush=True)
    return turns, verified


if __name__ == "__main__":
    main()
