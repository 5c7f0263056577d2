"""A hostile coordinator, and a hostile member, at the vault's door: through `Vault.answer`, and through Flower's app as messages come."""

import json
import struct
from collections import Counter

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from client.app import ACTIONS, VaultShelf, make_app, respond
from client.refusals import AN_HOUR, MOST_AN_HOUR
from client.rooms import MOST_ROOMS
from client.rounds import MAX_WEIGHT
from client.throttle import Throttle
from client.unlock import unlock
from client.vault import MOST_LOGGED, Answered, Vault
from federation import messages
from federation.charter import Link
from federation.encoding import canonical, sha256_hex
from federation.errors import StorageError
from federation.messages import (
    RECORD,
    REFUSED,
    Acknowledged,
    CosignedNote,
    CosignRequest,
    Grant,
    Identity,
    Offer,
    Receipts,
    SignedReceipt,
    TrainRelease,
    TrainRequest,
    pack,
    unpack,
)
from federation.signing import sign, sign_bytes
from federation.study import CONTEXT, MlpModel, Training
from privacy.ledger import Ledger, verify
from privacy.randomness import SystemSource
from tests.client import vault_home
from tests.client.entries import bodies, kinds, raw, reasons, refused, written
from tests.client.vault_home import CARD, Town

APP = "c" * 64


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


@pytest.fixture
def vault(town) -> Vault:
    return town.vault()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A town, a vault of it with an open study, and what its monitoring saw: for what is refused and changes nothing."""
    town, seen = vault_home.found(tmp_path_factory.mktemp("town")), []
    vault = Vault.open(town.homes["alder"].root, unlock(town.homes["alder"]), watch=seen.append)
    town.grant(vault, town.spec())
    return town, vault, seen


@pytest.fixture(autouse=True)
def task(monkeypatch):
    """Flower stamps every message with the task that makes it."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1, raising=False)


class Untouchable(dict):
    """A run's configuration, which the coordinator writes: whoever looks into it fails."""

    def __getattribute__(self, name):
        raise AssertionError("run_config was read")

    __getitem__ = __contains__ = __iter__ = __len__ = None  # type: ignore[assignment]


def context(town: Town, member: str = "alder") -> Context:
    found = Context(1, 1, {"home": str(town.homes[member].root)}, RecordDict(), {})
    found.run_config = Untouchable()
    return found


def asked(vault: Vault, town: Town, kind: str, request: RecordDict) -> Message:
    return respond(lambda _: vault, Message(request, 1, kind), context(town))


def timed(town: Town, now: list[int], **options) -> Vault:
    """A vault whose ledger's time is `now`."""
    home = town.homes["alder"]
    keys = unlock(home)
    ledger = Ledger.open(home.ledger_file, keys.identity, clock=lambda: now[0])
    return Vault(home, keys, ledger, SystemSource(), **options)


def last_code(town: Town) -> str:
    return reasons(town)[-1]


# Message types.


def test_every_alias_that_flower_routes_is_refused_and_nothing_is_read(town, vault):
    """Flower hands `train.default` to the handler of `train`; the vault looks at the type itself."""
    app = make_app(lambda _: vault)
    routed = set(app._registered_funcs)
    assert routed == {"train.default", "evaluate.default", *(f"query.{action}" for action in ACTIONS)}
    spec = town.spec()
    town.grant(vault, spec)
    requests = {"train.default": town.train(spec, 1), "evaluate.default": town.evaluate(spec)}
    for alias, request in requests.items():
        assert refused(town, app(Message(request, 1, alias), context(town)).content)
    assert reasons(town) == ["CSL-C510"] * 2 and not vault._rooms and "release" not in kinds(town)
    assert [data["study"] for data in written(town, "refuse")] == sorted(requests, reverse=True)
    unpack(app(Message(requests["train.default"], 1, "train"), context(town)).content, TrainRelease, town.key("alder"))


TYPES = (
    "query",
    "query.default",
    "train.train",
    "evaluate.hello",
    "query.unknown",
    "train.other",
    "reconnect",
    "system",
)


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_that_the_protocol_lacks_is_refused_as_everything_else(world, kind):
    town, vault, seen = world
    reply = asked(vault, town, kind, town.train(town.spec(), 1))
    assert not reply.has_error() and refused(town, reply.content) and seen[-1].code == "CSL-C510"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.one_of(st.text(max_size=300), st.sampled_from(["train ", "Train", "train\0", " evaluate", "query.hello\n"]))
)
def test_any_text_as_a_type_is_refused(world, kind):
    town, vault, _ = world
    if kind not in vault._answerers:
        assert refused(town, vault.answer(kind, town.hello()))


# Records.


VALUES = st.one_of(st.binary(max_size=200), st.text(max_size=20), st.integers(-9, 9), st.lists(st.floats(), max_size=3))
RECORDS = st.one_of(
    st.dictionaries(st.sampled_from(["header", "signature", "payload", "x"]), VALUES, max_size=4).map(ConfigRecord),
    st.just(MetricRecord({"num-examples": 10**9})),
    st.just(ArrayRecord([np.zeros(3)])),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(["train", "evaluate", *(f"query.{action}" for action in ACTIONS)]), data=st.data())
def test_any_record_under_any_type_is_refused_and_changes_nothing(world, kind, data):
    town, vault, _ = world
    request = RecordDict(data.draw(st.dictionaries(st.sampled_from([RECORD, "other"]), RECORDS, max_size=2)))
    before = Counter(kinds(town))
    assert refused(town, asked(vault, town, kind, request).content)
    after = Counter(kinds(town))
    assert set(after - before) <= {"refuse"} and not vault._rooms


def test_a_header_with_a_megabyte_of_nonsense_fills_neither_ledger_nor_log(town, vault, caplog):
    valid = json.loads(bytes(town.train(town.spec(), 1)[RECORD]["header"]))
    header = canonical(valid | {"x" * (1 << 19): 1})
    signature = bytes.fromhex(sign_bytes(town.coordinator, "csl1/train", header).value)
    record = ConfigRecord({"header": header, "signature": signature, "payload": b""})
    assert refused(town, vault.answer("train", RecordDict({RECORD: record})))
    (data,) = written(town, "refuse")
    assert data["code"] == "CSL-F102" and len(data["why"]) == 1000
    assert all(len(entry.getMessage()) < MOST_LOGGED + 100 for entry in caplog.records)


def test_a_payload_beyond_what_is_agreed_is_refused_unread(world, monkeypatch):
    town, vault, seen = world
    monkeypatch.setattr(messages, "MAX_PAYLOAD_BYTES", 1000)
    assert refused(town, vault.answer("train", town.train(town.spec(), 1, b"\0" * 1001)))
    assert seen[-1].code == "CSL-F208"


# Studies.


def test_a_study_that_was_altered_after_it_was_signed_is_no_study(world):
    town, vault, seen = world
    spec = town.spec(epsilon=0.1).model_copy(update={"nonce": "7" * 32})
    signature = sign(town.coordinator, CONTEXT, spec)
    louder = spec.model_copy(update={"draft": spec.draft.model_copy(update={"epsilon": 2.0})})
    assert refused(
        town, vault.answer("query.offer", pack(town.coordinator, Offer(spec=louder, spec_signature=signature)))
    )
    assert seen[-1].code == "CSL-F202"
    stranger = Ed25519PrivateKey.generate()
    for key in (stranger, unlock(town.homes["birch"]).identity):  # a member is not the coordinator
        assert refused(town, vault.answer("query.offer", town.offer(spec, key)))
        assert seen[-1].code in ("CSL-F201", "CSL-F202")
    assert not vault._ledger.has_reservation(louder.digest()) and not vault._ledger.has_reservation(spec.digest())


@pytest.mark.parametrize("epsilon", [2.0000001, 3.0, 100.0])
def test_more_epsilon_than_the_policy_allows_is_not_granted(world, epsilon):
    town, vault, seen = world
    spec = town.spec(epsilon=epsilon).model_copy(update={"nonce": "8" * 32})
    assert refused(town, vault.answer("query.offer", town.offer(spec))) and seen[-1].code == "CSL-P204"
    assert refused(town, vault.answer("train", town.train(spec, 1))) and seen[-1].code == "CSL-C511"


def test_a_round_of_a_study_that_only_another_member_granted_is_refused(town, vault):
    other = town.vault("birch")
    spec = town.spec()
    town.grant(other, spec)
    assert refused(town, vault.answer("train", town.train(spec, 1))) and reasons(town) == ["CSL-C511"]
    unpack(other.answer("train", town.train(spec, 1)), TrainRelease, town.key("birch"))


def test_heads_of_another_member_are_not_taken_for_ones_own(town, vault):
    note = town.vault("birch")._witness.prove()[0]
    own = vault._witness.prove()[0]
    keep = pack(town.coordinator, CosignedNote(note=note))
    wrong = pack(town.coordinator, CosignRequest(subject="cedar", note=note, old=0, proof=()))
    mine = pack(town.coordinator, CosignRequest(subject="alder", note=own, old=0, proof=()))
    for kind, request in (("query.cosigned", keep), ("query.cosign", wrong), ("query.cosign", mine)):
        assert refused(town, asked(vault, town, kind, request).content)
    assert reasons(town) == ["CSL-C536", "CSL-C535"] and vault._witness.own() is None  # the same one twice


def test_a_member_cannot_speak_as_the_coordinator(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    member = unlock(town.homes["birch"]).identity
    payload = town.weights(spec)
    header = TrainRequest(study=spec.digest(), round=1, clip=1.0, learning_rate=0.1, payload=sha256_hex(payload))
    assert refused(town, vault.answer("train", pack(member, header, payload)))
    assert reasons(town) == ["CSL-F202"] and not vault._rooms


def test_an_old_studys_messages_after_its_end_get_old_bytes_or_nothing(town, vault):
    spec = town.spec()
    model = town.weights(spec, 0.1)
    sequence = {
        "query.offer": town.offer(spec),
        "train": town.train(spec, 1),
        "query.model": town.model(spec, model),
        "query.receipts": town.receipts(spec, model),
    }
    first = {kind: raw(asked(vault, town, kind, request).content) for kind, request in sequence.items()}
    size = len(kinds(town))
    for later in (vault, town.vault()):  # and after a restart
        assert {kind: raw(asked(later, town, kind, request).content) for kind, request in sequence.items()} == first
        assert not later._rooms
    assert len(kinds(town)) == size  # nothing is spent, and nothing written
    for kind, request in (("train", town.train(spec, 2)), ("evaluate", town.evaluate(spec))):
        assert refused(town, asked(vault, town, kind, request).content) and last_code(town) == "CSL-C524"
    other = town.weights(spec, 0.2)
    assert refused(town, asked(vault, town, "query.model", town.model(spec, other)).content)
    assert last_code(town) == "CSL-C526" and kinds(town).count("release") == 1


def test_receipts_that_were_swapped_decide_nothing_and_look_the_same(town, vault):
    """Another study's receipts, one member's under another's name, another model's: the answer never tells, and no model is adopted."""
    spec, other = town.spec(), town.spec().model_copy(update={"nonce": "1" * 32})
    model = town.weights(spec, 0.1)
    for each in (spec, other):
        town.grant(vault, each)
        vault.answer("query.model", town.model(each, model))
    of_other = unpack(town.receipts(other, model), Receipts, town.charter.coordinator_key)[0].receipts
    own = list(unpack(town.receipts(spec, model), Receipts, town.charter.coordinator_key)[0].receipts)
    swapped = [
        SignedReceipt(receipt=a.receipt, signature=b.signature) for a, b in zip(own, own[1:] + own[:1], strict=True)
    ]
    replies = set()
    for receipts in (of_other, swapped, own[:1] * 3):
        request = pack(town.coordinator, Receipts(study=spec.digest(), receipts=tuple(receipts)))
        reply = asked(vault, town, "query.receipts", request).content
        unpack(reply, Acknowledged, town.key("alder"))
        replies.add(raw(reply))
    assert len(replies) == 1
    models = town.homes["alder"].folder("models")
    assert not list(models.glob("*.decision.json")) and not list(models.glob("in-use*"))
    assert kinds(town).count("close") == 1


def test_more_open_studies_than_rooms_are_read_again_and_none_is_mixed_up(town, vault, monkeypatch):
    monkeypatch.setattr("client.rooms.MOST_ROOMS", 2)
    specs = [town.spec(epsilon=0.2).model_copy(update={"nonce": f"{number:032x}"}) for number in range(4)]
    for spec in specs:
        town.grant(vault, spec)
    for number in (1, 2):
        for spec in specs:
            release, _ = unpack(vault.answer("train", town.train(spec, number)), TrainRelease, town.key("alder"))
            assert release.study == spec.digest() and len(vault._rooms) <= 2
    assert kinds(town).count("consent") == 8 and MOST_ROOMS == 8


# Weights.


def changed(town: Town, change) -> bytes:
    return save(change(load(town.weights(town.spec(), 0.1))))


def in_header(content: bytes, header: bytes) -> bytes:
    """The same tensors' bytes under another safetensors header."""
    size = struct.unpack("<Q", content[:8])[0]
    return struct.pack("<Q", len(header)) + header + content[8 + size :]


BAD_WEIGHTS = {
    "NaN": (lambda t: {n: v * np.float32("nan") for n, v in t.items()}, "CSL-F207"),
    "infinity": (lambda t: {n: v - np.float32("inf") for n, v in t.items()}, "CSL-F207"),
    "one NaN": (lambda t: t | {"linear.bias": np.array([np.nan], np.float32)}, "CSL-F207"),
    "huge": (lambda t: {n: np.full_like(v, 1.01 * MAX_WEIGHT) for n, v in t.items()}, "CSL-C514"),
    "hugely negative": (lambda t: {n: np.full_like(v, -3e38) for n, v in t.items()}, "CSL-C514"),
    "float64": (lambda t: {n: v.astype(np.float64) for n, v in t.items()}, "CSL-F206"),
    "integers": (lambda t: {n: v.astype(np.int64) for n, v in t.items()}, "CSL-F206"),
    "transposed": (lambda t: t | {"linear.weight": t["linear.weight"].T.copy()}, "CSL-F206"),
    "longer": (lambda t: {n: np.tile(v, 2) for n, v in t.items()}, "CSL-F206"),
    "empty": (lambda t: {n: v[..., :0] for n, v in t.items()}, "CSL-F206"),
    "another's name": (lambda t: {f"hidden.{n}": v for n, v in t.items()}, "CSL-F206"),
    "one more": (lambda t: t | {"linear.extra": np.zeros(1, np.float32)}, "CSL-F206"),
    "none": (lambda t: {}, "CSL-F206"),
}


@pytest.mark.parametrize("fault", BAD_WEIGHTS)
@pytest.mark.parametrize("kind", ["train", "query.model"])
def test_weights_that_are_not_the_models_are_refused_before_data_are_read(world, kind, fault):
    town, vault, seen = world
    change, code = BAD_WEIGHTS[fault]
    payload, spec = changed(town, change), town.spec()
    request = town.train(spec, 1, payload) if kind == "train" else town.model(spec, payload)
    assert refused(town, asked(vault, town, kind, request).content)
    assert seen[-1].code == code
    assert not vault._rooms and not list(town.homes["alder"].folder("models").glob("*.safetensors"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_stands_where_safetensors_should_is_refused(world, data):
    town, vault, _ = world
    content = town.weights(town.spec(), 0.1)
    kind = st.sampled_from(["BF16", "F16", "F8_E4M3", "F4", "C64", "BOOL", "U64", "x", "", None, 7])
    tensor = st.fixed_dictionaries(
        {
            "dtype": kind,
            "shape": st.lists(st.integers(-1, 2**62), max_size=3),
            "data_offsets": st.lists(st.integers(-1, 99)),
        }
    )
    header = st.dictionaries(st.sampled_from(["linear.weight", "linear.bias", "__metadata__"]), tensor)
    payload = data.draw(
        st.one_of(
            st.binary(max_size=300),
            st.integers(0, len(content) - 1).map(lambda end: content[:end]),
            header.map(lambda tree: in_header(content, json.dumps(tree).encode())),
            st.integers(1, 20_000).map(lambda depth: in_header(content, b"[" * depth)),
            st.integers(0, 2**64 - 1).map(lambda size: struct.pack("<Q", size) + content[8:]),
        )
    )
    if payload != content:
        assert refused(town, vault.answer("train", town.train(town.spec(), 1, payload)))
        assert not vault._rooms


MLP = MlpModel(kind="mlp", hidden=(64, 32))
EXTREMES = [1e-45, -1e-45, 1.1754e-38, 1e-20, MAX_WEIGHT, -MAX_WEIGHT]


@pytest.mark.parametrize("value", EXTREMES)
@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
def test_weights_at_the_ends_of_what_is_let_in_give_finite_noise(tmp_path, value, mode):
    """Denormals and the largest weights, with the largest steps: what leaves is finite, and noise in every coordinate."""
    town = vault_home.found(tmp_path)
    vault = town.vault()
    spec = town.spec(
        model=MLP, training=Training(mode=mode, rounds=2, steps=2 if mode == "fedsgd" else 20, sampling_rate=0.5)
    )
    town.grant(vault, spec)
    for clip, rate in ((1e6, 1e6), (1e-6, 1e-6)):
        number = 1 if clip > 1 else 2
        request = town.train(spec, number, town.weights(spec, value), clip=clip, learning_rate=rate, momentum=0.999999)
        tensors = load(unpack(vault.answer("train", request), TrainRelease, town.key("alder"))[1])
        assert all(np.isfinite(tensor).all() for tensor in tensors.values())
        if clip > 1 or mode == "fedsgd":  # a change below the last bit of a weight is rounded away, noise and all
            assert all(np.count_nonzero(tensor) > 0.9 * tensor.size for tensor in tensors.values())
    unpack(vault.answer("evaluate", town.evaluate(spec)), messages.EvaluateRelease, town.key("alder"))
    assert reasons(town) == []


# Floods.


def test_a_thousand_requests_leave_sixty_entries_and_a_sum(town):
    now = [town.ledger().now()]
    vault, size = timed(town, now), len(kinds(town))
    replies = set()
    for number in range(1000):
        now[0] += 1000
        replies.add(raw(asked(vault, town, f"query.x{number}", town.hello()).content))
    assert len(replies) == 1 and len(kinds(town)) == size + MOST_AN_HOUR
    now[0] += AN_HOUR
    unpack(
        asked(vault, town, "query.hello", town.hello()).content, Identity, town.key("alder")
    )  # any request settles it
    data = written(town, "refuse")[-1]
    assert data["count"] == 940 and data["codes"] == [{"code": "CSL-C510", "times": 940}]
    assert data["last"] - data["first"] == 939_000 and len(kinds(town)) == size + MOST_AN_HOUR + 1
    for number in range(70):
        asked(vault, town, f"query.y{number}", town.hello())
    vault.close()
    assert written(town, "refuse")[-1]["count"] == 10
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid


def test_a_flood_keeps_nothing_from_an_honest_study(town):
    vault, spec = town.vault(), town.spec()
    for number in range(200):
        vault.answer(f"flood {number}", town.hello())
    town.grant(vault, spec)
    unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert kinds(town)[-3:] == ["reserve", "consent", "release"]


def test_what_was_counted_is_written_when_the_hour_is_over_though_nobody_asks(town):
    now = [town.ledger().now()]
    vault = timed(town, now)
    for number in range(61):
        vault.answer(f"flood {number}", town.hello())
    vault.tidy()
    assert "count" not in written(town, "refuse")[-1]
    now[0] += AN_HOUR
    vault.tidy()
    vault.tidy()
    assert [data["count"] for data in written(town, "refuse") if "count" in data] == [1]


def test_a_sum_is_not_written_into_a_ledger_that_was_put_back(town):
    vault = town.vault()
    path = town.homes["alder"].ledger_file
    old = path.read_bytes()
    for number in range(61):
        vault.answer(f"flood {number}", town.hello())
    path.write_bytes(old)
    vault.close()
    assert path.read_bytes() == old


def test_whoever_asks_too_often_waits_and_loses_nothing(town):
    slept, clock = [], [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    seen: list[Answered] = []
    throttle = Throttle(clock=lambda: clock[0], sleep=sleep)
    vault = Vault.open(town.homes["alder"].root, unlock(town.homes["alder"]), throttle=throttle, watch=seen.append)
    spec = town.spec()
    for _ in range(250):
        vault.answer("train", town.train(spec, 1))
    unpack(vault.answer("query.offer", town.offer(spec)), Grant, town.key("alder"))
    vault.refuse_app(APP)
    assert sum(slept) == pytest.approx((252 - 200) / 20) and len(seen) == 252
    assert [(item.message_type, item.code) for item in seen[-3:]] == [
        ("train", "CSL-C511"),
        ("query.offer", None),
        ("another app", "CSL-C401"),
    ]
    assert sum(item.waited for item in seen) == pytest.approx(sum(slept))
    vault.answer("train\nforged", town.hello())
    assert seen[-1].message_type == "other"


def test_a_process_that_plays_all_parties_is_not_slowed(town):
    with VaultShelf() as shelf:
        assert shelf(context(town))._throttle is None
    with VaultShelf(Throttle) as shelf:
        assert shelf(context(town))._throttle is not shelf(context(town, "birch"))._throttle


# Another app than the charter's.


def linked(vault: Vault) -> Vault:
    """A vault whose charter names a link and an app."""
    link = Link.model_construct(address="coordinator.example:443", authority="", app="a" * 64)
    vault._charter = vault._charter.model_copy(update={"link": link})
    return vault


def test_another_app_is_refused_as_everything_else_and_the_ledger_names_it(town, vault):
    usual = raw(vault.answer("train", town.train(town.spec(), 1)))
    assert vault.app is None
    assert linked(vault).app == "a" * 64
    assert raw(vault.refuse_app(APP)) == usual
    data = written(town, "refuse")[-1]
    assert (
        (data["code"], data["study"]) == ("CSL-C401", "another app") and APP in data["why"] and "a" * 64 in data["why"]
    )
    vault.refuse_app(APP)
    assert len(kinds(town)) == 4  # the same app once a day
    for number in range(100):
        assert raw(vault.refuse_app(f"{number:064x}")) == usual
    assert len(kinds(town)) == 2 + MOST_AN_HOUR


# The boundary of the process.


def test_the_runs_configuration_is_never_read(town):
    with VaultShelf() as shelf:
        message = Message(town.hello(), 1, "query.hello")
        for reply in (respond(shelf, message, context(town)), make_app(shelf)(message, context(town))):
            unpack(reply.content, Identity, town.key("alder"))


def test_a_vault_that_was_closed_answers_nothing_and_says_nothing(town):
    with town.vault() as vault:
        unpack(vault.answer("query.hello", town.hello()), Identity, town.key("alder"))
    vault.close()
    vault.tidy()
    for call in (lambda: vault.answer("query.hello", town.hello()), lambda: vault.refuse_app(APP)):
        with pytest.raises(StorageError, match="CSL-C403"):
            call()
    reply = asked(vault, town, "query.hello", town.hello())
    assert reply.has_error() and reply.error.reason == REFUSED
    unpack(town.vault().answer("query.hello", town.hello()), Identity, town.key("alder"))


def test_a_shelf_that_was_closed_writes_sums_and_opens_its_vaults_again(town):
    shelf = VaultShelf()
    for number in range(65):
        respond(shelf, Message(town.hello(), 1, f"query.x{number}"), context(town))
    shelf.close()
    assert written(town, "refuse")[-1]["count"] == 5
    reply = respond(shelf, Message(town.hello(), 1, "query.hello"), context(town))
    unpack(reply.content, Identity, town.key("alder"))
    shelf.close()


def test_a_message_without_content_is_an_error_without_words(town, vault):
    from flwr.app import Error

    message = Message(town.hello(), 1, "train")
    broken = Message(Error(code=1, reason="made up"), reply_to=message)
    reply = asked_raw(vault, town, broken)
    assert reply.has_error() and reply.error.reason == REFUSED and kinds(town) == ["genesis", "policy"]


def asked_raw(vault: Vault, town: Town, message: Message) -> Message:
    return respond(lambda _: vault, message, context(town))


def test_no_refusal_names_a_customer(town, vault):
    for number, kind in enumerate(("train", "evaluate", "query.model", "query.receipts", "x")):
        vault.answer(kind, town.train(town.spec(), number + 1))
    assert vault_home.CANARY not in json.dumps(bodies(town)) and CARD not in json.dumps(reasons(town))
