import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from client.training import clipped_sum, gradient_sum, local_steps
from federation.networks import Inputs, LinearNetwork, MlpNetwork, weights_of
from privacy.bookkeeping import BookKeeper
from privacy.sampling import poisson_sample
from simulations.seeded import SeededSource


def inputs_of(n, width=4, tables=0, seed=0):
    rng = np.random.default_rng(seed)
    dense = torch.from_numpy(rng.normal(size=(n, width)).astype(np.float32))
    return Inputs(dense, torch.from_numpy(rng.integers(0, 3, (n, tables)))), (rng.random(n) < 0.4).astype(np.float64)


def network_of(kind, width=4, tables=0, seed=0):
    torch.manual_seed(seed)
    network = (
        LinearNetwork(width) if kind == "linear" else MlpNetwork(width, [(f"t{k}", 3) for k in range(tables)], 2, (5,))
    )
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def summed(network, inputs, labels, *, noise=0.0, rate=1.0, clip=1.0, seed=0):
    return gradient_sum(
        network, inputs, labels, clip=clip, noise_multiplier=noise, sampling_rate=rate, source=SeededSource(seed)
    )


def stepped(network, inputs, labels, **changes):
    plan = {
        "clip": 1.0,
        "noise_multiplier": 0.0,
        "sampling_rate": 1.0,
        "steps": 6,
        "declared_size": len(inputs),
        "learning_rate": 0.5,
        "momentum": 0.9,
        "source": SeededSource(0),
    }
    return local_steps(network, inputs, labels, **{**plan, **changes})


def by_autograd(network, inputs, labels, rows, clip):
    """The general path over given rows: a forward and a backward pass under a keeper."""
    keeper = BookKeeper(network)
    if len(rows):
        logits = network(inputs.dense[rows], inputs.codes[rows])
        answers = torch.from_numpy(labels)[rows].float()
        keeper.backward(nn.functional.binary_cross_entropy_with_logits(logits, answers, reduction="sum"))
    sums = {name: part.numpy() for name, part in keeper.split(keeper.clipped_sum(clip)).items()}
    keeper.close()
    return sums


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 40),
    width=st.integers(1, 12),
    clip=st.floats(0.01, 10.0),
    rate=st.floats(0.0, 1.0),
)
def test_the_exact_sum_is_that_of_a_noiseless_round_over_the_same_draw(seed, n, width, clip, rate):
    """What `gradient_sum` gives without its noise, but for inputs that are rounded to 2^-20; rows longer than 8 contribute zero."""
    network = network_of("linear", width, seed=seed)
    inputs, labels = inputs_of(n, width, seed=seed)
    inputs.dense.clamp_(-2.0, 2.0)
    before = weights_of(network)
    exact = clipped_sum(network, inputs, labels, clip=clip, sampling_rate=rate, source=SeededSource(seed))
    rounded = summed(network, inputs, labels, rate=rate, clip=clip, seed=seed)
    assert exact.keys() == rounded.keys() == before.keys()
    for name, part in exact.items():
        assert part.dtype == np.float64 and part.shape == before[name].shape
        assert np.allclose(part, rounded[name], rtol=1e-5, atol=4e-5 * clip * (1 + n))
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(network).items())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(0, 40),
    width=st.integers(1, 12),
    kind=st.sampled_from(["linear", "mlp"]),
    clip=st.floats(0.01, 10.0),
    rate=st.floats(0.0, 1.0),
)
def test_gradient_sum_is_the_clipped_sum_over_the_poisson_draw(seed, n, width, kind, clip, rate):
    network = network_of(kind, width, tables=2, seed=seed)
    inputs, labels = inputs_of(n, width, tables=0 if kind == "linear" else 2, seed=seed)
    rows = torch.from_numpy(poisson_sample(n, rate, SeededSource(seed)))
    truth = by_autograd(network, inputs, labels, rows, clip)
    before = weights_of(network)
    sums = summed(network, inputs, labels, rate=rate, clip=clip, seed=seed)
    assert set(sums) == set(before)
    for name, total in sums.items():
        assert total.dtype == np.float32 and total.shape == before[name].shape
        # The closed form is float64: it must meet float32's autograd within float32's own error.
        assert np.allclose(total, truth[name], atol=1e-6 * max(1.0, clip) * max(1, n), rtol=1e-6), name
        assert np.array_equal(before[name], weights_of(network)[name]), "the network was changed"


def test_closed_form_equals_autograd_over_many_blocks():
    inputs, labels = inputs_of(3000, 200)
    network = network_of("linear", 200)
    truth = by_autograd(copy.deepcopy(network), inputs, labels, torch.arange(3000), 0.7)
    for name, total in summed(network, inputs, labels, clip=0.7).items():
        assert np.allclose(total, truth[name], atol=2e-4), name  # float32 autograd's error over 3,000 rows


def test_one_customers_presence_does_not_move_the_rounding_of_the_rest():
    """The closed form is float64: the difference that a customer makes is her own clipped gradient."""
    inputs, labels = inputs_of(4096, 40)
    network = network_of("linear", 40)
    everybody, first = np.arange(4096), np.arange(1)
    released = [
        summed(network, inputs.take(rows), labels[rows], clip=1.0) for rows in (everybody, everybody[1:], first)
    ]
    shift = [whole - rest - alone for whole, rest, alone in zip(*(r.values() for r in released), strict=True)]
    whole = np.concatenate([w.ravel() for w in released[0].values()])
    assert (
        np.abs(np.concatenate([s.ravel() for s in shift])).max() <= 4 * 2.0**-24 * np.abs(whole).max()
    )  # of the float32 reply


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("n", [0, 5])
def test_empty_draws_send_noise(kind, n):
    inputs, labels = inputs_of(n)
    for release in (
        summed(network_of(kind), inputs, labels, noise=1.0, rate=0.0 if n else 1.0),
        stepped(
            network_of(kind), inputs, labels, noise_multiplier=1.0, sampling_rate=1e-12 if n else 1.0, declared_size=5
        ),
    ):
        values = np.concatenate([value.ravel() for value in release.values()])
        assert np.isfinite(values).all() and (values != 0).all()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_records_contribute_zero(kind, bad):
    inputs, labels = inputs_of(30)
    network = network_of(kind)
    good = np.arange(2, 30)
    expected = summed(network, inputs.take(good), labels[good])
    dense, spoilt = inputs.dense.clone(), labels.copy()
    dense[0, 1], spoilt[1] = bad, bad
    sums = summed(network, Inputs(dense, inputs.codes), spoilt)
    assert all(np.allclose(sums[name], expected[name], atol=1e-5) for name in sums)
    change = stepped(network, Inputs(dense, inputs.codes), spoilt)
    assert all(np.isfinite(value).all() for value in change.values())


def test_a_customer_moves_the_sum_by_at_most_the_clip():
    inputs, labels = inputs_of(50)
    for kind in ("linear", "mlp"):
        network = network_of(kind)
        whole, rest = (
            summed(network, inputs, labels, clip=0.3),
            summed(network, inputs.take(np.arange(1, 50)), labels[1:], clip=0.3),
        )
        assert np.sqrt(sum(((whole[name] - rest[name]) ** 2).sum() for name in whole)) <= 0.3 + 1e-5


def test_noise_has_the_declared_scale():
    inputs, labels = inputs_of(0, 20_000)
    release = summed(LinearNetwork(20_000), inputs, labels, noise=2.0, clip=0.25)
    assert abs(release["linear.weight"].std() - 0.5) < 0.01


def test_the_true_number_of_customers_is_no_denominator():
    """A declared size twice as large halves the steps, whoever is really there."""
    inputs, labels = inputs_of(40)
    once = stepped(LinearNetwork(4), inputs, labels, steps=1, declared_size=100)
    half = stepped(LinearNetwork(4), inputs, labels, steps=1, declared_size=200)
    assert all(np.allclose(once[name], 2.0 * half[name], rtol=1e-5) for name in once)
    doubled = Inputs(torch.cat([inputs.dense] * 2), torch.cat([inputs.codes] * 2))
    twice = stepped(LinearNetwork(4), doubled, np.tile(labels, 2), steps=1, declared_size=100)
    assert all(np.allclose(2.0 * once[name], twice[name], rtol=1e-5) for name in once)


@pytest.mark.parametrize(("steps", "averaged"), [(1, (1,)), (2, (2,)), (5, (3, 4, 5))])
def test_the_second_half_of_the_steps_is_averaged(steps, averaged):
    inputs, labels = inputs_of(40)
    network = LinearNetwork(4)
    change = stepped(network, inputs, labels, steps=steps)
    reference, optimizer_weights = LinearNetwork(4), []
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.5 / 40, momentum=0.9)
    for _ in range(steps):
        sums = summed(reference, inputs, labels)
        for name, parameter in reference.named_parameters():
            parameter.grad = torch.from_numpy(sums[name])
        optimizer.step()
        optimizer_weights.append(weights_of(reference))
    for name, value in change.items():
        expected = np.mean([optimizer_weights[step - 1][name] for step in averaged], axis=0)
        assert np.allclose(value, expected, atol=1e-5), name
        assert np.allclose(weights_of(network)[name], optimizer_weights[-1][name], atol=1e-5), name


def test_local_steps_learn():
    inputs, _ = inputs_of(2000)
    labels = (inputs.dense[:, 0] > 0).numpy().astype(np.float64)
    for kind in ("linear", "mlp"):
        network = network_of(kind)
        stepped(network, inputs, labels, steps=40, sampling_rate=0.2, noise_multiplier=1.0, learning_rate=1.0)
        right = ((network(inputs.dense, inputs.codes) > 0).numpy() == labels).mean()
        assert right > 0.9, kind


def test_every_step_draws_anew():
    """With one customer in a thousand steps at rate 1/2, about half of them move the weights."""
    inputs = Inputs(torch.ones((1, 1)), torch.empty((1, 0), dtype=torch.int64))
    change = stepped(
        LinearNetwork(1),
        inputs,
        np.ones(1),
        steps=1000,
        sampling_rate=0.5,
        declared_size=1,
        learning_rate=0.5e-6,
        momentum=0.0,
        source=SeededSource(3),
    )
    # The gradient stays at (sigmoid(0) - 1) = -1/2 and the averaged tail has seen 3/4 of the steps: 375 of 1e-6 / 2.
    assert change["linear.weight"][0, 0] == pytest.approx(375e-6 / 2, rel=0.1)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_steps_that_overflow_float32_end_at_its_largest_number_and_not_at_infinity(kind):
    inputs, labels = inputs_of(50)
    found = stepped(
        network_of(kind), inputs, labels, noise_multiplier=1.0, learning_rate=1e38, declared_size=1, steps=20
    )
    values = np.concatenate([value.ravel() for value in found.values()])
    assert np.isfinite(values).all() and np.abs(values).max() == np.finfo(np.float32).max


def test_the_network_keeps_no_hooks():
    network = network_of("mlp")
    inputs, labels = inputs_of(10)
    for _ in range(3):
        summed(network, inputs, labels)
        stepped(network, inputs, labels)
    assert not any(module._forward_hooks for module in network.modules())
