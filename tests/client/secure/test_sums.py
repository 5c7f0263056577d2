"""Secure sums by real vaults: the sum and nothing else, the same bytes after any restart, and the ledger before the keys."""

import numpy as np
import pytest

from client.secure.store import FOLDER
from federation.errors import StorageError
from federation.messages import RECORD, Acknowledged, unpack
from federation.secure import Ack, Masked, Ready, Reveal
from privacy.ledger import Ledger, verify
from privacy.secure_aggregation.institution import AckedState, RevealedState
from privacy.secure_aggregation.masking import from_bytes, to_words
from tests.client.entries import kinds, raw, reasons, refused, written
from tests.client.secure.town import MEMBERS, Federation, secure_spec
from tests.client.vault_home import CANARY

CALLS = ("query.sum", "query.sum_readies", "query.sum_headers", "query.sum_acks")


def plain(federation: Federation, number: int, members=MEMBERS) -> np.ndarray:
    """What the vaults keep, added up."""
    return sum(federation.kept(number, member).vector for member in members)


def whole(federation: Federation, number: int, attempt: int = 1, drop: tuple[str, ...] = ()):
    """A sum from the first call to the last; `drop` does not answer the second. Returns the sum and what it must be."""
    offer = federation.offer(number, attempt)
    ready = federation.ready(number, attempt)
    rest = tuple(name for name in MEMBERS if name not in drop)
    expected = plain(federation, number, rest)
    masked = federation.masked(number, ready, attempt, rest)
    acks = federation.acknowledged(number, masked, attempt)
    revealed = federation.revealed(number, acks, attempt)
    return federation.opened(offer, ready, masked, revealed), expected


def test_a_whole_study_opens_exactly_the_sums_of_what_the_vaults_kept(agreed):
    for number in (1, 2, 3, 4):
        found, expected = whole(agreed, number)
        assert found.dtype == np.int64 and np.array_equal(found, expected)
    assert kinds(agreed.town)[-4:] == ["release"] * 4
    assert verify(agreed.town.homes["alder"].ledger_file, agreed.town.key("alder")).valid


@pytest.mark.parametrize("drop", [("alder",), ("elm",), ("birch", "dogwood")])
def test_whoever_drops_out_after_call_one_is_not_in_the_sum(agreed, drop):
    found, expected = whole(agreed, 1, drop=drop)
    assert np.array_equal(found, expected)
    assert all("release" not in kinds(agreed.town, member) for member in drop)


def test_the_counts_of_the_evaluation_are_multiples_of_the_scale_but_for_the_noise(agreed):
    """Noise off, the counts of all held-out customers are there: a quarter of the nine tenths who consent."""
    number, scale = 4, int(agreed.offer(4).scale)
    found, _ = whole(agreed, number)
    assert agreed.offer(number).d == len(found) == 2 * agreed.spec.draft.evaluation.bins
    deviation = 256.0 * np.sqrt(len(MEMBERS) * len(found)) / scale
    assert abs(found.sum() / scale - 5 * 400 * 0.9 * 0.25) < 6 * (deviation + np.sqrt(5 * 360 * 0.25))


def test_a_masked_vector_is_unlike_the_vector_and_of_its_length(agreed):
    reply = agreed.masked(1, agreed.ready(1))["alder"]
    statement, content = unpack(reply, Masked, agreed.town.key("alder"))
    vector = agreed.kept(1).vector
    assert len(content) == 4 * statement.d == 4 * len(vector)
    assert not (from_bytes(content, 32, statement.d) == to_words(vector, 32)).any()


def test_the_same_call_gives_the_same_bytes_after_a_restart_between_any_two(agreed):
    number, replies = 1, {}
    steps = [
        lambda: agreed.sum_request(number),
        lambda: agreed.sum_readies(number, agreed.readies(replies["query.sum"])),
        lambda: agreed.sum_headers(number, agreed.headers(replies["query.sum_readies"])),
        lambda: agreed.sum_acks(number, agreed.acks(replies["query.sum_headers"])),
    ]
    requests = {}
    for place, (kind, make) in enumerate(zip(CALLS, steps, strict=True)):
        requests[kind] = make()
        replies[kind] = agreed.call(kind, requests[kind], MEMBERS)
        for earlier in CALLS[: place + 1] if place < 3 else CALLS[3:]:
            for member in ("alder", "elm"):
                assert raw(agreed.ask(member, earlier, requests[earlier])) == raw(replies[earlier][member])
                agreed.stop(member)
                assert raw(agreed.ask(member, earlier, requests[earlier])) == raw(replies[earlier][member])
    assert kinds(agreed.town).count("release") == 1 and reasons(agreed.town) == []


def test_the_release_entry_names_the_masked_vector_and_the_survivors(agreed):
    masked = agreed.masked(2, agreed.ready(2))
    acks = agreed.acknowledged(2, masked)
    assert "release" not in kinds(agreed.town)
    agreed.revealed(2, acks)
    (data,) = written(agreed.town, "release")
    header, content = unpack(masked["alder"], Masked, agreed.town.key("alder"))
    ack = unpack(acks["alder"], Ack, agreed.town.key("alder"))[0]
    assert (data["number"], data["account"]) == (2, "training")
    assert (data["sha256"], data["bytes"]) == (header.y, len(content))
    assert data["what"] == f"round 2 of 3, masked, for the sum over 5 institutions {ack.s}"


def test_without_its_ledger_entry_nothing_is_revealed(agreed, monkeypatch):
    acks = agreed.acknowledged(1, agreed.masked(1, agreed.ready(1)))
    request = agreed.sum_acks(1, agreed.acks(acks))

    def full(*args, **kwargs):
        raise StorageError("CSL-P511", "disk full", "free space")

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "release", full)
        assert refused(agreed.town, agreed.ask("alder", "query.sum_acks", request))
        assert isinstance(agreed.kept(1).state, AckedState) and len(agreed.kept(1).vector)
    agreed.stop("alder")
    unpack(agreed.ask("alder", "query.sum_acks", request), Reveal, agreed.town.key("alder"))
    assert kinds(agreed.town).count("release") == 1


def test_a_crash_after_the_entry_is_mended_by_the_same_call(agreed, monkeypatch):
    acks = agreed.acknowledged(1, agreed.masked(1, agreed.ready(1)))
    request = agreed.sum_acks(1, agreed.acks(acks))
    vault = agreed.vault("alder")

    def die(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(vault._secrets, "keep_sum", die)
        with pytest.raises(KeyboardInterrupt):
            vault.answer("query.sum_acks", request)
    assert kinds(agreed.town).count("release") == 1
    agreed.stop("alder")
    first = raw(agreed.ask("alder", "query.sum_acks", request))
    assert raw(agreed.ask("alder", "query.sum_acks", request)) == first
    assert kinds(agreed.town).count("release") == 1


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_state_that_cannot_be_written_is_not_answered_for(agreed, monkeypatch, place):
    requests = [agreed.sum_request(1)]
    ready = agreed.call(CALLS[0], requests[0], MEMBERS[1:])
    vault = agreed.vault("alder")

    def full(*args, **kwargs):
        raise StorageError("CSL-F301", "disk full", "free space")

    def ask(kind, request):
        with monkeypatch.context() as patched:
            if CALLS.index(kind) == place:
                patched.setattr(vault._secrets, "keep_sum", full)
                assert refused(agreed.town, vault.answer(kind, request))
        return vault.answer(kind, request)

    ready = {"alder": ask(CALLS[0], requests[0])} | ready
    masked_request = agreed.sum_readies(1, agreed.readies(ready))
    masked = {"alder": ask(CALLS[1], masked_request)} | agreed.call(CALLS[1], masked_request, MEMBERS[1:])
    headers = agreed.sum_headers(1, agreed.headers(masked))
    acks = {"alder": ask(CALLS[2], headers)} | agreed.call(CALLS[2], headers, MEMBERS[1:])
    expected = plain(agreed, 1)
    assert np.array_equal(agreed.opened(agreed.offer(1), ready, masked, agreed.revealed(1, acks)), expected)


def test_with_the_reveal_the_vector_is_gone(agreed):
    acks = agreed.acknowledged(1, agreed.masked(1, agreed.ready(1)))
    path = agreed.town.homes["alder"].folder(FOLDER) / f"{agreed.rid}-1.sum"
    before = path.stat().st_size
    agreed.revealed(1, acks)
    kept = agreed.kept(1)
    assert isinstance(kept.state, RevealedState) and len(kept.vector) == 0 and path.stat().st_size < before
    assert [item.name for item in path.parent.iterdir() if item.name.startswith(".")] == []


def test_a_later_attempt_masks_the_same_vector_under_fresh_keys_and_costs_nothing(agreed):
    agreed.acknowledged(1, agreed.masked(1, agreed.ready(1)))
    before = {member: agreed.kept(1, member).vector for member in MEMBERS}
    agreed.stop("alder")
    found, expected = whole(agreed, 1, attempt=2)
    assert np.array_equal(expected, sum(before.values())) and np.array_equal(found, expected)
    assert kinds(agreed.town).count("release") == 1 and kinds(agreed.town).count("consent") == 1


def test_two_attempts_share_neither_nonce_nor_mask(agreed):
    key = agreed.town.key("alder")
    first, second = agreed.ready(1), agreed.ready(1, attempt=2)
    assert unpack(first["alder"], Ready, key)[0].nonce != unpack(second["alder"], Ready, key)[0].nonce
    one = unpack(agreed.masked(1, second, 2)["alder"], Masked, key)[1]
    two = unpack(agreed.masked(1, agreed.ready(1, attempt=3), 3)["alder"], Masked, key)[1]
    same = from_bytes(one, 32, len(one) // 4) == from_bytes(two, 32, len(two) // 4)
    assert same.mean() < 0.5


def test_a_fault_in_the_data_leaves_the_noise_alone(agreed):
    (agreed.town.homes["alder"].root / "customers.csv").unlink()
    for number in (1, 4):
        found, expected = whole(agreed, number)
        assert np.array_equal(found, expected)
    agreed.stop("alder")
    unpack(agreed.ready(2)["alder"], Ready, agreed.town.key("alder"))
    assert np.abs(agreed.kept(2).vector).max() < 256.0 * 14
    faults = list(agreed.town.homes["alder"].folder("studies").glob("*.fault.json"))
    assert len(faults) == 1 and "customers.csv" in faults[0].read_text()


def test_nothing_of_a_sum_holds_a_customers_identifier(agreed, caplog):
    whole(agreed, 1)
    home = agreed.town.homes["alder"]
    assert all(CANARY.encode() not in path.read_bytes() for path in home.folder(FOLDER).iterdir())
    assert CANARY not in caplog.text and CANARY.encode() not in home.ledger_file.read_bytes()


def test_when_the_study_is_over_its_secrets_are_erased(agreed):
    town = agreed.town
    whole(agreed, 1)
    agreed.ready(2)
    model = town.weights(agreed.spec, 1.0)
    agreed.ask("alder", "query.model", town.model(agreed.spec, model))
    reply = agreed.ask("alder", "query.receipts", town.receipts(agreed.spec, model))
    unpack(reply, Acknowledged, town.key("alder"))
    assert list(town.homes["alder"].folder(FOLDER).iterdir()) == []
    assert kinds(town)[-2:] == ["close", "access"], "the erasure is written down"
    agreed.stop("alder")
    assert refused(town, agreed.ask("alder", "query.sum", agreed.sum_request(3)))
    assert reasons(town)[-1] == "CSL-C524"


def test_a_study_that_officers_closed_keeps_no_secrets_once_the_vault_starts(agreed):
    agreed.ready(1)
    agreed.stop("alder")
    with agreed.town.ledger() as ledger:
        ledger.close(agreed.rid, "stopped")
    agreed.vault("alder")
    assert list(agreed.town.homes["alder"].folder(FOLDER).iterdir()) == []
    (entry,) = [data for data in written(agreed.town, "access") if data["action"] == "erase"]
    assert entry["what"] == f"secrets of the sums of study {agreed.rid}" and entry["count"] == 2


def test_plain_studies_go_on_beside_a_secure_one(agreed):
    town, plain_spec = agreed.town, agreed.town.spec(name="plain", epsilon=0.3)
    agreed.ask("alder", "query.offer", town.offer(plain_spec))
    assert RECORD in agreed.ask("alder", "train", town.train(plain_spec, 1))
    found, expected = whole(agreed, 1)
    assert np.array_equal(found, expected) and reasons(town) == []


def test_a_grant_of_a_secure_study_is_what_the_ledger_pays_for(granted):
    grants = granted.grants()
    (data,) = written(granted.town, "reserve")
    (training,), (holdout,) = (charge["events"] for charge in data["charges"])
    secure = grants["alder"].secure
    assert secure is not None
    assert (training["kind"], training["sensitivity"]) == ("secure_sum", secure.sensitivity)
    assert (training["members"], training["steps"], training["dimension"]) == (2, 3, secure.dimension)
    assert (holdout["sensitivity"], holdout["steps"]) == (secure.histogram_scale, 1)
    assert [claim["account"] for claim in data["if_broken"]] == ["training", "holdout"]
    assert all(claim["epsilon"] >= data["epsilon"] for claim in data["if_broken"])


def test_the_spec_of_a_secure_study_is_another_one(granted):
    assert secure_spec(granted.town).digest() == granted.rid != granted.town.spec().digest()
