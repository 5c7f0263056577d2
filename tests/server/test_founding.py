"""How a charter is put together: outlines, drafts, sealing, and what changes underneath."""

from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.charter import COORDINATOR, Declaration, check_successor
from federation.contract import FeatureContract
from federation.document import load_yaml
from federation.errors import ConsilienceError, DocumentError, IntegrityError, StorageError
from federation.files import atomic_write
from federation.founding import CharterFile, CharterSignature, MemberCard, missing, pin, sign_charter
from federation.signing import public_hex
from server.config import CoordinatorConfig
from server.founding import Outline, Papers, add, app_digest, begin, compose, remove
from server.home import CoordinatorHome
from server.install import install
from server.unlock import Opener
from tests.founding_parts import APP, LOG, NOW, SHOP, charter, key_of, link, member, node_key_of

OPENER = Opener(None, allow_plain=True)
CONFIG = CoordinatorConfig(federation="test", address="127.0.0.1:18443", plain_keys=True)
EMPTY = Outline(contracts=(SHOP,))


def row(name: str, **changes: object) -> MemberCard:
    return MemberCard(federation="test", member=member(name, **changes))


def outline_of(*names: str) -> Outline:
    outline = EMPTY
    for name in names:
        outline = add(outline, row(name), "test")
    return outline


@pytest.fixture
def home(tmp_path: Path) -> CoordinatorHome:
    place = CoordinatorHome(tmp_path / "home")
    install(place, CONFIG, None, NOW)
    return place


def signed(draft: CharterFile | None, *names: str) -> list[CharterSignature]:
    assert draft is not None
    return [sign_charter(key_of(name), draft.charter, name) for name in names]


@given(
    st.permutations(["alder", "birch", "cedar", "elm"]), st.sets(st.sampled_from(["alder", "birch", "cedar", "elm"]))
)
def test_the_order_of_cards_does_not_matter(order, gone):
    outline = outline_of(*order)
    for name in gone:
        outline = remove(outline, name)
    left = sorted(set(order) - gone)
    assert [item.id for item in outline.members] == left
    draft = compose(outline, "test", public_hex(key_of("coordinator")), link(), None)
    assert (draft is None) == (not left)
    if draft is not None:
        assert draft.charter == charter(*left)


def test_a_card_takes_the_place_of_the_earlier_row():
    outline = add(outline_of("alder", "birch"), row("birch", size=5), "test")
    assert [item.declares[0].size for item in outline.members] == [1000, 5]


WINDOW = Declaration(contract="shop", size=1, as_of=date(2026, 1, 1), window_days=1, horizon_days=1)


@pytest.mark.parametrize(
    ("card", "code"),
    [
        (MemberCard(federation="other", member=member("cedar")), "S152"),
        (row("cedar", declares=(Declaration(contract="log", size=1),)), "S153"),
        (row("cedar", declares=(WINDOW,)), "S154"),
        (row("cedar", node_key=None), "S159"),
        (row("cedar", id=COORDINATOR), "S159"),
        (row("cedar", key=member("alder").key), "S156"),
        (row("cedar", node_key=node_key_of("alder")), "S156"),
    ],
)
def test_cards_that_are_refused(card, code):
    with pytest.raises(DocumentError, match=code):
        add(outline_of("alder"), card, "test")


def test_a_declaration_for_transactions_needs_its_window():
    base = Outline(contracts=(LOG,))
    with pytest.raises(DocumentError, match="CSL-S154"):
        add(base, row("alder", declares=(Declaration(contract="log", size=1),)), "test")
    add(base, row("alder", declares=(WINDOW.model_copy(update={"contract": "log"}),)), "test")


def test_what_an_outline_begins_with():
    with pytest.raises(DocumentError, match="CSL-S161"):
        begin(None, [])
    with pytest.raises(DocumentError, match="CSL-S162"):
        begin(None, [SHOP, SHOP])
    with pytest.raises(DocumentError, match="CSL-S162"):
        begin(EMPTY, [], drop=["log"])
    with pytest.raises(DocumentError, match="CSL-S155"):
        begin(EMPTY, [], leave=["alder"])
    with pytest.raises(DocumentError, match="CSL-S153"):
        begin(outline_of("alder"), [LOG], drop=["shop"])
    with pytest.raises(DocumentError, match="CSL-S155"):
        remove(EMPTY, "alder")
    newer = SHOP.model_copy(update={"version": 2})
    made = begin(outline_of("alder", "birch"), [LOG, newer], leave=["birch"])
    assert made.contracts == (LOG, newer) and [item.id for item in made.members] == ["alder"]


def test_the_coordinators_key_is_nobody_elses():
    with pytest.raises(DocumentError, match=r"CSL-S157.*key of its own"):
        compose(outline_of("alder"), "test", member("alder").key, link(), None)
    with pytest.raises(DocumentError, match="CSL-S163"):
        compose(outline_of("alder"), "other", "0" * 64, link(), charter())


def test_from_a_draft_to_a_pinned_charter(home):
    papers = Papers(home, APP)
    assert papers.pinned() is None and papers.draft() is None
    with pytest.raises(StorageError, match="CSL-S150"):
        papers.outline()
    with pytest.raises(StorageError, match="CSL-S151"):
        papers.seal([], OPENER)
    assert papers.write(papers.start([SHOP], [], [], again=False)) is None and not home.draft_file.exists()
    with pytest.raises(StorageError, match="CSL-S164"):
        papers.start([SHOP], [], [], again=False)
    draft = papers.write(outline_of("alder", "birch"))
    assert CharterFile.from_canonical(home.draft_file.read_bytes()) == draft and not draft.signatures
    assert draft.charter.link.app == APP and draft.charter.link.authority == home.authority_file.read_text()
    assert missing(papers.seal(signed(draft, "birch"), OPENER)) == ("alder",)
    assert papers.pinned() is None and not home.sealed_file.exists()
    assert missing(papers.collected()) == ("alder",) and not papers.draft().signatures
    held = papers.seal(signed(draft, "alder"), OPENER)
    assert missing(held) == () and home.charter() == draft.charter and papers.pinned() == held
    assert CharterFile.from_canonical(home.sealed_file.read_bytes()) == held
    assert load_yaml(home.root / "contracts" / "shop.yaml", FeatureContract) == SHOP
    assert papers.seal([], OPENER) == held
    for call in (papers.outline, lambda: papers.start([], [], [], again=True)):
        with pytest.raises(StorageError, match="CSL-S150"):
            call()


def test_the_next_charter_follows_the_pinned_one(home):
    papers = Papers(home, APP)
    first = papers.write(outline_of("alder", "birch"))
    papers.seal(signed(first, "alder", "birch"), OPENER)
    outline = add(papers.start([LOG], ["alder"], [], again=False), row("cedar"), "test")
    second = papers.write(outline)
    check_successor(first.charter, second.charter)
    assert [item.id for item in second.charter.members] == ["birch", "cedar"]
    assert home.charter() == first.charter  # until all have signed
    with pytest.raises(IntegrityError, match="CSL-F212"):
        papers.seal(signed(first, "birch"), OPENER)
    papers.seal(signed(second, "birch", "cedar"), OPENER)
    assert home.charter() == second.charter and home.contract("log") == LOG


def test_a_changed_draft_makes_signatures_void(home):
    papers = Papers(home, APP)
    draft = papers.write(outline_of("alder", "birch"))
    papers.seal(signed(draft, "alder"), OPENER)
    papers.write(outline_of("alder", "birch", "cedar"))
    assert papers.collected().signatures == ()
    with pytest.raises(IntegrityError, match="CSL-F212"):
        papers.seal(signed(draft, "alder"), OPENER)


def test_what_changed_under_a_draft_is_noticed_before_it_is_sealed(home):
    papers = Papers(home, APP)
    draft = papers.write(outline_of("alder"))
    with pytest.raises(IntegrityError, match="CSL-S158.*another app: b6b6"):
        Papers(home, "b6" * 32).seal(signed(draft, "alder"), OPENER)
    home.config_file.write_text(home.config_file.read_text().replace("18443'", "18444'"))
    with pytest.raises(IntegrityError, match="CSL-S158.*reached at 127.0.0.1:18444"):
        papers.seal(signed(draft, "alder"), OPENER)
    assert papers.pinned() is None
    again = papers.write(papers.start([], [], [], again=True))
    assert again.charter.link.address == "127.0.0.1:18444" and again.charter.members == draft.charter.members
    papers.seal(signed(again, "alder"), OPENER)
    assert home.charter() == again.charter


@pytest.mark.parametrize("at", ["shop.yaml", "charter.json", "charter.digest"])
def test_a_seal_that_was_cut_off_is_finished_by_the_next_call(home, monkeypatch, at):
    papers = Papers(home, APP)
    first = papers.write(outline_of("alder"))
    papers.seal(signed(first, "alder"), OPENER)
    newer = SHOP.model_copy(update={"version": 2})
    second = papers.write(papers.start([LOG, newer], [], [], again=False))

    def cut(path: Path, content: bytes, mode: int = 0o644) -> None:
        if path.name == at:
            raise KeyboardInterrupt
        atomic_write(path, content, mode)

    monkeypatch.setattr("federation.founding.atomic_write", cut)
    with pytest.raises(KeyboardInterrupt):
        papers.seal(signed(second, "alder"), OPENER)
    monkeypatch.undo()
    papers.seal([], OPENER)
    assert home.charter() == second.charter and home.contract("shop") == newer


def test_a_lost_key_is_a_next_charter_from_a_new_home(home, tmp_path):
    papers = Papers(home, APP)
    first = papers.write(outline_of("alder", "birch"))
    held = papers.seal(signed(first, "alder", "birch"), OPENER)
    place = CoordinatorHome(tmp_path / "new")
    install(place, CONFIG, None, NOW + timedelta(days=1))
    pin(place.root, held)
    anew = Papers(place, APP)
    second = anew.write(anew.start([], [], [], again=False))
    check_successor(first.charter, second.charter)
    assert second.charter.coordinator_key != first.charter.coordinator_key
    assert second.charter.link.authority != first.charter.link.authority
    anew.seal(signed(second, "alder", "birch"), OPENER)
    assert place.charter() == second.charter


def test_what_is_wrong_with_a_home_is_said(home):
    papers = Papers(home, APP)
    draft = papers.write(outline_of("alder"))
    papers.seal(signed(draft, "alder"), OPENER)
    (home.root / "contracts" / "shop.yaml").write_bytes(
        (home.root / "contracts" / "shop.yaml").read_bytes().replace(b"Bought", b"Sold")
    )
    with pytest.raises(IntegrityError, match="CSL-F211"):
        papers.pinned()
    home.pin_file.write_text("0" * 64)
    with pytest.raises(IntegrityError, match="CSL-F204"):
        papers.pinned()
    home.charter_file.unlink()
    with pytest.raises(StorageError, match="CSL-S103"):
        papers.pinned()
    home.pin_file.unlink()
    home.authority_file.write_text("junk")
    with pytest.raises(IntegrityError, match="CSL-S160"):
        papers.write(outline_of("alder"))


def test_a_damaged_paper_is_refused(home):
    papers = Papers(home, APP)
    papers.write(outline_of("alder"))
    home.draft_file.write_bytes(home.draft_file.read_bytes()[:-1])
    with pytest.raises(ConsilienceError, match="CSL-F216"):
        papers.draft()


def test_the_app_is_what_this_installation_pushes():
    from federation.flower.bundle import bundle_digest

    assert app_digest() == bundle_digest()
