"""Single sums: whoever drops out wherever, what is opened is the plain sum of those who are named, exactly."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from federation.errors import FederationError
from federation.messages import EvaluateRequest, TrainRequest
from federation.secure import (
    Ack,
    Masked,
    Ready,
    SignedAck,
    SignedMasked,
    SignedReady,
    SumOffer,
)
from privacy.secure_aggregation.coordinator import Collected, Gathered
from privacy.secure_aggregation.derivation import transcript
from server.secure.store import SumStore
from server.secure.sums import common_digest
from simulations.local_grid import Fault
from tests.server.secure.running import Bench
from tests.server.secure.vaults import SIX, secure_federation

CALLS = ("sum", "sum_readies", "sum_headers", "sum_acks")
HEX = "ab" * 32
SIGNATURE = "cd" * 64


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(
    members=st.integers(4, 6),
    drops=st.dictionaries(st.sampled_from(sorted(SIX)), st.sampled_from(CALLS), max_size=3),
    number=st.integers(1, 3),
)
def test_whatever_is_opened_is_the_plain_sum_of_those_who_are_named(
    members: int, drops: dict[str, str], number: int
) -> None:
    folder = Path(tempfile.mkdtemp())
    bench = Bench(secure_federation(folder, dict(list(SIX.items())[:members])), seconds=1.0)
    bench.set_up()
    faults = {
        name: (Fault("fail", types=frozenset({f"query.{call}"})),)
        for name, call in drops.items()
        if name in bench.members
    }
    gone = {name for name, call in drops.items() if call in ("sum", "sum_readies")}
    try:
        opened = bench.sum(faults, number)
        assert not gone & set(opened.members)
    except FederationError as error:
        assert error.code in ("CSL-S222", "CSL-S223") and faults
        opened = bench.sum(number=number)  # everybody is back, and it goes on where it stopped
    assert len(opened.members) >= 3
    np.testing.assert_array_equal(opened.total, bench.plain(opened.members, number))


def test_words_of_64_bits_are_taken_where_32_would_wrap(tmp_path: Path) -> None:
    bench = Bench(secure_federation(tmp_path))
    bench.set_up()
    widths = []
    for number, x_max in ((1, 1e7), (2, 1e9), (3, 1e14)):
        opened = bench.sum(number=number, x_max=x_max)
        np.testing.assert_array_equal(opened.total, bench.plain(opened.members, number))
        kept = bench.store.load()
        assert kept is not None
        widths.append(kept.record.offer.w)
    assert widths == [32, 64, 64]


def test_what_is_one_members_own_does_not_make_another_offer() -> None:
    request = TrainRequest(study=HEX, round=1, clip=2.0, learning_rate=1.0, payload=HEX)
    own = request.model_copy(update={"clip": 0.5, "weight": 0.25})
    assert common_digest({"a": request, "b": own}) == common_digest({"a": own})
    for changes in ({"round": 2}, {"payload": "cd" * 32}, {"learning_rate": 0.5}, {"momentum": 0.5}):
        assert common_digest({"a": request.model_copy(update=changes)}) != common_digest({"a": request})
    scores = EvaluateRequest(study=HEX, edges=(0.0, 1.0, 2.0), payload=HEX)
    assert common_digest({"a": scores}) == scores.digest()
    with pytest.raises(AssertionError):
        common_digest({"a": request, "b": request.model_copy(update={"round": 2})})


@settings(max_examples=30)
@given(
    total=st.sampled_from([np.uint32, np.uint64]).flatmap(
        lambda kind: hnp.arrays(kind, st.integers(1, 50), elements=hnp.from_dtype(np.dtype(kind)))
    ),
    attempt=st.integers(1, 1000),
)
def test_a_kept_sum_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, total: np.ndarray, attempt: int
) -> None:
    offer = SumOffer(
        roster=HEX,
        epoch=HEX,
        number=7,
        attempt=attempt,
        request=HEX,
        d=len(total),
        w=32 if total.dtype == np.uint32 else 64,
        scale=1234.5,
        share=16384.0,
        n_min=3,
        c=0,
    )
    readies = tuple(
        SignedReady(message=Ready(offer=HEX, id=name, nonce=HEX), signature=SIGNATURE) for name in ("a", "b")
    )
    t = transcript(offer, [item.message for item in readies])
    headers = tuple(
        SignedMasked(message=Masked(t=t.hex(), id=name, w=offer.w, d=offer.d, y=HEX), signature=SIGNATURE)
        for name in ("a", "b")
    )
    acks = tuple(SignedAck(message=Ack(t=t.hex(), s=HEX, id=name), signature=SIGNATURE) for name in ("a", "b"))
    store = SumStore(tmp_path_factory.mktemp("s") / "deep" / "x.sum")
    assert store.load() is None
    store.note(offer)
    noted = store.load()
    assert noted is not None and not noted.acknowledged and noted.record.offer == offer
    store.keep(Collected(Gathered(offer, readies, t), headers, total), acks)
    kept = store.load()
    assert kept is not None and kept.acknowledged and kept.record.acks == acks
    found = kept.collected()
    assert found.gathered == Gathered(offer, readies, t) and found.headers == headers
    assert found.total.tobytes() == total.tobytes() and found.total.dtype == total.dtype
    store.clear()
    store.clear()
    assert store.load() is None
