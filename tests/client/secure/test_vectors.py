"""What a vault adds to a sum: the exact clipped sum over its draw, on the grid, and exact counts."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from client import workroom
from client.workroom import Workroom
from federation.messages import read_tensors
from federation.networks import tensor_shapes
from federation.vectors import flatten
from privacy.randomness import SystemSource
from privacy.secure_aggregation.quantisation import rounding_of, sensitivity_of
from simulations.seeded import SeededSource
from tests.client.secure.town import Federation
from tests.client.vault_home import CONTRACT


@pytest.fixture
def room(agreed: Federation) -> Workroom:
    vault = agreed.vault("alder")
    return vault._rooms.of(vault._studies.find(agreed.rid))


def drawn(agreed: Federation, room: Workroom, **changes) -> np.ndarray:
    study = agreed.vault("alder")._studies.find(agreed.rid)
    request, content = agreed.asked(1)
    weights = read_tensors(content, tensor_shapes(study.spec.draft.model, CONTRACT))
    terms = {"scale": 20.0, "x_max": 2.0**20, "share": 256.0, "source": SeededSource(3)} | changes
    return room.sum_vector(study, request.model_copy(update=terms.pop("request", {})), weights, **terms)


def without_noise(monkeypatch) -> None:
    monkeypatch.setattr(workroom, "quantise", lambda vector, **kwargs: vector * kwargs["scale"])
    monkeypatch.setattr(workroom, "add_noise", lambda counts, share, source: counts)


def by_hand(agreed: Federation, room: Workroom, clip: float) -> np.ndarray:
    """The clipped gradients of all customers, one by one, in float64: [customers, weights], bias first."""
    x = room.training.dense.numpy().astype(np.float64)
    content = agreed.asked(1)[1]
    weights = read_tensors(content, tensor_shapes(agreed.spec.draft.model, CONTRACT))
    logits = x @ weights["linear.weight"].astype(np.float64).ravel() + float(weights["linear.bias"][0])
    gradients = (1 / (1 + np.exp(-logits)) - room.training_labels)[:, None] * np.hstack([np.ones((len(x), 1)), x])
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    return gradients * np.minimum(1.0, clip / norms)


@pytest.mark.parametrize(("clip", "weight"), [(1.0, 1.0), (1.0, 0.25), (0.05, None), (8.0, 1.0)])
def test_a_rounds_vector_is_the_weighted_sum_of_clipped_gradients(agreed, room, monkeypatch, clip, weight):
    """With everybody drawn and the noise off; coordinates by name, the bias before the weights."""
    without_noise(monkeypatch)
    monkeypatch.setattr("client.training.poisson_sample", lambda n, rate, source: np.arange(n))
    found = drawn(agreed, room, request={"clip": clip, "weight": weight})
    parts = 20.0 * (weight or 1.0) * by_hand(agreed, room, clip)
    fixed = 2.0**-20 * np.abs(parts).sum() + 20.0 * clip * 2.0**-20 * len(
        parts
    )  # inputs and factors are fixed-point numbers
    assert_allclose(found, parts.sum(axis=0), rtol=0, atol=fixed)
    assert fixed < 0.01 * np.abs(found).max()


def test_one_customer_changes_a_vector_by_no_more_than_the_sensitivity(agreed, room, monkeypatch):
    """Take out one customer at a time; the noise is the same, by a seeded source, and so is the draw: everybody."""
    monkeypatch.setattr("client.training.poisson_sample", lambda n, rate, source: np.arange(n))
    scale, clip = 1e4, 0.5
    whole = drawn(agreed, room, scale=scale, request={"clip": clip, "weight": 1.0})
    bound = sensitivity_of(scale, clip, 1.0, len(whole))
    rng = np.random.default_rng(0)
    for row in rng.choice(len(room.training), 12, replace=False):
        rest = np.delete(np.arange(len(room.training)), row)
        less = Workroom(
            contract=room.contract,
            network=room.network,
            training=room.training.take(rest),
            training_labels=room.training_labels[rest],
            heldout=room.heldout,
            training_ids=room.training_ids,
            consented=room.consented,
            fault=None,
        )
        moved = np.linalg.norm(whole - drawn(agreed, less, scale=scale, request={"clip": clip, "weight": 1.0}))
        assert 0 < moved <= bound and moved > scale * 1e-3 > rounding_of(len(whole)) / 10


def test_a_rounds_vector_is_noisy_and_each_draw_another(agreed, room):
    one, two = (drawn(agreed, room, source=SystemSource()) for _ in range(2))
    assert one.dtype == np.int64 and len(one) == len(flatten({n: np.zeros(s) for n, (s, _) in shapes(agreed).items()}))
    assert not np.array_equal(one, two)
    noise = np.concatenate([drawn(agreed, room, scale=1e-6, source=SystemSource()) for _ in range(60)])
    assert abs(noise.std() / 256.0 - 1.0) < 6 / np.sqrt(2 * len(noise))


def shapes(agreed: Federation):
    return tensor_shapes(agreed.spec.draft.model, CONTRACT)


def test_a_vector_stays_within_its_bound(agreed, room, monkeypatch):
    monkeypatch.setattr("client.training.poisson_sample", lambda n, rate, source: np.arange(n))
    found = drawn(agreed, room, scale=1e12, x_max=1000.0)
    assert np.abs(found).max() <= 1000 + 14 * 256 and (np.abs(found) > 100).any()


def test_counts_are_exact_multiples_before_the_noise_and_bounded(agreed, room, monkeypatch):
    study = agreed.vault("alder")._studies.find(agreed.rid)
    request, content = agreed.asked(4)
    weights = read_tensors(content, shapes(agreed))
    without_noise(monkeypatch)
    terms = {"x_max": 2.0**30, "share": 256.0, "source": SystemSource()}
    counts = room.count_vector(study, weights, request.edges, scale=7, **terms)
    labels = room.heldout.label
    assert counts.sum() == 7 * len(labels) and not (counts % 7).any()
    assert counts[len(counts) // 2 :].sum() == 7 * int((labels > 0).sum())
    cut = room.count_vector(study, weights, request.edges, scale=1_000_000, **(terms | {"x_max": 3e6}))
    assert cut.max() == 3_000_000
