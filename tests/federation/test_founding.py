import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.charter import COORDINATOR, open_charter
from federation.contract import FeatureContract
from federation.document import load_yaml, parse_yaml
from federation.errors import ConsilienceError, DocumentError, IntegrityError, StorageError
from federation.founding import (
    CharterFile,
    CharterSignature,
    SignedCard,
    as_file,
    changes,
    check_file,
    collect,
    contract_yaml,
    missing,
    open_card,
    pin,
    read_paper,
    sealed,
    sign_charter,
)
from tests.founding_parts import LOG, SHOP, card, charter, charter_file, key_of, link, member, node_key_of

PARTIES = ("alder", "birch", COORDINATOR)


def signatures(file: CharterFile, *names: str) -> list[CharterSignature]:
    return [sign_charter(key_of(name), file.charter, name) for name in names or PARTIES]


def test_a_card_is_signed_by_the_key_that_it_names():
    assert open_card(card(member("alder"))).member == member("alder")
    with pytest.raises(IntegrityError, match="CSL-F201"):
        open_card(card(member("alder"), signer="birch"))
    other = card(member("alder"))
    forged = other.model_copy(update={"card": other.card.model_copy(update={"member": member("alder", size=2000)})})
    with pytest.raises(IntegrityError, match="CSL-F202"):
        open_card(forged)


@given(st.permutations(PARTIES), st.integers(0, 3))
def test_signatures_come_in_any_order_and_several_times(order, again):
    file = charter_file()
    for name in (*order, *order[:again]):
        before = missing(file)
        file = collect(file, signatures(file, name))
        assert set(missing(file)) == set(before) - {name}
        assert CharterFile.from_canonical(file.canonical()) == file
    whole = sealed(file)
    assert open_charter(whole, file.charter.digest()) == file.charter
    assert as_file(whole, file.contracts) == file


def test_nothing_is_sealed_before_all_have_signed():
    file = charter_file()
    half = collect(file, signatures(file, "birch"))
    assert missing(half) == ("alder", COORDINATOR)
    with pytest.raises(IntegrityError, match="CSL-F213.*alder, coordinator"):
        sealed(half)


def test_signatures_that_are_refused():
    file = charter_file()
    other = charter_file("alder", "birch", "cedar")
    stranger = sign_charter(key_of("cedar"), file.charter, "cedar")
    wrong_key = sign_charter(key_of("cedar"), file.charter, "birch")
    moved = signatures(file, "alder")[0].model_copy(update={"party": "birch"})
    old = signatures(other, "alder")[0]
    lied = old.model_copy(update={"charter": file.charter.digest()})
    for item, code in ((stranger, "F212"), (wrong_key, "F201"), (moved, "F201"), (old, "F212"), (lied, "F202")):
        with pytest.raises(IntegrityError, match=code):
            collect(file, [item])
        with pytest.raises(IntegrityError, match=code):
            check_file(file.model_copy(update={"signatures": (item,)}))


def test_another_contract_than_the_pinned_one_is_refused():
    file = charter_file()
    check_file(file)
    changed = SHOP.model_copy(update={"title": "Another"})
    for contracts in ((changed,), (SHOP, LOG), (SHOP, SHOP)):
        with pytest.raises(IntegrityError, match="CSL-F211"):
            check_file(file.model_copy(update={"contracts": contracts}))


def test_a_file_names_each_signer_once_and_sorted():
    file = charter_file()
    items = [item.model_dump(mode="json") for item in signatures(file, "alder", "birch")]
    for bad in (items[::-1], [items[0], items[0]]):
        data = file.model_dump(mode="json") | {"signatures": bad}
        with pytest.raises(ValueError, match="sorted by party"):
            CharterFile.model_validate_json(json.dumps(data))


@pytest.mark.parametrize("contract", [SHOP, LOG])
def test_a_contract_reads_back_from_its_yaml(contract):
    assert parse_yaml(contract_yaml(contract), FeatureContract, "it") == contract


@pytest.mark.parametrize("name", ["rfm", "bank_campaign"])
def test_the_contracts_of_this_repository_read_back(name, request):
    contract = load_yaml(request.config.rootpath / "configs" / "contracts" / f"{name}.yaml", FeatureContract)
    again = parse_yaml(contract_yaml(contract), FeatureContract, "it")
    assert again == contract and again.digest() == contract.digest()


def test_pinning_writes_what_a_home_goes_by(tmp_path):
    (tmp_path / "contracts").mkdir()
    file = charter_file()
    with pytest.raises(IntegrityError, match="CSL-F213"):
        pin(tmp_path, file)
    assert not (tmp_path / "charter.json").exists() and not list((tmp_path / "contracts").iterdir())
    whole = collect(file, signatures(file))
    pin(tmp_path, whole)
    assert (tmp_path / "charter.json").read_bytes() == sealed(whole).canonical()
    assert (tmp_path / "charter.digest").read_text() == file.charter.digest() + "\n"
    assert load_yaml(tmp_path / "contracts" / "shop.yaml", FeatureContract).digest() == SHOP.digest()


def test_papers_are_read_with_or_without_a_line_end(tmp_path):
    path = tmp_path / "card.json"
    with pytest.raises(StorageError, match="CSL-F214"):
        read_paper(path, SignedCard)
    paper = card(member("alder"))
    for end in (b"", b"\n", b"\r\n"):
        path.write_bytes(paper.canonical() + end)
        assert read_paper(path, SignedCard) == paper
    with pytest.raises(DocumentError, match=r"CSL-F216.*card\.json"):
        read_paper(path, CharterFile)
    path.write_bytes(json.dumps(paper.model_dump(mode="json"), indent=2).encode())
    with pytest.raises(DocumentError, match="CSL-F216"):
        read_paper(path, SignedCard)
    path.write_bytes(json.dumps({"\x1b[2J\u202e": 1}).encode())
    with pytest.raises(DocumentError) as caught:
        read_paper(path, SignedCard)
    assert str(caught.value).isprintable()
    path.write_bytes(b"0" * ((1 << 24) + 1))
    with pytest.raises(DocumentError, match="CSL-F215"):
        read_paper(path, SignedCard)


@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(0, 255))
def test_no_bytes_crash_the_reader(tmp_path_factory, junk, place, value):
    path = tmp_path_factory.getbasetemp() / "paper.json"
    good = bytearray(card(member("alder")).canonical())
    good[place % len(good)] = value
    for content in (junk, bytes(good)):
        path.write_bytes(content)
        try:
            open_card(read_paper(path, SignedCard))
        except ConsilienceError:
            continue
        assert content == card(member("alder")).canonical()


def test_changes_are_told_in_sentences():
    old = charter("alder", "birch", "cedar")
    assert changes(old, old) == []
    assert changes(old, charter("alder", "birch", "cedar", version=2, prev=old.digest())) == []
    new = old.model_copy(
        update={
            "federation": "other",
            "coordinator_key": "0" * 64,
            "link": link(address="a.example:443", app="b6" * 32, authority="another"),
            "members": (
                member("alder", title="Alder & Sons", key="1" * 64, node_key=node_key_of("x"), size=7),
                member("birch"),
                member("dogwood"),
            ),
            "contracts": (old.contracts[0].model_copy(update={"sha256": "2" * 64}),),
        }
    )
    told = changes(old, new)
    for part in (
        "federation is other, not test",
        f"coordinator has another identity key: {'0' * 64}",
        "reached at a.example:443, no longer at 127.0.0.1:18443",
        "another authority",
        f"another app: {'b6' * 32}",
        "cedar (The Cedar) leaves",
        "dogwood (The Dogwood) joins and declares 1000 customers for shop",
        'alder is called "Alder & Sons", no longer "The Alder"',
        f"alder (Alder & Sons) has another identity key: {'1' * 64}",
        "another node key",
        "declares 7 customers for shop; before: 1000 customers for shop",
        "contract shop has other content",
    ):
        assert sum(part in sentence for sentence in told) == 1, part
    assert len(told) == 12 and not any("birch" in sentence for sentence in told)


def test_a_link_and_contracts_come_and_go():
    old = charter()
    pinned = old.contracts[0]
    without = old.model_copy(update={"link": None, "contracts": (pinned.model_copy(update={"name": "log"}),)})
    assert changes(old, without) == [
        "No address is named any more.",
        "The feature contract shop is no longer pinned.",
        "The feature contract log is new.",
    ]
    assert changes(without, old)[0] == "Institutions reach the coordinator at 127.0.0.1:18443."


@given(st.sets(st.sampled_from("abcdef"), min_size=1), st.sets(st.sampled_from("abcdef"), min_size=1))
def test_everybody_who_comes_or_goes_is_named(before, after):
    told = changes(charter(*before), charter(*after))
    assert len(told) == len(before ^ after)
    for name in before - after:
        assert any(sentence.startswith(f"{name} ") and "leaves" in sentence for sentence in told)
    for name in after - before:
        assert any(sentence.startswith(f"{name} ") and "joins" in sentence for sentence in told)
