import math
from dataclasses import replace

import pytest

from simulations.planner.curve import BELOW, BEYOND, Crossing
from simulations.planner.plan import Answer, Step
from simulations.planner.target import parse_target
from simulations.planner.wording import sentence
from simulations.sweeps.estimates import Estimate, mean

NOTHING = Estimate(math.nan, math.nan, math.nan, 0, 5)


def sure(value: float) -> Estimate:
    return mean([value] * 5, 5)


def step(epsilon: float, value: float, bound: float) -> Step:
    return Step(epsilon, sure(value), sure(value - bound), 5, None, None)


def answer(target: str = "lift@10% >= 2.3", alone: float = 2.0, alone_margin: float | None = None) -> Answer:
    """The federated model gives 2 at .1, 2.2 at 1 and 2.4 at 10: the target is reached on average at 3.2."""
    found = Crossing(3.2, 2.0, 5.0, (1.0, 10.0), 4.0, (1.0, 10.0), 3.0, 8.0)
    steps = tuple(step(epsilon, value, 2.3) for epsilon, value in ((0.1, 2.0), (1.0, 2.2), (10.0, 2.4)))
    margin = sure(alone - 2.3 if alone_margin is None else alone_margin)
    return Answer(parse_target(target), found, steps, sure(alone), sure(2.6), sure(2.5), margin, None)


def found(**changes: float | None) -> Answer:
    made = answer()
    return replace(made, found=replace(made.found, **changes))  # type: ignore[arg-type]


def test_the_cautious_end_is_proposed_with_the_interval_it_is_from() -> None:
    assert sentence(answer()) == (
        "On average, lift@10% >= 2.3 is reached from ε 3.2 on; 95% interval of where the average does: 2 to 5. "
        "About 80% of single studies would reach it at ε 4 (normal approximation; 95% interval 3 to 8): "
        "propose 8, the upper end, to be fairly sure."
    )
    assert answer().proposed == 8.0


@pytest.mark.parametrize("ends", [{"most_high": BEYOND}, {"most_low": None, "most_high": None}])
def test_an_open_end_is_no_proposal_and_says_what_to_do(ends: dict[str, float | None]) -> None:
    said = found(**ends)
    assert said.proposed is None
    assert "propose that" not in sentence(said) and "propose 4" not in sentence(said)
    assert sentence(said).endswith("5 seeds cannot tell which ε to propose: take more (--seeds).")
    assert ("95% interval 3 to above 10)" in sentence(said)) == (said.found.most_high == BEYOND)


def test_an_end_far_above_the_answer_is_named_and_not_proposed() -> None:
    far = found(most_high=8.1)
    assert far.proposed is None and far.cautious == 8.1
    assert sentence(far).endswith(
        "5 seeds cannot tell which ε to propose: take more (--seeds), or spend 8.1 to be fairly sure."
    )


def test_where_all_agree_the_answer_itself_is_proposed() -> None:
    assert sentence(found(most_low=4.0, most_high=4.01)).endswith("95% interval 4 to 4): propose that.")
    below = found(most=BELOW, most_low=BELOW, most_high=BELOW)
    assert below.proposed == 0.1
    assert sentence(below).endswith("would reach it already at ε 0.1 (normal approximation): propose that.")
    above = found(most=BELOW, most_low=BELOW, most_high=0.15)
    assert sentence(above).endswith("95% interval below 0.1 to 0.15): propose 0.15, the upper end, to be fairly sure.")


def test_what_most_studies_never_reach_is_not_proposed() -> None:
    never = found(most=BEYOND, most_low=6.0, most_high=BEYOND)
    assert never.proposed is None
    assert sentence(never).endswith(
        "At no ε up to 10 would about 80% of single studies reach it (normal approximation; 95% interval 6 to above 10)."
    )
    assert sentence(found(most=BEYOND, most_low=BEYOND, most_high=BEYOND)).endswith("single studies reach it.")


def test_a_target_that_training_alone_reaches_gets_no_proposal() -> None:
    said = answer(alone=3.02)
    assert said.alone_reaches and said.proposed is None
    assert "propose" not in sentence(said)
    assert sentence(said).endswith(
        "(normal approximation; 95% interval 3 to 8). "
        "Training alone gives 3.02, which reaches it without any budget: this target is no reason to federate."
    )


def test_a_target_from_training_alone_says_what_it_is_for() -> None:
    said = sentence(answer("lift >= alone - 0.1", 2.4, 0.1))
    assert "propose" not in said
    assert said.endswith(
        "Training alone reaches it by definition, without any budget: "
        "this target says how little federating loses, and is no reason to federate."
    )
    assert "propose 8" in sentence(answer("lift >= alone + 0.1", 2.2, -0.1))


def test_a_target_from_pooled_records_is_held_against_training_alone_by_its_margin() -> None:
    assert "Training alone gives 2.50, which reaches it" in sentence(answer("lift >= pooled - 0.3", 2.5, 0.2))
    assert "propose 8" in sentence(answer("lift >= pooled - 0.3", 2.2, -0.1))


def test_where_it_is_worse_than_training_alone_the_proposal_says_so() -> None:
    # A bound with a budget itself: at 8 the federated model gives 2.2 + .2 log10(8) = 2.38.
    said = replace(answer("lift >= pooled_dp - 0.1", 2.6), alone_margin=NOTHING)
    assert not said.alone_reaches
    assert sentence(said).endswith(
        "propose 8, the upper end, to be fairly sure. "
        "The federated model gives 2.38 there, worse than training alone, which gives 2.60 without any budget."
    )
    assert "worse than" not in sentence(replace(said, alone=sure(2.3)))
    assert "worse than" not in sentence(replace(said, alone=NOTHING))


def test_without_training_alone_nothing_is_said_of_it() -> None:
    said = replace(answer(), alone=NOTHING, alone_margin=NOTHING)
    assert "propose 8" in sentence(said) and "alone" not in sentence(said)
