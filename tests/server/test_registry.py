"""The registry: models that are whole, signed and never changed; cards that a person can read."""

from pathlib import Path

import numpy as np
import pytest

from federation.encoding import sha256_hex
from federation.errors import DocumentError, FederationError, IntegrityError, StorageError
from federation.messages import dump_tensors
from federation.shape_noise import ShapeNoise
from federation.signing import public_hex, sign
from federation.study import AdditiveModel
from server.card import CONTEXT, ModelCard, SealedCard, render
from server.checkpoint import Attendance, Progress, Scores
from server.grants import SignedGrant
from server.planning import sign_study
from server.publication import make_card
from server.registry import CARD_FILE, MODEL_FILE, READABLE_FILE, Registry
from tests.server.fakes import FakeFederation, contract, draft, key_of, short

WEIGHTS = {"linear.weight": np.ones((1, 3), np.float32), "linear.bias": np.zeros(1, np.float32)}
KEY = key_of("coordinator")


def card(rounds: tuple[int, ...] = (4, 4, 3, 0), fewest: int = 3, weights=WEIGHTS) -> ModelCard:
    federation = FakeFederation.make(Path("unused"))
    signed = sign_study(draft(), federation.charter, contract(), short()(draft(), {}, contract()), "0" * 32, KEY)
    vaults = [federation.vaults[name] for name in sorted(federation.vaults)]
    grants = [vault.grant(signed.spec) for vault in vaults]
    progress = Progress(
        spec=signed.spec,
        signature=signed.signature,
        stage="evaluated",
        grants=tuple(
            SignedGrant(grant=item, signature=sign(key_of(item.member), "csl1/grant", item)) for item in grants
        ),
        round=4,
        fewest=fewest,
        attendance=tuple(Attendance(member=v.member, rounds=r) for v, r in zip(vaults, rounds, strict=True)),
        edges=tuple(np.linspace(-3.0, 2.0, 11).tolist()),
        scores=tuple(
            Scores(member=v.member, counts=tuple(map(tuple, v.counts(12).tolist())), sigma=2.0) for v in vaults[:3]
        ),
    )
    return make_card(progress, federation.charter, sha256_hex(dump_tensors(weights)))


def test_published_and_loaded_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    assert registry.names() == []
    published = registry.publish(card(), WEIGHTS, KEY)
    assert registry.names() == [published.card.name]
    assert registry.load(published.card.name, public_hex(KEY)) == published
    assert sorted(path.name for path in published.folder.iterdir()) == sorted([MODEL_FILE, CARD_FILE, READABLE_FILE])
    assert registry.publish(card(), WEIGHTS, KEY) == published


@pytest.mark.parametrize(("rounds", "fewest"), [((4, 4, 0, 0), 3), ((4, 4, 4, 4), 2)])
def test_nothing_is_published_below_the_smallest_number_of_partners(
    tmp_path: Path, rounds: tuple[int, ...], fewest: int
) -> None:
    with pytest.raises(FederationError, match="CSL-S601"):
        Registry(tmp_path / "registry").publish(card(rounds, fewest), WEIGHTS, KEY)
    assert not (tmp_path / "registry").exists()


def test_other_weights_and_other_models_are_refused(tmp_path: Path) -> None:
    registry, others = Registry(tmp_path), {name: value + 1 for name, value in WEIGHTS.items()}
    with pytest.raises(IntegrityError, match="CSL-S602"):
        registry.publish(card(), others, KEY)
    registry.publish(card(), WEIGHTS, KEY)
    with pytest.raises(IntegrityError, match="CSL-S603"):
        registry.publish(card(weights=others), others, KEY)


def test_a_changed_model_is_noticed(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    published = registry.publish(card(), WEIGHTS, KEY)
    name, folder = published.card.name, published.folder
    with pytest.raises(IntegrityError, match="CSL-F201"):
        registry.load(name, "0" * 64)
    (folder / MODEL_FILE).write_bytes(published.content[:-1] + b"x")
    with pytest.raises(IntegrityError, match="CSL-S606"):
        registry.load(name)
    (folder / MODEL_FILE).write_bytes(published.content)
    text = (folder / CARD_FILE).read_text()
    (folder / CARD_FILE).write_text(text.replace('"fewest_partners":3', '"fewest_partners":4'))
    with pytest.raises(IntegrityError, match="CSL-F202"):
        registry.load(name)
    (folder / CARD_FILE).unlink()
    with pytest.raises(IntegrityError, match="CSL-S606"):
        registry.load(name)
    with pytest.raises(DocumentError, match="CSL-S605"):
        registry.load("../elsewhere")


def test_a_signed_card_stands_for_its_own_name_and_study_alone(tmp_path: Path) -> None:
    """A card that the coordinator did sign, in another model's folder, or with a digest that is not its spec's."""
    registry = Registry(tmp_path)
    published = registry.publish(card(), WEIGHTS, KEY)
    moved = published.folder.rename(tmp_path / "summer-000000000000")
    with pytest.raises(IntegrityError, match="CSL-S606"):
        registry.load(moved.name)
    false = card().model_copy(update={"study": "0" * 64, "name": moved.name})
    (moved / CARD_FILE).write_bytes(SealedCard(card=false, signature=sign(KEY, CONTEXT, false)).canonical())
    with pytest.raises(IntegrityError, match="CSL-S606"):
        registry.load(moved.name)
    right = card().model_copy(update={"name": moved.name})
    (moved / CARD_FILE).write_bytes(SealedCard(card=right, signature=sign(KEY, CONTEXT, right)).canonical())
    assert registry.load(moved.name).card == right


def test_an_interrupted_publication_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes, mode: int = 0o644) -> None:
        if path.name == READABLE_FILE:
            raise OSError(28, "No space left on device")
        path.write_bytes(content)

    monkeypatch.setattr("server.registry.atomic_write", full)
    with pytest.raises(StorageError, match="CSL-S604"):
        Registry(tmp_path).publish(card(), WEIGHTS, KEY)
    assert list(tmp_path.iterdir()) == []


def test_the_readable_card_says_what_matters() -> None:
    found = card()
    text = render(found)
    for wanted in (
        "Order customers by their interest",
        "Not for credit decisions",
        "local noise",
        found.study,
        found.model,
        "3 of 4",
    ):
        assert wanted in text
    assert "| Gamma (gamma) | 3000 | 0 of 4 | no |" in text
    assert f"{found.overall.auc.value:.3f}" in text
    assert "None" not in text and "nan" not in text


def test_a_card_says_uninformative_instead_of_a_number() -> None:
    found = card()
    metrics = found.overall
    from server.evaluation import UNINFORMATIVE

    poor = metrics.model_copy(
        update={"informative": False, "auc": UNINFORMATIVE, "ks": UNINFORMATIVE, "lift": UNINFORMATIVE}
    )
    assert "uninformative" in render(found.model_copy(update={"overall": poor}))
    assert "uninformative" in render(
        found.model_copy(update={"overall": metrics.model_copy(update={"lift": UNINFORMATIVE})})
    )


def test_the_card_of_a_plain_study_keeps_the_digest_that_it_always_had() -> None:
    assert card().digest() == "8443a5adbf2a7638deb196ae219ae648e23932b88aa9357c5b4ffc580aece21a"


NOISE = (
    ShapeNoise(term="age", deviations=(0.1, 0.25), missing=0.5),
    ShapeNoise(term="age*loan", deviations=(0.01, 0.02, 0.03, 0.04), missing=0.0),
)


def test_a_card_without_noise_is_encoded_as_before_it_was_known_and_one_with_it_says_so() -> None:
    plain = card()
    assert b"shape_noise" not in plain.canonical() and "How far noise" not in render(plain)
    told = plain.model_copy(update={"shape_noise": NOISE})
    assert ModelCard.from_canonical(told.canonical()) == told and told.digest() != plain.digest()
    text = render(told)
    assert "| age | 0.196 to 0.490 | 0.980 |" in text and "| age*loan | 0.020 to 0.078 | 0.000 |" in text


def test_a_card_names_what_was_held_monotone_and_what_was_paired() -> None:
    plain = card()
    model = AdditiveModel(monotone={"age": "increasing"}, pairs=(("job", "loan"),))
    draft_of = plain.spec.draft.model_copy(update={"model": model})
    text = render(plain.model_copy(update={"spec": plain.spec.model_copy(update={"draft": draft_of})}))
    assert "**Held monotone after training:** age increasing" in text
    assert "**Pairs with a surface of their own:** job with loan" in text
    assert "monotone" not in render(plain) and "Pairs" not in render(plain)
