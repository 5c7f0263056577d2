"""How long exact discrete noise takes: the table samplers, next to numpy's rounded normal and to the exact rejection sampler.

Usage: `python benchmarks/samplers.py [--quick]`. One thread. Within one run samplers take turns, and medians over the turns are
compared, so that another program on the machine slows all of them alike.

- *ours*: `privacy.mechanisms`, exact but for 2^-128 an entry of the table, with AES-256-CTR keyed by the operating system; the table is
  built once a process, which is timed apart;
- *numpy*: `Generator.normal` (or two `Generator.geometric`) rounded to integers: not the law, and not from a cryptographic generator;
- *rejection*: Algorithm 3 of Canonne, Kamath and Steinke (2020) on integers, as `opendp` and others draw, extrapolated from few draws.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from privacy.mechanisms.discrete_gaussian import DiscreteGaussian, rejection_sample
from privacy.mechanisms.discrete_laplace import DiscreteLaplace
from privacy.randomness import SystemSource

DRAWS = 1_000_000
SIGMAS = (0.5, 10.0, 100.0, 1000.0, 16_384.0, 32_768.0)
SCALES = (1.0, 100.0, 10_000.0)
LIMIT_AT = 100.0
LIMIT_SECONDS = 0.050
REJECTION_DRAWS = 1000


@dataclass(frozen=True)
class Row:
    """Seconds: a table's set-up, the medians of a million draws, and what the rejection sampler would take (None: not run)."""

    law: str
    setup: float
    ours: float
    numpy: float
    rejection: float | None


def seconds(work: Callable[[], object]) -> float:
    """Run something once and return how long it took."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(ours: Callable[[], object], peer: Callable[[], object], turns: int) -> tuple[float, float]:
    """Let two take turns, the first of which warms up, and return both medians."""
    times = [(seconds(ours), seconds(peer)) for _ in range(turns + 1)][1:]
    return statistics.median(pair[0] for pair in times), statistics.median(pair[1] for pair in times)


def gaussian(sigma: float, draws: int, turns: int) -> Row:
    """Measure one discrete Gaussian."""
    source, peer = SystemSource(), np.random.default_rng()
    start = time.perf_counter()
    sampler = DiscreteGaussian(sigma)
    setup = time.perf_counter() - start

    def rounded() -> NDArray[np.int64]:
        return np.rint(peer.normal(0.0, sigma, draws)).astype(np.int64)

    ours, numpy = medians(lambda: sampler.sample(draws, source), rounded, turns)
    few = seconds(lambda: rejection_sample(Fraction(sigma) ** 2, REJECTION_DRAWS, source))
    return Row(f"discrete Gaussian, sigma {sigma:g}", setup, ours, numpy, few * draws / REJECTION_DRAWS)


def laplace(scale: float, draws: int, turns: int) -> Row:
    """Measure one discrete Laplace law."""
    source, peer = SystemSource(), np.random.default_rng()
    start = time.perf_counter()
    sampler = DiscreteLaplace(scale)
    setup = time.perf_counter() - start
    share = -float(np.expm1(-1.0 / scale))

    def difference() -> NDArray[np.int64]:
        return peer.geometric(share, draws) - peer.geometric(share, draws)

    ours, numpy = medians(lambda: sampler.sample(draws, source), difference, turns)
    return Row(f"discrete Laplace, b {scale:g}", setup, ours, numpy, None)


def main() -> None:
    """Print the table; exit with 1 when a million draws at sigma 100 take longer than 50 ms (not with `--quick`)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20,000 draws and 2 turns: shows that it runs")
    quick: bool = parser.parse_args().quick
    draws, turns = (20_000, 2) if quick else (DRAWS, 15)
    print(f"Exact discrete noise, {draws:,} draws, one thread; milliseconds are medians of interleaved turns\n")
    print(f"{'law':<34}{'set-up ms':>10}{'ours ms':>10}{'numpy ms':>10}{'rejection s':>13}", flush=True)
    rows = []
    for law, parameters in ((gaussian, SIGMAS), (laplace, SCALES)):
        for parameter in parameters:
            row = law(parameter, draws, turns)
            slow = "-" if row.rejection is None else f"{row.rejection:.1f}"
            print(
                f"{row.law:<34}{1e3 * row.setup:>10.1f}{1e3 * row.ours:>10.1f}{1e3 * row.numpy:>10.1f}{slow:>13}",
                flush=True,
            )
            rows.append(row)
    if not quick:
        late = next(row for row in rows if row.law == f"discrete Gaussian, sigma {LIMIT_AT:g}").ours > LIMIT_SECONDS
        limit = f"{DRAWS:,} draws at sigma {LIMIT_AT:g} in {1e3 * LIMIT_SECONDS:.0f} ms"
        print(f"\nTarget {'missed' if late else 'met'}: {limit}.")
        raise SystemExit(late)


if __name__ == "__main__":
    main()
