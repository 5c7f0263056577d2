"""The set-up of a study by real vaults: keys once, the same bytes again, and nobody who does not belong."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.secure.store import FOLDER, Agreed, EpochState
from federation.messages import pack, unpack
from federation.secure import EpochExchanges, EpochKey, EpochReady, EpochRequest, SignedEpochKey, sign_statement
from privacy.secure_aggregation.epoch import KeysMade, KeysSent, make_keys
from tests.client.entries import kinds, raw, reasons, refused
from tests.client.secure.town import MEMBERS


def test_all_hold_the_same_pairwise_keys_and_private_ones_are_gone(granted):
    granted.set_up()
    stages = {member: granted.secrets(member).epoch(granted.rid).stage for member in MEMBERS}
    assert all(isinstance(stage, Agreed) for stage in stages.values())
    for one in MEMBERS:
        for other in MEMBERS:
            if one != other:
                assert stages[one].secrets.root(other) == stages[other].secrets.root(one)
    roots = {root for stage in stages.values() for root in stage.secrets.roots.values()}
    assert len(roots) == 10 and len({stage.secrets.keys for stage in stages.values()}) == 1
    assert "seed" not in stages["alder"].canonical().decode()


def test_the_same_calls_get_the_same_bytes_after_a_restart_between_any_two(granted):
    town, first = granted.town, granted.epoch_request()
    keys = granted.keys()
    calls = {"query.epoch": first, "query.epoch_keys": granted.epoch_keys(keys)}
    answers = {kind: raw(granted.ask("alder", kind, request)) for kind, request in calls.items()}
    sent = granted.exchanges(keys)
    calls["query.epoch_exchanges"] = granted.epoch_exchanges(sent, "alder")
    granted.stop("alder")
    for kind in list(calls)[:2]:
        assert raw(granted.ask("alder", kind, calls[kind])) == answers[kind]
    answers["query.epoch_exchanges"] = raw(
        granted.ask("alder", "query.epoch_exchanges", calls["query.epoch_exchanges"])
    )
    granted.stop("alder")
    for kind, request in calls.items():
        assert raw(granted.ask("alder", kind, request)) == answers[kind]
    assert reasons(town) == [] and kinds(town)[-1] == "reserve"


def test_a_later_attempt_begins_anew_with_those_who_remain(granted):
    granted.exchanges(granted.keys())
    rest = tuple(name for name in MEMBERS if name != "cedar")
    old = granted.secrets().epoch(granted.rid)
    granted.set_up(rest, attempt=2)
    state = granted.secrets().epoch(granted.rid)
    assert state.attempt == 2 and state.stage.secrets.members == rest
    assert state.statement != old.statement
    assert refused(granted.town, granted.ask("alder", "query.epoch", granted.epoch_request(1)))
    assert reasons(granted.town) == ["CSL-C478"]


def test_once_a_sum_was_asked_for_keys_are_not_made_again(agreed):
    agreed.ready(1)
    assert refused(agreed.town, agreed.ask("alder", "query.epoch", agreed.epoch_request(2)))
    assert reasons(agreed.town) == ["CSL-C479"]
    unpack(agreed.ask("alder", "query.epoch", agreed.epoch_request(1)), EpochKey, agreed.town.key("alder"))


def test_lost_secrets_are_not_replaced_after_a_release(agreed):
    agreed.revealed(1, agreed.acknowledged(1, agreed.masked(1, agreed.ready(1))))
    agreed.stop("alder")
    for path in agreed.town.homes["alder"].folder(FOLDER).iterdir():
        path.unlink()
    assert refused(agreed.town, agreed.ask("alder", "query.epoch", agreed.epoch_request(2)))
    assert refused(agreed.town, agreed.ask("alder", "query.sum", agreed.sum_request(2)))
    assert reasons(agreed.town) == ["CSL-C479", "CSL-C477"]


def test_a_plain_or_unknown_study_is_not_set_up(granted):
    town, plain = granted.town, granted.town.spec(name="plain", epsilon=0.3)
    granted.ask("alder", "query.offer", town.offer(plain))
    for rid in (plain.digest(), "d" * 64):
        assert refused(town, granted.ask("alder", "query.epoch", granted.packed(EpochRequest(study=rid, attempt=1))))
    assert reasons(town) == ["CSL-C471", "CSL-C511"]


def test_a_stranger_cannot_ask(granted):
    request = pack(Ed25519PrivateKey.generate(), EpochRequest(study=granted.rid, attempt=1))
    assert refused(granted.town, granted.ask("alder", "query.epoch", request))
    assert reasons(granted.town) == ["CSL-F202"]


def test_calls_out_of_order_are_refused(granted):
    town = granted.town
    keys = granted.keys(MEMBERS[1:])
    assert refused(town, granted.ask("alder", "query.epoch_keys", granted.epoch_keys(keys)))
    granted.keys(("alder",))
    empty = granted.packed(EpochExchanges(study=granted.rid, attempt=1, exchanges=()))
    assert refused(town, granted.ask("alder", "query.epoch_exchanges", empty))
    assert reasons(town) == ["CSL-C478"] * 2


def stranger(granted, name: str) -> SignedEpochKey:
    """A key that the coordinator made itself, under some name."""
    statement = make_keys(granted.town.charter.digest(), granted.rid, name).statement
    return SignedEpochKey(message=statement, signature=sign_statement(granted.town.coordinator, statement))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda f, keys: keys[:2], "CSL-P801"),  # fewer than n_min
        (lambda f, keys: keys[1:], "CSL-P806"),  # one's own is missing
        (lambda f, keys: keys[::-1], "CSL-P803"),
        (lambda f, keys: (*keys, keys[-1]), "CSL-P803"),
        (lambda f, keys: (*keys, stranger(f, "zelkova")), "CSL-F203"),
        (lambda f, keys: (keys[0], stranger(f, "birch"), *keys[2:]), "CSL-F202"),
    ],
)
def test_only_members_own_keys_take_part(granted, change, code):
    keys = granted.keys()
    request = granted.epoch_keys(change(granted, keys))
    assert refused(granted.town, granted.ask("alder", "query.epoch_keys", request))
    assert reasons(granted.town) == [code]
    assert isinstance(granted.secrets().epoch(granted.rid).stage, KeysMade)


def test_a_member_that_declares_another_contract_does_not_take_part(granted, monkeypatch):
    keys = granted.keys()
    member = type(granted.town.charter.members[0])
    monkeypatch.setattr(member, "declaration", lambda self, contract: None if self.id == "birch" else self.declares[0])
    assert refused(granted.town, granted.ask("alder", "query.epoch_keys", granted.epoch_keys(keys)))
    assert reasons(granted.town) == ["CSL-C480"]


def test_keys_are_shown_once(granted):
    """A coordinator that shows others' keys a second time, with one of its own choice, gets no second exchange."""
    keys = granted.keys()
    granted.exchanges(keys, ("alder",))
    granted.stop("birch")
    again = granted.epoch_keys(keys[:4])
    assert refused(granted.town, granted.ask("alder", "query.epoch_keys", again))
    assert reasons(granted.town) == ["CSL-C478"]
    assert isinstance(granted.secrets().epoch(granted.rid).stage, KeysSent)


def test_what_others_sent_to_somebody_else_opens_nothing(granted):
    sent = granted.exchanges(granted.keys())
    request = granted.epoch_exchanges(sent, "birch")
    assert refused(granted.town, granted.ask("alder", "query.epoch_exchanges", request))
    missing = EpochExchanges(
        study=granted.rid,
        attempt=1,
        exchanges=tuple(e for n in ("birch", "cedar") for e in sent[n].exchanges if e.message.receiver == "alder"),
    )
    assert refused(granted.town, granted.ask("alder", "query.epoch_exchanges", granted.packed(missing)))
    assert reasons(granted.town) == ["CSL-P806"]  # the same refusal stands there once
    good = granted.epoch_exchanges(sent, "alder")
    unpack(granted.ask("alder", "query.epoch_exchanges", good), EpochReady, granted.town.key("alder"))


def test_a_damaged_file_is_said_to_be_one(granted):
    granted.keys(("alder",))
    path = granted.town.homes["alder"].folder(FOLDER) / f"{granted.rid}.epoch"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    assert refused(granted.town, granted.ask("alder", "query.epoch", granted.epoch_request()))
    assert reasons(granted.town) == ["CSL-C482"]


def test_states_are_read_back_as_they_were_written(granted):
    granted.set_up()
    secrets = granted.secrets()
    state = secrets.epoch(granted.rid)
    assert EpochState.from_canonical(state.canonical()) == state
    path = granted.town.homes["alder"].folder(FOLDER) / f"{granted.rid}.epoch"
    assert path.stat().st_mode & 0o777 == 0o600
    assert state.stage.secrets.roots["birch"].encode() not in path.read_bytes()
