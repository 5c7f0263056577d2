"""A study whose vectors are added up in secret, from its draft to the model in every vault."""

import math
from pathlib import Path

import numpy as np
import pytest

from federation.errors import DocumentError
from federation.messages import load_tensors
from federation.vectors import unflatten
from server.card import render
from server.checkpoint import Progress, load_checkpoint
from server.course import LinearCourse, Terms
from server.descent import Descent
from server.events import Delivered, Evaluated, LeftOut, RoundDone, SetUpDone, SetUpStarted
from simulations.local_grid import Fault
from tests.server.fakes import FakeFederation
from tests.server.secure.running import ROUNDS, Killed, run
from tests.server.secure.vaults import SecureVault, secure_federation

NAMES = ("alpha", "beta", "delta", "gamma")
FOUR = ["query.sum", "query.sum_readies", "query.sum_headers", "query.sum_acks"]


@pytest.fixture
def federation(tmp_path: Path) -> FakeFederation:
    return secure_federation(tmp_path)


def test_a_study_ends_with_the_model_in_every_vault_and_four_calls_a_sum(federation: FakeFederation) -> None:
    card = run(federation).card
    assert [item.rounds for item in card.participants] == [ROUNDS] * 4 and card.fewest_partners == 4
    assert all(item.evaluated for item in card.participants)
    assert federation.happened(Delivered) == [Delivered(NAMES, True)]
    assert federation.happened(LeftOut) == []
    for vault in federation.vaults.values():
        assert vault.work[: 5 + 4 * (ROUNDS + 1)] == [
            "query.hello",
            "query.offer",
            "query.epoch",
            "query.epoch_keys",
            "query.epoch_exchanges",
            *FOUR * (ROUNDS + 1),
        ]
        assert vault.refused == []
    assert not list((federation.folder / "checkpoints").iterdir())


def test_set_up_and_rounds_are_told_with_all_their_bytes(federation: FakeFederation) -> None:
    run(federation)
    assert federation.happened(SetUpStarted) == [SetUpStarted(1, NAMES)]
    (done,) = federation.happened(SetUpDone)
    assert (done.members, done.attempt) == (NAMES, 1) and done.seconds > 0
    for event in federation.happened(RoundDone):
        assert event.answered == NAMES and event.left_out == () and event.attempts == 1
        # four answers of a header, a signature and, in one of them, the vector; four requests that repeat everybody's statements
        assert event.bytes_received > 4 * 4 * 150 and event.bytes_sent > 4 * 3 * 4 * 150


def replayed(federation: FakeFederation, spec: object, survivors: dict[int, tuple[str, ...]]) -> dict[str, np.ndarray]:
    """The descent on the plain sums of the survivors' own vectors."""
    grants = {name: vault.grant(spec) for name, vault in federation.vaults.items()}
    terms = Terms.of(spec, grants)
    vaults: dict[str, SecureVault] = federation.vaults
    course = LinearCourse(terms, Descent.start(grants["alpha"].secure.dimension - 1))
    for number in range(1, ROUNDS + 1):
        pool = course.pool(terms.pooled)
        total = sum(vaults[name].vectors[number] for name in survivors[number])
        divisor = math.fsum(pool.weights[name] * 0.5 * vaults[name].size for name in survivors[number])
        shapes = {name: value.shape for name, value in course.broadcast().items()}
        course = course.moved(unflatten(total / (pool.scale * divisor), shapes))
    return course.model()


def test_the_model_is_the_descent_on_the_plain_sums_exactly(federation: FakeFederation) -> None:
    published = run(federation)
    expected = replayed(federation, published.card.spec, dict.fromkeys(range(1, ROUNDS + 1), NAMES))
    for name, value in load_tensors(published.content).items():
        np.testing.assert_array_equal(value, expected[name])


def test_a_round_without_somebody_is_the_mean_of_the_others_exactly(federation: FakeFederation) -> None:
    lost = Fault("fail", types=frozenset({"query.sum_readies"}), groups=frozenset({"3"}))
    published = run(federation, {"beta": (lost,)})
    survivors = {1: NAMES, 2: NAMES, 3: ("alpha", "delta", "gamma")}
    expected = replayed(federation, published.card.spec, survivors)
    for name, value in load_tensors(published.content).items():
        np.testing.assert_array_equal(value, expected[name])
    assert not np.array_equal(
        load_tensors(published.content)["linear.bias"],
        replayed(federation, published.card.spec, survivors | {3: NAMES})["linear.bias"],
    )


def test_the_evaluation_knows_the_sum_of_all_histograms_and_its_noise(federation: FakeFederation) -> None:
    with pytest.raises(Killed):
        run(federation, stop_at=lambda event: isinstance(event, Evaluated))
    progress, _ = load_checkpoint(federation.folder / "checkpoints" / "spring.checkpoint", Progress)
    found = progress.score_sum
    assert progress.scores == () and found.members == NAMES
    assert found.scale == min(500 + vault.size // 10 for vault in federation.vaults.values())
    vectors = [vault.vectors[ROUNDS + 1] for vault in federation.vaults.values()]
    np.testing.assert_array_equal(np.ravel(found.total), sum(vectors))
    assert found.sigma == pytest.approx(progress.spec.secure.share * 2.0 / found.scale)
    exact = sum(vault.counts(12) for vault in federation.vaults.values())
    assert np.abs(np.asarray(found.total) / found.scale - exact).max() <= 2 * found.sigma


def test_the_card_says_how_it_was_made_and_has_no_figures_of_single_institutions(federation: FakeFederation) -> None:
    lost = Fault("fail", types=frozenset({"query.sum"}), groups=frozenset({str(ROUNDS + 1)}))
    card = run(federation, {"beta": (lost,)}).card
    assert card.members == () and card.overall.informative and card.overall.auc.value > 0.5
    assert card.protection == "secure sums with shared noise"
    assert [item.member for item in card.participants if item.evaluated] == ["alpha", "delta", "gamma"]
    assert federation.happened(Evaluated)[0].members == ("alpha", "delta", "gamma")
    text = render(card)
    assert "no institution's own figures are known. In it: alpha, delta, gamma." in text
    assert "only sums over at least 3 institutions".lower() in text.lower() and "none colludes" in text
    assert "| all together |" in text and "| alpha |" not in text
    local = render(card.model_copy(update={"spec": _locally(card.spec)}))
    assert "added the full noise itself" in local and "collude" not in local


def _locally(spec):
    return spec.model_copy(update={"secure": spec.secure.model_copy(update={"noise": "local"})})


def test_with_local_noise_the_same_calls_are_made(federation: FakeFederation) -> None:
    card = run(federation, noise="local").card
    assert card.protection == "secure sums with local noise"
    assert [item.rounds for item in card.participants] == [ROUNDS] * 4


def test_more_members_must_declare_the_contract_than_n_min(federation: FakeFederation) -> None:
    with pytest.raises(DocumentError, match="CSL-S101") as caught:
        run(federation, n_min=5)
    assert "n_min: a sum is opened over at least 5 members, and 4 declare customers" in caught.value.cause
