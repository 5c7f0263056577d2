"""Members that lie: each is left out, or stops the sum with a plain reason; nobody's lie gets into a model."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import RecordDict

from federation.encoding import sha256_hex
from federation.errors import FederationError
from federation.messages import RECORD, pack
from federation.secure import (
    Ack,
    EpochKey,
    EpochReady,
    Exchanges,
    Masked,
    PairKey,
    Ready,
    Reveal,
    Statement,
    SumHeaders,
)
from server.events import RoundDone, SumRepeated
from simulations.local_grid import Fault
from tests.server.fakes import key_of, refuse
from tests.server.secure.running import Bench, left_out, run
from tests.server.secure.vaults import SIX, SecureVault, secure_federation

OTHERS = ("alpha", "delta", "gamma")
ALL = ("alpha", "beta", "delta", "gamma")
Edit = Callable[[SecureVault, RecordDict, RecordDict], RecordDict]


def said(reply: RecordDict, model: type[Statement]) -> Statement:
    return model.from_canonical(bytes(reply[RECORD]["header"]))


def payload(reply: RecordDict) -> bytes:
    return bytes(reply[RECORD]["payload"])


def changed(model: type[Statement], **changes: object) -> Edit:
    """Sign another statement, with the member's own key."""
    return lambda v, q, r: pack(v.key, said(r, model).model_copy(update=changes), payload(r))


def forged(model: type[Statement]) -> Edit:
    """Say what is right, signed by somebody else."""
    return lambda v, q, r: pack(key_of("alpha"), said(r, model), payload(r))


def _vector(vault: SecureVault, reply: RecordDict, content: bytes) -> RecordDict:
    header = said(reply, Masked).model_copy(update={"y": sha256_hex(content)})
    return pack(vault.key, header, content)


LIES: dict[str, tuple[str, Edit, str]] = {
    "ready for another offer": ("sum", changed(Ready, offer="0" * 64), "CSL-S220"),
    "ready as another": ("sum", changed(Ready, id="alpha"), "CSL-S220"),
    "ready, forged": ("sum", forged(Ready), "CSL-S207"),
    "ready with something beside": ("sum", lambda v, q, r: pack(v.key, said(r, Ready), b"more"), "CSL-S207"),
    "an acknowledgement for a ready": (
        "sum",
        lambda v, q, r: pack(v.key, Ack(t="0" * 64, s="0" * 64, id="beta")),
        "CSL-S207",
    ),
    "ready refused": ("sum", refuse, "CSL-S206"),
    "nothing": ("sum", lambda v, q, r: RecordDict(), "CSL-S207"),
    "masked for another T": ("sum_readies", changed(Masked, t="0" * 64), "CSL-S220"),
    "masked as another": ("sum_readies", changed(Masked, id="alpha"), "CSL-S220"),
    "masked in other words": ("sum_readies", changed(Masked, w=64), "CSL-S220"),
    "masked of another length": ("sum_readies", changed(Masked, d=3), "CSL-S220"),
    "masked, forged": ("sum_readies", forged(Masked), "CSL-S207"),
    "a shorter vector": ("sum_readies", lambda v, q, r: _vector(v, r, payload(r)[:-4]), "CSL-S220"),
    "a longer vector": ("sum_readies", lambda v, q, r: _vector(v, r, payload(r) + bytes(4)), "CSL-S220"),
    "another vector than signed": (
        "sum_readies",
        lambda v, q, r: _beside(r, bytes(len(payload(r)))),
        "CSL-S207",
    ),
}


def _beside(reply: RecordDict, content: bytes) -> RecordDict:
    reply[RECORD]["payload"] = content
    return reply


def lying(folder: Path, call: str, edit: Edit) -> Bench:
    """A federation whose member beta lies in one call."""
    federation = secure_federation(folder)
    federation.vaults["beta"].edits[f"query.{call}"] = edit
    return Bench(federation)


@pytest.mark.parametrize("name", LIES)
def test_a_liar_before_the_third_call_is_left_out(tmp_path: Path, name: str) -> None:
    call, edit, code = LIES[name]
    bench = lying(tmp_path, call, edit)
    bench.set_up()
    opened = bench.sum()
    assert left_out(bench.federation) == {("beta", 2, code)}
    assert (opened.members, opened.attempts) == (OTHERS, 1)
    np.testing.assert_array_equal(opened.total, bench.plain(OTHERS))


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (changed(Ack, s="0" * 64), "CSL-S220"),
        (changed(Ack, t="0" * 64), "CSL-S220"),
        (changed(Ack, id="alpha"), "CSL-S220"),
        (forged(Ack), "CSL-S207"),
        (refuse, "CSL-S206"),
    ],
)
def test_who_acknowledges_another_set_is_left_out_of_the_next_attempt(tmp_path: Path, edit: Edit, code: str) -> None:
    bench = lying(tmp_path, "sum_headers", edit)
    bench.set_up()
    opened = bench.sum()
    assert (opened.members, opened.attempts) == (OTHERS, 2)
    assert [event.attempt for event in bench.federation.happened(SumRepeated)] == [1]
    assert left_out(bench.federation) == {("beta", 2, code)}
    np.testing.assert_array_equal(opened.total, bench.plain(OTHERS))


def test_members_that_keep_their_word_back_in_turn_stop_nothing(tmp_path: Path) -> None:
    """Of seven members three are honest, which is enough: each of the other four stops one attempt."""
    sizes = {**SIX, "eta": 1100}
    federation = secure_federation(tmp_path, sizes)
    honest, turn = ("alpha", "beta", "gamma"), ("delta", "epsilon", "eta", "zeta")
    for place, name in enumerate(turn, start=1):
        federation.vaults[name].edits["query.sum_headers"] = _silent_from(place)
    bench = Bench(federation)
    bench.set_up()
    opened = bench.sum()
    assert (opened.members, opened.attempts) == (honest, 5)
    assert [event.attempt for event in federation.happened(SumRepeated)] == [1, 2, 3, 4]
    np.testing.assert_array_equal(opened.total, bench.plain(honest))


def _silent_from(attempt: int) -> Edit:
    """Refuse to acknowledge from that attempt on."""

    def edit(vault: SecureVault, request: RecordDict, reply: RecordDict) -> RecordDict:
        asked = SumHeaders.from_canonical(bytes(request[RECORD]["header"]))
        return refuse(vault, request, reply) if asked.attempt >= attempt else reply

    return edit


def test_who_stopped_one_sum_is_not_asked_for_the_next(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    federation.vaults["beta"].edits["query.sum_headers"] = refuse
    run(federation)
    assert [event.attempts for event in federation.happened(RoundDone)] == [2, 1, 1]
    assert federation.vaults["beta"].work.count("query.sum") == 1


def test_who_stopped_one_sum_is_asked_for_the_next_where_somebody_else_is_missing(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    away = Fault("fail", types=frozenset({"query.sum"}), groups=frozenset({"2"}))
    once = Fault("fail", types=frozenset({"query.sum_headers"}), groups=frozenset({"1"}))
    run(federation, {"alpha": (away,), "beta": (once,)})
    done = federation.happened(RoundDone)
    assert [event.answered for event in done] == [OTHERS, ("beta", "delta", "gamma"), OTHERS]
    assert [event.attempts for event in done] == [2, 2, 1]


def test_who_cannot_be_spared_and_keeps_its_word_back_stops_the_sum_after_three_attempts(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    federation.vaults["beta"].edits["query.sum_headers"] = refuse
    bench = Bench(federation, n_min=4, c=1)
    bench.set_up()
    with pytest.raises(FederationError, match="CSL-S222.* in 3 attempts") as caught:
        bench.sum()
    assert "older copy" in caught.value.action and "give the study up" in caught.value.action
    assert [event.attempt for event in federation.happened(SumRepeated)] == [1, 2, 3]


def _other_key(vault: SecureVault, request: RecordDict, reply: RecordDict) -> RecordDict:
    return changed(Reveal, b="0" * 64)(vault, request, reply)


STOPPING: dict[str, tuple[Edit, str]] = {
    "keys of a pair that nobody asked for": (
        changed(Reveal, pairs=(PairKey(id="gamma", key="0" * 64),)),
        "CSL-S223.*beta did not give",
    ),
    "another sum's": (changed(Reveal, t="0" * 64), "CSL-S223.*beta did not give"),
    "another's": (changed(Reveal, id="alpha"), "CSL-S223.*beta did not give"),
    "forged": (forged(Reveal), "CSL-S223.*beta did not give"),
    "refused": (refuse, "CSL-S223.*beta did not give"),
    "a wrong key": (_other_key, "CSL-S224.*cannot be one"),
}


@pytest.mark.parametrize("name", STOPPING)
def test_a_liar_at_the_last_call_stops_the_sum_with_a_plain_reason(tmp_path: Path, name: str) -> None:
    edit, words = STOPPING[name]
    bench = lying(tmp_path, "sum_acks", edit)
    bench.set_up()
    with pytest.raises(FederationError, match=words):
        bench.sum()
    kept = bench.store.load()
    assert kept is not None and kept.acknowledged
    bench.federation.vaults["beta"].edits.clear()
    np.testing.assert_array_equal(bench.sum().total, bench.plain(ALL))  # honest again, it opens the same sum


def test_missing_pair_keys_of_somebody_who_dropped_out_stop_the_sum(tmp_path: Path) -> None:
    bench = lying(tmp_path, "sum_acks", changed(Reveal, pairs=()))
    bench.set_up()
    assert bench.sum(number=1).members == ALL  # where nobody dropped out, no pairs are what is right
    with pytest.raises(FederationError, match=r"CSL-S223.*beta"):
        bench.sum({"gamma": (Fault("fail", types=frozenset({"query.sum_readies"})),)})


def test_a_vector_beyond_all_bounds_stops_the_sum(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    vault = federation.vaults["beta"]
    honest = vault._vector
    vault._vector = lambda header, weights: honest(header, weights) + (1 << 29)  # type: ignore[method-assign]
    bench = Bench(federation)
    bench.set_up()
    with pytest.raises(FederationError, match="CSL-S224"):
        bench.sum()


def test_a_lie_in_every_sum_keeps_a_member_out_of_the_model_and_not_the_study_from_its_end(tmp_path: Path) -> None:
    federation = secure_federation(tmp_path)
    federation.vaults["beta"].edits["query.sum_readies"] = LIES["masked for another T"][1]
    card = run(federation).card
    assert left_out(federation) == {("beta", number, "CSL-S220") for number in (1, 2, 3, 4)}
    assert {item.member: item.rounds for item in card.participants} == {"alpha": 3, "beta": 0, "delta": 3, "gamma": 3}
    assert [event.answered for event in federation.happened(RoundDone)] == [OTHERS] * 3
    assert [item.member for item in card.participants if item.evaluated] == list(OTHERS)


SET_UP: dict[str, tuple[str, Edit, str]] = {
    "keys of another study": ("epoch", changed(EpochKey, epoch="0" * 64), "CSL-S220"),
    "keys under another charter": ("epoch", changed(EpochKey, roster="0" * 64), "CSL-S220"),
    "keys as another": ("epoch", changed(EpochKey, id="alpha"), "CSL-S220"),
    "keys, forged": ("epoch", forged(EpochKey), "CSL-S207"),
    "keys refused": ("epoch", refuse, "CSL-S206"),
    "a point of low order": ("epoch", changed(EpochKey, x25519="00" * 32), "CSL-S220"),
    "another point of low order": ("epoch", changed(EpochKey, x25519=f"01{'00' * 31}"), "CSL-S220"),
    "a point of order eight": (
        "epoch",
        changed(EpochKey, x25519="e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        "CSL-S220",
    ),
    "an encoding that is none": ("epoch", changed(EpochKey, mlkem="ff" * 1184), "CSL-S220"),
    "exchanges of another study": ("epoch_keys", changed(Exchanges, study="0" * 64), "CSL-S220"),
    "exchanges as another": ("epoch_keys", changed(Exchanges, member="alpha"), "CSL-S220"),
    "nothing for the others": ("epoch_keys", changed(Exchanges, exchanges=()), "CSL-S220"),
    "one too few": (
        "epoch_keys",
        lambda v, q, r: changed(Exchanges, exchanges=said(r, Exchanges).exchanges[1:])(v, q, r),
        "CSL-S220",
    ),
    "in another order": (
        "epoch_keys",
        lambda v, q, r: changed(Exchanges, exchanges=said(r, Exchanges).exchanges[::-1])(v, q, r),
        "CSL-S220",
    ),
    "one changed after it was signed": (
        "epoch_keys",
        lambda v, q, r: changed(Exchanges, exchanges=_spoilt(said(r, Exchanges).exchanges))(v, q, r),
        "CSL-S220",
    ),
    "other keys than it was shown": ("epoch_exchanges", changed(EpochReady, keys="0" * 64), "CSL-S220"),
    "ready as another": ("epoch_exchanges", changed(EpochReady, member="alpha"), "CSL-S220"),
}


def _spoilt(exchanges):
    first = exchanges[0]
    message = first.message.model_copy(update={"ct": first.message.ct[::-1]})
    return (first.model_copy(update={"message": message}), *exchanges[1:])


@pytest.mark.parametrize("name", SET_UP)
def test_a_liar_in_the_set_up_takes_no_part(tmp_path: Path, name: str) -> None:
    call, edit, code = SET_UP[name]
    bench = lying(tmp_path, call, edit)
    epoch = bench.set_up()
    assert left_out(bench.federation) == {("beta", 0, code)}
    assert epoch.members == OTHERS and epoch.attempt == (1 if call == "epoch" else 2)
    np.testing.assert_array_equal(bench.sum().total, bench.plain(OTHERS))
