"""The vault as an honest and as a hostile coordinator meet it."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, RecordDict
from safetensors.numpy import load

from client.replies import Replies
from client.unlock import unlock
from client.vault import Vault
from federation.encoding import sha256_hex
from federation.errors import IntegrityError, PolicyError, StorageError
from federation.messages import (
    RECORD,
    Acknowledged,
    EvaluateRelease,
    Grant,
    Identity,
    ModelReceipt,
    Offer,
    TrainRelease,
    dump_tensors,
    pack,
    unpack,
)
from federation.signing import sign
from federation.study import CONTEXT, LogisticModel, Training
from privacy.ledger import Ledger, verify
from privacy.randomness import SystemSource
from simulations.seeded import SeededSource
from tests.client import vault_home
from tests.client.entries import decision, files, kinds, name_list, raw, reasons, refused, store, written
from tests.client.vault_home import CANARY, CARD, CONTRACT, Town


@pytest.fixture
def town(tmp_path) -> Town:
    return vault_home.found(tmp_path)


@pytest.fixture
def vault(town) -> Vault:
    return town.vault()


def test_a_study_from_the_first_message_to_the_name_list(town, vault):
    spec = town.spec(model=LogisticModel(kind="logistic"))  # older customers buy: it ranks them well
    identity, _ = unpack(vault.answer("query.hello", town.hello()), Identity, town.key("alder"))
    assert (identity.member, identity.nonce) == ("alder", "1" * 32)
    grant = town.grant(vault, spec)
    assert (grant.epsilon, grant.declared_size, grant.steps) == (2.0, 400, 3)
    for number in (1, 2, 3):
        release, payload = unpack(vault.answer("train", town.train(spec, number)), TrainRelease, town.key("alder"))
        assert release.round == number
        assert {name: value.dtype.name for name, value in load(payload).items()} == {
            "linear.weight": "float32",
            "linear.bias": "float32",
        }
    _, payload = unpack(vault.answer("evaluate", town.evaluate(spec)), EvaluateRelease, town.key("alder"))
    counts = load(payload)["counts"]
    assert counts.shape == (2, spec.draft.evaluation.bins) and counts.dtype == np.int64
    model = town.weights(spec, 1.0)
    receipt, _ = unpack(vault.answer("query.model", town.model(spec, model)), ModelReceipt, town.key("alder"))
    assert receipt.card == CARD
    unpack(vault.answer("query.receipts", town.receipts(spec, model)), Acknowledged, town.key("alder"))
    assert len(list(town.homes["alder"].folder("lists").glob("propensity-*.csv"))) == 1
    assert kinds(town) == ["genesis", "policy", "reserve", "consent", *["release"] * 4, "close"]
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid


def test_nothing_that_leaves_holds_a_customers_identifier(town, vault, caplog):
    spec = town.spec(model=LogisticModel(kind="logistic"))  # older customers buy: it ranks them well
    model = town.weights(spec, 1.0)
    replies = [
        vault.answer("query.hello", town.hello()),
        vault.answer("query.offer", town.offer(spec)),
        vault.answer("train", town.train(spec, 1)),
        vault.answer("evaluate", town.evaluate(spec)),
        vault.answer("query.model", town.model(spec, model)),
        vault.answer("query.receipts", town.receipts(spec, model)),
    ]
    assert all(CANARY.encode() not in raw(reply) for reply in replies)
    assert CANARY not in caplog.text
    assert CANARY.encode() not in town.homes["alder"].ledger_file.read_bytes()
    home = town.homes["alder"]
    tables = {home.root / "customers.csv", home.root / "consent.csv"}
    at_rest = [path for path in files(home) if path not in tables]
    for folder in ("lists", "replies", "participation", "models"):
        assert any(home.folder(folder) in path.parents for path in at_rest)
    assert all(CANARY.encode() not in path.read_bytes() for path in at_rest)
    assert CANARY in next(iter(tables)).read_text()
    assert CANARY.encode() in name_list(town).csv  # the canary is alive where it may be


def test_only_customers_who_agreed_to_be_contacted_are_listed(town, vault):
    spec = town.spec(model=LogisticModel(kind="logistic"))  # older customers buy: it ranks them well
    model = town.weights(spec, 1.0)
    town.grant(vault, spec)
    vault.answer("query.model", town.model(spec, model))
    vault.answer("query.receipts", town.receipts(spec, model))
    numbers = {int(line.customer.rsplit("-", 1)[1]) for line in name_list(town).listed}
    assert numbers and all(number % 3 == 0 for number in numbers)


def test_a_local_averaging_study_takes_the_same_way(town, vault):
    spec = town.spec(training=Training(mode="fedavg", rounds=2, steps=6, sampling_rate=0.3))
    town.grant(vault, spec)
    release, payload = unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert np.abs(load(payload)["linear.weight"]).sum() > 0


def test_a_study_signed_by_a_stranger_is_refused_and_written_down(town, vault):
    stranger = Ed25519PrivateKey.generate()
    assert refused(town, vault.answer("query.offer", town.offer(town.spec(), stranger)))
    assert reasons(town) == ["CSL-F202"]
    assert "reserve" not in kinds(town)


def test_a_spec_without_the_coordinators_own_signature_is_refused(town, vault):
    spec = town.spec()
    forged = Offer(spec=spec, spec_signature=sign(Ed25519PrivateKey.generate(), CONTEXT, spec))
    assert refused(town, vault.answer("query.offer", pack(town.coordinator, forged)))
    assert reasons(town) == ["CSL-F201"] and "reserve" not in kinds(town)


def test_a_reservation_names_what_the_grant_spends_and_how_often(town, vault):
    grant = town.grant(vault, town.spec())
    (data,) = written(town, "reserve")
    training, holdout = data["charges"]
    assert [(item["account"], item["releases"]) for item in (training, holdout)] == [("training", 3), ("holdout", 1)]
    (run,), (counts,) = training["events"], holdout["events"]
    assert (run["noise_multiplier"], run["sampling_rate"], run["steps"]) == (grant.noise_multiplier, 0.5, 3)
    assert (counts["sigma"], counts["count"]) == (grant.histogram_sigma, 1)


def test_a_kept_grant_is_not_given_out_where_nothing_is_reserved(town, vault):
    """The folder of replies is newer than the ledger."""
    first, second = town.spec(), town.spec().model_copy(update={"nonce": "1" * 32})
    town.grant(vault, first)
    replies = Replies(town.homes["alder"].folder("replies"), store(town))
    known = replies.find(first.digest(), 0)
    assert known is not None
    replies.keep(second.digest(), 0, known)
    assert town.grant(vault, second).study == second.digest()
    assert kinds(town).count("reserve") == 2


def test_a_kept_reply_under_another_name_is_given_to_nobody(town, vault):
    first, second = town.spec(), town.spec().model_copy(update={"nonce": "1" * 32})
    town.grant(vault, first)
    folder = town.homes["alder"].folder("replies")
    (folder / f"{second.digest()}-0.reply").write_bytes((folder / f"{first.digest()}-0.reply").read_bytes())
    assert refused(town, vault.answer("query.offer", town.offer(second)))
    assert reasons(town) == ["CSL-C503"] and kinds(town).count("reserve") == 1


def test_an_offer_repeated_after_the_policy_changed_gets_the_grant_that_stands(town, vault):
    spec = town.spec()
    first = raw(vault.answer("query.offer", town.offer(spec)))
    town.change_rule(max_epsilon=1.0, automatic_epsilon=1.0)
    assert raw(vault.answer("query.offer", town.offer(spec))) == first
    assert raw(town.vault().answer("query.offer", town.offer(spec))) == first


def test_every_refusal_looks_alike(town, vault):
    spec = town.spec()
    other = town.spec(purpose="cross.sell")
    replies = [vault.answer("query.offer", town.offer(other)), vault.answer("train", town.train(spec, 1))]
    assert len({raw(reply) for reply in replies}) == 1
    assert len(set(reasons(town))) == 2


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"purpose": "cross.sell"}, "CSL-P201"),
        ({"epsilon": 2.5}, "CSL-P204"),
        ({"min_partners": 2}, "CSL-P207"),
        ({"holdout": {"kind": "hash", "share": 0.3}}, "CSL-P208"),
        ({"contract": "rfm"}, "CSL-C507"),
    ],
)
def test_studies_that_the_policy_refuses(town, vault, changes, code):
    if "holdout" in changes:
        from federation.study import HashHoldout

        changes = {"holdout": HashHoldout(**changes["holdout"])}
    assert refused(town, vault.answer("query.offer", town.offer(town.spec(**changes))))
    assert reasons(town) == [code]
    assert kinds(town) == ["genesis", "policy", "refuse"]


def test_a_study_may_ask_for_less(town, vault):
    grant = town.grant(vault, town.spec(epsilon=0.5))
    assert grant.epsilon == 0.5
    assert grant.noise_multiplier > town.grant(vault, town.spec()).noise_multiplier


def test_another_charter_is_refused(town, vault):
    spec = town.spec().model_copy(update={"charter": "0" * 64})
    assert refused(town, vault.answer("query.offer", town.offer(spec)))
    assert refused(town, vault.answer("query.hello", town.hello("0" * 64)))
    other = town.spec(name="another_study").model_copy(update={"federation": "another"})
    assert refused(town, vault.answer("query.offer", town.offer(other)))
    assert reasons(town) == ["CSL-C506"] * 3 and kinds(town) == ["genesis", "policy", *["refuse"] * 3]


def test_a_contract_that_the_node_does_not_map_is_refused(town):
    path = town.homes["alder"].node_file
    path.write_text(path.read_text().replace("  shop:", "  rfm:"))
    assert refused(town, town.vault().answer("query.offer", town.offer(town.spec())))
    assert reasons(town) == ["CSL-C508"]


@pytest.mark.parametrize("message_type", ["train.default", "query.hack", "query.offer.x", "system", "evaluate.default"])
def test_only_the_exact_message_types_are_answered(town, vault, message_type):
    assert refused(town, vault.answer(message_type, town.hello()))
    assert reasons(town) == ["CSL-C510"]


def broken(spec, change) -> bytes:
    weights = load(Town.weights(None, spec))  # type: ignore[arg-type]
    return dump_tensors(change(weights))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: {**w, "linear.bias": np.array([np.nan], np.float32)}, "CSL-F207"),
        (lambda w: {**w, "linear.bias": np.array([np.inf], np.float32)}, "CSL-F207"),
        (lambda w: {**w, "linear.bias": np.array([1e9], np.float32)}, "CSL-C514"),
        (lambda w: {**w, "linear.bias": np.zeros(1, np.float64)}, "CSL-F206"),
        (lambda w: {**w, "linear.bias": np.zeros(2, np.float32)}, "CSL-F206"),
        (lambda w: {"linear.weight": w["linear.weight"]}, "CSL-F206"),
        (lambda w: {**w, "extra": np.zeros(1, np.float32)}, "CSL-F206"),
    ],
)
def test_weights_that_no_model_has_are_refused_and_cost_nothing(town, vault, change, code):
    spec = town.spec()
    town.grant(vault, spec)
    assert refused(town, vault.answer("train", town.train(spec, 1, broken(spec, change))))
    assert reasons(town) == [code]
    assert "release" not in kinds(town)


def test_rounds_beyond_the_plan_and_unknown_studies_are_refused(town, vault):
    spec = town.spec()
    assert refused(town, vault.answer("train", town.train(spec, 1)))
    town.grant(vault, spec)
    assert refused(town, vault.answer("train", town.train(spec, 4)))
    assert refused(town, vault.answer("evaluate", town.evaluate(spec, edges=(0.0, 0.5, 1.0))))
    level = (0.0, *np.linspace(0.0, 2.0, spec.draft.evaluation.bins - 2).tolist())
    assert reasons(town) == ["CSL-C511", "CSL-C512", "CSL-C513"]
    assert refused(town, town.vault().answer("evaluate", town.evaluate(spec, edges=level)))
    assert reasons(town) == ["CSL-C511", "CSL-C512", "CSL-C513", "CSL-C513"]
    assert "release" not in kinds(town)


def test_the_same_request_gets_the_same_bytes_and_spends_nothing(town, vault):
    spec = town.spec()
    offers = [raw(vault.answer("query.offer", town.offer(spec))) for _ in range(2)]
    rounds = [raw(vault.answer("train", town.train(spec, 1))) for _ in range(2)]
    scores = [raw(vault.answer("evaluate", town.evaluate(spec))) for _ in range(2)]
    assert all(len(set(pair)) == 1 for pair in (offers, rounds, scores))
    assert kinds(town).count("release") == 2 and kinds(town).count("reserve") == 1
    assert raw(town.vault().answer("train", town.train(spec, 1))) == rounds[0]  # after a restart too


def test_another_request_for_an_answered_round_is_refused(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    vault.answer("train", town.train(spec, 1))
    assert refused(town, vault.answer("train", town.train(spec, 1, town.weights(spec, 0.5))))
    assert reasons(town) == ["CSL-C516"]


def test_a_crash_between_reply_and_entry_loses_neither(town, vault, monkeypatch):
    spec = town.spec()
    town.grant(vault, spec)
    write = Ledger.release

    def die(*args, **kwargs):
        raise StorageError("CSL-P511", "disk full", "free space")

    monkeypatch.setattr(Ledger, "release", die)
    assert refused(town, vault.answer("train", town.train(spec, 1)))
    kept = Replies(town.homes["alder"].folder("replies"), store(town)).find(spec.digest(), 1)
    assert kept is not None
    monkeypatch.setattr(Ledger, "release", write)
    reply = town.vault().answer("train", town.train(spec, 1))
    _, payload = unpack(reply, TrainRelease, town.key("alder"))
    assert payload == kept.payload
    assert kinds(town).count("release") == 1


@pytest.mark.parametrize(("number", "account"), [(1, "training"), (4, "holdout")])
def test_a_repeated_request_finishes_the_entry_of_its_own_account(town, vault, monkeypatch, number, account):
    spec, write = town.spec(), Ledger.release
    town.grant(vault, spec)
    kind, request = ("train", town.train(spec, 1)) if number == 1 else ("evaluate", town.evaluate(spec))

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Ledger, "release", die)
    with pytest.raises(KeyboardInterrupt):
        vault.answer(kind, request)
    monkeypatch.setattr(Ledger, "release", write)
    payload = bytes(town.vault().answer(kind, request)[RECORD]["payload"])
    (data,) = written(town, "release")
    assert (data["number"], data["account"], data["sha256"]) == (number, account, sha256_hex(payload))
    assert data["bytes"] == len(payload)


def test_a_lost_reply_is_never_computed_again(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    vault.answer("train", town.train(spec, 1))
    (town.homes["alder"].folder("replies") / f"{spec.digest()}-1.reply").unlink()
    assert refused(town, vault.answer("train", town.train(spec, 1)))
    assert reasons(town) == ["CSL-C515"]


def test_a_budget_cannot_be_overspent(town, vault):
    nonces = [f"{number:032x}" for number in range(12)]
    replies = [
        vault.answer("query.offer", town.offer(town.spec().model_copy(update={"nonce": nonce}))) for nonce in nonces
    ]
    granted = sum(b'"grant"' in raw(reply) for reply in replies)
    assert 1 <= granted < len(nonces)
    assert set(reasons(town)) <= {"CSL-P403", "CSL-P404"}
    assert verify(town.homes["alder"].ledger_file, town.key("alder")).valid


def test_a_fault_in_the_data_after_the_grant_is_noise_not_an_error(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    (town.homes["alder"].root / "customers.csv").unlink()
    _, payload = unpack(vault.answer("train", town.train(spec, 1)), TrainRelease, town.key("alder"))
    assert np.isfinite(load(payload)["linear.weight"]).all()
    unpack(vault.answer("evaluate", town.evaluate(spec)), EvaluateRelease, town.key("alder"))
    faults = list(town.homes["alder"].folder("studies").glob("*.fault.json"))
    assert len(faults) == 1 and "customers.csv" in faults[0].read_text()


def test_a_delivered_model_of_another_shape_is_refused_and_not_kept(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    wide = broken(spec, lambda w: {**w, "linear.bias": np.zeros(2, np.float32)})
    assert refused(town, vault.answer("query.model", town.model(spec, wide)))
    assert reasons(town) == ["CSL-F206"]
    assert not list(town.homes["alder"].folder("models").iterdir())


def test_members_given_different_models_adopt_none(town, vault):
    spec = town.spec()
    town.grant(vault, spec)
    model = town.weights(spec, 0.1)
    vault.answer("query.model", town.model(spec, model))
    reply = vault.answer("query.receipts", town.receipts(spec, model, others="d" * 64))
    unpack(reply, Acknowledged, town.key("alder"))
    assert not list(town.homes["alder"].folder("lists").glob("*.csv"))


def test_a_model_that_ranks_the_wrong_way_round_is_not_adopted_and_nobody_can_tell(town, vault):
    spec = town.spec(model=LogisticModel(kind="logistic"))
    town.grant(vault, spec)
    model = town.weights(spec, -1.0)
    vault.answer("query.model", town.model(spec, model))
    unpack(vault.answer("query.receipts", town.receipts(spec, model)), Acknowledged, town.key("alder"))
    assert decision(town, spec.digest()).adoption.adopted is False
    assert not list(town.homes["alder"].folder("lists").glob("*.csv"))


def test_garbage_is_refused(town, vault):
    for records in (
        RecordDict(),
        RecordDict({RECORD: ConfigRecord({"header": b"{", "signature": b"0" * 64, "payload": b""})}),
    ):
        assert refused(town, vault.answer("train", records))


def test_a_vault_does_not_open_without_all_its_documents(town):
    root = town.homes["alder"].root
    with pytest.raises(PolicyError):
        Vault.open(root, unlock(town.homes["alder"]), source=SeededSource(1))
    (root / "charter.digest").write_text("0" * 64)
    with pytest.raises(IntegrityError, match="CSL-F204"):
        town.vault()
    (root / "charter.digest").unlink()
    with pytest.raises(StorageError, match="CSL-C501"):
        town.vault()


def test_a_vault_does_not_open_with_keys_that_are_not_its_own(town):
    home, other = town.homes["alder"], town.homes["birch"]
    own = home.holdout_key.read_bytes()
    home.holdout_key.write_bytes(other.holdout_key.read_bytes())
    with pytest.raises(IntegrityError, match="CSL-P606"):
        town.vault()
    home.holdout_key.write_bytes(own)
    home.node_file.write_text(home.node_file.read_text().replace("member: alder", "member: birch"))
    with pytest.raises(IntegrityError, match="CSL-C505"):
        town.vault()


def test_replies_and_refusals_wait_for_the_time_grid(town):
    home, slept = town.homes["alder"], []
    town.change(reply_grid_seconds=60.0)
    keys = unlock(home)
    opened = Vault(home, keys, Ledger.open(home.ledger_file, keys.identity), SystemSource(), sleep=slept.append)
    unpack(opened.answer("query.offer", town.offer(town.spec())), Grant, town.key("alder"))
    assert refused(town, opened.answer("train", RecordDict()))
    assert len(slept) == 2 and all(30 < seconds <= 60 for seconds in slept)


def test_another_contract_than_the_pinned_one_is_refused(town):
    path = town.homes["alder"].root / "contracts" / "shop.yaml"
    path.write_text(CONTRACT.model_copy(update={"version": 2}).model_dump_json())
    vault = town.vault()
    assert refused(town, vault.answer("query.offer", town.offer(town.spec())))
    assert reasons(town) == ["CSL-C502"]


def test_a_refusal_that_cannot_be_written_down_still_looks_like_any_other(town, vault, monkeypatch):
    before = raw(vault.answer("train", town.train(town.spec(), 1)))

    def full(*args, **kwargs):
        raise StorageError("CSL-P511", "disk full", "free space")

    monkeypatch.setattr(Ledger, "refuse", full)
    assert raw(vault.answer("train", town.train(town.spec(), 1))) == before
