"""Prices of noise that members share, against the true laws of small sums: enumerated, not simulated."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from federation.errors import DocumentError, PolicyError
from federation.study import SecurePlan
from privacy.accounting import (
    calibrate_secure_sum,
    calibrate_sensitivity,
    delta,
    epsilon,
    epsilon_alone,
    gaussian_epsilon,
    gaussian_log_delta,
    gaussian_mu,
)
from privacy.events import SecureSum
from privacy.logistic import IntegerSums
from privacy.secure_aggregation.quantisation import add_noise, quantise, scale_for, sensitivity_of
from simulations.seeded import SeededSource

REACH = 2048  # of the enumerated integers: ten standard deviations and the largest shift


def sums(sigma, sensitivity, rate=1.0, steps=1, dimension=1, members=3):
    return SecureSum(
        sigma=sigma, members=members, sensitivity=sensitivity, sampling_rate=rate, steps=steps, dimension=dimension
    )


def law(share, members):
    """The exact law, on -REACH ... REACH - 1, of the sum of some members' discrete Gaussians: by convolution, nothing approximated."""
    x = np.arange(-REACH, REACH)
    one = np.exp(-(x.astype(float) ** 2) / (2.0 * share**2))
    spectrum = np.fft.fft(np.fft.ifftshift(one / one.sum())) ** members
    return np.maximum(np.fft.fftshift(np.fft.ifft(spectrum).real), 0.0)


def hockey_stick(present, absent, eps):
    """The true delta at an epsilon, the worse of adding and removing a customer."""
    there, gone = np.ravel(present), np.ravel(absent)
    return max(
        float(np.maximum(there - math.exp(eps) * gone, 0.0).sum()),
        float(np.maximum(gone - math.exp(eps) * there, 0.0).sum()),
    )


@pytest.mark.parametrize(
    ("members", "sigma", "shift", "rate"), [(2, 200.0, 180, 0.2), (3, 210.0, 90, 1.0), (3, 200.0, 300, 0.05)]
)
@pytest.mark.parametrize("eps", [0.05, 0.4, 1.2])
def test_one_sum_is_below_its_price_and_hardly(members, sigma, shift, rate, eps):
    plain = law(sigma / math.sqrt(members), members)
    mixture = (1.0 - rate) * plain + rate * np.roll(plain, shift)
    exact = hockey_stick(mixture, plain, eps)
    assert exact <= delta([sums(sigma, shift, rate, members=members)], eps) <= exact * 1.02 + 2e-9


@pytest.mark.parametrize("shift", [(100, 0), (60, 80), (-71, 70), (99, 14)])
@pytest.mark.parametrize("eps", [0.1, 0.5])
def test_two_coordinates_cost_their_common_length(shift, eps):
    """The L2 norm counts, in whichever direction a customer pulls."""
    rate, sigma = 0.3, 200.0
    plain = law(sigma / math.sqrt(3), 3)[REACH // 2 : -REACH // 2]
    here, there = np.outer(plain, plain), np.outer(np.roll(plain, shift[0]), np.roll(plain, shift[1]))
    exact = hockey_stick((1.0 - rate) * here + rate * there, here, eps)
    length = math.hypot(*shift)
    assert length > 99.0
    assert exact <= delta([sums(sigma, length, rate, dimension=2)], eps) <= exact * 1.02 + 2e-9


@pytest.mark.parametrize("eps", [0.1, 0.5, 1.0])
def test_two_rounds_cost_what_both_answers_together_tell(eps):
    """Each round draws customers anew; the adversary sees both sums."""
    rate, sigma, shift = 0.3, 200.0, 150
    plain = law(sigma / math.sqrt(3), 3)[REACH // 2 : -REACH // 2]
    mixture = (1.0 - rate) * plain + rate * np.roll(plain, shift)
    exact = hockey_stick(np.outer(mixture, mixture), np.outer(plain, plain), eps)
    assert exact <= delta([sums(sigma, shift, rate, steps=2)], eps) <= exact * 1.02 + 2e-9


def test_a_customer_in_a_whole_round_is_below_its_price():
    """From rows to the sum: clipped gradients in two coordinates, rounded, over every draw of four customers, under the noise of three."""
    rng = np.random.default_rng(3)
    rate, sigma, clip, sensitivity = 0.4, 200.0, 0.8, 160.0
    dense = rng.uniform(-1.5, 1.5, (4, 1)).astype(np.float32)
    gradients = IntegerSums(dense, np.array([1.0, 0.0, 1.0, 0.0]), clip)
    scale = scale_for(sensitivity, clip, 1.0, 2)
    weights, share = np.array([9.0, 0.5]), sigma / math.sqrt(3)
    quiet = add_noise(np.zeros(2, dtype=np.int64), 4.0, SeededSource("quiet"))

    def integers(rows):
        """A draw's vector without its noise."""
        summed = gradients.over(np.array(rows, dtype=np.int64), weights)
        return quantise(summed, scale=scale, x_max=1e6, share=4.0, source=SeededSource("quiet")) - quiet

    plain = law(share, 3)[REACH // 2 : -REACH // 2]
    present, absent = np.zeros((len(plain), len(plain))), np.zeros((len(plain), len(plain)))
    moved = []
    for others in itertools.chain.from_iterable(itertools.combinations((1, 2, 3), k) for k in range(4)):
        chance = rate ** len(others) * (1.0 - rate) ** (3 - len(others))
        without, within = integers(others), integers((0, *others))
        moved.append(float(np.linalg.norm(within - without)))
        here, there = (np.outer(np.roll(plain, x[0]), np.roll(plain, x[1])) for x in (without, within))
        absent += chance * here
        present += chance * ((1.0 - rate) * here + rate * there)
    bound = sensitivity_of(scale, clip, 1.0, 2)
    assert 0.9 * bound < max(moved) <= bound <= sensitivity
    for eps in (0.05, 0.3, 0.8):
        exact = hockey_stick(present, absent, eps)
        assert 0.0 < exact <= delta([sums(sigma, sensitivity, rate, dimension=2)], eps)


@pytest.mark.parametrize(("n_min", "c"), [(5, 0), (5, 1), (5, 2), (6, 3)])
def test_colluders_noise_is_taken_out_of_the_price(n_min, c):
    """Colluders subtract what they added themselves. What remains of the smallest sum that is opened is priced; with one share less, the
    price would be too low. With nobody else a member still knows its own noise."""
    plan = SecurePlan(noise="shared", n_min=n_min, c=c, share=130.0)
    shift, eps = 200, 0.3
    known = max(c, 1)
    seen = law(plan.share, n_min - known)
    exact = hockey_stick(np.roll(seen, shift), seen, eps)
    price = delta([sums(plan.sigma, shift, members=plan.bearers)], eps)
    assert exact <= price <= exact * 1.02 + 2e-9
    fewer = law(plan.share, n_min - known - 1)
    assert hockey_stick(np.roll(fewer, shift), fewer, eps) > 1.05 * price


def test_a_customer_of_two_institutions_is_a_group():
    """Under shared noise her two parts enter one sum: shifts add up. Composing the two prices would promise too much."""
    sigma, shift = 200.0, 200
    plain = law(sigma / math.sqrt(3), 3)
    target = 1e-5
    one = epsilon([sums(sigma, shift)], target)
    truth = epsilon([sums(sigma, 2 * shift)], target)
    composed = epsilon([sums(sigma, shift), sums(sigma, shift)], target)
    assert hockey_stick(np.roll(plain, 2 * shift), plain, composed) > 10 * target
    assert hockey_stick(np.roll(plain, 2 * shift), plain, truth) <= target
    # The group privacy of approximate differential privacy holds, loosely: (2 epsilon, (1 + e^epsilon) delta).
    assert hockey_stick(np.roll(plain, 2 * shift), plain, 2 * one) <= (1 + math.exp(one)) * target
    assert composed < truth


@given(st.floats(0.05, 8.0), st.sampled_from([1e-5, 1e-8]), st.sampled_from([(0.01, 400), (0.3, 32), (1.0, 1)]))
@settings(max_examples=8, phases=[Phase.explicit, Phase.generate])
def test_the_sensitivity_found_is_affordable_and_hardly_more_would_be(target, at, run):
    found = calibrate_sensitivity(target, at, *run, sigma=16_384.0, dimension=200, members=4)
    assert epsilon([sums(16_384.0, found, *run, dimension=200, members=4)], at) <= target
    assert epsilon([sums(16_384.0, found * 1.0015, *run, dimension=200, members=4)], at) > target


def test_sensitivity_and_noise_are_found_inversely():
    sigma = calibrate_secure_sum(1.0, 1e-6, 0.3, 32, sensitivity=500.0, dimension=50, members=4)
    assert calibrate_sensitivity(1.0, 1e-6, 0.3, 32, sigma=sigma, dimension=50, members=4) == pytest.approx(
        500, rel=2e-3
    )


def test_the_sensitivity_ends_where_a_grant_does():
    assert calibrate_sensitivity(100.0, 1e-3, 0.001, 1, sigma=2e6, dimension=1, members=1) == pytest.approx(1e6)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sigma": 199.0}, "CSL-P108"),
        ({"sigma": math.nan}, "CSL-P108"),
        ({"sigma": 3e6}, "CSL-P108"),
        ({"dimension": 0}, "CSL-P108"),
        ({"members": 0}, "CSL-P108"),
        ({"epsilon": 0.0}, "CSL-P105"),
        ({"delta": 0.0}, "CSL-P104"),
        ({"sampling_rate": 0.0}, "CSL-P108"),
        ({"steps": 0}, "CSL-P108"),
        ({"epsilon": 1e-12, "steps": 1_000_000}, "CSL-P107"),
    ],
)
def test_bad_terms_are_refused(change, code):
    good = {
        "epsilon": 1.0,
        "delta": 1e-6,
        "sampling_rate": 1.0,
        "steps": 1,
        "sigma": 400.0,
        "dimension": 2,
        "members": 2,
    }
    with pytest.raises((PolicyError, DocumentError)) as caught:
        calibrate_sensitivity(**(good | change))
    assert caught.value.code == code


@example(0.0859375, 0.03385435671839744)
@given(st.floats(0.01, 300.0), st.floats(1e-12, 0.1))
def test_the_gaussians_epsilon_is_enough_and_hardly_more(mu, at):
    found = gaussian_epsilon(mu, at)
    assert found == 0.0 or gaussian_log_delta(mu, found) <= math.log(at)
    if found > 1e-6:
        # Near zero the answer is exact to a hundred millionth, not to a millionth of itself.
        assert gaussian_log_delta(mu, found - 1e-6 * max(found, 0.01)) > math.log(at)
        assert gaussian_mu(found, at) == pytest.approx(mu, rel=1e-4)


@pytest.mark.parametrize(
    ("rate", "steps", "sensitivity"), [(0.3, 32, 8000.0), (1.0, 1, 20_000.0), (0.05, 150, 20_000.0)]
)
def test_alone_means_an_equal_share_of_the_noise(rate, steps, sensitivity):
    event = sums(32_768.0, sensitivity, rate, steps, dimension=200, members=4)
    alone = sums(16_384.0, sensitivity, rate, steps, dimension=200, members=1)
    assert epsilon_alone(event, 1e-6) == pytest.approx(epsilon([alone], 1e-6), rel=1e-3)
    assert epsilon_alone(event, 1e-6) > epsilon([event], 1e-6)
    assert epsilon_alone(alone, 1e-6) <= epsilon([alone], 1e-6)


@pytest.mark.parametrize(
    ("members", "sensitivity", "steps"), [(900, 300_000.0, 30), (900, 20_000.0, 1), (4, 16_384.0, 100_000)]
)
def test_alone_is_finite_and_above_what_the_sums_tell_where_no_distribution_describes_it(members, sensitivity, steps):
    event = sums(32_768.0, sensitivity, 0.2, steps, members=members)
    found = epsilon_alone(event, 1e-6)
    assert math.isfinite(found)
    unsampled = math.sqrt(steps * members) * sensitivity / 32_768.0
    assert found == pytest.approx(gaussian_epsilon(unsampled, 1e-6), rel=1e-2)
    if steps < 1000:
        assert found > epsilon([event], 1e-6)


@given(st.integers(2, 40), st.floats(100.0, 5000.0))
@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
def test_alone_is_never_below_the_noise_of_all(members, sensitivity):
    event = sums(16_384.0, sensitivity, 1.0, 1, members=members)
    assert epsilon_alone(event, 1e-6) >= epsilon([event], 1e-6) * (1.0 - 1e-9)


def test_a_delta_that_rounding_takes_whole_is_refused():
    with pytest.raises(PolicyError) as caught:
        epsilon_alone(sums(16_384.0, 100.0, 1.0, 1_000_000), 1e-10)
    assert caught.value.code == "CSL-P106"
