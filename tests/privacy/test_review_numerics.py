"""Attacks on the numbers: floats at their ends, sums whose rounding follows one customer, noise whose tail has gaps."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtri
from torch import nn

from federation.errors import ConsilienceError
from federation.networks import MlpNetwork
from privacy.bookkeeping import BookKeeper
from privacy.dp_optimizer import LARGEST_CLIP, SMALLEST_CLIP, BookKeepingOptimizer
from privacy.logistic import LogisticSums
from privacy.randomness import ByteSource, SystemSource


class Words(ByteSource):
    """64-bit words that a test wrote down."""

    seeded = True

    def __init__(self, *words: int) -> None:
        self._content = np.array(words, dtype="<u8").tobytes()

    def fill(self, out: memoryview) -> None:
        out[:] = self._content[: len(out)]
        self._content = self._content[len(out) :]


def clipped(network, dense, clip, labels=None):
    keeper = BookKeeper(network)
    logits = network(dense, torch.empty((len(dense), 0), dtype=torch.int64))
    answers = torch.zeros(len(dense)) if labels is None else labels
    keeper.backward(nn.functional.binary_cross_entropy_with_logits(logits, answers, reduction="sum"))
    sums = keeper.clipped_sum(clip)
    keeper.close()
    return sums


def mlp(hidden=(32, 16), spread=0.3, seed=0):
    network = MlpNetwork(40, [], 4, hidden)
    draw = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=spread, generator=draw)
    return network


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(-6, 6), st.floats(-3, 6))
def test_nobody_passes_the_clip_at_any_clip_and_weights_that_are_let_in(seed, clip_power, spread_power):
    clip, network = 10.0**clip_power, mlp((6, 5, 4, 3), 10.0**spread_power, seed)
    dense = torch.randn(1, 40, generator=torch.Generator().manual_seed(seed))
    assert float(clipped(network, dense, clip).norm()) <= clip


@pytest.mark.parametrize("clip", [0.0, 1e-300, 1e-43, SMALLEST_CLIP / 2, LARGEST_CLIP * 2, float("inf"), float("nan")])
def test_clips_at_the_ends_of_floats_are_refused(clip):
    keeper = BookKeeper(mlp())
    with pytest.raises(ConsilienceError, match="CSL-P706"):
        BookKeepingOptimizer(
            torch.optim.SGD([keeper.flat], lr=1.0),
            keeper,
            noise_multiplier=1.0,
            max_grad_norm=clip,
            expected_batch_size=None,
            source=SystemSource(),
        )


def test_one_customer_hardly_moves_the_rounding_of_a_large_batch_of_like_gradients():
    """The worst case: all gradients point the same way, so that partial sums are as large as they can be."""
    torch.manual_seed(0)
    network, base = mlp(), torch.randn(1, 40)
    dense = base + 0.01 * torch.randn(50_000, 40)
    whole, rest, alone = (clipped(network, part, 1.0) for part in (dense, dense[1:], dense[:1]))
    assert float(whole.norm()) > 40_000  # they do point the same way
    assert float((whole - rest - alone).norm()) < 5e-3  # .7e-3 to 3.3e-3, by the number of threads


def test_weights_that_overflowed_do_not_tell_whether_anybody_was_drawn():
    dense = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    inverses = torch.rsqrt((dense**2).sum(1).double() + 1.0)
    sums = LogisticSums(dense, inverses, torch.ones(3, dtype=torch.float64), 0.5)
    for weights in ([torch.inf, -torch.inf, 0.0], [torch.inf, 0.0, 0.0], [torch.nan, 0.0, 0.0], [3e38, -3e38, 3e38]):
        found = sums.over(torch.arange(3), torch.tensor(weights))
        assert torch.isfinite(found).all()
        assert float(found.norm()) <= 3 * 0.5


def test_the_tail_of_the_noise_is_as_fine_as_its_middle():
    """At 2^-53 the next larger uniform would be 0.08 standard deviations away; neighbours in the refined one are not."""
    low = 1 << 12  # sign 0, magnitude 2^11: beyond 12 bits of 63, so about -ndtri(2^-53) = 8.2
    near = [float(Words(low, word).normal(1)[0]) for word in (0, 1 << 32, 1 << 48, (1 << 64) - 1)]
    assert near[0] > 8 and near == sorted(near, reverse=True)
    assert 0 < near[0] - near[-1] < 1e-3
    assert np.diff(near).min() > -1e-4 and len(set(near)) >= 3
    assert np.isclose(near[0], -ndtri(2.0**-53), rtol=1e-12)


def test_noise_is_symmetric_finite_and_normal():
    words = [5 << 40, 1 << 63, (1 << 64) - 2, 1 << 41, 123456789 << 30]
    for word in words:
        assert Words(word).normal(1)[0] == -Words(word | 1).normal(1)[0]
    assert np.isfinite(Words(0, 0).normal(1)).all() and Words(0, 0).normal(1)[0] > 13
    values = SystemSource().normal(200_000)
    assert stats.kstest(values, "norm").pvalue > 1e-6
    assert abs(np.mean(values > 0) - 0.5) < 0.01
