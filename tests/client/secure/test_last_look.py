"""The last look at what leaves for secure sums: a reply that is not about the very statements asked about stays in."""

import pytest

from client.outgoing import RULES
from federation.encoding import sha256_hex
from federation.errors import ConsilienceError
from federation.messages import pack, unpack
from federation.secure import Ack, EpochKey, EpochReady, Exchanges, Masked, PairKey, Ready, Reveal
from privacy.secure_aggregation.epoch import make_keys
from tests.client.secure.town import MEMBERS, Federation

OTHER = "d" * 64


@pytest.fixture(scope="module")
def pairs(granted_town, tmp_path_factory):
    """An honest exchange of every type with alder: type -> (request, reply)."""
    from tests.client.secure import town as towns

    federation = Federation(towns.copied(granted_town, tmp_path_factory.mktemp("looked") / "town"))
    found = {}

    def noted(kind, request, member="alder"):
        reply = federation.ask(member, kind, request)
        if member == "alder":
            found[kind] = (request, reply)
        return reply

    keys = tuple(
        federation.signed_key(member, noted("query.epoch", federation.epoch_request(), member)) for member in MEMBERS
    )
    sent = {}
    for member in MEMBERS:
        reply = noted("query.epoch_keys", federation.epoch_keys(keys), member)
        sent[member] = unpack(reply, Exchanges, federation.town.key(member))[0]
    for member in MEMBERS:
        noted("query.epoch_exchanges", federation.epoch_exchanges(sent, member), member)
    request = federation.sum_request(1)
    ready = {member: noted("query.sum", request, member) for member in MEMBERS}
    request = federation.sum_readies(1, federation.readies(ready))
    masked = {member: noted("query.sum_readies", request, member) for member in MEMBERS[:4]}
    request = federation.sum_headers(1, federation.headers(masked))
    acks = {member: noted("query.sum_headers", request, member) for member in MEMBERS[:4]}
    noted("query.sum_acks", federation.sum_acks(1, federation.acks(acks)))
    with federation:
        yield federation, found


def held_back(pairs, kind, header, payload=b"") -> str:
    federation, found = pairs
    reply = pack(federation.vault("alder")._keys.identity, header, payload)
    with pytest.raises(ConsilienceError, match="CSL-C402") as caught:
        federation.vault("alder")._outgoing.check(kind, found[kind][0], reply)
    return caught.value.cause


def honest(pairs, kind, model):
    federation, found = pairs
    return unpack(found[kind][1], model, federation.town.key("alder"))


def test_honest_replies_pass(pairs):
    federation, found = pairs
    assert set(found) == {kind for kind in RULES if kind.startswith(("query.epoch", "query.sum"))}
    for kind, (request, reply) in found.items():
        federation.vault("alder")._outgoing.check(kind, request, reply)


def test_no_reply_answers_a_request_of_another_type(pairs):
    federation, found = pairs
    for kind, (request, _) in found.items():
        for other, (_, reply) in found.items():
            if other != kind:
                with pytest.raises(ConsilienceError, match="CSL-C402"):
                    federation.vault("alder")._outgoing.check(kind, request, reply)


def test_a_statement_of_another_member_study_or_sum_stays_in(pairs):
    federation, _ = pairs
    key = honest(pairs, "query.epoch", EpochKey)[0]
    held_back(pairs, "query.epoch", make_keys(federation.town.charter.digest(), OTHER, "alder").statement)
    held_back(pairs, "query.epoch", key.model_copy(update={"id": "birch"}))
    exchanges = honest(pairs, "query.epoch_keys", Exchanges)[0]
    first = exchanges.exchanges[0]
    for update in ({"sender": "birch"}, {"epoch": OTHER}):
        wrong = first.model_copy(update={"message": first.message.model_copy(update=update)})
        held_back(pairs, "query.epoch_keys", exchanges.model_copy(update={"exchanges": (wrong,)}))
    ready = honest(pairs, "query.epoch_exchanges", EpochReady)[0]
    held_back(pairs, "query.epoch_exchanges", ready.model_copy(update={"study": OTHER}))
    held_back(pairs, "query.sum", honest(pairs, "query.sum", Ready)[0].model_copy(update={"offer": OTHER}))
    ack = honest(pairs, "query.sum_headers", Ack)[0]
    for update in ({"t": OTHER}, {"s": OTHER}, {"id": "birch"}):
        held_back(pairs, "query.sum_headers", ack.model_copy(update=update))


def test_a_masked_vector_has_the_length_of_the_sum_and_its_transcript(pairs):
    header, content = honest(pairs, "query.sum_readies", Masked)

    def masked(payload, **update):
        return header.model_copy(update={"y": sha256_hex(payload), **update}), payload

    assert "longer" in held_back(pairs, "query.sum_readies", *masked(content + bytes(4)))
    assert "longer" in held_back(pairs, "query.sum_readies", *masked(content[:-4]))
    assert "longer" in held_back(pairs, "query.sum_readies", *masked(content, w=64))
    assert "longer" in held_back(pairs, "query.sum_readies", *masked(content + bytes(4), d=header.d + 1))
    held_back(pairs, "query.sum_readies", *masked(content, t=OTHER))


def test_no_pairwise_key_of_a_survivor_leaves(pairs):
    said = honest(pairs, "query.sum_acks", Reveal)[0]
    assert [item.id for item in said.pairs] == ["elm"]
    both = (PairKey(id="birch", key=OTHER), *said.pairs)
    assert "survives" in held_back(pairs, "query.sum_acks", said.model_copy(update={"pairs": both}))
    held_back(pairs, "query.sum_acks", said.model_copy(update={"t": OTHER}))


def test_nothing_lies_beside_a_statement_but_the_masked_vector(pairs):
    for kind, model in (("query.sum", Ready), ("query.sum_headers", Ack), ("query.sum_acks", Reveal)):
        held_back(pairs, kind, honest(pairs, kind, model)[0], b"rows")
