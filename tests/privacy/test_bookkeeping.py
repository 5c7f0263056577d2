import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from federation.errors import ConsilienceError
from federation.networks import MlpNetwork
from privacy.bookkeeping import BookKeeper


def per_customer(network, dense, codes, labels, clip):
    """The slow truth: one customer at a time, clipped by autograd's own gradient, float64."""
    total = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in network.named_parameters()}
    for row in range(len(labels)):
        logit = network(dense[row : row + 1], codes[row : row + 1])
        loss = nn.functional.binary_cross_entropy_with_logits(logit, labels[row : row + 1])
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        gradients = [
            torch.zeros_like(p) if g is None else g for p, g in zip(network.parameters(), gradients, strict=True)
        ]
        norm = torch.sqrt(sum(g.double().square().sum() for g in gradients))
        factor = min(1.0, clip / float(norm)) if norm else 1.0
        for name, gradient in zip(total, gradients, strict=True):
            total[name] += factor * gradient.double()
    return total


def network_with(seed, width=3, hidden=(4, 2), tables=(("a", 3), ("b", 2))):
    torch.manual_seed(seed)
    network = MlpNetwork(width, tables, 2, hidden)
    for parameter in network.parameters():
        nn.init.normal_(parameter)
    return network


def batch_of(n, width=3, tables=2):
    return torch.randn(n, width), torch.randint(0, 2, (n, tables)), torch.randint(0, 2, (n,)).float()


def seen(network, dense, codes, labels, clip):
    keeper = BookKeeper(network)
    logits = network(dense, codes)
    keeper.backward(nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum"))
    sums = keeper.split(keeper.clipped_sum(clip))
    keeper.close()
    return sums


@settings(max_examples=40)
@given(
    st.integers(0, 10**6),
    st.integers(0, 9),
    st.integers(1, 7),
    st.lists(st.integers(1, 6), min_size=1, max_size=3),
    st.floats(1e-3, 30.0),
)
def test_sums_equal_one_customer_at_a_time(seed, n, width, hidden, clip):
    network = network_with(seed, width, hidden)
    dense, codes, labels = batch_of(n, width)
    truth = per_customer(network, dense, codes, labels, clip)
    for name, total in seen(network, dense, codes, labels, clip).items():
        assert torch.allclose(total, truth[name], atol=1e-5 * max(1.0, clip)), name


def test_no_customer_passes_the_clip():
    network = network_with(1, 30)
    dense, codes, labels = batch_of(200, 30)
    for row in range(len(labels)):
        sums = seen(network, dense[[row]], codes[[row]], labels[[row]], 0.1)
        assert torch.sqrt(sum(total.square().sum() for total in sums.values())) <= 0.1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_bad_record_contributes_zero_and_spoils_nobody_else(bad):
    network = network_with(2)
    dense, codes, labels = batch_of(6)
    others = seen(network, dense[1:], codes[1:], labels[1:], 1.0)
    for spoilt in ("dense", "label"):
        with_bad, with_label = dense.clone(), labels.clone()
        if spoilt == "dense":
            with_bad[0] = bad
        elif bad != 3e38:
            with_label[0] = bad
        else:
            continue
        sums = seen(network, with_bad, codes, with_label, 1.0)
        assert all(torch.isfinite(total).all() for total in sums.values())
        if bad != 3e38:
            assert all(torch.allclose(sums[name], others[name], atol=1e-6) for name in sums)


def test_one_customers_presence_hardly_moves_the_rounding_of_the_rest():
    network = network_with(3, 40, (32, 16))
    dense, codes, labels = batch_of(4096, 40)
    whole = seen(network, dense, codes, labels, 1.0)
    rest, alone = (
        seen(network, dense[1:], codes[1:], labels[1:], 1.0),
        seen(network, dense[:1], codes[:1], labels[:1], 1.0),
    )
    shift = torch.sqrt(sum((whole[name] - rest[name] - alone[name]).square().sum() for name in whole))
    assert shift < 5e-4


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(self.layer(x))


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(2, 1), nn.Linear(2, 1)

    def forward(self, x):
        return self.used(x)


def tied():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    return network


class Loose(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.scale = nn.Linear(2, 1), nn.Parameter(torch.ones(1))


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "1.weight, 1.bias"),
        (nn.Sequential(nn.Conv1d(1, 1, 1)), "0.weight, 0.bias"),
        (nn.Sequential(nn.Embedding(2, 2, padding_idx=0), nn.Linear(2, 1)), "0.weight"),
        (tied(), "0.weight, 1.weight"),
        (Loose(), "scale"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), "1"),
        (nn.Sequential(nn.Tanh()), r"\(none\)"),
    ],
)
def test_uncovered_parameters_are_refused_by_name(network, name):
    with pytest.raises(ConsilienceError, match=f"CSL-P701.*: {name}"):
        BookKeeper(network)


def test_a_frozen_parameter_need_not_be_covered():
    network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1, bias=False))
    network[1].requires_grad_(False)
    network[0].weight.requires_grad_(False)
    keeper = BookKeeper(network)
    x = torch.randn(3, 2)
    keeper.backward(network(x).sum())
    sums = keeper.split(keeper.clipped_sum(1e9))
    assert set(sums) == {"0.bias", "2.weight"}
    keeper.clear()
    expected = torch.autograd.grad(network(x).sum(), [network[0].bias, network[2].weight])
    assert all(torch.allclose(a.float(), b, atol=1e-6) for a, b in zip(sums.values(), expected, strict=True))


def test_a_layer_used_twice_is_refused_by_name():
    network = Twice()
    BookKeeper(network)
    with pytest.raises(ConsilienceError, match='CSL-P702.*"layer"'):
        network(torch.randn(3, 2))


def test_an_unused_layer_is_refused_by_name():
    network = Half()
    keeper = BookKeeper(network)
    keeper.backward(network(torch.randn(3, 2)).sum())
    with pytest.raises(ConsilienceError, match='CSL-P703.*"unused"'):
        keeper.clipped_sum(1.0)


def test_a_layer_that_the_loss_does_not_reach_is_refused_by_name():
    network = Half()
    keeper = BookKeeper(network)
    used = network(torch.randn(3, 2))
    network.unused(torch.randn(3, 2))
    with pytest.raises(ConsilienceError, match='CSL-P703.*"unused"'):
        keeper.backward(used.sum())


def test_the_ordinary_backward_is_refused():
    network = nn.Sequential(nn.Linear(2, 1))
    keeper = BookKeeper(network)
    network(torch.randn(3, 2)).sum().backward()
    with pytest.raises(ConsilienceError, match="CSL-P703.*backward"):
        keeper.clipped_sum(1.0)


def test_sequences_are_refused():
    network = nn.Sequential(nn.Linear(2, 1))
    BookKeeper(network)
    with pytest.raises(ConsilienceError, match="CSL-P704"):
        network(torch.randn(3, 4, 2))


def test_looking_without_gradients_keeps_nothing():
    network = nn.Sequential(nn.Linear(2, 1))
    keeper = BookKeeper(network)
    with torch.no_grad():
        network(torch.randn(3, 2))
    assert keeper.batch == 0
    assert not keeper.clipped_sum(1.0).any()


def test_hooks_are_gone_after_close_and_the_network_still_learns():
    network = nn.Sequential(nn.Linear(2, 1))
    keeper = BookKeeper(network)
    keeper.close()
    for _ in range(2):
        network(torch.randn(3, 2)).sum().backward()
    assert keeper.batch == 0
    with torch.no_grad():
        keeper.flat.fill_(0.25)
    assert all(torch.equal(p.detach(), torch.full_like(p, 0.25)) for p in network.parameters()), "views of one vector"
