"""Attacks on the vault's promise, each played as a coordinator or as a neighbouring data set would play it."""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from torch import nn

from client import finish, gate, workroom
from client.rowwise import rowwise_logits
from client.studies import OpenStudy, Studies
from client.unlock import unlock
from client.vault import Vault
from client.workroom import Workroom
from federation.document import load_yaml
from federation.encoding import sha256_hex
from federation.errors import IntegrityError
from federation.messages import (
    Acknowledged,
    Grant,
    Identity,
    ModelReceipt,
    Receipts,
    SignedReceipt,
    TrainRelease,
    dump_tensors,
    pack,
    unpack,
)
from federation.networks import Inputs, LinearNetwork, MlpNetwork, Network
from federation.signing import sign
from federation.study import LogisticModel, MlpModel, PositionHoldout, Training
from privacy.keys import load_identity
from privacy.ledger import Ledger
from privacy.policy import Policy
from privacy.randomness import SystemSource
from tests.client import vault_home
from tests.client.entries import decision, kinds, reasons, refused
from tests.client.vault_home import CANARY, CARD, Town


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


def change_policy(town: Town, **changes: object) -> Vault:
    """Bring the next version of the policy into force, and open the vault under it."""
    town.change(**changes)
    return town.vault()


# Neighbouring data sets: one customer must not decide whether everybody takes part.


def room_of(town: Town, spec) -> Workroom:
    opened = town.vault()
    town.grant(opened, spec)
    opened.answer("train", town.train(spec, 1))
    return opened._rooms.held(spec.digest())


def test_one_customer_with_two_rows_does_not_empty_the_cohort(town):
    home = town.homes["alder"]
    frame = vault_home.customers("alder")
    twice = pd.concat([frame, frame.iloc[[1]]])
    vault_home.write_csv(home, "customers.csv", frame.drop(index=1))
    without = room_of(town, town.spec())
    vault_home.write_csv(home, "customers.csv", twice)
    room = room_of(town, town.spec().model_copy(update={"nonce": "1" * 32}))
    assert room.fault is None
    assert len(room.training) == len(without.training) > 200 and len(room.heldout) == len(without.heldout)


def test_a_fault_that_shows_only_in_full_data_looks_like_nobody(town, monkeypatch):
    """Whatever goes wrong while data are read, foreseen or not, the reply is noise."""

    def fail(*args, **kwargs):
        raise ValueError(CANARY)

    opened = town.vault()
    spec = town.spec()
    town.grant(opened, spec)
    monkeypatch.setattr(workroom, "split", fail)
    _, payload = unpack(opened.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert np.isfinite(load(payload)["linear.weight"]).all()
    notes = [path.read_text() for path in town.homes["alder"].folder("studies").glob("*.fault.json")]
    assert len(notes) == 1 and "ValueError" in notes[0] and CANARY not in notes[0]


def test_a_hold_out_by_position_without_a_position_is_noise_whatever_the_table_holds(tmp_path):
    town = vault_home.found(tmp_path / "other", active=False)
    home = town.homes["alder"]
    text = home.policy_file.read_text().replace("{kind: hash, share: 0.25}", "{kind: position, position: 5}")
    home.policy_file.write_text(text)
    town.activate(load_yaml(home.policy_file, Policy))
    opened = town.vault()
    spec = town.spec(holdout=PositionHoldout(kind="position", position=5))
    town.grant(opened, spec)
    unpack(opened.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))


@pytest.mark.parametrize("error", [ValueError("boom"), MemoryError(), KeyError(CANARY)])
def test_whatever_happens_to_the_name_list_the_answer_is_the_same(town, monkeypatch, caplog, error):
    opened = town.vault()
    spec = town.spec()
    town.grant(opened, spec)
    model = town.weights(spec, 0.1)
    opened.answer("query.model", town.model(spec, model))

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(finish, "check_model", fail)
    unpack(opened.answer("query.receipts", town.receipts(spec, model)), Acknowledged, town.key("alder"))
    assert type(error).__name__ in caplog.text and CANARY not in caplog.text


def test_an_internal_error_looks_like_any_refusal(town, monkeypatch):
    opened = town.vault()
    usual = opened.answer("train", town.train(town.spec(), 1))

    def fail(*args, **kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(gate, "price_study", fail)
    assert opened.answer("query.offer", town.offer(town.spec())) == usual
    assert reasons(town) == ["CSL-C511", "CSL-C525"]


# Scores: one customer changes one cell, and nobody else's score by a bit.


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), n=st.integers(1, 70), linear=st.booleans(), spread=st.floats(0.1, 1e5))
def test_a_score_depends_on_its_own_row_alone(seed, n, linear, spread):
    draw = torch.Generator().manual_seed(seed)
    network: Network = LinearNetwork(37) if linear else MlpNetwork(37, [("job", 3)], 2, (9, 5))
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=spread, generator=draw)
    dense = torch.randn(1, 37, generator=draw).repeat(n, 1)  # equal customers, and an edge on their very score
    codes = torch.ones((n, 0 if linear else 1), dtype=torch.int64)
    scores = rowwise_logits(network, Inputs(dense, codes))
    assert len(np.unique(scores)) == 1
    assert scores[0] == rowwise_logits(network, Inputs(dense[:1], codes[:1]))[0]
    with torch.no_grad():
        expected = network(dense, codes).numpy()
    assert np.allclose(scores, expected, rtol=1e-3, atol=1e-3 * spread)


def test_scores_of_the_others_stay_when_one_leaves_a_large_cohort():
    draw = torch.Generator().manual_seed(0)
    network = LinearNetwork(20)
    nn.init.normal_(network.linear.weight, generator=draw)
    dense, none = torch.randn(10_001, 20, generator=draw), torch.empty((10_001, 0), dtype=torch.int64)
    whole = rowwise_logits(network, Inputs(dense, none))
    assert np.array_equal(rowwise_logits(network, Inputs(dense[1:], none[1:])), whole[1:])
    assert rowwise_logits(network, Inputs(dense[:0], none[:0])).shape == (0,)


def test_the_released_histogram_counts_each_held_out_customer_in_one_cell(town, monkeypatch):
    class Silent:
        def __init__(self, sigma: float) -> None:
            pass

        def sample(self, n: int, source: object) -> np.ndarray:
            return np.zeros(n, dtype=np.int64)

    room = room_of(town, town.spec())
    monkeypatch.setattr(workroom, "DiscreteGaussian", Silent)
    study = Studies(town.homes["alder"].folder("studies")).find(town.spec().digest())
    weights = load(town.weights(town.spec(), 0.3))
    edges = tuple(np.linspace(-2, 2, 11).tolist())
    alone = [replace(room, heldout=room.heldout.take(np.array([i]))) for i in range(len(room.heldout))]
    parts = [one.histogram(study, weights, edges, None)["counts"] for one in alone]
    assert all(part.sum() == 1 and part.max() == 1 for part in parts)
    assert np.array_equal(room.histogram(study, weights, edges, None)["counts"], np.sum(parts, axis=0))


def test_the_released_histogram_has_the_noise_that_was_paid_for_and_its_rows_by_label(town, monkeypatch):
    scales, noise = [], [np.arange(24)]

    class Known:
        def __init__(self, sigma: float) -> None:
            scales.append(sigma)

        def sample(self, n: int, source: object) -> np.ndarray:
            return noise[0]

    spec = town.spec()
    room = room_of(town, spec)
    monkeypatch.setattr(workroom, "DiscreteGaussian", Known)
    study = Studies(town.homes["alder"].folder("studies")).find(spec.digest())
    weights = load(town.weights(spec)) | {"linear.bias": np.array([0.5], np.float32)}  # everybody's score is 0.5
    edges = tuple((np.arange(11) / 4.0).tolist())  # an edge at 0.5 is the lowest score of the bin above it
    counts = room.histogram(study, weights, edges, None)["counts"] - noise[0].reshape(2, 12)
    yes = int(room.heldout.label.sum())
    assert counts[:, 3].tolist() == [len(room.heldout) - yes, yes] and counts.sum() == len(room.heldout)
    assert yes != len(room.heldout) - yes and scales == [study.grant.histogram_sigma]
    noise[0] = np.where(np.arange(24) % 2, 1 << 61, -(1 << 61))
    assert set(room.histogram(study, weights, edges, None)["counts"].ravel()) == {1 << 40, -(1 << 40)}


# Numbers that the coordinator chooses.


@pytest.mark.parametrize(
    "change", [{"clip": 1e-43}, {"clip": 5e-324}, {"clip": 1e8}, {"learning_rate": 1e-300}, {"learning_rate": 1e9}]
)
def test_clips_and_steps_near_the_ends_of_floats_are_refused_before_data_are_read(town, change):
    opened = town.vault()
    spec = town.spec(model=MlpModel(kind="mlp", hidden=(8,)))
    town.grant(opened, spec)
    valid = town.train(spec, 1)
    assert refused(town, opened.answer("train", forged(town, spec, valid, change)))
    assert reasons(town) == ["CSL-F102"]
    assert not opened._rooms


def forged(town: Town, spec, valid: RecordDict, change: dict[str, float]) -> RecordDict:
    """Sign a header that our own `TrainRequest` would not make."""
    from flwr.app import ConfigRecord

    from federation.encoding import canonical
    from federation.messages import RECORD
    from federation.signing import sign_bytes

    record = valid[RECORD]
    header = canonical(json.loads(bytes(record["header"])) | change)
    signature = bytes.fromhex(sign_bytes(town.coordinator, "csl1/train", header).value)
    return RecordDict({RECORD: ConfigRecord({"header": header, "signature": signature, "payload": record["payload"]})})


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-9])
def test_sampling_rates_that_nobody_could_account_for_are_refused(town, rate):
    opened = town.vault()
    spec = town.spec(training=Training(mode="fedsgd", rounds=3, steps=3, sampling_rate=rate))
    assert refused(town, opened.answer("query.offer", town.offer(spec)))
    assert reasons(town) == ["CSL-P108"]


def test_a_header_beyond_its_size_is_refused_unread(town):
    from flwr.app import ConfigRecord

    from federation.messages import RECORD

    record = ConfigRecord({"header": b" " * (1 << 21), "signature": b"0" * 64, "payload": b""})
    assert refused(town, town.vault().answer("query.hello", RecordDict({RECORD: record})))
    assert reasons(town) == ["CSL-F208"]


# What was reserved is what is computed.


def test_a_refused_offer_leaves_nothing_that_data_are_read_for(town, monkeypatch):
    opened = town.vault()
    nonces = [f"{number:032x}" for number in range(8)]
    specs = [town.spec().model_copy(update={"nonce": nonce}) for nonce in nonces]
    replies = [opened.answer("query.offer", town.offer(spec)) for spec in specs]
    spec = next(
        s for s, reply in zip(specs, replies, strict=True) if b"refusal" in bytes(reply["consilience"]["header"])
    )
    assert refused(town, opened.answer("train", town.train(spec, 1)))
    assert refused(town, opened.answer("evaluate", town.evaluate(spec)))
    model = town.weights(spec, 0.1)
    assert refused(town, opened.answer("query.model", town.model(spec, model)))
    assert refused(town, opened.answer("query.receipts", town.receipts(spec, model)))
    assert reasons(town)[-4:] == ["CSL-C511"] * 4
    assert not opened._rooms and not (town.homes["alder"].folder("studies") / f"{spec.digest()}.json").exists()


def test_a_study_file_with_less_noise_than_was_reserved_releases_nothing(town):
    """The offer's reply is lost, the policy grants more, the study is offered again: the ledger keeps to the first terms."""
    spec = town.spec(epsilon=None)
    first = town.grant(town.vault(), spec)
    (town.homes["alder"].folder("replies") / f"{spec.digest()}-0.reply").unlink()
    town.change_rule(max_epsilon=4.0, automatic_epsilon=4.0)
    opened = town.vault()
    assert refused(town, opened.answer("query.offer", town.offer(spec)))
    on_disk = Studies(town.homes["alder"].folder("studies")).find(spec.digest())
    assert on_disk.grant.noise_multiplier == first.noise_multiplier
    path = town.homes["alder"].folder("studies") / f"{spec.digest()}.json"
    louder = on_disk.grant.model_copy(update={"noise_multiplier": first.noise_multiplier / 10})
    path.write_bytes(on_disk.model_copy(update={"grant": louder}).canonical())
    assert refused(town, opened.answer("train", town.train(spec, 1)))
    assert reasons(town) == ["CSL-P402", "CSL-C524"]
    assert not opened._rooms


def test_a_study_file_with_another_spec_than_was_reserved_releases_nothing(town):
    spec, opened = town.spec(), town.vault()
    town.grant(opened, spec)
    studies = Studies(town.homes["alder"].folder("studies"))
    on_disk = studies.find(spec.digest())
    studies.keep(on_disk.model_copy(update={"spec": town.spec(title="Another study")}))
    assert refused(town, opened.answer("train", town.train(spec, 1)))
    assert reasons(town) == ["CSL-C524"] and not opened._rooms


def test_a_study_file_without_a_reservation_is_no_study(town):
    spec, opened = town.spec(), town.vault()
    grant = town.grant(opened, spec)
    other = spec.model_copy(update={"nonce": "1" * 32})
    studies = Studies(town.homes["alder"].folder("studies"))
    studies.keep(OpenStudy(spec=other, grant=grant.model_copy(update={"study": other.digest()})))
    model = town.weights(other, 0.1)
    assert refused(town, opened.answer("train", town.train(other, 1)))
    assert refused(town, opened.answer("query.model", town.model(other, model)))
    assert refused(town, opened.answer("query.receipts", town.receipts(other, model)))
    assert reasons(town) == ["CSL-C524", "CSL-C511", "CSL-C511"] and not opened._rooms


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
def test_a_round_is_computed_with_the_numbers_that_were_paid_for(town, monkeypatch, mode):
    """Noise, rate, steps and size are the grant's, whatever the request says and however many customers there are."""
    calls = []
    name = "gradient_sum" if mode == "fedsgd" else "local_steps"
    compute = getattr(workroom, name)

    def watched(*args, **kwargs):
        calls.append(kwargs)
        return compute(*args, **kwargs)

    monkeypatch.setattr(workroom, name, watched)
    opened = town.vault()
    spec = town.spec(training=Training(mode=mode, rounds=2, steps=6 if mode == "fedavg" else 2, sampling_rate=0.3))
    grant = town.grant(opened, spec)
    unpack(opened.answer("train", town.train(spec, 1, clip=0.7, learning_rate=0.2)), TrainRelease, town.key("alder"))
    (used,) = calls
    assert (used["noise_multiplier"], used["sampling_rate"]) == (grant.noise_multiplier, 0.3)
    assert used["clip"] == 0.7 and used["source"] is opened._rounds._source
    if mode == "fedavg":
        assert (used["steps"], used["declared_size"], used["learning_rate"]) == (3, 400, 0.2)


@pytest.mark.parametrize("step", ["_studies", "_replies"])
def test_a_crash_between_reservation_and_grant_costs_one_study_once(town, monkeypatch, step):
    spec, opened = town.spec(), town.vault()

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(getattr(opened, step), "keep", die)
    with pytest.raises(KeyboardInterrupt):
        opened.answer("query.offer", town.offer(spec))
    again = town.vault()
    town.grant(again, spec)
    unpack(again.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert kinds(town).count("reserve") == 1


def test_a_closed_study_is_not_trained_on(town):
    opened = town.vault()
    spec = town.spec()
    town.grant(opened, spec)
    first = opened.answer("train", town.train(spec, 1))
    opened.answer("query.receipts", town.receipts(spec, town.weights(spec)))
    assert refused(town, opened.answer("train", town.train(spec, 2)))
    assert reasons(town) == ["CSL-C524"] and not opened._rooms
    assert opened.answer("train", town.train(spec, 1)) == first  # a repeated request still gets its bytes


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"max_epsilon": 1.0, "automatic_epsilon": 1.0}, "CSL-C524"),
        ({"max_delta": 1.0e-6}, "CSL-C524"),
        ({"models": ["mlp"]}, "CSL-P203"),
        ({"modes": ["fedavg"]}, "CSL-P203"),
    ],
)
def test_a_policy_that_no_longer_allows_a_study_stops_it(town, changes, code):
    spec = town.spec()
    opened = town.vault()
    town.grant(opened, spec)
    first = opened.answer("train", town.train(spec, 1))
    town.change_rule(**changes)
    for later in (opened, town.vault()):  # in a vault that runs, and in one that starts under it
        before = len(reasons(town))
        assert later.answer("train", town.train(spec, 1)) == first
        assert refused(town, later.answer("train", town.train(spec, 2)))
        assert refused(town, later.answer("evaluate", town.evaluate(spec)))
        assert set(reasons(town)[before:]) == {code}
    assert not later._rooms and kinds(town).count("release") == 1


def test_a_purpose_that_is_no_longer_in_the_policy_stops_its_studies(town):
    spec, opened = town.spec(), town.vault()
    town.grant(opened, spec)
    purpose = {"id": "marketing.other", "meaning": "Another", "consent": "profiling"}
    with town.ledger() as ledger:
        rule = ledger.policy().studies[0].model_dump(mode="json") | {"purposes": ["marketing.other"]}
    town.change(purposes=[purpose], studies=[rule])
    assert refused(town, opened.answer("train", town.train(spec, 1)))
    assert refused(town, opened.answer("evaluate", town.evaluate(spec)))
    assert set(reasons(town)) == {"CSL-P201"} and not opened._rooms


def test_a_policy_that_expires_while_a_study_runs_stops_it(town):
    home, spec, now = town.homes["alder"], town.spec(), [0]
    with town.ledger() as ledger:
        today, now[0] = ledger.today(), ledger.now()
    town.change(expires=(today + timedelta(days=1)).isoformat())
    keys = unlock(home)
    opened = Vault(home, keys, Ledger.open(home.ledger_file, keys.identity, clock=lambda: now[0]), SystemSource())
    town.grant(opened, spec)
    unpack(opened.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    now[0] += 86_400_000
    assert refused(town, opened.answer("train", town.train(spec, 2)))
    now[0] -= 5 * 86_400_000  # a clock set back brings nothing back
    assert refused(town, opened.answer("evaluate", town.evaluate(spec)))
    assert set(reasons(town)) == {"CSL-P209"} and kinds(town).count("release") == 1


def test_two_vaults_on_one_home_release_one_answer_for_a_round(town):
    spec = town.spec()
    one, two = town.vault(), town.vault()
    town.grant(one, spec)
    other = town.weights(spec, 0.5)
    room = two._rooms.of(two._studies.find(spec.digest()))
    find, raced = two._replies.find, []

    def find_then_lose(rid: str, number: int):
        found = find(rid, number)
        if not raced:  # the other process answers between the look-up and the computation
            raced.append(one.answer("train", town.train(spec, 1)))
        return found

    two._replies.find = find_then_lose  # type: ignore[method-assign]
    assert refused(town, two.answer("train", town.train(spec, 1, other)))
    unpack(raced[0], TrainRelease, town.key("alder"))
    assert room is two._rooms.held(spec.digest())
    assert kinds(town).count("release") == 1
    two._replies.find = find  # type: ignore[method-assign]
    assert refused(town, two.answer("train", town.train(spec, 1, other)))


# The model that everybody holds.


def test_a_vault_signs_for_one_model_of_a_study(town):
    """With receipts for two models, the coordinator could show each member receipts that agree and give them different models."""
    opened = town.vault()
    spec = town.spec()
    town.grant(opened, spec)
    first, second = town.weights(spec, 0.1), town.weights(spec, 0.2)
    receipt = opened.answer("query.model", town.model(spec, first))
    assert refused(town, opened.answer("query.model", town.model(spec, second)))
    assert opened.answer("query.model", town.model(spec, first)) == receipt
    assert reasons(town) == ["CSL-C526"]
    opened.answer("query.receipts", town.receipts(spec, first))
    assert refused(town, opened.answer("query.model", town.model(spec, second)))  # nor after it is in use
    kept = town.homes["alder"].folder("models") / f"{spec.digest()}.safetensors"
    assert kept.read_bytes() == first


def receipts(town: Town, spec, payload: bytes, members, signers=None, **changes: str) -> RecordDict:
    """Receipts of these members, signed by `signers` where those are others."""
    items = []
    for member, signer in zip(members, signers or members, strict=True):
        fields = {"study": spec.digest(), "card": CARD, "model": sha256_hex(payload)}
        receipt = ModelReceipt(member=member, **(fields | (changes if member == members[-1] else {})))
        key = load_identity(town.homes[signer].identity_key, allow_plain=True)
        items.append(SignedReceipt(receipt=receipt, signature=sign(key, "csl1/receipt", receipt)))
    return pack(town.coordinator, Receipts(study=spec.digest(), receipts=tuple(items)))


@pytest.mark.parametrize(
    ("members", "signers", "changes", "partners"),
    [
        (("alder", "birch"), None, {}, 3),
        (("alder", "birch", "birch"), None, {}, 3),
        (("birch", "cedar"), None, {}, 2),
        (("alder", "birch", "cedar"), ("alder", "birch", "birch"), {}, 3),
        (("alder", "birch", "cedar"), None, {"study": "d" * 64}, 3),
        (("alder", "birch", "cedar"), None, {"card": "d" * 64}, 3),
        (("alder", "birch", "cedar"), None, {"model": "d" * 64}, 3),
        (("alder", "birch", "cedar"), None, {}, 3),
    ],
    ids=["too few", "one twice", "not this one", "forged", "another study", "another card", "another model", "good"],
)
def test_a_model_is_decided_on_only_when_enough_members_signed_for_it(town, members, signers, changes, partners):
    opened = change_policy(town, smallest_partners=partners)
    spec = town.spec()
    town.grant(opened, spec)
    model = town.weights(spec, 0.1)
    opened.answer("query.model", town.model(spec, model))
    reply = opened.answer("query.receipts", receipts(town, spec, model, members, signers, **changes))
    unpack(reply, Acknowledged, town.key("alder"))
    good = len(members) == 3 and len(set(members)) == 3 and signers is None and not changes
    assert len(list(town.homes["alder"].folder("models").glob("*.decision.json"))) == good


def test_a_kept_model_that_was_changed_is_not_decided_on(town, caplog):
    opened = town.vault()
    spec = town.spec()
    town.grant(opened, spec)
    model = town.weights(spec, 0.1)
    opened.answer("query.model", town.model(spec, model))
    (town.homes["alder"].folder("models") / f"{spec.digest()}.safetensors").write_bytes(town.weights(spec, 0.2))
    opened.answer("query.receipts", town.receipts(spec, model))
    assert "CSL-C523" in caplog.text
    assert not list(town.homes["alder"].folder("models").glob("*.decision.json"))


def test_a_model_clearly_worse_than_the_one_in_use_does_not_take_its_place(town):
    opened, decisions = town.vault(), []
    for nonce, blind in (("1" * 32, False), ("2" * 32, True)):
        spec = town.spec(model=LogisticModel(kind="logistic"), epsilon=0.5).model_copy(update={"nonce": nonce})
        town.grant(opened, spec)
        weights = load(town.weights(spec, 1.0))
        if blind:  # having a loan says nothing about who buys
            weights["linear.weight"][0, np.arange(7) != 5] = 0.0
        model = dump_tensors(weights)
        opened.answer("query.model", town.model(spec, model))
        opened.answer("query.receipts", town.receipts(spec, model))
        decisions.append(decision(town, spec.digest()).adoption)
    first, second = decisions
    assert first.adopted and not second.adopted
    assert second.auc_current == first.auc > second.auc


def test_delta_of_the_life_is_held_to_the_declared_size_as_well(tmp_path):
    town = vault_home.found(tmp_path / "other", active=False)
    path = town.homes["alder"].policy_file
    text = path.read_text()
    assert "  life: {epsilon: 8.0, delta: 2.4e-5}" in text
    path.write_text(text.replace("  life: {epsilon: 8.0, delta: 2.4e-5}", "  life: {epsilon: 8.0, delta: 2.6e-5}"))
    policy = load_yaml(path, Policy)
    assert policy.budget.life.delta == 2.6e-5
    town.activate(policy)
    assert refused(town, town.vault().answer("query.offer", town.offer(town.spec())))
    assert reasons(town) == ["CSL-P205"]


def test_grants_answer_the_federations_own_coordinator_only(town):
    opened = town.vault()
    unpack(opened.answer("query.hello", town.hello()), Identity, town.key("alder"))
    with pytest.raises(IntegrityError):
        unpack(opened.answer("query.offer", town.offer(town.spec())), Grant, town.key("birch"))
