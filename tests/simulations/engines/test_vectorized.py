"""The vectorized engine against a slow and obvious reference: one institution, one customer's gradient at a time, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, kstest
from torch.func import functional_call, grad, vmap
from torch.nn.functional import binary_cross_entropy_with_logits

from federation.contract import CategoricalColumn
from federation.errors import ConsilienceError, DataError, DocumentError
from federation.networks import build
from simulations.engines.draws import drawn
from simulations.engines.institution import Office, Order
from simulations.engines.vectorized import Vectorized, place
from simulations.engines.vectorized.grouping import Costs, Draws, Lottery, groups, regions
from simulations.engines.vectorized.kernels import Batch, kernel_of
from simulations.engines.vectorized.normals import Normals
from simulations.engines.vectorized.place import Buffers, Workers, find_place
from simulations.engines.work import Job, Local, Rows, Work
from tests.simulations.engines.problems import ADDITIVE, CONTRACT, MLP, job

CLOSE = 1e-5
SIZES = (60, 1, 130, 0, 25, 70)
MODELS = pytest.mark.parametrize("model", [ADDITIVE, MLP], ids=["additive", "mlp"])
OPTIONS = {
    "sums": None,
    "steps": Local(steps=4, rate=0.5),
    "odd number of steps": Local(steps=3, rate=0.5),
    "one step": Local(steps=1, rate=0.5),
    "momentum": Local(steps=4, rate=0.3, momentum=0.9),
    "proximal": Local(steps=4, rate=0.5, proximal=0.4),
    "last weights": Local(steps=4, rate=0.5, tail=False),
    "everything": Local(steps=5, rate=0.3, momentum=0.5, proximal=0.2, control=np.zeros(0)),
    "full": Local(steps=3, rate=0.5, full=True),
    "head": Local(steps=3, rate=0.5, head=True),
    "full head": Local(steps=3, rate=0.5, full=True, head=True),
}


def round_of(
    problem: Job, local: Local | None = None, *, rate=0.3, noise=0.0, number=0, present=None, spread=0.3
) -> Work:
    """A round at weights away from the start, with clips that cut some customers and not others."""
    count, draw = problem.rows.institutions, np.random.default_rng(number)
    weights = problem.start() + draw.normal(0.0, spread, problem.layout.width)
    there = np.ones(count, dtype=bool) if present is None else np.array(present)
    return Work(number, weights, np.linspace(0.4, 1.2, count), np.full(count, noise), there, rate, local)


def uneven(model) -> Job:
    """Institutions of very unlike size, one without customers, that declare a few more than they have."""
    problem = job(model, SIZES)
    return replace(problem, declared=problem.declared + 7)


class Reference:
    """Plain definitions of a release, and the institutions' SCAFFOLD controls."""

    def __init__(self, problem: Job) -> None:
        self.job, self.width = problem, problem.layout.width
        self.network = build(problem.model, problem.contract).double()
        self.own = np.zeros((problem.rows.institutions, self.width))

    def gradients(self, weights: np.ndarray, rows: Rows) -> np.ndarray:
        """Every customer's whole gradient, float64 [n, P]."""

        def loss(parameters, dense, code, label):
            logit = functional_call(self.network, parameters, (dense[None], code[None]))
            return binary_cross_entropy_with_logits(logit, label[None], reduction="sum")

        parts = {name: torch.from_numpy(np.array(part)) for name, part in self.job.layout.split(weights).items()}
        found = vmap(grad(loss), (None, 0, 0, 0))(parts, rows.dense.double(), rows.codes, rows.labels.double())
        return np.concatenate([found[name].flatten(1).numpy() for name in self.job.layout.names], axis=1)

    def total(self, work: Work, at: int, step: int, weights: np.ndarray) -> np.ndarray:
        start, stop = map(int, self.job.rows.offsets[at : at + 2])
        full = work.local is not None and work.local.full
        hits = np.ones(stop - start, bool) if full else drawn(self.job.seed, work.number, step, start, stop, work.rate)
        rows = self.job.rows.of(at)
        hits = hits & (torch.isfinite(rows.dense).all(1) & torch.isfinite(rows.labels)).numpy()
        if not hits.any():
            return np.zeros(self.width)
        rows = Rows(rows.dense[hits], rows.codes[hits], rows.labels[hits], np.array([0, hits.sum()]))
        gradients = self.gradients(weights, rows)
        if not full:
            norms = np.linalg.norm(gradients, axis=1, keepdims=True)
            gradients = gradients * np.minimum(1.0, work.clip[at] / norms)
        return gradients.sum(0)

    def release(self, work: Work, at: int) -> np.ndarray:
        start, local = work.weights.astype(np.float32).astype(np.float64), work.local
        if local is None:
            return self.total(work, at, 0, start)
        size = int(np.diff(self.job.rows.offsets)[at])
        mean = max(1, size) if local.full else work.rate * self.job.declared[at]
        correction = np.zeros(self.width) if local.control is None else local.control - self.own[at]
        moving = np.ones(self.width)
        if local.head and self.job.model is MLP:
            moving[: self.job.layout.places()["head.weight"].start] = 0.0
        weights, velocity, seen = start.copy(), np.zeros(self.width), []
        for step in range(local.steps):
            velocity = local.momentum * velocity + self.total(work, at, step, weights) / mean
            weights = weights - local.rate * moving * (velocity + local.proximal * (weights - start) + correction)
            seen.append(weights)
        change = (np.mean(seen[local.steps // 2 :], axis=0) if local.tail else seen[-1]) - start
        if local.control is not None:
            self.own[at] = self.own[at] - local.control - change / (local.steps * local.rate)
        return change

    def releases(self, work: Work) -> np.ndarray:
        found = np.zeros((len(work.present), self.width))
        for at in np.flatnonzero(work.present):
            found[at] = self.release(work, int(at))
        return found


def many_tables(numeric: bool) -> Job:
    """Three embedding tables of unlike length, with numeric columns beside them or none."""
    columns = [column for column in CONTRACT.columns if column.kind == "numeric"] if numeric else []
    for name, count in (("colour", 2), ("shape", 7), ("shop", 4)):
        categories = tuple(f"{name}{number}" for number in range(count))
        columns.append(CategoricalColumn(kind="categorical", name=name, meaning=name, categories=categories))
    draw, sizes = np.random.default_rng(3), np.array(SIZES)
    contract = CONTRACT.model_copy(update={"columns": tuple(columns)})
    codes = np.stack([draw.integers(0, count + 1, sizes.sum()) for count in (2, 7, 4)], axis=1)
    dense = torch.from_numpy(draw.standard_normal((sizes.sum(), 6 if numeric else 0)).astype(np.float32))
    labels = torch.from_numpy((draw.random(sizes.sum()) < 0.1 + 0.1 * codes[:, 1]).astype(np.float32))
    rows = Rows(dense, torch.from_numpy(codes), labels, np.concatenate([[0], np.cumsum(sizes)]))
    return Job(MLP, contract, rows, sizes + 1, 8)


def controlled(local: Local | None, width: int) -> Local | None:
    """Fill in a server control of the right length where an option wants one."""
    if local is None or local.control is None:
        return local
    return replace(local, control=np.random.default_rng(7).normal(0.0, 0.02, width))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float64 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=CLOSE * np.abs(expected).max())


@MODELS
@pytest.mark.parametrize("option", OPTIONS)
def test_releases_are_the_reference(model, option):
    problem = uneven(model)
    local, reference = controlled(OPTIONS[option], problem.layout.width), Reference(problem)
    factors = np.array([0.5, 2.0, -1.0, 1.0, 0.25, 3.0])
    with Vectorized(threads=2).open(problem) as asked, Vectorized(threads=1).open(problem) as combined:
        for number, absent in enumerate((3, 4, 0)):
            present = np.arange(6) != absent
            work = round_of(problem, local, number=number, present=present)
            expected = reference.releases(work)
            assert np.abs(expected).max() > 0.0
            assert_close(asked.releases(work), expected)
            factors[absent] = np.nan  # whose release there is not, his factor is not read
            assert_close(combined.combine(work, factors), np.where(present, factors, 0.0) @ expected)
            factors[absent] = 1.0


@pytest.mark.parametrize("numeric", [True, False])
@pytest.mark.parametrize("local", [None, OPTIONS["steps"]], ids=["sums", "steps"])
def test_several_tables(numeric, local):
    problem = many_tables(numeric)
    work = round_of(problem, local)
    expected = Reference(problem).releases(work)
    with Vectorized(threads=1).open(problem) as session:
        assert_close(session.releases(work), expected)
        assert_close(session.combine(work, np.ones(6)), expected.sum(0))


@MODELS
def test_whole_trainings_are_those_of_single_institutions(model):
    problem = job(model)
    office, local = Office(problem), Local(steps=2, rate=0.4)
    count, width = problem.rows.institutions, problem.layout.width
    ours, theirs = problem.start(), problem.start()
    with Vectorized(threads=2).open(problem) as session:
        for number in range(25):
            work = replace(round_of(problem, local, number=number), weights=ours)
            ours = ours + session.combine(work, np.full(count, 1.0 / count))
            work = replace(work, weights=theirs)
            changes = [office.release(at, Order.of(work, at), theirs, None) for at in range(count)]
            theirs = theirs + np.mean(changes, axis=0, dtype=np.float64)
    assert np.abs(ours - problem.start()).max() > 0.1
    assert np.abs(ours - theirs).max() < CLOSE
    assert width == len(ours)


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=9),
    rate=st.sampled_from([0.02, 0.3, 0.9, 1.0]),
    values=st.sampled_from([1, 2000, 1 << 20]),
    number=st.integers(0, 5),
    local=st.sampled_from([None, Local(steps=2, rate=0.5)]),
    data=st.data(),
)
def test_any_sizes_and_rates(sizes, rate, values, number, local, data):
    present = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    problem = job(ADDITIVE, tuple(sizes))
    problem = replace(problem, declared=np.maximum(problem.declared, 1))
    work = round_of(problem, local, rate=rate, number=number, present=present)
    expected = Reference(problem).releases(work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(place, "_CACHED", values)
        with Vectorized(threads=2).open(problem) as session:
            assert np.abs(session.releases(work) - expected).max() < CLOSE * max(1.0, np.abs(expected).max())
            total = session.combine(work, np.ones(len(sizes)))
            assert np.abs(total - expected.sum(0)).max() < CLOSE * max(1.0, np.abs(expected).max())


@MODELS
@pytest.mark.parametrize("local", [None, OPTIONS["momentum"], OPTIONS["full"]], ids=["sums", "steps", "full"])
def test_neither_threads_nor_groups_matter(model, local, monkeypatch):
    problem = job(model, (90, 400, 30, 30, 200, 31, 30, 150, 2))
    noisy, silent = (round_of(problem, local, noise=noise) for noise in (0.5, 0.0))
    found, factors = [], np.linspace(-1.0, 1.0, 9)
    for threads in (1, 2, 3):
        with Vectorized(threads=threads).open(problem) as session:
            found.append((session.combine(noisy, factors), session.releases(noisy)))
            quiet = session.releases(silent), session.combine(silent, factors)
    for total, releases in found[1:]:
        assert np.array_equal(total, found[0][0]) and np.array_equal(releases, found[0][1])
    monkeypatch.setattr(place, "_CACHED", 1)  # one institution at a time, in pieces of 64 rows
    with Vectorized(threads=1).open(problem) as session:
        assert_close(session.releases(silent), quiet[0])
        assert_close(session.combine(silent, factors), quiet[1])


def test_draws_too_large_to_keep_are_drawn_step_by_step(monkeypatch):
    problem = job(ADDITIVE, (300, 40, 200))
    work = round_of(problem, Local(steps=6, rate=0.5), noise=0.1)
    with Vectorized(threads=2).open(problem) as session:
        before = session.releases(replace(work, noise=np.zeros(3)))
        monkeypatch.setattr("simulations.engines.vectorized.grouping._DRAWN", 500)
        monkeypatch.setattr("simulations.engines.vectorized.steps._AHEAD", 64)
        assert_close(session.releases(replace(work, noise=np.zeros(3))), before)
        assert not np.array_equal(session.releases(work), before)


@MODELS
@pytest.mark.parametrize("local", [None, OPTIONS["steps"], OPTIONS["full"]], ids=["sums", "steps", "full"])
def test_rows_with_nan_or_infinity_count_for_nothing(model, local):
    problem = uneven(model)
    dense, labels = problem.rows.dense.clone(), problem.rows.labels.clone()
    dense[::7, 2], dense[3::11, 0], dense[5::13, 1], labels[1::9] = np.nan, np.inf, -np.inf, np.nan
    damaged = replace(problem, rows=replace(problem.rows, dense=dense, labels=labels))
    before = dense.clone()
    work = round_of(damaged, local)
    expected = Reference(damaged).releases(work)
    with Vectorized(threads=1).open(damaged) as session:
        assert_close(session.releases(work), expected)
        assert_close(session.combine(work, np.ones(6)), expected.sum(0))
    assert torch.equal(dense.nan_to_num(), before.nan_to_num())  # the job's own rows are left alone


@MODELS
@pytest.mark.parametrize("local", [None, OPTIONS["steps"]], ids=["sums", "steps"])
def test_weights_that_have_overflowed_give_no_nan(model, local):
    problem = job(model)
    with np.errstate(over="ignore"), Vectorized(threads=1).open(problem) as session:
        for bad in (np.nan, np.inf, 3e38):
            work = replace(round_of(problem, local), weights=np.full(problem.layout.width, bad))
            assert np.isfinite(session.releases(work)).all()
            assert np.isfinite(session.combine(work, np.ones(5))).all()


def test_nobody_present_nobody_drawn():
    problem = uneven(ADDITIVE)
    with Vectorized(threads=2).open(problem) as session:
        for local in (None, OPTIONS["steps"]):
            nobody = round_of(problem, local, noise=1.0, present=[False] * 6)
            assert not session.combine(nobody, np.ones(6)).any() and not session.releases(nobody).any()
            undrawn = session.releases(round_of(problem, local, rate=1e-9))
            assert not undrawn.any()
            assert session.releases(round_of(problem, local, rate=1e-9, noise=1.0)).all()  # an empty draw gives noise


def assert_variance(values: np.ndarray, variance: float) -> None:
    """Chance of a false alarm: 10^-6."""
    statistic = float((values**2).sum() / variance)
    assert chi2.ppf(5e-7, values.size) < statistic < chi2.ppf(1 - 5e-7, values.size)


@MODELS
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_noise_has_the_variance_that_was_asked_for(model, steps):
    problem, rounds = job(model, (40, 90, 10, 60)), 120
    local = Local(steps=steps, rate=0.5, tail=False) if steps else None
    noise = np.array([0.5, 2.0, 0.0, 1.0])
    # Customers who are cut to almost nothing leave the noise alone.
    base = replace(round_of(problem, local), clip=np.full(4, 1e-9), noise=noise)
    scale = np.sqrt(steps) * 0.5 / (base.rate * problem.declared) if steps else np.ones(4)
    factors, found, totals = np.array([1.0, -0.5, 3.0, 2.0]), [], []
    with Vectorized(threads=2).open(problem) as session:
        for number in range(rounds):
            work = replace(base, number=number)
            found.append(session.releases(work))
            totals.append(session.combine(work, factors))
    releases, width = np.array(found), problem.layout.width
    assert np.abs(releases[:, 2]).max() < 1e-6
    for at in (0, 1, 3):
        assert_variance(releases[:, at], (noise[at] * scale[at]) ** 2)
        releases[:, at] /= noise[at] * scale[at]
    assert_variance(np.array(totals), float(np.sum((factors * noise * scale) ** 2)))
    seen = releases[:, [0, 1, 3]].reshape(rounds, -1)
    products = (
        seen.T @ seen / np.sqrt(rounds)
    )  # off the diagonal: about standard normal, over all coordinates and institutions
    off = products[np.triu_indices(3 * width, 1)]
    assert abs(np.mean(off**2) - 1.0) < 0.1 and np.abs(off).max() < 6.0
    between = (seen[1:] * seen[:-1]).sum() / np.sqrt(seen[1:].size)  # one round and the next
    assert abs(between) < 5.0


def test_seeds_repeat_and_differ():
    problem = job(ADDITIVE)
    for local in (None, OPTIONS["steps"]):
        work = round_of(problem, local, noise=1.0)
        found = []
        for seed in (5, 5, 6):
            with Vectorized(threads=2).open(replace(problem, seed=seed)) as session:
                found.append((session.combine(work, np.ones(5)), session.releases(work)))
        assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
        assert (found[0][0] != found[2][0]).all() and (found[0][1] != found[2][1]).all()


def test_normals_are_normal():
    buffers, out = Buffers(torch.device("cpu")), torch.empty(3, 66_667)
    source = Normals(torch.device("cpu"), 3, 1)
    source.scaled(torch.ones(3, 1), out, buffers)
    values = out.flatten().double().numpy()
    assert np.isfinite(values).all() and kstest(values, "norm").pvalue > 1e-4
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        spread = np.sqrt(np.prod(np.arange(1, 2 * power, 2)))  # of x^power: at most the root of its second moment
        assert abs(np.mean(values**power) - moment) < 5.0 * spread / np.sqrt(values.size)
    assert np.abs(values).max() > 3.8
    again = torch.empty_like(out)
    source.scaled(torch.ones(3, 1), again, buffers)
    assert abs(float((out * again).mean())) < 5.0 / np.sqrt(values.size)
    scaled = torch.empty_like(out)
    Normals(torch.device("cpu"), 3, 1).scaled(torch.tensor([[1.0], [0.0], [-2.0]]), scaled, buffers)
    assert torch.equal(scaled, out * torch.tensor([[1.0], [0.0], [-2.0]]))


@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=30),
    data=st.data(),
    rate=st.sampled_from([0.1, 0.6, 1.0]),
    steps=st.integers(1, 4),
    most=st.sampled_from([1, 300, 10**6]),
)
@settings(max_examples=60)
def test_regions_and_groups_part_the_institutions_and_draw_alike(sizes, data, rate, steps, most):
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    present = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("simulations.engines.vectorized.grouping._DRAWN", 150)
        found = list(regions(offsets, present, steps))
        lottery = Lottery(9, 2, steps, rate)
        for region in found:
            span = offsets[region[-1] + 1] - offsets[region[0]]
            assert len(region) == 1 or span * steps <= 150
            kept, fresh = Draws(lottery, offsets, region), Draws(lottery, offsets, region)
            kept.prepare(map)
            parts = groups(np.array(sizes)[region], rate, Costs(row=3, model=5, most=most))
            assert sorted(np.concatenate(parts).tolist()) == list(range(len(region)))
            for among in parts:
                first = data.draw(st.integers(0, steps - 1))
                rows, real = kept.part(first, steps).of(among)
                others = fresh.part(first, steps).of(among)
                assert np.array_equal(real, others[1]) and np.array_equal(rows[real], others[0][real])
                for step in range(first, steps):
                    for place_, member in enumerate(region[among]):
                        start, stop = int(offsets[member]), int(offsets[member + 1])
                        hits = np.flatnonzero(drawn(9, 2, step, start, stop, rate)) + start
                        assert np.array_equal(rows[step - first, place_][real[step - first, place_]], hits)
    assert np.array_equal(np.concatenate([*found, []]), present)


@MODELS
def test_kernels_stay_on_their_device(model):
    """On torch's device without memory: an operation that brought in something from the CPU would be refused."""
    problem, meta = job(model), torch.device("meta")
    kernel, width = kernel_of(problem), problem.layout.width
    shape, k = (3, 20), len(kernel.entries)
    dense = torch.empty(*shape, problem.rows.dense.shape[1], device=meta)
    codes = torch.empty(3, 20 * k, dtype=torch.int64, device=meta) if k else None
    labels, limits, scale = (torch.empty(shape, device=meta) for _ in range(3))
    weights, sums = torch.empty(3, width, device=meta), torch.empty(3, width, device=meta)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "__bool__", lambda _self: True)  # there is no value to ask for
        kernel.add(weights, Batch(dense, codes, labels, limits, scale), sums, Buffers(meta), False)
    assert sums.device == meta


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConsilienceError, match="CSL-M210"), Vectorized("cuda").open(job()):
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConsilienceError, match="CSL-M210"):
        find_place("cuda:1", None)
    found = find_place("cuda", 4)
    assert (found.device, found.threads) == (torch.device("cuda", 0), 1)
    assert Vectorized("cuda").name == "vectorized:cuda" and Vectorized().name == "vectorized"


@pytest.mark.parametrize(
    ("device", "threads"), [("tpu", None), ("cuda:", None), ("cuda:x", 1), ("cpu:0", 1), ("cpu", 0)]
)
def test_no_such_device_or_threads(device, threads):
    with pytest.raises(DocumentError, match="CSL-M211"), Vectorized(device, threads).open(job()):
        pass


@pytest.mark.parametrize("code", [-1, 4])
def test_a_code_outside_its_table(code):
    problem = job(MLP)
    codes = problem.rows.codes.clone()
    codes[3, 0] = code
    with pytest.raises(DataError, match="CSL-M212"):
        with Vectorized().open(replace(problem, rows=replace(problem.rows, codes=codes))):
            pass


def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RuntimeError, match="on purpose"), Vectorized(threads=2).open(job()):
            assert torch.get_num_threads() == 1
            raise RuntimeError("on purpose")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_workers_keep_the_order_and_pass_errors_on():
    workers = Workers(3)
    try:
        assert list(workers.each(lambda value: value * value, range(50))) == [value * value for value in range(50)]
        with pytest.raises(ZeroDivisionError):
            list(workers.each(lambda value: 1 // value, [1, 0, 1]))
    finally:
        workers.close()
