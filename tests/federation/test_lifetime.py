"""BG/NBD and Gamma-Gamma against integrals over each customer's own rates, against simulated customers, and against the literature."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.special import hyp2f1
from scipy.stats import beta, gamma

from federation.errors import DocumentError
from federation.lifetime import (
    LifetimeModel,
    Purchasing,
    Spending,
    alive,
    chance_below,
    chance_of_none,
    chances,
    expected_purchases,
    expected_spend,
    log_likelihood,
    log_likelihood_of_mean,
    purchase_rate,
)
from tests.federation.lifetime_report import VALUES, answer, report

PUBLISHED = Purchasing(0.243, 4.414, 0.793, 2.426)
"""Of the paper, in weeks."""
SPENDING = Spending(6.25, 3.74, 15.44)
MODELS = (PUBLISHED, Purchasing(2.0, 0.5, 1.0, 3.0), Purchasing(0.6, 0.1, 2.5, 0.8))
CUSTOMERS = ((0, 0.0, 20.0), (1, 3.0, 20.0), (2, 19.0, 20.0), (7, 12.0, 20.0))
models = st.builds(Purchasing, *(st.floats(0.05, 20.0) for _ in range(4)))


def by_integral(model: Purchasing, x: int, t_x: float, tenure: float) -> float:
    """The likelihood with a customer's own lambda and p, averaged over both."""

    def average(function: object, weight: object) -> float:
        return float(quad(lambda at: function(at) * weight(at), 0, np.inf, epsabs=0, epsrel=1e-9, limit=500)[0])  # type: ignore[operator]

    density = gamma(model.r, scale=1 / model.alpha).pdf
    p = beta(model.a, model.b)
    stays = float(p.expect(lambda at: (1 - at) ** x))
    lived = average(lambda rate: rate**x * math.exp(-rate * tenure), density)
    if not x:
        return lived
    goes = float(p.expect(lambda at: at * (1 - at) ** (x - 1)))
    return stays * lived + goes * average(lambda rate: rate**x * math.exp(-rate * t_x), density)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("customer", CUSTOMERS)
def test_the_likelihood_is_the_average_over_customers_rates(
    model: Purchasing, customer: tuple[int, float, float]
) -> None:
    assert math.exp(float(log_likelihood(model, *customer))) == pytest.approx(by_integral(model, *customer), rel=1e-5)


@pytest.mark.parametrize("x", [1, 2, 9])
def test_a_cells_chance_is_the_integral_of_the_likelihood(x: int) -> None:
    def density(at: float) -> float:
        return math.exp(float(log_likelihood(PUBLISHED, x, at, 39.0))) * at ** (x - 1) / math.factorial(x - 1)

    found = float(chances(PUBLISHED, x, 10.0, 25.0, 39.0))
    assert found == pytest.approx(quad(density, 10.0, 25.0)[0], rel=1e-8)


@settings(max_examples=60)
@given(model=models, tenure=st.floats(0.01, 1.0))
def test_all_cells_together_are_certain(model: Purchasing, tenure: float) -> None:
    edges = np.linspace(0.0, tenure, 7)
    counts = np.arange(1, 400)[:, None]
    total = float(chance_of_none(model, tenure) + chances(model, counts, edges[:-1], edges[1:], tenure).sum())
    tail = float(gamma(model.r, scale=1 / model.alpha).sf(250 / tenure))
    assert 1.0 - tail - 1e-6 <= total <= 1.0 + 1e-9


def simulated(model: Purchasing, tenure: float, ahead: float, size: int) -> NDArray[np.float64]:
    """Customers who buy and drop out as the model says: x, t_x, still there at `tenure`, purchases in (tenure, tenure + ahead]."""
    generator = np.random.default_rng(5)
    rate = generator.gamma(model.r, 1 / model.alpha, size)
    p = generator.beta(model.a, model.b, size)
    now, x, t_x, later = np.zeros(size), np.zeros(size), np.zeros(size), np.zeros(size)
    going, here = np.ones(size, dtype=bool), np.zeros(size, dtype=bool)
    while going.any():
        now = np.where(going, now + generator.exponential(1.0, size) / np.maximum(rate, 1e-12), now)
        here |= going & (now > tenure)
        going &= now <= tenure + ahead
        before = going & (now <= tenure)
        x, t_x = x + before, np.where(before, now, t_x)
        later += going & (now > tenure)
        going &= generator.random(size) >= p
    return np.stack([x, t_x, here.astype(float), later])


def test_simulated_customers_are_as_often_alive_and_buy_as_much_as_the_model_says() -> None:
    x, t_x, here, later = simulated(PUBLISHED, 39.0, 39.0, 200_000)
    says = expected_purchases(PUBLISHED, x, t_x, 39.0, 39.0)
    still = alive(PUBLISHED, x, t_x, np.full(len(x), 39.0))
    groups = [(x == 0), (x == 1) & (t_x < 20), (x == 1) & (t_x >= 20), (x > 1) & (x < 5), x >= 5]
    for group in groups:
        # Four standard errors: a group fails by chance with 6e-5, any of the ten comparisons with 6e-4.
        size = int(group.sum())
        assert abs(later[group].mean() - says[group].mean()) < 4 * later[group].std() / math.sqrt(size)
        assert abs(here[group].mean() - still[group].mean()) < 4 * 0.5 / math.sqrt(size)
    chance = chances(PUBLISHED, np.arange(1, 200), 13.0, 26.0, 39.0).sum()
    share = ((x > 0) & (t_x > 13.0) & (t_x <= 26.0)).mean()
    assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / len(x))


def closed_form(model: Purchasing, x: int, t_x: float, tenure: float, ahead: float) -> float:
    """Equation 10 of the paper."""
    r, alpha, a, b = model.r, model.alpha, model.a, model.b
    ratio = (alpha + tenure) / (alpha + tenure + ahead)
    inner = hyp2f1(r + x, b + x, a + b + x - 1, ahead / (alpha + tenure + ahead))
    above = (a + b + x - 1) / (a - 1) * (1 - ratio ** (r + x) * inner)
    gone = 0.0 if x == 0 else a / (b + x - 1) * ((alpha + tenure) / (alpha + t_x)) ** (r + x)
    return float(above / (1 + gone))


@pytest.mark.parametrize("model", [PUBLISHED, Purchasing(0.6, 0.1, 2.5, 0.8), Purchasing(0.6, 0.1, 1.0001, 0.8)])
@pytest.mark.parametrize("customer", CUSTOMERS)
def test_expected_purchases_are_the_papers_closed_form(model: Purchasing, customer: tuple[int, float, float]) -> None:
    for ahead in (0.5, 39.0, 400.0):
        found = float(expected_purchases(model, *customer, ahead))
        assert found == pytest.approx(closed_form(model, *customer, ahead), rel=1e-7)


def test_the_papers_customer_and_the_customers_of_the_gamma_gamma_note() -> None:
    assert float(expected_purchases(PUBLISHED, 2, 30.43, 38.86, 39.0)) == pytest.approx(1.226, abs=5e-4)
    assert expected_spend(SPENDING, [2, 1], [22.35, 11.77]) == pytest.approx([24.66, 18.92], abs=0.01)


@pytest.mark.parametrize("x", [0, 3, 98])
def test_the_rate_where_a_library_overflows(x: int) -> None:
    """r + 1 - a is a whole number: the average over p, integrated."""
    model, later = Purchasing(1.0, 0.5, 1.0, 0.5), 8.0
    average = beta(model.a, model.b + x).expect(lambda p: (1 + p * later / (0.5 + 0.25)) ** -(x + 2.0))
    found = purchase_rate(model, np.array([float(x)]), np.array([0.25]), later)
    assert found[0] == pytest.approx((1.0 + x) / 0.75 * float(average), rel=1e-4)


@settings(max_examples=80)
@given(
    model=models,
    x=st.integers(0, 364),
    tenure=st.floats(0.004, 1.0),
    share=st.floats(0.0, 1.0),
    horizon=st.floats(0.01, 20.0),
)
@example(model=Purchasing(1.0, 0.5, 1.0, 0.5), x=98, tenure=0.03125, share=0.0, horizon=5.0)
def test_whatever_the_customer_the_numbers_are_possible(
    model: Purchasing, x: int, tenure: float, share: float, horizon: float
) -> None:
    t_x = share * tenure if x else 0.0
    chance = float(alive(model, x, t_x, tenure))
    found = [float(expected_purchases(model, x, t_x, tenure, ahead)) for ahead in (horizon / 2, horizon)]
    assert 0.0 <= chance <= 1.0
    assert 0.0 <= found[0] <= found[1] * (1 + 1e-6) <= (model.r + x) / (model.alpha + tenure) * horizon * (1 + 1e-5)
    assert float(expected_purchases(model, x, t_x, tenure, horizon, 0.3)) <= found[1] * (1 + 1e-6)
    assert np.isfinite(log_likelihood(model, x, t_x, tenure))


def test_a_discount_of_next_to_nothing_and_one_that_is_felt() -> None:
    plain = float(expected_purchases(PUBLISHED, 2, 30.0, 39.0, 39.0))
    assert float(expected_purchases(PUBLISHED, 2, 30.0, 39.0, 39.0, 1e-9)) == pytest.approx(plain)
    steps = [float(expected_purchases(PUBLISHED, 2, 30.0, 39.0, at)) for at in np.linspace(0, 39, 2001)]
    middle = (np.linspace(0, 39, 2001)[1:] + np.linspace(0, 39, 2001)[:-1]) / 2
    by_steps = float(np.sum(np.diff(steps) * np.exp(-0.05 * middle)))
    assert float(expected_purchases(PUBLISHED, 2, 30.0, 39.0, 39.0, 0.05)) == pytest.approx(by_steps, rel=1e-6)


@pytest.mark.parametrize("n", [1, 3, 40])
def test_mean_amounts_are_distributed_as_their_density_says(n: int) -> None:
    def density(at: float) -> float:
        return math.exp(float(log_likelihood_of_mean(SPENDING, n, at)))

    assert float(chance_below(SPENDING, n, 30.0)) == pytest.approx(quad(density, 0, 30.0)[0], rel=1e-7)
    assert float(chance_below(SPENDING, n, np.inf)) == 1.0 and float(chance_below(SPENDING, n, 0.0)) == 0.0
    assert quad(lambda at: at * density(at), 0, np.inf, limit=200)[0] == pytest.approx(SPENDING.mean, rel=1e-5)


def test_simulated_amounts_are_worth_what_the_model_expects() -> None:
    generator = np.random.default_rng(6)
    rate = generator.gamma(SPENDING.q, 1 / SPENDING.v, 200_000)
    mean = generator.gamma(2 * SPENDING.p, 1 / rate) / 2
    coming = SPENDING.p / rate
    for low, high in ((0, 15), (15, 40), (40, 1e9)):
        group = (mean >= low) & (mean < high)
        error = coming[group].std() / math.sqrt(group.sum())
        assert abs(coming[group].mean() - expected_spend(SPENDING, 2, mean[group]).mean()) < 4 * error


def test_a_model_is_read_off_a_report() -> None:
    found = LifetimeModel.of(report())
    assert found.purchasing == Purchasing(*(VALUES[name] for name in ("r", "alpha", "a", "b")))
    assert found.spending == Spending(*(VALUES[name] for name in "pqv")) and found.horizon == 1.0
    assert LifetimeModel.from_canonical(found.canonical()) == found
    two = report(answer("one"), answer("two", r=0.5))
    assert LifetimeModel.of(two, "two").r == 0.5
    for wrong, query in ((two, None), (two, "three")):
        with pytest.raises(DocumentError, match="CSL-F435"):
            LifetimeModel.of(wrong, query)


@pytest.mark.parametrize("changes", [{"alpha": None}, {"q": 0.9}])
def test_a_model_that_is_not_whole_is_refused(changes: dict[str, float | None]) -> None:
    with pytest.raises(DocumentError, match="CSL-F436"):
        LifetimeModel.of(report(answer(**changes)))  # type: ignore[arg-type]


def test_a_report_without_a_table_is_refused() -> None:
    whole = answer()
    less = whole.model_copy(update={"tables": whole.tables[:1]})
    with pytest.raises(DocumentError, match="CSL-F436"):
        LifetimeModel.of(report(less))
