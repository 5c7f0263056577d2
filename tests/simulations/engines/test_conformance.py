"""Every engine computes the same rounds: the same releases without noise, the same law with it. Each is held to a slow reference."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from simulations.engines.local import Local as LocalEngine
from simulations.engines.ray import Ray
from simulations.engines.threads import torch_threads
from simulations.engines.vectorized import Vectorized
from simulations.engines.work import Local
from tests.simulations.engines.jobs import LOCALS, job_of, spread, work_of
from tests.simulations.engines.reference import Reference

ENGINES = {"local": LocalEngine, "vectorized": Vectorized, "ray": partial(Ray, cpus=2)}
KINDS = ("additive", "mlp")
CASES = [(engine, kind) for engine in ("local", "vectorized") for kind in KINDS]
CASES.append(pytest.param(("ray", "mlp"), marks=pytest.mark.e2e))
WHOLE = {"sum": None, **LOCALS}
CLOSE = 1e-5
ALARM = 1e-5  # chance that one check of noise fails by accident; the seeds are fixed, so that it fails always or never
NOISE = 3.0


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Numbers this small are not worth a second thread."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def pair(request):
    """An engine and the reference at work on the same job, through all tests of the module: what they keep goes on alike."""
    engine, kind = request.param
    job = job_of(kind)
    with ENGINES[engine]().open(job) as session, Reference().open(job) as reference:
        yield job, session, reference


def same(found, expected):
    """Equal to 1e-5 of the largest number."""
    assert found.shape == expected.shape and found.dtype == np.float64
    assert np.abs(expected).max() > 0.0
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=CLOSE * np.abs(expected).max())


@pytest.mark.parametrize("local", WHOLE.values(), ids=WHOLE.keys())
def test_releases_are_the_references(pair, local):
    job, session, reference = pair
    work = work_of(job, 1, local=local)
    same(session.releases(work), reference.releases(work))


@pytest.mark.parametrize("local", WHOLE.values(), ids=WHOLE.keys())
def test_sums_are_the_references_and_leave_the_absent_out(pair, local):
    job, session, reference = pair
    work = work_of(job, 2, local=local, present=[1, 0, 1, 1, 0])
    factors = np.array([0.5, np.nan, -2.0, 0.25, np.nan])  # of the absent nothing counts, not even their factor
    same(session.combine(work, factors), reference.combine(work, factors))
    assert not session.releases(work)[[1, 4]].any()


@pytest.mark.parametrize("rate", [1.0, 0.02])
def test_everybody_and_next_to_nobody_drawn(pair, rate):
    job, session, reference = pair
    for local in (None, LOCALS["momentum"]):
        work = work_of(job, 5, rate=rate, local=local)
        found, expected = session.releases(work), reference.releases(work)
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=CLOSE * max(1e-3, np.abs(expected).max()))


def test_several_rounds_of_scaffold(pair):
    """What an institution keeps is its own, and stands still while it is absent."""
    job, session, reference = pair
    factors, control, weights = np.full(5, 0.2), np.zeros(job.layout.width), spread(job)
    for number in range(5):
        present = np.array([True, number % 2 == 0, True, number > 1, True])
        local = Local(3, 0.4, tail=False, control=control)
        work = work_of(job, number, weights=weights, present=present, local=local)
        mean = reference.combine(work, factors)
        same(session.combine(work, factors), mean)
        weights = weights + mean
        control = control - present.mean() * (control + mean / (local.steps * local.rate))
    assert np.abs(control).max() > 0.0


def test_customers_with_missing_numbers_count_for_nothing():
    for kind in ("additive", "mlp"):
        job = job_of(kind)
        dense, labels = job.rows.dense.clone(), job.rows.labels.clone()
        dense[3, 0], dense[50, 1], labels[60] = float("nan"), float("inf"), float("nan")
        broken = replace(job, rows=replace(job.rows, dense=dense, labels=labels))
        work = work_of(job, 1, rate=1.0)
        with Reference().open(broken) as reference:
            expected = reference.releases(work)
        for engine in ("local", "vectorized"):
            with ENGINES[engine]().open(broken) as session:
                same(session.releases(work), expected)


@settings(max_examples=15)
@given(
    kind=st.sampled_from(["logistic", "mlp"]),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    number=st.integers(0, 10_000),
    rate=st.floats(0.05, 1.0),
    clip=st.floats(0.05, 50.0),
    local=st.sampled_from(list(WHOLE.values())),
)
def test_any_small_job_gives_the_references_releases(kind, sizes, seed, number, rate, clip, local):
    job = job_of(kind, seed, sizes)
    work = work_of(job, number, rate=rate, clip=clip, local=local)
    with Reference().open(job) as reference:
        expected = reference.releases(work)
    for engine in ("local", "vectorized"):
        with ENGINES[engine]().open(job) as session:
            found = session.releases(work)
        np.testing.assert_allclose(found, expected, rtol=0.0, atol=CLOSE * max(1e-2, np.abs(expected).max()))


def descend(engine, job, kind, rounds=20):
    """The weights after a small study: each round's weighted sum moves them, and somebody else is absent."""
    weights, factors = job.start(), job.declared / job.declared.sum()
    control = np.zeros(job.layout.width) if kind == "scaffold" else None
    local = (
        None
        if kind == "sum"
        else Local(4, 0.3, momentum=0.5 * (kind == "momentum"), control=control, tail=control is None)
    )
    with engine.open(job) as session:
        for number in range(rounds):
            present = np.arange(5) != number % 5
            work = work_of(job, number, weights=weights, present=present, local=local)
            mean = session.combine(work, factors)
            weights = weights + (mean if local is not None else -0.05 * mean)
            if local is not None and local.control is not None:
                moved = local.control + mean / (local.steps * local.rate)
                local = replace(local, control=local.control - factors[present].sum() * moved)
    return weights


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["sum", "momentum", "scaffold"])
def test_twenty_rounds_end_at_the_same_weights(kind, way):
    job = job_of(kind)
    expected = descend(LocalEngine(), job, way)
    assert np.abs(expected - job.start()).max() > 0.05
    same(descend(Vectorized(), job, way), expected)


def residuals(engine, job, local, rounds=10):
    """What noise alone does: releases less those of the same draws without it, [rounds, K, P]; and to sums, [rounds, P]."""
    factors, alone, together = np.array([0.5, -1.0, 0.2, 2.0, 0.7]), [], []
    with engine.open(job) as session:
        for number in range(rounds):
            loud, quiet = work_of(job, number, noise=NOISE, local=local), work_of(job, number, local=local)
            alone.append(session.releases(loud) - session.releases(quiet))
            loud, quiet = (replace(work, number=1000 + number) for work in (loud, quiet))
            together.append(session.combine(loud, factors) - session.combine(quiet, factors))
    return np.array(alone), np.array(together), factors


def looks_standard_normal(values):
    """Law, mean, variance and length of independent standard normal vectors, [n, P]."""
    n = values.size
    assert stats.kstest(values.ravel(), "norm").pvalue > ALARM
    assert 2.0 * stats.norm.sf(abs(values.sum()) / np.sqrt(n)) > ALARM
    for square, freedom in [(np.sum(values**2), n), *((line @ line, len(line)) for line in values)]:
        tail = 2.0 * min(stats.chi2.cdf(square, freedom), stats.chi2.sf(square, freedom))
        assert tail > ALARM / (1.0 if freedom == n else len(values))


def unrelated(first, second):
    """Two noises of the same shape are independent, as far as a correlation tells."""
    a, b = first.ravel(), second.ravel()
    assert 2.0 * stats.norm.sf(abs(a @ b) / np.sqrt((a @ a) * (b @ b)) * np.sqrt(len(a))) > ALARM


@pytest.mark.parametrize("engine", ["local", "vectorized"])
@pytest.mark.parametrize("kind", ["additive", "mlp"])
def test_noise_of_sums_is_normal_with_the_asked_deviation_and_independent(engine, kind):
    job = job_of(kind)
    alone, together, factors = residuals(ENGINES[engine](), job, None, rounds=30 if kind == "additive" else 10)
    noise = work_of(job, noise=NOISE).noise
    standard = alone / noise[:, None]
    looks_standard_normal(standard.reshape(-1, job.layout.width))
    looks_standard_normal(together / np.sqrt(np.sum((factors * noise) ** 2)))
    unrelated(standard[1:], standard[:-1])  # rounds
    unrelated(standard[:, 1:], standard[:, :-1])  # institutions
    unrelated(standard[..., 1:], standard[..., :-1])  # coordinates


@pytest.mark.parametrize("local", [LOCALS["plain"], LOCALS["last"]], ids=["plain", "last"])
def test_noise_of_local_steps_has_the_same_law(local):
    """Noise that decides the steps; its law follows from the steps, so that the engines are compared with each other."""
    job = job_of("mlp")
    (ours, ours_summed, _), (theirs, theirs_summed, _) = (
        residuals(ENGINES[engine](), replace(job, seed=seed), local)
        for engine, seed in (("local", 3), ("vectorized", 4))
    )
    for a, b in (*zip(np.moveaxis(ours, 1, 0), np.moveaxis(theirs, 1, 0), strict=True), (ours_summed, theirs_summed)):
        scale = np.sqrt(np.mean(a**2))
        assert stats.ks_2samp(a.ravel() / scale, b.ravel() / scale).pvalue > ALARM
        assert_same_lengths(a, b)
        for noise in (a, b):
            unrelated(noise[1:], noise[:-1])  # rounds
    for alone in (ours, theirs):
        standard = alone / np.sqrt(np.mean(alone**2, axis=(0, 2), keepdims=True))
        unrelated(standard[:, 1:], standard[:, :-1])  # institutions


def assert_same_lengths(a, b):
    """Squared lengths of vectors [n, P], whose mean is the trace of the covariance, have the same mean."""
    x, y = np.log(np.sum(a**2, axis=1)), np.log(np.sum(b**2, axis=1))
    assert stats.ttest_ind(x, y, equal_var=False).pvalue > ALARM
    assert np.exp(abs(x.mean() - y.mean())) < 1.25


@pytest.mark.parametrize("engine", ["local", "vectorized"])
def test_a_seed_repeats_and_another_does_not(engine):
    job, found = job_of("logistic"), []
    for seed in (3, 3, 4):
        with ENGINES[engine]().open(replace(job, seed=seed)) as session:
            found.append(session.releases(work_of(job, 1, noise=NOISE, local=LOCALS["momentum"])))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.isclose(found[0], found[2]).any()
