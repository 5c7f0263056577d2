"""Whoever has the disk in hands can change the file; nobody can without `verify` saying so."""

import json
import random
import shutil
import sqlite3
from contextlib import closing

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from federation.encoding import canonical
from federation.errors import ConsilienceError, IntegrityError
from federation.merkle import leaf_hash
from federation.note import Checkpoint, sign_checkpoint
from federation.signing import public_hex
from privacy.ledger import TreeHead, verify
from privacy.ledger.audit import PRICE_TOLERANCE, Audit, Findings, Witness
from privacy.ledger.entries import SIGNING_PREFIX
from privacy.ledger.state import State
from privacy.plan import Slot
from tests.privacy.policies import decision, policy, restoration

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
    result = verify(filled.path, public_hex(OTHER))
    assert [item.code for item in result.findings] == ["CSL-P624"] and result.other_key
    assert result.key_standing == "none of the ledger's keys"


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
    wrong = State.from_canonical(filled.ledger._store.state()[0]).model_copy(update={"exhausted": True}).canonical()
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
        (2, lambda body: body["data"]["charges"][0]["cost"].update(nano=5), ("CSL-P619", 2)),
        (2, lambda body: body["data"]["charges"][0]["cost"].update(nano=0, femto=0), ("CSL-P618", 2)),
        (2, lambda body: body["data"].update(policy="0" * 64), ("CSL-P618", 2)),
        (2, lambda body: body["data"].update(slot="no_slot"), ("CSL-P618", 2)),
        (2, lambda body: body["data"].update(epsilon=5), ("CSL-P618", 2)),
        (2, lambda body: body["data"].update(purpose="other"), ("CSL-P618", 2)),
        (2, lambda body: body["data"]["charges"][0].update(releases=1), ("CSL-P618", 4)),
        (4, lambda body: body["data"].update(number=1), ("CSL-P618", 4)),
        (8, lambda body: body["data"].update(returned=["holdout", "training"]), ("CSL-P618", 8)),
        (1, lambda body: body["data"]["limits"]["life"]["capacity"].update(nano=10**12), ("CSL-P620", 1)),
        (1, lambda body: body["data"].update(sha256="0" * 64), ("CSL-P620", 1)),
        (4, lambda body: body.update(ts=body["ts"] - 1), ("CSL-P617", 4)),
        (4, lambda body: body.update(v=2), ("CSL-P611", 4)),
        (4, lambda body: body.update(kind="approve"), ("CSL-P611", 4)),
        (5, lambda body: body.update(ts=2**53 - 1), ("CSL-P617", 6)),
        (6, lambda body: body.update(ts=2**53 - 1), ("CSL-P618", 6)),
    ],
)
def test_an_institution_cannot_write_what_the_rules_forbid(filled, seq, change, expected):
    resigned(filled, seq, change)
    found = codes(filled)
    assert expected in found and not {code for code, _ in found} & {"CSL-P613", "CSL-P614", "CSL-P615"}


def test_a_budget_that_was_overspent_is_found(filled):
    def enlarge(body):
        body["data"]["charges"][0]["events"][0]["noise_multiplier"] = 1.0
        body["data"]["charges"][0]["cost"]["nano"] = 10**9

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


def test_keys_that_rotate(filled):
    first = filled.public
    filled.ledger.rotate(OTHER, "Planned.")
    filled.ledger.refuse("CSL-P201", "later", "unknown purpose")
    result = filled.verify()
    assert result.valid and result.key_standing == "an earlier key, replaced at entry 9"
    newest = verify(filled.path, public_hex(OTHER))
    assert newest.valid and newest.key_standing == "the ledger's newest key"
    last = filled.row(10)
    forged = filled.key.sign(SIGNING_PREFIX + last[3])
    filled.tamper(("UPDATE entry SET sig = ? WHERE seq = 10", (forged,)))
    assert codes(filled) == [("CSL-P615", 10)] and first == filled.public


def test_a_change_of_key_that_the_new_key_never_accepted(filled):
    filled.ledger.rotate(OTHER, "Planned.")

    def steal(body):
        body["data"]["accepted"] = "0" * 128

    resigned(filled, 9, steal)
    assert ("CSL-P618", 9) in codes(filled)


def test_officers_decisions_are_checked_anew(make_house, tmp_path):
    house = make_house(tmp_path, policy(studies__0__automatic_epsilon=0.0))
    house.ledger.approve(decision("a" * 64, house.policy))
    house.reserve("a" * 64)
    assert house.verify().valid

    def forge(body):
        body["data"]["statement"]["reason"] = "Not what was signed."

    resigned(house, 2, forge)
    assert {("CSL-P618", 2), ("CSL-P618", 3)} <= set(codes(house))


def test_a_policy_that_no_officer_signed(filled):
    resigned(filled, 1, lambda body: body["data"]["signatures"].pop())
    assert ("CSL-P618", 1) in codes(filled)


def test_a_plan_is_priced_anew(make_house, tmp_path):
    slot = {
        "id": "one",
        "purpose": "marketing.churn",
        "contract": "shop",
        "noise_multiplier": 10.0,
        "sampling_rate": 1.0,
        "steps": 1,
        "histogram_sigma": 10.0,
    }
    house = make_house(tmp_path, policy(budget__mode="plan", budget__slots=[slot]))
    house.reserve("a", rounds=1, terms=house.terms(slot=Slot(**slot)))
    house.release("a", 1)
    assert house.verify().valid

    def cheapen(body):
        body["data"]["plan"][0]["cost"]["nano"] //= 2

    resigned(house, 1, cheapen)
    assert ("CSL-P619", 1) in codes(house)


def test_prices_may_differ_in_the_last_digits_and_no_more(filled):
    def change(factor):
        def apply(body):
            cost = body["data"]["charges"][0]["cost"]
            cost["nano"] = int(cost["nano"] * factor)

        return apply

    resigned(filled, 2, change(1 - 0.5 * PRICE_TOLERANCE))
    assert not any(code == "CSL-P619" for code, _ in codes(filled))
    resigned(filled, 2, change(1 - 3 * PRICE_TOLERANCE))
    assert ("CSL-P619", 2) in codes(filled)


def test_heads_that_the_ledger_writes_down_must_be_its_own(filled):
    head = filled.ledger.tree_head()
    filled.ledger.witnessed(head.size, head.root, ["birch"])
    assert filled.verify().valid
    resigned(filled, 9, lambda body: body["data"].update(root="0" * 64))
    assert codes(filled)[0] == ("CSL-P622", None) or ("CSL-P627", 9) in codes(filled)
    assert ("CSL-P627", 9) in codes(filled)


def test_a_restore_with_losses_excuses_what_it_says_and_nothing_else(filled):
    before = filled.ledger.tree_head()
    filled.ledger.restore(restoration("alder", before.size, before.root))
    lost = Witness(before.size + 5, "0" * 64, generation=0)
    assert codes(filled, lost) == []
    assert codes(filled, Witness(before.size, before.root, generation=0)) == []
    assert codes(filled, Witness(3, "0" * 64, generation=0)) == [("CSL-P625", None)]
    assert codes(filled, Witness(before.size + 5, "0" * 64, generation=1)) == [("CSL-P625", None)]
    assert codes(filled, Witness(1, "0" * 64, generation=2)) == [("CSL-P625", None)]


def test_a_restore_whose_note_shows_another_ledger(filled):
    head = filled.ledger.tree_head()
    earlier = Checkpoint("consilience/test/alder", 4, "0" * 64)
    note = sign_checkpoint(filled.key, earlier)
    filled.ledger.restore(restoration("alder", head.size, head.root, complete=True, note=note))
    assert codes(filled) == [("CSL-P626", 9)]


def test_a_million_findings_are_not_kept(filled, monkeypatch):
    monkeypatch.setattr("privacy.ledger.audit.MOST_FINDINGS", 3)
    filled.tamper(("UPDATE entry SET sig = zeroblob(64)", ()))
    assert len(filled.verify().findings) == 3


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


def stream(house):
    return [(row[3], row[5]) for row in sqlite3.connect(house.path).execute("SELECT * FROM entry ORDER BY seq")]


def survives(house, entries, head):
    with Audit(house.public, State(), Findings()) as audit:
        for seq, (content, signature) in enumerate(entries):
            audit.entry(seq, content, signature)
        audit.check_key()
        audit.check_witness(head)
        return not audit.findings.count


def test_no_rearranged_stream_of_entries_survives(restored):
    """Thousands of edits, deletions, insertions, moves and cuts of a ledger's entries; a cut-off end by the witness."""
    house, draw = restored(), random.Random(20260301)
    entries, head = stream(house), house.ledger.tree_head()
    assert survives(house, entries, head)
    for number in range(1200):
        mutant = rearranged(draw, entries)
        assert mutant == entries or not survives(house, mutant, head), number


def rearranged(draw, entries):
    mutant = list(entries)
    at, other = draw.randrange(len(mutant)), draw.randrange(len(mutant))
    kind = draw.choice(["delete", "insert", "move", "cut", "body", "signature", "swap signatures"])
    content, signature = mutant[at]
    if kind == "delete":
        del mutant[at]
    elif kind == "insert":
        mutant.insert(at, mutant[other])
    elif kind == "move":
        mutant.insert(other, mutant.pop(at))
    elif kind == "cut":
        del mutant[at:]
    elif kind == "swap signatures":
        mutant[at], mutant[other] = (content, mutant[other][1]), (mutant[other][0], signature)
    else:
        changed = bytearray(content if kind == "body" else signature)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        mutant[at] = (bytes(changed), signature) if kind == "body" else (content, bytes(changed))
    return mutant


@settings(max_examples=200)
@given(MUTATION)
def test_no_random_mutation_survives(restored, mutation):
    house = restored()
    mutate(house, *mutation)
    assert not house.verify().valid


@pytest.mark.parametrize("column", ["body", "sig"])
def test_totals_that_turned_into_text_are_damage(restored, column):
    """One bit of SQLite's type code makes text of bytes: the file is refused, by an error of ours."""
    house = restored()
    house.ledger.close_file()
    with closing(sqlite3.connect(house.path)) as connection:
        connection.executescript("PRAGMA ignore_check_constraints = 1; PRAGMA writable_schema = 1;")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'state'")
        connection.commit()
    with closing(sqlite3.connect(house.path)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        connection.execute(f"UPDATE state SET {column} = CAST(hex({column}) AS TEXT)")
        connection.commit()
    with pytest.raises(IntegrityError):
        house.verify()


@settings(max_examples=200)
@given(st.integers(0, 10**6), st.integers(0, 7))
@example(2463, 0)
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
