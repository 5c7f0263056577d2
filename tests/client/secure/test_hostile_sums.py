"""A coordinator that asks a vault for more than a sum: each attack played at the vault's door, refused, and nothing spent."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import load

from client.secure.store import FOLDER
from federation.encoding import sha256_hex
from federation.messages import TrainRequest, dump_tensors, pack, unpack
from federation.secure import (
    MOST_COORDINATES,
    Ack,
    EpochKey,
    Ready,
    Reveal,
    SignedAck,
    SignedMasked,
    SignedReady,
    SumRequest,
    sign_statement,
)
from privacy.secure_aggregation.derivation import digest_of
from privacy.secure_aggregation.institution import AckedState, MaskedState, ReadyState
from tests.client.entries import kinds, raw, reasons, refused
from tests.client.secure.town import MEMBERS, RULE, Federation, copied, secure_spec


def spends_nothing(federation: Federation, kind: str, request, code: str, member: str = "alder") -> None:
    """A call is refused by this code, before data are read, and leaves the secrets as they were."""
    folder = federation.town.homes[member].folder(FOLDER)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    rooms, releases = len(federation.vault(member)._rooms), kinds(federation.town, member).count("release")
    assert refused(federation.town, federation.ask(member, kind, request), member)
    assert reasons(federation.town, member)[-1] == code
    assert len(federation.vault(member)._rooms) == rooms
    assert kinds(federation.town, member).count("release") == releases
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


# What is asked for.


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"offer": {"share": 128.0}}, "CSL-C474"),
        ({"offer": {"n_min": 4}}, "CSL-C474"),
        ({"offer": {"n_min": 4, "c": 1}}, "CSL-C474"),
        ({"offer": {"d": 2}}, "CSL-C474"),
        ({"offer": {"d": MOST_COORDINATES // 4}}, "CSL-C474"),
        ({"offer": {"roster": "d" * 64}}, "CSL-P808"),
        ({"offer": {"epoch": "d" * 64}}, "CSL-C472"),
        ({"offer": {"request": "d" * 64}}, "CSL-C472"),
        ({"offer": {"number": 2}}, "CSL-C473"),
        ({"asked": {"study": "d" * 64}}, "CSL-C472"),
        ({"asked": {"payload": "d" * 64}}, "CSL-C472"),
        ({"asked": {"clip": 1.001}}, "CSL-C475"),
        ({"asked": {"weight": 0.501}}, "CSL-C475"),
        ({"asked": {"weight": None}}, "CSL-C475"),
        ({"asked": {"clip": 1e6}}, "CSL-C475"),
        ({"offer": {"scale": 1e12}}, "CSL-C475"),
        ({"header": {"signature": "0" * 128}}, "CSL-F202"),
        ({"header": {"study": "d" * 64}}, "CSL-C511"),
    ],
)
def test_a_round_on_other_terms_is_refused(agreed, changes, code):
    spends_nothing(agreed, "query.sum", agreed.sum_request(1, **changes), code)


@pytest.mark.parametrize("factor", [1.0 + 1e-6, 1.5, 100.0])
def test_no_customer_may_change_a_sum_by_more_than_was_granted(agreed, factor):
    scale = agreed.offer(1).scale
    spends_nothing(agreed, "query.sum", agreed.sum_request(1, offer={"scale": scale * factor}), "CSL-C475")
    unpack(agreed.ask("alder", "query.sum", agreed.sum_request(1)), Ready, agreed.town.key("alder"))


@pytest.mark.parametrize("change", [lambda k: k + 1.0, lambda k: k - 0.5, lambda k: 1e-6, lambda k: 1e9])
def test_counts_are_multiplied_by_an_integer_up_to_the_granted_one(agreed, change):
    """A scale that is no integer, sampled or not, would leave the counts visible modulo its parts."""
    scale = agreed.offer(4).scale
    spends_nothing(agreed, "query.sum", agreed.sum_request(4, offer={"scale": change(scale)}), "CSL-C475")


def test_score_bins_are_those_of_the_study(agreed):
    level = (0.0, *np.linspace(0.0, 2.0, agreed.spec.draft.evaluation.bins - 2).tolist())
    for edges in ((0.0, 0.5, 1.0), level):
        spends_nothing(agreed, "query.sum", agreed.sum_request(4, asked={"edges": edges}), "CSL-C513")


def test_numbers_beyond_the_plan_or_of_another_kind_are_refused(agreed):
    request, content = agreed.asked(1, round=4)
    evaluation, _ = agreed.asked(4)
    for number, asked in ((4, request), (5, request.model_copy(update={"round": 5})), (3, evaluation), (5, evaluation)):
        offer = agreed.offer(min(number, 4), 1, asked, number=number)
        kind = "train" if isinstance(asked, TrainRequest) else "evaluate"
        header = SumRequest(
            study=agreed.rid,
            offer=offer,
            signature=sign_statement(agreed.town.coordinator, offer),
            payload=sha256_hex(content),
            **{kind: asked},
        )
        spends_nothing(agreed, "query.sum", agreed.packed(header, content), "CSL-C473")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda w: {**w, "linear.bias": np.array([np.nan], np.float32)}, "CSL-F207"),
        (lambda w: {**w, "linear.bias": np.array([1e9], np.float32)}, "CSL-C514"),
        (lambda w: {**w, "linear.bias": np.zeros(2, np.float32)}, "CSL-F206"),
    ],
)
def test_weights_that_no_model_has_are_refused(agreed, change, code):
    content = dump_tensors(change(load(agreed.town.weights(agreed.spec))))
    request = agreed.sum_request(1, asked={"payload": sha256_hex(content)}, content=content)
    spends_nothing(agreed, "query.sum", request, code)


def test_other_weights_than_those_named_are_refused(agreed):
    content = agreed.town.weights(agreed.spec, 0.7)
    spends_nothing(agreed, "query.sum", agreed.sum_request(1, content=content), "CSL-C472")


def test_a_member_cannot_ask_for_a_sum(agreed):
    request = agreed.sum_request(1)
    header, content = unpack(request, SumRequest, agreed.town.charter.coordinator_key)
    forged = pack(Ed25519PrivateKey.generate(), header, content)
    spends_nothing(agreed, "query.sum", forged, "CSL-F202")


def test_a_sum_before_the_set_up_is_refused(granted):
    spends_nothing(granted, "query.sum", granted.sum_request(1), "CSL-C477")
    granted.exchanges(granted.keys())
    spends_nothing(granted, "query.sum", granted.sum_request(2), "CSL-C477")


def test_a_sum_of_another_studys_epoch_is_refused(agreed):
    """A second secure study that was granted here has no keys of the first."""
    other = Federation(agreed.town, secure_spec(agreed.town, name="other", epsilon=0.5))
    other._vaults = agreed._vaults
    agreed.ask("alder", "query.offer", agreed.town.offer(other.spec))
    spends_nothing(other, "query.sum", other.sum_request(1), "CSL-C477")
    ready = agreed.readies(agreed.ready(1))
    for kind, request in (
        ("query.sum_readies", other.sum_readies(1, ready)),
        ("query.sum_headers", other.sum_headers(1, ())),
        ("query.sum_acks", other.sum_acks(1, ())),
    ):
        spends_nothing(other, kind, request, "CSL-C481")


def test_a_secure_study_answers_no_plain_round_and_a_plain_one_no_sum(agreed):
    town, plain = agreed.town, agreed.town.spec(name="plain", epsilon=0.3)
    agreed.ask("alder", "query.offer", town.offer(plain))
    spends_nothing(agreed, "train", town.train(agreed.spec, 1), "CSL-C470")
    spends_nothing(agreed, "evaluate", town.evaluate(agreed.spec), "CSL-C470")
    spends_nothing(agreed, "train", town.train(plain, 1, weight=0.5), "CSL-C484")
    other = Federation(town, agreed.spec)
    other._vaults, other.rid = agreed._vaults, plain.digest()
    spends_nothing(other, "query.sum", other.packed(_as_plain(agreed, plain)), "CSL-C471")


def _as_plain(federation: Federation, plain):
    header, content = unpack(federation.sum_request(1), SumRequest, federation.town.charter.coordinator_key)
    assert header.train is not None
    asked = header.train.model_copy(update={"study": plain.digest(), "payload": sha256_hex(b"")})
    return header.model_copy(update={"study": plain.digest(), "train": asked, "payload": sha256_hex(b"")})


# Out of order, and again.


def test_each_call_needs_the_one_before(agreed):
    ready = agreed.readies(agreed.ready(1, members=MEMBERS[1:]))
    spends_nothing(agreed, "query.sum_readies", agreed.sum_readies(1, ready), "CSL-C481")
    replies = agreed.ready(1)
    masked = agreed.masked(1, replies, members=MEMBERS[1:])
    spends_nothing(agreed, "query.sum_headers", agreed.sum_headers(1, agreed.headers(masked)), "CSL-P804")
    acks = agreed.sum_acks(1, ())
    spends_nothing(agreed, "query.sum_acks", acks, "CSL-P804")
    agreed.masked(1, replies, members=("alder",))
    spends_nothing(agreed, "query.sum_acks", acks, "CSL-P804")


def test_an_attempt_that_was_superseded_is_answered_no_more(agreed):
    first = agreed.ready(1)
    masked = agreed.masked(1, first)
    headers = agreed.sum_headers(1, agreed.headers(masked))
    agreed.ready(1, attempt=3)
    spends_nothing(agreed, "query.sum_readies", agreed.sum_readies(1, agreed.readies(first)), "CSL-C481")
    spends_nothing(agreed, "query.sum_headers", headers, "CSL-C481")
    spends_nothing(agreed, "query.sum", agreed.sum_request(1, attempt=2), "CSL-P811")
    again = agreed.sum_readies(1, agreed.readies(first), attempt=3)
    spends_nothing(agreed, "query.sum_readies", again, "CSL-P809")  # replayed readies of the older offer


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"offer": {"scale": 1.0}}, "CSL-P811"),
        ({"offer": {"w": 64}}, "CSL-P811"),
        ({"asked": {"clip": 0.5}}, "CSL-C472"),
        ({"asked": {"weight": 0.25}}, "CSL-C472"),
        ({"asked": {"learning_rate": 0.2}}, "CSL-C472"),
    ],
)
@pytest.mark.parametrize("attempt", [1, 2])
def test_a_sum_is_asked_for_again_by_the_very_same_words(agreed, changes, code, attempt):
    agreed.ready(1)
    spends_nothing(agreed, "query.sum", agreed.sum_request(1, attempt, **changes), code)


def test_after_the_reveal_the_number_is_spent(agreed):
    ready = agreed.ready(1)
    masked = agreed.masked(1, ready)
    acks = agreed.acknowledged(1, masked)
    revealed = agreed.revealed(1, acks)
    calls = [
        ("query.sum", agreed.sum_request(1), "CSL-C476"),
        ("query.sum", agreed.sum_request(1, attempt=2), "CSL-C476"),
        ("query.sum_readies", agreed.sum_readies(1, agreed.readies(ready)), "CSL-C476"),
        ("query.sum_headers", agreed.sum_headers(1, agreed.headers(masked)), "CSL-C476"),
    ]
    for kind, request, code in calls:
        spends_nothing(agreed, kind, request, code)
    fewer = agreed.acks(acks)[:4]
    spends_nothing(agreed, "query.sum_acks", agreed.sum_acks(1, fewer), "CSL-P804")
    again = agreed.ask("alder", "query.sum_acks", agreed.sum_acks(1, agreed.acks(acks)))
    assert raw(again) == raw(revealed["alder"])


def test_a_second_set_of_survivors_is_never_acknowledged(agreed):
    """The attack that opens a vector as the difference of two sums."""
    masked = agreed.masked(1, agreed.ready(1))
    agreed.acknowledged(1, masked)
    fewer = {member: masked[member] for member in MEMBERS if member != "cedar"}
    spends_nothing(agreed, "query.sum_headers", agreed.sum_headers(1, agreed.headers(fewer)), "CSL-P804")


def test_nothing_is_revealed_unless_all_acknowledged_the_same(agreed):
    key = agreed.town.key("alder")
    masked = agreed.masked(1, agreed.ready(1))
    acks = agreed.acks(agreed.acknowledged(1, masked))
    forged = acks[1].message.model_copy(update={"s": "d" * 64})
    stranger = SignedAck(message=forged, signature=sign_statement(agreed.town.coordinator, forged))
    for said, code in (
        (acks[:4], "CSL-P809"),
        (acks[1:], "CSL-P809"),
        ((*acks[:4], acks[4].model_copy(update={"signature": "0" * 128})), "CSL-F202"),
        ((acks[0], stranger, *acks[2:]), "CSL-F202"),
        (acks[::-1], "CSL-P803"),
    ):
        spends_nothing(agreed, "query.sum_acks", agreed.sum_acks(1, said), code)
    unpack(agreed.ask("alder", "query.sum_acks", agreed.sum_acks(1, acks)), Reveal, key)


def test_too_few_or_other_vectors_are_not_acknowledged(agreed):
    masked = agreed.masked(1, agreed.ready(1))
    headers = agreed.headers(masked)
    wide = headers[1].message.model_copy(update={"d": 1})
    wrong = SignedMasked(message=wide, signature=sign_statement(agreed.town.coordinator, wide))
    for said, code in ((headers[:2], "CSL-P809"), (headers[1:], "CSL-P809"), ((headers[0], wrong), "CSL-F202")):
        spends_nothing(agreed, "query.sum_headers", agreed.sum_headers(1, said), code)


def test_too_few_ready_or_strangers_among_them_mask_nothing(agreed):
    ready = agreed.readies(agreed.ready(1))
    said = ready[1].message.model_copy(update={"nonce": "0" * 64})
    invented = SignedReady(message=said, signature=sign_statement(agreed.town.coordinator, said))
    for statements, code in (
        (ready[:2], "CSL-P809"),
        (ready[1:], "CSL-P809"),
        ((ready[0], invented, *ready[2:]), "CSL-F202"),
        ((*ready, ready[4]), "CSL-P803"),
    ):
        spends_nothing(agreed, "query.sum_readies", agreed.sum_readies(1, statements), code)
    assert isinstance(agreed.kept(1).state, ReadyState)


# Officers, and copies of the home.


def test_a_policy_that_grants_less_stops_a_sum_before_its_reveal(agreed):
    acks = agreed.acknowledged(1, agreed.masked(1, agreed.ready(1)))
    agreed.stop("alder")
    agreed.town.change_rule(max_epsilon=1.0, automatic_epsilon=1.0)
    spends_nothing(agreed, "query.sum_acks", agreed.sum_acks(1, agreed.acks(acks)), "CSL-C524")


def test_a_floor_that_was_lowered_stops_a_sum_before_its_reveal(agreed):
    acks = agreed.acknowledged(1, agreed.masked(1, agreed.ready(1)))
    agreed.stop("alder")
    agreed.town.change("alder", secure=RULE | {"local_noise_floor": 1e-3})
    spends_nothing(agreed, "query.sum_acks", agreed.sum_acks(1, agreed.acks(acks)), "CSL-P217")


def test_a_policy_for_secure_studies_alone_grants_no_plain_one(granted):
    granted.town.change("alder", aggregation="secure")
    spends_nothing(granted, "query.offer", granted.town.offer(granted.town.spec(name="plain", epsilon=0.3)), "CSL-P213")
    unpack(granted.ask("alder", "query.epoch", granted.epoch_request()), EpochKey, granted.town.key("alder"))


def put_back(federation: Federation, member: str, copy, *names: str) -> None:
    """Put files of an older copy of the home in their place."""
    federation.stop(member)
    home = federation.town.homes[member].root
    for name in names:
        target = home / name
        if target.is_dir():
            shutil.rmtree(target)
            shutil.copytree(copy / name, target)
        else:
            shutil.copyfile(copy / name, target)


@pytest.mark.parametrize("stage", [ReadyState, MaskedState, AckedState])
def test_older_secrets_beside_the_ledger_speak_for_no_second_sum(agreed, tmp_path, stage):
    """Whoever puts an old copy of the folder back gets no new mask, no other set, and no other reveal."""
    home, copy = agreed.town.homes["alder"].root, tmp_path / "copy"

    def copy_at(now) -> None:
        if stage is now:
            shutil.copytree(home, copy)

    ready = agreed.ready(1)
    copy_at(ReadyState)
    masked = agreed.masked(1, ready)
    copy_at(MaskedState)
    acks = agreed.acknowledged(1, masked)
    copy_at(AckedState)
    revealed = agreed.revealed(1, acks)
    put_back(agreed, "alder", copy, FOLDER)
    assert isinstance(agreed.kept(1).state, stage)
    fewer = {member: masked[member] for member in MEMBERS if member != "cedar"}
    spends_nothing(agreed, "query.sum", agreed.sum_request(1, attempt=2), "CSL-C476")
    spends_nothing(agreed, "query.sum_readies", agreed.sum_readies(1, agreed.readies(ready)), "CSL-C476")
    spends_nothing(agreed, "query.sum_headers", agreed.sum_headers(1, agreed.headers(fewer)), "CSL-C476")
    again = agreed.ask("alder", "query.sum_acks", agreed.sum_acks(1, agreed.acks(acks)))
    if stage is AckedState:  # as after a crash between entry and state: the very same, for the very same survivors
        assert raw(again) == raw(revealed["alder"])
    else:
        assert refused(agreed.town, again)
    assert kinds(agreed.town).count("release") == 1


def test_the_ledger_holds_a_vault_to_the_survivors_that_it_acknowledged(agreed):
    """Even a forged state in the folder, with as many others for the same masked vector, cannot be revealed for."""
    masked = agreed.masked(1, agreed.ready(1))
    headers = [item.message for item in agreed.headers(masked)]
    acks = agreed.acknowledged(1, {member: masked[member] for member in MEMBERS[:4]})
    state = agreed.kept(1)
    agreed.revealed(1, acks)
    assert isinstance(state.state, AckedState)
    others = (*headers[:3], headers[4])
    forged = AckedState(masked=state.state.masked, headers=others)
    agreed.stop("alder")
    agreed.secrets().keep_sum(agreed.rid, 1, replace(state, state=forged))
    t, s = forged.masked.t.hex(), digest_of(others)
    said = [Ack(t=t, s=s, id=item.id) for item in others]
    keys = {item.id: agreed.vault(item.id)._keys.identity for item in others}
    signed = tuple(SignedAck(message=item, signature=sign_statement(keys[item.id], item)) for item in said)
    spends_nothing(agreed, "query.sum_acks", agreed.sum_acks(1, signed), "CSL-P409")


def test_an_old_ledger_beside_newer_secrets_is_noticed(agreed, tmp_path):
    ready = agreed.ready(1)
    masked = agreed.masked(1, ready)
    acks = agreed.acknowledged(1, masked)
    agreed.stop("alder")
    copy = tmp_path / "copy"
    shutil.copytree(agreed.town.homes["alder"].root, copy)
    agreed.revealed(1, acks)
    put_back(agreed, "alder", copy, "ledger.sqlite")
    for kind, request in (
        ("query.sum", agreed.sum_request(1)),
        ("query.sum", agreed.sum_request(1, attempt=2)),
        ("query.sum_readies", agreed.sum_readies(1, agreed.readies(ready))),
        ("query.sum_headers", agreed.sum_headers(1, agreed.headers(masked))),
        ("query.sum_acks", agreed.sum_acks(1, agreed.acks(acks))),
    ):
        spends_nothing(agreed, kind, request, "CSL-C483")


def test_an_old_copy_of_the_whole_home_gives_the_same_reveal_or_none(agreed, tmp_path):
    """The copy of a home from before the reveal finds the sum where it stood: the same set, the same keys, bit for bit."""
    agreed.stop("alder")
    masked = agreed.masked(1, agreed.ready(1))
    acks = agreed.acknowledged(1, masked)
    agreed.stop("alder")
    old = copied(agreed.town, tmp_path / "old")
    revealed = agreed.revealed(1, acks)
    with Federation(old) as second:
        fewer = {member: masked[member] for member in MEMBERS if member != "cedar"}
        spends_nothing(second, "query.sum_headers", second.sum_headers(1, second.headers(fewer)), "CSL-P804")
        again = second.ask("alder", "query.sum_acks", second.sum_acks(1, second.acks(acks)))
        assert raw(again) == raw(revealed["alder"])


def test_a_kept_vector_under_another_number_opens_nothing(agreed):
    agreed.ready(1)
    agreed.stop("alder")
    folder = agreed.town.homes["alder"].folder(FOLDER)
    shutil.copyfile(folder / f"{agreed.rid}-1.sum", folder / f"{agreed.rid}-2.sum")
    spends_nothing(agreed, "query.sum", agreed.sum_request(2), "CSL-C482")
