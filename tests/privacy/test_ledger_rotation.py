"""The institution's key changes: entries before it keep their signatures, entries after it have the new one's."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from federation.errors import ConsilienceError
from federation.signing import public_hex, sign
from privacy.ledger import Ledger, LedgerReader
from privacy.ledger.entries import ROTATION_CONTEXT, Known, Rotate, RotateData, RotationStatement
from privacy.ledger.rules import advance


def key_number(number):
    return Ed25519PrivateKey.from_private_bytes(f"identity {number}".encode().ljust(32, b"."))


def refused(code, call, *arguments, **named):
    with pytest.raises(ConsilienceError) as caught:
        call(*arguments, **named)
    assert caught.value.code == code, caught.value
    return caught.value


def rotate(house, number, reason="yearly"):
    house.ledger.rotate(key_number(number), reason)
    house.key = key_number(number)
    house.public = public_hex(house.key)


def test_after_a_rotation_the_new_key_writes_and_old_entries_are_read(house):
    old = house.public
    house.reserve("a", rounds=2)
    house.release("a", 1)
    rotate(house, 1)
    assert [entry.body.seq for entry in house.ledger.entries()] == list(range(5))
    house.release("a", 2)
    house.release("a", 1)  # the old entry is found again
    state = house.ledger.state()
    assert [(item.seq, item.key) for item in state.keys] == [(0, old), (5, house.public)]
    assert state.key_at(4) == old and state.key_at(5) == house.public == state.key
    assert house.verify().valid


def test_a_rotated_ledger_is_opened_with_the_new_key_alone(house):
    old_key, old = house.key, house.public
    house.reserve("a")
    rotate(house, 1)
    with house.open() as ledger:
        ledger.check_holdout_key(b"h" * 32)
        assert ledger.reservation("a") is not None and ledger.entry(0).body.data.key == old
        ledger.close("a")
    with LedgerReader.read(house.path, house.public) as reader:
        assert sum(1 for _ in reader.entries()) == 5
    refused("CSL-P607", Ledger.open, house.path, old_key)
    refused("CSL-P607", LedgerReader.read, house.path, old)
    refused("CSL-P604", LedgerReader.read, house.path, public_hex(key_number(9)))


def test_a_writer_with_the_old_key_writes_nothing_more(house):
    with house.open() as second:
        rotate(house, 1)
        error = refused("CSL-P607", house.reserve, "a", ledger=second)
        assert "entry 3" in error.cause
    assert house.ledger.state().size == 3 and house.verify().valid


def test_many_rotations(house):
    for number in range(1, 6):
        rotate(house, number)
        house.reserve(f"s{number}", noise=30.0)
    with house.open() as ledger:
        assert [entry.body.kind for entry in ledger.entries()][2:] == ["rotate", "reserve"] * 5
    result = house.verify()
    assert result.valid and len(result.state.keys) == 6


def test_a_key_is_used_once(house):
    first = house.key
    refused("CSL-P317", house.ledger.rotate, first, "the same")
    rotate(house, 1)
    refused("CSL-P317", house.ledger.rotate, first, "back again")
    assert house.ledger.state().size == 3
    house.ledger.refuse("CSL-P201", "x", "the ledger goes on with its key")


def test_a_rotation_is_for_one_place_of_one_ledger_and_accepted_by_the_new_key(house):
    state, new = house.ledger.state(), key_number(1)
    right = RotationStatement(member="alder", seq=state.size, prev=state.head, old=house.public, new=public_hex(new))

    def code(statement, signer=new):
        data = RotateData(
            statement=statement, accepted=sign(signer, ROTATION_CONTEXT, statement).value, reason="yearly"
        )
        body = Rotate(seq=state.size, prev=state.head, ts=state.ts, data=data)
        try:
            advance(state, body, b"\0" * 32, Known())
        except ConsilienceError as error:
            return error.code
        return None

    assert code(right) is None
    for change in ({"member": "birch"}, {"seq": state.size + 1}, {"prev": "0" * 64}, {"old": public_hex(new)}):
        assert code(right.model_copy(update=change)) == "CSL-P317"
    assert code(right, key_number(2)) == "CSL-F202"


def test_the_reason_may_be_any_text(house):
    house.ledger.rotate(key_number(1), "x" * 5000 + "\ud800")
    assert len(house.ledger.entry(2).body.data.reason) == 400
