"""What a faulty release would let out stays in: every reply is looked at as the coordinator would, before it leaves."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from client.outgoing import RULES
from client.replies import kept
from client.unlock import unlock
from client.vault import Vault
from client.workroom import COUNT_LIMIT, Workroom
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError
from federation.messages import (
    RECORD,
    Acknowledged,
    Cosignature,
    EvaluateRelease,
    Grant,
    Identity,
    LedgerHead,
    ModelReceipt,
    NoteKept,
    Refusal,
    ReportReceipt,
    StatisticsRelease,
    TrainRelease,
    dump_tensors,
    pack,
    unpack,
)
from federation.secure import Ack, EpochKey, EpochReady, Exchanges, Masked, Ready, Reveal
from federation.study import Training
from privacy.ledger import verify
from tests.client import vault_home
from tests.client.entries import kinds, raw, reasons, refused, written
from tests.client.vault_home import Town

FEDAVG = Training(mode="fedavg", rounds=3, steps=6, sampling_rate=0.5)


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A vault with an open study, and an honest exchange of every type: type -> (request, reply)."""
    town = vault_home.found(tmp_path_factory.mktemp("town"))
    vault, spec = town.vault(), town.spec()
    model = town.weights(spec, 0.1)
    requests = {
        "query.hello": town.hello(),
        "query.offer": town.offer(spec),
        "train": town.train(spec, 1),
        "evaluate": town.evaluate(spec),
        "query.model": town.model(spec, model),
        "query.receipts": town.receipts(spec, model),
    }
    pairs = {kind: (request, vault.answer(kind, request)) for kind, request in requests.items()}
    return town, vault, pairs


def identity(town: Town, member: str = "alder"):
    return unlock(town.homes[member]).identity


def held_back(vault: Vault, kind: str, request: RecordDict, reply: RecordDict) -> str:
    with pytest.raises(ConsilienceError, match="CSL-C402") as caught:
        vault._outgoing.check(kind, request, reply)
    return caught.value.cause


def release(town: Town, reply: RecordDict, payload: bytes, **changes: object) -> RecordDict:
    """A signed release with another payload, and other words in its header."""
    header = unpack(reply, TrainRelease, town.key("alder"))[0]
    fields = {"study": header.study, "round": header.round, "payload": sha256_hex(payload)}
    return pack(identity(town), TrainRelease(**({"member": "alder"} | fields | changes)), payload)


def counts(town: Town, pairs, values: np.ndarray) -> RecordDict:
    header = unpack(pairs["evaluate"][1], EvaluateRelease, town.key("alder"))[0]
    payload = dump_tensors({"counts": values})
    return pack(identity(town), header.model_copy(update={"payload": sha256_hex(payload)}), payload)


# What passes, and what does not.


def test_honest_replies_pass(world):
    town, vault, pairs = world
    for kind, (request, reply) in pairs.items():
        vault._outgoing.check(kind, request, reply)
    assert reasons(town) == []


def test_every_type_has_one_kind_of_reply(world):
    _, vault, _ = world
    assert set(RULES) == set(vault._answerers)
    kinds_of = [rule.reply for rule in RULES.values()]
    assert set(kinds_of) == {
        *(
            Identity,
            Grant,
            TrainRelease,
            EvaluateRelease,
            ModelReceipt,
            Acknowledged,
            LedgerHead,
            Cosignature,
            NoteKept,
        ),
        *(StatisticsRelease, ReportReceipt),
        *(EpochKey, Exchanges, EpochReady, Ready, Masked, Ack, Reveal),
    }
    assert len(kinds_of) == len(set(kinds_of))


def test_no_reply_answers_a_request_of_another_type(world):
    _, vault, pairs = world
    for kind, (request, _) in pairs.items():
        for other, (_, reply) in pairs.items():
            if other != kind:
                held_back(vault, kind, request, reply)


def test_a_reply_about_something_else_is_held_back(world):
    town, vault, pairs = world
    key, rid = identity(town), "d" * 64
    card, model = "a" * 64, "b" * 64
    elsewhere = {
        "query.hello": Identity(member="alder", charter=town.charter.digest(), nonce="2" * 32),
        "query.offer": unpack(pairs["query.offer"][1], Grant, town.key("alder"))[0].model_copy(update={"study": rid}),
        "query.model": ModelReceipt(study=town.spec().digest(), member="alder", card=card, model=model),
        "query.receipts": Acknowledged(study=rid, member="alder"),
    }
    for kind, header in elsewhere.items():
        held_back(vault, kind, pairs[kind][0], pack(key, header))
    content = unpack(pairs["train"][1], TrainRelease, town.key("alder"))[1]
    for changes in ({"round": 2}, {"study": rid}, {"member": "birch"}):
        held_back(vault, "train", pairs["train"][0], release(town, pairs["train"][1], content, **changes))


def test_a_reply_of_another_key_or_with_anything_beside_it_is_held_back(world):
    town, vault, pairs = world
    request, reply = pairs["query.hello"]
    header = unpack(reply, Identity, town.key("alder"))[0]
    held_back(vault, "query.hello", request, pack(identity(town, "birch"), header))
    held_back(vault, "query.hello", request, pack(identity(town), header, b"customers"))
    record = dict(reply[RECORD])
    beside = [
        RecordDict({RECORD: ConfigRecord(record | {"note": b"customers"})}),
        RecordDict({RECORD: ConfigRecord(record), "more": ConfigRecord({"note": b"customers"})}),
        RecordDict({RECORD: MetricRecord({"customers": 17})}),
        RecordDict({RECORD: ConfigRecord({"header": record["header"]})}),
        RecordDict({RECORD: ConfigRecord(record | {"header": record["header"] + b" "})}),
        RecordDict({"other": ConfigRecord(record)}),
        RecordDict(),
    ]
    for bad in beside:
        held_back(vault, "query.hello", request, bad)


BROKEN = {
    "another dtype": lambda t: save({name: value.astype(np.float64) for name, value in t.items()}),
    "another size": lambda t: save({name: np.tile(value, 2) for name, value in t.items()}),
    "another name": lambda t: save({f"{name}x": value for name, value in t.items()}),
    "one more": lambda t: save(t | {"rows": np.ones((400, 7), np.float32)}),
    "one less": lambda t: save({"linear.bias": t["linear.bias"]}),
    "NaN": lambda t: save({name: value * np.float32("nan") for name, value in t.items()}),
    "infinity": lambda t: save({name: value + np.float32("inf") for name, value in t.items()}),
    "metadata": lambda t: save(t, metadata={"customer": "17"}),
    "off the grid": lambda t: save({name: value + np.float32(np.pi * 1e-6) for name, value in t.items()}),
    "a pickle": lambda t: b"\x80\x04N.",
    "nothing": lambda t: b"",
}


@pytest.mark.parametrize("fault", BROKEN)
def test_tensors_that_are_not_the_studys_are_held_back(world, fault):
    town, vault, pairs = world
    request, reply = pairs["train"]
    payload = BROKEN[fault](load(unpack(reply, TrainRelease, town.key("alder"))[1]))
    cause = held_back(vault, "train", request, release(town, reply, payload))
    assert "17" not in cause and "nan" not in cause.lower()


def test_padding_in_the_encoding_is_held_back(world):
    """Spaces in a safetensors header are valid, and could carry a message in their number."""
    town, vault, pairs = world
    request, reply = pairs["train"]
    content = unpack(reply, TrainRelease, town.key("alder"))[1]
    size = int.from_bytes(content[:8], "little")
    padded = (size + 8).to_bytes(8, "little") + content[8 : 8 + size] + b" " * 8 + content[8 + size :]
    assert load(padded).keys() == load(content).keys()
    held_back(vault, "train", request, release(town, reply, padded))


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((2, 12), np.float64),
        np.zeros((2, 12), np.int32),
        np.zeros((2, 13), np.int64),
        np.full((2, 12), COUNT_LIMIT + 1, np.int64),
        np.full((2, 12), np.iinfo(np.int64).min),
    ],
)
def test_histograms_are_bounded_integers_of_the_studys_bins(world, values):
    town, vault, pairs = world
    vault._outgoing.check("evaluate", pairs["evaluate"][0], counts(town, pairs, np.full((2, 12), -COUNT_LIMIT)))
    held_back(vault, "evaluate", pairs["evaluate"][0], counts(town, pairs, values))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_leaves(world, data):
    town, vault, pairs = world
    kind = data.draw(st.sampled_from(sorted(pairs)))
    request, reply = pairs[kind]
    fields = {name: bytes(reply[RECORD][name]) for name in ("header", "signature", "payload")}
    name = data.draw(st.sampled_from([name for name in fields if fields[name]]))
    place = data.draw(st.integers(0, len(fields[name]) - 1))
    content = bytearray(fields[name])
    content[place] ^= data.draw(st.integers(1, 255))
    held_back(vault, kind, request, RecordDict({RECORD: ConfigRecord(fields | {name: bytes(content)})}))


def test_a_refusal_says_nothing_but_that_it_is_one(world):
    town, vault, _ = world
    key = identity(town)
    vault._outgoing.check_refusal(pack(key, Refusal(member="alder")))
    for bad in (
        pack(key, Refusal(member="birch")),
        pack(key, Refusal(member="alder"), b"why"),
        pack(key, Acknowledged(study="d" * 64, member="alder")),
        pack(identity(town, "birch"), Refusal(member="alder")),
    ):
        with pytest.raises(ConsilienceError, match="CSL-C402"):
            vault._outgoing.check_refusal(bad)


# A faulty release, played through the vault.


def faulty_training(monkeypatch, change) -> None:
    train = Workroom.train
    monkeypatch.setattr(Workroom, "train", lambda *args: change(train(*args)))


FAULTS = {
    "float64": lambda t: {name: value.astype(np.float64) for name, value in t.items()},
    "too long": lambda t: {name: np.tile(value, 2) for name, value in t.items()},
    "NaN": lambda t: {name: value * np.float32("nan") for name, value in t.items()},
    "rows beside": lambda t: t | {"rows": np.ones((400, 7), np.float32)},
    "no noise": lambda t: {name: np.full_like(value, 1 / 3) for name, value in t.items()},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_round_never_leaves_and_is_drawn_once(town, monkeypatch, fault):
    vault, spec = town.vault(), town.spec()
    usual = raw(vault.answer("train", town.train(spec, 1)))
    town.grant(vault, spec)
    with monkeypatch.context() as patched:
        faulty_training(patched, FAULTS[fault])
        assert raw(vault.answer("train", town.train(spec, 1))) == usual  # like every refusal
    assert reasons(town) == ["CSL-C511", "CSL-C402"]
    assert raw(vault.answer("train", town.train(spec, 1))) == usual  # charged and kept: no second draw
    assert kinds(town).count("release") == 1
    unpack(vault.answer("train", town.train(spec, 2)), TrainRelease, town.key("alder"))
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid
    (text,) = [data["why"] for data in written(town, "refuse") if data["code"] == "CSL-C402"]
    assert "nan" not in text.lower()


def test_a_faulty_round_of_local_steps_never_leaves(town, monkeypatch):
    vault, spec = town.vault(), town.spec(training=FEDAVG)
    town.grant(vault, spec)
    with monkeypatch.context() as patched:
        faulty_training(patched, lambda t: {name: value[..., :1] for name, value in t.items()})
        assert refused(town, vault.answer("train", town.train(spec, 1)))
    unpack(vault.answer("train", town.train(spec, 2)), TrainRelease, town.key("alder"))
    assert reasons(town) == ["CSL-C402"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.astype(np.float64),
        lambda c: c[:1],
        lambda c: c + (COUNT_LIMIT << 1),
    ],
)
def test_a_faulty_histogram_never_leaves(town, monkeypatch, change):
    vault, spec = town.vault(), town.spec()
    town.grant(vault, spec)
    histogram = Workroom.histogram
    monkeypatch.setattr(Workroom, "histogram", lambda *args: {"counts": change(histogram(*args)["counts"])})
    assert refused(town, vault.answer("evaluate", town.evaluate(spec)))
    assert reasons(town) == ["CSL-C402"]


def test_a_release_that_answers_with_another_kind_is_held_back(town, monkeypatch):
    """As if a handler put the customers' scores where the acknowledgement belongs."""
    vault, spec = town.vault(), town.spec()
    town.grant(vault, spec)
    leak = {"scores": np.ones(300, np.float32)}
    payload = dump_tensors(leak)
    header = TrainRelease(study=spec.digest(), member="alder", round=1, payload=sha256_hex(payload))
    for kind in ("query.receipts", "query.hello"):
        monkeypatch.setitem(vault._answerers, kind, lambda _: pack(identity(town), header, payload))
    assert refused(town, vault.answer("query.hello", town.hello()))
    assert refused(town, vault.answer("query.receipts", town.receipts(spec, town.weights(spec))))
    assert reasons(town) == ["CSL-C402"] * 2


def test_a_kept_reply_that_was_exchanged_is_not_replayed(town):
    """Somebody at home puts another round's sealed reply in this round's place, under this round's request."""
    vault, spec = town.vault(), town.spec()
    town.grant(vault, spec)
    for number in (1, 2):
        vault.answer("train", town.train(spec, number))
    replies = vault._replies
    first, second = (replies.find(spec.digest(), number) for number in (1, 2))
    assert first is not None and second is not None
    swapped = kept(town.train(spec, 1), second.records())
    assert swapped.request == first.request
    replies.keep(spec.digest(), 1, swapped)
    assert refused(town, town.vault().answer("train", town.train(spec, 1)))
    assert reasons(town) == ["CSL-P409"]  # the ledger has other bytes under this number
    unpack(vault.answer("train", town.train(spec, 2)), TrainRelease, town.key("alder"))


def test_a_kept_offer_that_was_exchanged_is_not_replayed(town):
    vault, spec = town.vault(), town.spec()
    other = town.spec(epsilon=0.5).model_copy(update={"nonce": "1" * 32})
    town.grant(vault, spec)
    town.grant(vault, other)
    kept = vault._replies.find(other.digest(), 0)
    vault._replies.keep(spec.digest(), 0, kept)
    assert refused(town, vault.answer("query.offer", town.offer(spec)))
    assert reasons(town) == ["CSL-C402"]


def test_when_not_even_the_refusal_is_one_nothing_leaves(town, monkeypatch):
    vault = town.vault()
    monkeypatch.setattr("client.vault.Refusal", lambda member: Acknowledged(study="d" * 64, member=member))
    with pytest.raises(ConsilienceError, match="CSL-C402"):
        vault.answer("train", town.train(town.spec(), 1))
