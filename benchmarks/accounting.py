"""What accounting costs: enforced epsilon against the privacy loss distribution's (PLD), its accuracy, and its seconds.

Usage: `python benchmarks/accounting.py [--quick | --shares]`. One thread. Exits with 1 when a target is missed; of seconds
only the full run judges: a quick one may share the machine with other work.

- *mixes*: studies come one after another into a budget that they just fill (the smallest in which all of them fit), priced one by
  one. Shown against the PLD of all together: that budget, and the enforced epsilon of the summed costs, by tokens and by Renyi
  divergence at the budget's best order; and the plain sum of the studies' own epsilons. For tokens the target is that of mixes in which
  Laplace counts, bought one by one, are at most a fifth of what is spent; the others are marked *.
- *accuracy*: the PLD against one on a grid of 1e-4 and a seventh of the usual spacing, and against `accounting_reference`, which shares
  no code with it. The first must lie within 0.2% of both, and not below.
- *seconds*: pricing a study that was never seen, and finding the noise for a wanted epsilon.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from accounting_reference import reference_epsilon

from privacy import accounting, distributions, filter, token
from privacy.cost import Cost, Filter, RdpFilter, TokenFilter, total
from privacy.events import (
    DiscreteGaussianHistogram,
    DiscreteLaplaceHistogram,
    PrivacyEvent,
    SecureSum,
    SubsampledGaussian,
)
from privacy.rdp import best_order

RATIO_LIMIT = 1.10
ACCURACY_LIMIT = 2e-3
BELOW = 2e-5  # what the reference itself is uncertain by
PRICE_LIMIT = 1.0
CALIBRATE_LIMIT = 5.0
DELTAS = (1e-5, 1e-6)


@dataclass(frozen=True)
class Mix:
    """Studies that follow one another; `tokens` says whether the target holds for tokens, or only for Renyi divergence."""

    name: str
    studies: tuple[PrivacyEvent, ...]
    tokens: bool = True


def runs(number: int, seed: int, louder: float) -> tuple[PrivacyEvent, ...]:
    """DP-SGD runs of different noise (at least 2), sampling rate and length."""
    draw = random.Random(seed)
    plans = [(0.01, 1000), (0.02, 400), (0.05, 200), (0.05, 400), (0.1, 60), (0.1, 150), (0.2, 50), (0.3, 30)]
    found: list[PrivacyEvent] = []
    for _ in range(number):
        rate, steps = draw.choice(plans)
        noise = louder * draw.choice([2.0, 2.5, 3.0, 4.0, 6.0, 8.0])
        found.append(SubsampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps))
    return tuple(found)


def laplace(scales: Sequence[float], number: int) -> tuple[PrivacyEvent, ...]:
    """Laplace counts, one a study."""
    return tuple(DiscreteLaplaceHistogram(scale=scales[i % len(scales)], count=1) for i in range(number))


def counts(sigmas: Sequence[float], number: int) -> tuple[PrivacyEvent, ...]:
    """Discrete Gaussian counts, one a study."""
    return tuple(DiscreteGaussianHistogram(sigma=sigmas[i % len(sigmas)], count=1) for i in range(number))


def sums(sigmas: Sequence[float]) -> tuple[PrivacyEvent, ...]:
    """FedSGD by secure sums: sensitivity 100 grid units, ten members, 500 coordinates."""
    return tuple(
        SecureSum(sigma=sigma, members=10, sensitivity=100.0, sampling_rate=0.1, steps=150, dimension=500)
        for sigma in sigmas
    )


def mixes() -> list[Mix]:
    """The mixes of the design, large and small, and each kind alone."""
    many, few = laplace((15.0, 20.0, 30.0), 60), counts((12.0, 16.0, 24.0, 40.0), 60)
    return [
        Mix("12 DP-SGD, 60 Laplace, 60 Gaussian", runs(12, 3, 1.5) + many + few),
        Mix("the same, louder Laplace counts", runs(12, 3, 1.0) + laplace((10.0, 20.0), 60) + few, tokens=False),
        Mix("12 DP-SGD", runs(12, 1, 1.0)),
        Mix("30 DP-SGD with more noise", runs(30, 2, 2.0)),
        Mix("3 DP-SGD", runs(3, 5, 1.0)),
        Mix("4 secure sums, 4 DP-SGD, 20 Gaussian", sums((400, 600, 800, 1000)) + runs(4, 7, 1.0) + few[:20]),
        Mix("60 Gaussian counts", few),
        Mix("60 Laplace counts, one by one", many, tokens=False),
        Mix("60 Laplace counts as one study", (DiscreteLaplaceHistogram(scale=20.0, count=60),)),
    ]


@dataclass(frozen=True)
class Enforced:
    """What one filter makes of a mix, relative to the PLD: the budget that just holds it, and the enforced epsilon."""

    budget: float
    shown: float


def enforced(mix: Mix, kind: Callable[[float], Filter], delta: float, exact: float) -> Enforced:
    """Find the smallest budget that holds all studies of `mix`."""
    low, high = exact, 2.0 * exact
    while high / low > 1.0005:
        middle = (low + high) / 2.0
        low, high = (low, middle) if _spent(mix, kind(middle), middle, delta)[1] else (middle, high)
    spent, _ = _spent(mix, kind(high), high, delta)
    return Enforced(high / exact, filter.cost_epsilon(kind(high), spent, delta) / exact)


def _spent(mix: Mix, kind: Filter, epsilon: float, delta: float) -> tuple[Cost, bool]:
    bound = filter.bound_of(kind, epsilon, delta)
    life = filter.bound_of(kind, 2.0 * epsilon, delta)
    day = date(2026, 1, 1)
    limits = filter.Limits(issued=day, expires=day, filter=kind, period_days=30, period=bound, life=life)
    spent = total(filter.price((study,), limits) for study in mix.studies)
    return spent, filter.fits(bound, Cost(), spent)


def rdp_of(delta: float) -> Callable[[float], Filter]:
    """Renyi divergence at the order that a policy with this budget would choose."""
    return lambda epsilon: RdpFilter(kind="rdp", order=best_order(epsilon, delta) or 2)


def print_mixes(quick: bool) -> list[str]:
    """Print what both filters make of every mix; return what misses its target."""
    found = []
    print(
        f"{'mix':<38}{'delta':>7}{'PLD':>8}{'tokens: budget':>16}{'shown':>8}{'RDP: budget':>13}{'shown':>8}{'sum':>8}"
    )
    for mix in mixes():
        for delta in DELTAS[:1] if quick else DELTAS:
            exact = accounting.epsilon(mix.studies, delta)
            tokens = enforced(mix, lambda _: TokenFilter(), delta, exact)
            renyi = enforced(mix, rdp_of(delta), delta, exact)
            plain = sum(accounting.epsilon([study], delta) for study in mix.studies)
            print(
                f"{mix.name + ('' if mix.tokens else ' *'):<38}{delta:>7.0e}{exact:>8.3f}{tokens.budget:>15.3f}x{tokens.shown:>7.3f}x"
                f"{renyi.budget:>12.3f}x{renyi.shown:>7.3f}x{plain / exact:>7.2f}x",
                flush=True,
            )
            held = {"Renyi": renyi} | ({"tokens": tokens} if mix.tokens else {})
            found += [
                f"{mix.name} at {delta:g}, {name}: {value.shown:.3f} x the PLD, target {RATIO_LIMIT}"
                for name, value in held.items()
                if value.shown > RATIO_LIMIT
            ]
            if min(tokens.shown, renyi.shown) < 1.0:
                found.append(f"{mix.name} at {delta:g}: the enforced figure is below the PLD's")
    return found


def print_shares() -> None:
    """Print, for other parts of delta set aside for the delta0s of tokens, the budget that just holds each mix."""
    shares, kept = (3, 5, 10, 20, 40), token.DISCLOSURE_SHARE
    print(f"{'budget / PLD, delta = 1e-6':<38}" + "".join(f"{f'1/{share}':>9}" for share in shares))
    for mix in mixes():
        exact = accounting.epsilon(mix.studies, 1e-6)
        row = []
        for share in shares:
            token.DISCLOSURE_SHARE = share
            row.append(enforced(mix, lambda _: TokenFilter(), 1e-6, exact).budget)
        print(f"{mix.name:<38}" + "".join(f"{value:>9.4f}" for value in row), flush=True)
    token.DISCLOSURE_SHARE = kept


@contextmanager
def finer() -> Iterator[None]:
    """Build distributions on a grid of 1e-4, and a seventh of the usual spacing where that is smaller."""
    kept = (distributions.GRID, distributions._FINENESS, distributions._FINENESS_AT_BOUND)
    _forget()
    distributions.GRID, distributions._FINENESS, distributions._FINENESS_AT_BOUND = 1e-4, 0.01, 3e-5
    try:
        yield
    finally:
        distributions.GRID, distributions._FINENESS, distributions._FINENESS_AT_BOUND = kept
        _forget()


def _forget() -> None:
    for cache in (distributions._event_distribution, distributions._composed, filter._price, filter.run_epsilon):
        cache.cache_clear()


def print_accuracy(quick: bool) -> list[str]:
    """Print the PLD against a finer one and the reference; return what misses its target."""
    mixed = [mix for mix in mixes() if not quick or len(mix.studies) < 10]
    cases: dict[str, tuple[PrivacyEvent, ...]] = {mix.name: mix.studies for mix in mixed}
    for noise, rate, steps in [(2.0, 0.1, 150), (8.0, 0.01, 1000), (2.0, 0.001, 10_000), (1.0, 0.01, 1000)]:
        one = SubsampledGaussian(noise_multiplier=noise, sampling_rate=rate, steps=steps)
        cases[f"noise {noise:g}, rate {rate:g}, {steps} steps"] = (one,)
    found = []
    print(
        f"\n{'accuracy at delta = 1e-6':<38}{'PLD':>9}{'finer':>9}{'reference':>11}{'over finer':>12}{'over ref.':>11}"
    )
    for name, studies in cases.items():
        usual = accounting.epsilon(studies, 1e-6)
        with finer():
            fine = accounting.epsilon(studies, 1e-6)
        exact = reference_epsilon(studies, 1e-6, step=1e-5, reach=10.0 if usual < 3.0 else 40.0)
        print(
            f"{name:<38}{usual:>9.5f}{fine:>9.5f}{exact:>11.5f}{usual / fine - 1:>+12.4%}{usual / exact - 1:>+11.4%}",
            flush=True,
        )
        if max(usual / fine, usual / exact) > 1 + ACCURACY_LIMIT or usual < exact * (1 - BELOW):
            found.append(f"{name}: the PLD is {usual:.5f}, a finer one {fine:.5f}, the reference {exact:.5f}")
    return found


def print_seconds() -> list[str]:
    """Print how long pricing and calibrating take; return what misses its target."""
    found = []
    bound = filter.bound_of(TokenFilter(), 3.0, 1e-6)
    day = date(2026, 1, 1)
    limits = filter.Limits(issued=day, expires=day, filter=TokenFilter(), period_days=30, period=bound, life=bound)
    studies = {
        f"price DP-SGD {noise:g}, {rate:g}, {steps}": SubsampledGaussian(
            noise_multiplier=noise, sampling_rate=rate, steps=steps
        )
        for noise, rate, steps in [
            (2.0, 0.1, 150),
            (1.0, 0.01, 1000),
            (0.8, 0.02, 500),
            (4.0, 0.001, 10_000),
            (3.0, 0.3, 30),
        ]
    }
    others: dict[str, PrivacyEvent] = {
        "price a secure sum": sums((400.0,))[0],
        "price Gaussian counts": DiscreteGaussianHistogram(sigma=12.0, count=1),
        "price Gaussian counts, sigma 20,000": DiscreteGaussianHistogram(sigma=20_000.0, count=100),
        "price Laplace counts": DiscreteLaplaceHistogram(scale=20.0, count=60),
    }
    print(f"\n{'seconds, nothing remembered':<42}{'seconds':>9}{'again, ms':>11}")
    for name, study in {**studies, **others}.items():
        _forget()
        cold = _seconds(lambda study=study: filter.price((study,), limits))  # type: ignore[misc]
        warm = _seconds(lambda study=study: filter.price((study,), limits))  # type: ignore[misc]
        print(f"{name:<42}{cold:>9.2f}{1e3 * warm:>11.2f}")
        if cold > PRICE_LIMIT:
            found.append(f"{name} takes {cold:.2f} s, target {PRICE_LIMIT}")
    for name, search in _searches().items():
        _forget()
        took = _seconds(search)
        print(f"{name:<42}{took:>9.2f}", flush=True)
        if took > CALIBRATE_LIMIT:
            found.append(f"{name} takes {took:.2f} s, target {CALIBRATE_LIMIT}")
    return found


def _searches() -> dict[str, Callable[[], object]]:
    return {
        "noise for (1, 1e-6), rate 0.1, 150 steps": lambda: accounting.calibrate_noise(1.0, 1e-6, 0.1, 150),
        "noise for (8, 1e-6), rate 0.01, 10^4 steps": lambda: accounting.calibrate_noise(8.0, 1e-6, 0.01, 10_000),
        "noise for (0.1, 1e-7), rate 0.001, 10^5": lambda: accounting.calibrate_noise(0.1, 1e-7, 0.001, 100_000),
        "noise for (10, 1e-5), every customer": lambda: accounting.calibrate_noise(10.0, 1e-5, 1.0, 100),
        "Gaussian counts for (0.1, 1e-6)": lambda: accounting.calibrate_histogram(0.1, 1e-6, 20),
        "Laplace counts for (0.5, 1e-6)": lambda: accounting.calibrate_laplace(0.5, 1e-6, 60),
        "secure sum for (1, 1e-6)": lambda: accounting.calibrate_secure_sum(
            1.0, 1e-6, 0.1, 150, sensitivity=1000.0, dimension=500, members=10
        ),
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Print the tables; exit with 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one delta, accuracy on fewer cases, and seconds without targets"
    )
    parser.add_argument(
        "--shares", action="store_true", help="compare parts of delta that tokens may set aside, and end"
    )
    chosen = parser.parse_args()
    if chosen.shares:
        print_shares()
        return
    quick: bool = chosen.quick
    failures = print_mixes(quick) + print_accuracy(quick)
    slow = print_seconds()
    failures += [] if quick else slow
    print("\n" + ("\n".join(failures) if failures else "Every target is met."))
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
