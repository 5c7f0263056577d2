"""The rule: public numbers in, sane numbers out, for any federation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.basis import ROW_NORM
from server.recipe import (
    PROBES,
    Mode,
    TrainingPlan,
    member_weights,
    plan_training,
    tail_coefficients,
    tune,
)

SIZES = st.lists(st.integers(500, 1_000_000), min_size=2, max_size=50)
EPSILONS = st.sampled_from([0.5, 1.0, 2.0, 4.0, None])
MODES: st.SearchStrategy[Mode] = st.sampled_from(["fedsgd", "fedavg"])


def plan_for(mode: Mode, epsilon: float | None = 1.0) -> TrainingPlan:
    return plan_training([1000, 2000], epsilon, 40, mode)


@given(SIZES, EPSILONS, st.integers(1, 500), MODES, st.sampled_from(["linear", "mlp"]))
def test_a_plan_fits_what_a_study_may_say(
    sizes: list[int], epsilon: float | None, width: int, mode: Mode, family: str
) -> None:
    plan = plan_training(sizes, epsilon, width, mode, family)  # type: ignore[arg-type]
    assert plan == plan_training(sizes, epsilon, width, mode, family)  # type: ignore[arg-type]
    assert plan.steps == plan.rounds * plan.local_steps
    assert (plan.local_steps == 1) == (mode == "fedsgd")
    assert 0 < plan.sampling_rate <= 1
    assert plan.descent_rounds > plan.probes


@given(SIZES, EPSILONS, st.integers(5, 10_000), MODES, st.sampled_from(["linear", "mlp"]))
def test_rounds_that_are_named_are_kept_probes_and_all(
    sizes: list[int], epsilon: float | None, rounds: int, mode: Mode, family: str
) -> None:
    plan = plan_training(sizes, epsilon, 40, mode, family, rounds)  # type: ignore[arg-type]
    usual = plan_training(sizes, epsilon, 40, mode, family)  # type: ignore[arg-type]
    assert plan.rounds == rounds and plan.steps == rounds * usual.local_steps
    assert (plan.probes, plan.sampling_rate, plan.local_steps) == (usual.probes, usual.sampling_rate, usual.local_steps)
    assert plan.probes < tune(plan, sizes, [1.0] * len(sizes)).average_from <= rounds


def test_probes_alone_are_no_plan() -> None:
    with pytest.raises(ValueError, match="after the probes"):
        plan_training([1000], 1.0, 40, "fedsgd", "linear", PROBES)


@given(SIZES, st.floats(0.3, 200), MODES)
def test_equal_noise_means_equal_say_for_every_customer(sizes: list[int], sigma: float, mode: Mode) -> None:
    tuning = tune(plan_for(mode), sizes, [sigma] * len(sizes))
    expected = [1.0] * len(sizes) if mode == "fedsgd" else [float(size) for size in sizes]
    assert list(tuning.weights) == pytest.approx(expected)
    assert len(tuning.clips) == len(tuning.probe_clips) == len(sizes)


@given(SIZES, st.data(), MODES)
def test_the_noise_is_that_of_the_weighted_mean_gradient(sizes: list[int], data: st.DataObject, mode: Mode) -> None:
    sigmas = data.draw(st.lists(st.floats(0.3, 200), min_size=len(sizes), max_size=len(sizes)))
    plan = plan_for(mode)
    tuning = tune(plan, sizes, sigmas)
    shares = member_weights(sigmas)
    variance = sum((w * c * sigma) ** 2 for w, c, sigma in zip(shares, tuning.clips, sigmas, strict=True))
    one = math.sqrt(variance) / (plan.sampling_rate * sum(w * n for w, n in zip(shares, sizes, strict=True)))
    assert tuning.noise == pytest.approx(one / math.sqrt(plan.local_steps))
    assert tuning.probe_noise == pytest.approx(tuning.noise * tuning.probe_clips[0] / tuning.clips[0])


@given(st.lists(st.floats(0.3, 200), min_size=1, max_size=50))
def test_louder_members_weigh_less_and_keep_a_say(sigmas: list[float]) -> None:
    weights = member_weights(sigmas)
    assert max(weights) == 1.0 and min(weights) >= 0.25
    for (one, light), (other, heavy) in zip(
        sorted(zip(sigmas, weights, strict=True))[:-1], sorted(zip(sigmas, weights, strict=True))[1:], strict=True
    ):
        assert one <= other and light >= heavy


def test_weights_beat_equal_ones_where_budgets_differ() -> None:
    sigmas = [4.0, 2.0, 4.0 / 3.0, 1.0]
    signal = [
        sum(w) / math.sqrt(sum((a * s) ** 2 for a, s in zip(w, sigmas, strict=True)))
        for w in (member_weights(sigmas), [1.0] * 4)
    ]
    best = math.sqrt(sum(1 / s**2 for s in sigmas))
    assert signal[0] > 0.9 * best > 1.4 * signal[1]


@pytest.mark.parametrize("mode", ["fedsgd", "fedavg"])
def test_without_noise_the_rule_still_answers(mode: Mode) -> None:
    plan = plan_for(mode, None)
    tuning = tune(plan, [1000, 2000], [0.0, 0.0])
    assert tuning.noise == tuning.probe_noise == 0.0
    assert plan.rounds > plan_for(mode).rounds


def test_a_member_without_noise_does_not_silence_the_others() -> None:
    assert member_weights([0.0, 5.0]) == (1.0, 0.25)


def test_nothing_can_be_clipped_in_a_probe() -> None:
    tuning = tune(plan_for("fedsgd"), [1000, 2000], [5.0, 5.0])
    assert tuning.probe_clips[0] >= 0.75 * math.hypot(ROW_NORM, 1.0) * (1 - 1e-12)


def test_the_second_half_of_the_descent_is_averaged() -> None:
    for mode in ("fedsgd", "fedavg"):
        plan = plan_for(mode)
        tuning = tune(plan, [1000, 2000], [5.0, 5.0])
        averaged = plan.rounds - tuning.average_from + 1
        assert tuning.average_from > PROBES and averaged == math.ceil(plan.descent_rounds / 2)


@given(st.integers(1, 40))
def test_tail_coefficients_are_those_of_the_average(steps: int) -> None:
    first = steps // 2
    for step, found in enumerate(tail_coefficients(steps)):
        held = sum(1 for end in range(first, steps) if end >= step)
        assert found == pytest.approx(held / (steps - first))


def test_two_local_steps_enter_in_full() -> None:
    assert tail_coefficients(2) == (1.0, 1.0)


@given(SIZES, st.floats(0.0, 200), MODES)
def test_an_mlp_gets_a_step_inside_its_limits(sizes: list[int], sigma: float, mode: Mode) -> None:
    plan = plan_training(sizes, 3.0, 40, mode, "mlp")
    tuning = tune(plan, sizes, [sigma] * len(sizes))
    assert plan.probes == 0 and 0 < tuning.learning_rate <= 2.0 and tuning.momentum == 0.9
    if sigma and tuning.learning_rate < 2.0:
        left = tuning.learning_rate / (1 - tuning.momentum) * tuning.noise * math.sqrt(plan.rounds)
        assert left == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("sizes", "epsilon", "width"), [([], 1.0, 4), ([0, 5], 1.0, 4), ([5], 1.0, 0), ([5], 0.0, 4), ([5], -1.0, 4)]
)
def test_a_plan_for_nothing_is_refused(sizes: list[int], epsilon: float, width: int) -> None:
    with pytest.raises(ValueError, match="needs|positive"):
        plan_training(sizes, epsilon, width, "fedsgd")


@pytest.mark.parametrize(("sizes", "sigmas"), [([], []), ([5], [1.0, 2.0]), ([0], [1.0]), ([5], [-1.0])])
def test_tuning_for_nothing_is_refused(sizes: list[int], sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="one declared|at least"):
        tune(plan_for("fedsgd"), sizes, sigmas)
