"""Withdrawn customers: the register only grows, names nobody without the key, and whoever stands in it is never read."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.cohort import load_cohort
from client.consent import consenting, known_customers
from client.home import Home
from client.tags import join_tags, list_digest, split_tags
from client.withdrawal import Withdrawals, create_register, register, withdrawal_digest
from federation.errors import DataError, IntegrityError, StorageError
from tests.client.node_files import DECLARED, FLAT, KINDS, people, people_node, person, purchase, rfm, shop_node

STORE = b"s" * 32
IDS = st.sets(st.text(min_size=1, max_size=8), max_size=12)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    create_register(home, STORE)
    return home


@given(st.lists(IDS, max_size=4), IDS)
@settings(max_examples=40)
def test_the_register_is_the_union_of_all_withdrawals(
    tmp_path_factory: pytest.TempPathFactory, batches: list[set[str]], others: set[str]
) -> None:
    home = Home(tmp_path_factory.mktemp("home"))
    create_register(home, STORE)
    everybody: set[str] = set()
    for batch in batches:
        register(home, STORE, batch)
        everybody |= batch
    found = Withdrawals.load(home, STORE)
    assert len(found) == len(everybody) and found.mask(sorted(everybody)).all()
    assert [bool(gone) for gone in found.mask(sorted(others))] == [name in everybody for name in sorted(others)]
    assert (found.excluded is None) == (not everybody)


def test_the_version_changes_with_the_content_alone(home: Home) -> None:
    before = Withdrawals.load(home, STORE)
    after = register(home, STORE, ["chief"])
    content = home.withdrawn_file.read_bytes()
    assert before.version != after.version == register(home, STORE, ["chief"]).version == before.plus(["chief"]).version
    assert home.withdrawn_file.read_bytes() == content  # the same again writes nothing
    assert Withdrawals.load(home, STORE).version == after.version


def test_the_register_names_nobody_and_opens_with_its_key_alone(home: Home) -> None:
    register(home, STORE, ["chief-canary"])
    assert b"chief-canary" not in home.withdrawn_file.read_bytes()
    assert home.withdrawn_file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(IntegrityError, match="CSL-P522"):
        Withdrawals.load(home, b"t" * 32)
    assert "tags" not in repr(Withdrawals.load(home, STORE))


def test_a_register_that_is_gone_is_a_fault_and_not_an_empty_one(home: Home) -> None:
    with pytest.raises(StorageError, match="CSL-C548"):
        create_register(home, STORE)
    home.withdrawn_file.unlink()
    for attempt in (lambda: Withdrawals.load(home, STORE), lambda: register(home, STORE, ["chief"])):
        with pytest.raises(IntegrityError, match="CSL-C545"):
            attempt()


def test_a_full_disk_keeps_the_register_as_it_was(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = register(home, STORE, ["chief"])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("federation.files.os.fsync", full)
        with pytest.raises(StorageError, match="CSL-F301"):
            register(home, STORE, ["bob"])
    assert Withdrawals.load(home, STORE).version == before.version


def test_what_several_add_at_once_is_added_by_all(home: Home) -> None:
    threads = [threading.Thread(target=register, args=(home, STORE, [f"c{number}"])) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Withdrawals.load(home, STORE)) == 12


def test_a_record_with_half_a_customer_is_damaged() -> None:
    with pytest.raises(IntegrityError, match="CSL-C546"):
        split_tags(b"x" * 17)
    assert split_tags(join_tags([b"b" * 16, b"a" * 16, b"b" * 16])) == {b"a" * 16, b"b" * 16}


@given(IDS, IDS)
def test_a_digest_belongs_to_one_list_and_one_key(one: set[str], other: set[str]) -> None:
    assert (withdrawal_digest(STORE, one) == withdrawal_digest(STORE, other)) == (one == other)
    assert withdrawal_digest(STORE, one) != withdrawal_digest(b"t" * 32, one)
    assert withdrawal_digest(STORE, one) == withdrawal_digest(STORE, [*one, *one])


def test_where_identifiers_meet_makes_a_difference() -> None:
    assert list_digest(STORE, ["ab", "c"]) != list_digest(STORE, ["a", "bc"])


@pytest.mark.parametrize("kind", KINDS)
def test_who_withdrew_is_never_read_whatever_the_consent_table_says(home: Home, kind: str) -> None:
    rows = [person(number, at=5) for number in range(6)]
    node = people_node(home.root, rows, kind, position="at", score={"from_position": 0})
    excluded = register(home, STORE, ["p1", "p4", "nobody"]).excluded
    cohort, findings = load_cohort(node, people(), FLAT, "study", "learn", excluded)
    assert list(cohort.ids) == ["p0", "p2", "p3", "p5"] and findings.without_consent == 2
    scored, _ = load_cohort(node, people(), FLAT, "contact", "score", excluded)
    assert list(scored.ids) == ["p0", "p2", "p3", "p5"]
    assert consenting(node, "contact", excluded) == {"p0", "p2", "p3", "p5"}
    assert consenting(node, "contact") == {f"p{number}" for number in range(6)}
    assert known_customers(node) == {f"p{number}" for number in range(6)}


def test_a_shop_forgets_all_purchases_of_who_withdrew(home: Home) -> None:
    log = [purchase(f"c{number}", 5 + number) for number in range(5) for _ in range(3)]
    node = shop_node(home.root, log)
    excluded = register(home, STORE, ["c2"]).excluded
    cohort, findings = load_cohort(node, rfm("recency"), DECLARED, "study", "learn", excluded)
    assert list(cohort.ids) == ["c0", "c1", "c3", "c4"] and findings.without_consent == 1


def test_hostile_identifiers_are_only_identifiers(home: Home) -> None:
    names = ["'; DROP TABLE consented; --", 'a"b', "ä ö", "0"]
    node = people_node(home.root, [person(number, id=name) for number, name in enumerate(names)])
    excluded = register(home, STORE, names[:2]).excluded
    assert consenting(node, "study", excluded) == set(names[2:])


def test_when_all_withdrew_nobody_is_left(home: Home) -> None:
    node = people_node(home.root, [person(1), person(2)])
    with pytest.raises(DataError, match="CSL-C109"):
        load_cohort(node, people(), FLAT, "study", "learn", register(home, STORE, ["p1", "p2"]).excluded)


def test_no_consent_table_knows_nobody(home: Home) -> None:
    node = people_node(home.root, [person(1)])
    with pytest.raises(DataError, match="CSL-C113"):
        known_customers(node.model_copy(update={"consent": None}).at(home.root))


def test_an_older_copy_of_the_register_is_noticed_by_the_ledgers_count(home):
    register(home, STORE, ["c1", "c2"])
    older = home.withdrawn_file.read_bytes()
    register(home, STORE, ["c3"])
    assert len(Withdrawals.load(home, STORE, least=3)) == 3
    home.withdrawn_file.write_bytes(older)
    with pytest.raises(IntegrityError) as caught:
        Withdrawals.load(home, STORE, least=3)
    assert caught.value.code == "CSL-C562"
