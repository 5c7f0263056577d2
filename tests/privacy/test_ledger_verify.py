"""Whoever has the disk in hands can change the file; nobody can without `verify` saying so."""

import json
import shutil
import sqlite3

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from federation.encoding import canonical
from federation.errors import ConsilienceError
from federation.signing import public_hex
from privacy.ledger import TreeHead, verify
from privacy.ledger.entries import SIGNING_PREFIX
from privacy.ledger.merkle import leaf_hash
from privacy.ledger.state import State

OTHER = Ed25519PrivateKey.from_private_bytes(b"other".ljust(32, b"."))


def fill(house):
    """Entries 0 genesis, 1 policy, 2 reserve a, 3-4 release a, 5 refuse, 6 reserve b, 7 release b (holdout), 8 close a."""
    house.reserve("a")
    house.release("a", 1)
    house.release("a", 2)
    house.ledger.refuse("CSL-P201", "cross_sell", "unknown purpose")
    house.reserve("b", noise=12.0)
    house.release("b", 1, "holdout")
    house.ledger.close("a")
    return house


@pytest.fixture
def filled(house):
    return fill(house)


@pytest.fixture(scope="module")
def restored(make_house, tmp_path_factory):
    """Return a function that puts one filled ledger back as it was."""
    house = fill(make_house(tmp_path_factory.mktemp("mutation")))
    content = house.path.read_bytes()

    def restore():
        house.ledger.close_file()
        house.path.write_bytes(content)
        house.ledger = house.open()
        return house

    return restore


def codes(house, witness=None):
    return sorted({(item.code, item.seq) for item in house.verify(witness).findings}, key=str)


def test_a_whole_ledger_verifies_and_adds_up(filled):
    result = filled.verify()
    assert result.valid and result.head == filled.ledger.tree_head() and result.state == filled.ledger.state()
    assert result.policy == filled.policy and result.head.size == 9


def test_an_edited_body(filled):
    filled.tamper(("UPDATE entry SET body = CAST(replace(body, 'cross_sell', 'crossxsell') AS BLOB) WHERE seq = 5", ()))
    assert codes(filled) == [("CSL-P613", 5), ("CSL-P615", 5)]


def test_an_edited_body_with_its_leaf(filled):
    content = filled.row(5)[3].replace(b"cross_sell", b"crossxsell")
    filled.tamper(("UPDATE entry SET body = ?, leaf = ? WHERE seq = 5", (content, leaf_hash(content))))
    assert ("CSL-P615", 5) in codes(filled) and ("CSL-P614", 6) in codes(filled)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("kind", "refuse", "CSL-P612"),
        ("rid", "b", "CSL-P612"),
        ("sig", b"\0" * 64, "CSL-P615"),
        ("leaf", b"\0" * 32, "CSL-P613"),
        ("body", b"{}", "CSL-P611"),
    ],
)
def test_every_column_of_a_row_is_bound(filled, column, value, expected):
    filled.tamper((f"UPDATE entry SET {column} = ? WHERE seq = 4", (value,)))
    assert (expected, 4) in codes(filled)


def test_a_deleted_entry(filled):
    filled.tamper(("DELETE FROM entry WHERE seq = 3", ()))
    found = filled.verify().findings
    assert any(item.code == "CSL-P616" and item.seq == 4 and "3 to 3" in item.what for item in found)
    assert ("CSL-P614", 4) in codes(filled)


def test_a_deleted_entry_with_the_rest_moved_up(filled):
    filled.tamper(("DELETE FROM entry WHERE seq = 3", ()), ("UPDATE entry SET seq = seq - 1 WHERE seq > 3", ()))
    assert {("CSL-P612", 3), ("CSL-P614", 3)} <= set(codes(filled))


def test_reordered_entries(filled):
    filled.tamper(
        ("UPDATE entry SET seq = 99 WHERE seq = 3", ()),
        ("UPDATE entry SET seq = 3 WHERE seq = 4", ()),
        ("UPDATE entry SET seq = 4 WHERE seq = 99", ()),
    )
    assert {("CSL-P612", 3), ("CSL-P612", 4), ("CSL-P614", 3), ("CSL-P614", 4)} <= set(codes(filled))


def test_a_forged_entry_at_the_end(filled):
    last = filled.row(8)
    body = json.loads(last[3]) | {"seq": 9, "prev": last[4].hex(), "kind": "refuse", "rid": None}
    body["data"] = {"code": "CSL-P201", "study": "x", "why": "y"}
    content = canonical(body)
    values = (9, "refuse", None, content, leaf_hash(content), OTHER.sign(SIGNING_PREFIX + content))
    filled.tamper(("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?)", values))
    assert codes(filled) == [("CSL-P615", 9), ("CSL-P622", None)]


def test_a_tail_cut_off_is_found_by_the_totals_and_by_the_witness(filled):
    head = filled.ledger.tree_head()
    assert codes(filled, head) == []
    filled.tamper(("DELETE FROM entry WHERE seq = 8", ()))
    assert codes(filled) == [("CSL-P622", None)]
    assert ("CSL-P625", None) in codes(filled, head)


def test_an_older_copy_of_the_whole_file_is_found_by_the_witness(house, tmp_path):
    house.reserve("a")
    old = tmp_path / "old.sqlite"
    shutil.copy(house.path, old)
    house.release("a", 1)
    assert verify(old, house.public).valid
    found = verify(old, house.public, house.ledger.tree_head()).findings
    assert [item.code for item in found] == ["CSL-P625"]


def test_a_history_written_anew_is_found_by_the_witness(make_house, tmp_path):
    first, second = (tmp_path / name for name in ("first", "second"))
    first.mkdir()
    second.mkdir()
    one, two = make_house(first), make_house(second)
    one.reserve("a")
    two.reserve("b")
    two.release("b", 1)
    assert two.verify().valid
    assert codes(two, one.ledger.tree_head()) == [("CSL-P625", None)]
    assert codes(two, TreeHead(3, "0" * 64)) == [("CSL-P625", None)]


def test_an_earlier_head_stays_true(filled):
    head = filled.ledger.tree_head()
    filled.release("b", 2)
    assert codes(filled, head) == []


def test_another_key(filled):
    found = {item.code for item in verify(filled.path, public_hex(OTHER)).findings}
    assert found == {"CSL-P615", "CSL-P622", "CSL-P624"}


def test_a_release_row_that_was_removed_or_added(filled):
    filled.tamper(
        ("DELETE FROM released WHERE seq = 4", ()), ("INSERT INTO released VALUES ('a', 8, 'training', 5)", ())
    )
    assert codes(filled) == [("CSL-P623", 4), ("CSL-P623", 5)]


def test_missing_and_added_parts_of_the_file(filled):
    filled.tamper(("CREATE TRIGGER other AFTER INSERT ON entry BEGIN SELECT 1; END", ()))
    connection = sqlite3.connect(filled.path)
    connection.execute("DROP TRIGGER entry_kept")
    connection.commit()
    assert codes(filled) == [("CSL-P621", None)]
    assert len(filled.verify().findings) == 2


def test_totals_that_were_replaced(filled):
    wrong = State.from_canonical(filled.ledger._store.state()[0]).model_copy(update={"policy_version": 7}).canonical()
    filled.tamper(("UPDATE state SET body = ?", (wrong,)))
    assert codes(filled) == [("CSL-P622", None)]


def resigned(house, seq, change):
    """Write an entry anew as the institution itself could: with its key, and every later entry chained to it."""
    rows = sqlite3.connect(house.path).execute("SELECT * FROM entry ORDER BY seq").fetchall()
    statements, prev = [], None
    for number, _, _, old, old_leaf, _ in rows:
        content, leaf = old, old_leaf
        if number >= seq:
            body = json.loads(old)
            if number == seq:
                change(body)
            else:
                body["prev"] = prev
            content = canonical(body)
            leaf = leaf_hash(content)
            signature = house.key.sign(SIGNING_PREFIX + content)
            statements.append(
                ("UPDATE entry SET body = ?, leaf = ?, sig = ? WHERE seq = ?", (content, leaf, signature, number))
            )
        prev = leaf.hex()
    house.tamper(*statements)


@pytest.mark.parametrize(
    ("seq", "change", "expected"),
    [
        (2, lambda body: body["data"]["charges"][0]["cost"].update(mu_squared_nano=5), ("CSL-P619", 2)),
        (2, lambda body: body["data"].update(run_delta=1e-10), ("CSL-P618", 2)),
        (2, lambda body: body["data"].update(epsilon=5), ("CSL-P618", 2)),
        (2, lambda body: body["data"].update(purpose="other"), ("CSL-P618", 2)),
        (2, lambda body: body["data"]["charges"][0].update(releases=1), ("CSL-P618", 4)),
        (4, lambda body: body["data"].update(number=1), ("CSL-P618", 4)),
        (8, lambda body: body["data"].update(returned=["holdout", "training"]), ("CSL-P618", 8)),
        (1, lambda body: body["data"]["limits"]["life"].update(mu_squared_nano=10**12), ("CSL-P620", 1)),
        (1, lambda body: body["data"].update(sha256="0" * 64), ("CSL-P620", 1)),
        (4, lambda body: body.update(ts=body["ts"] - 1), ("CSL-P617", 4)),
        (4, lambda body: body.update(v=2), ("CSL-P611", 4)),
        (4, lambda body: body.update(kind="approve"), ("CSL-P611", 4)),
    ],
)
def test_an_institution_cannot_write_what_the_rules_forbid(filled, seq, change, expected):
    resigned(filled, seq, change)
    found = codes(filled)
    assert expected in found and not {code for code, _ in found} & {"CSL-P613", "CSL-P614", "CSL-P615"}


def test_a_budget_that_was_overspent_is_found(filled):
    def enlarge(body):
        body["data"]["charges"][0]["events"][0]["noise_multiplier"] = 1.0
        body["data"]["charges"][0]["cost"]["mu_squared_nano"] = 10**9

    resigned(filled, 6, enlarge)
    found = filled.verify().findings
    assert any(
        item.code == "CSL-P618" and item.seq == 6 and "CSL-P403" in item.what or "CSL-P404" in item.what
        for item in found
    )


def test_verifying_does_not_change_the_file_and_leaves_writers_alone(filled):
    before = filled.path.read_bytes()
    filled.path.chmod(0o400)
    assert filled.verify().valid and filled.path.read_bytes() == before


MUTATION = st.tuples(
    st.sampled_from(["flip", "delete", "swap", "copy", "state", "released"]),
    st.integers(0, 8),
    st.integers(0, 8),
    st.sampled_from(["kind", "rid", "body", "leaf", "sig"]),
    st.integers(0, 5000),
    st.integers(0, 7),
)


def mutate(house, kind, first, second, column, byte, bit):
    def flipped(value):
        content = bytearray(value if isinstance(value, bytes) else (value or "x").encode())
        content[byte % len(content)] ^= 1 << bit
        return bytes(content)

    if kind == "flip":
        index = {"kind": 1, "rid": 2, "body": 3, "leaf": 4, "sig": 5}[column]
        value = flipped(house.row(first)[index])
        text = value.decode("latin-1") if column in ("kind", "rid") else value
        house.tamper(
            ("PRAGMA ignore_check_constraints = ON", ()),
            (f"UPDATE entry SET {column} = ? WHERE seq = ?", (text, first)),
        )
    elif kind == "delete":
        house.tamper(("DELETE FROM entry WHERE seq = ?", (first,)))
    elif kind == "swap":
        second = second if second != first else (first + 1) % 9
        moves = [(99, first), (first, second), (second, 99)]
        house.tamper(*[("UPDATE entry SET seq = ? WHERE seq = ?", move) for move in moves])
    elif kind == "copy":
        values = house.row(first)
        house.tamper(
            (
                "INSERT INTO entry VALUES (9, 'refuse', NULL, ?, ?, ?)",
                (values[3], leaf_hash(bytes([second])), values[5]),
            )
        )
    elif kind == "state":
        body, signature = house.ledger._store.state()
        changed = (flipped(body), signature) if bit % 2 else (body, flipped(signature))
        house.tamper(("UPDATE state SET body = ?, sig = ?", changed))
    else:
        house.tamper(("UPDATE released SET number = number + ? WHERE seq = ?", (3 + byte, (3, 4, 7)[first % 3])))


@settings(max_examples=200, deadline=None)
@given(MUTATION)
def test_no_random_mutation_survives(restored, mutation):
    house = restored()
    mutate(house, *mutation)
    assert not house.verify().valid


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_damaged_byte_of_the_file_is_an_error_or_a_finding_or_harmless(restored, place, bit):
    """A flipped bit may hit unused space; then every entry must still be exactly as it was."""
    house = restored()
    head = house.ledger.tree_head()
    house.ledger.close_file()
    content = bytearray(house.path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    house.path.write_bytes(content)
    try:
        result = house.verify()
    except ConsilienceError:
        return
    assert result.head == head or not result.valid
