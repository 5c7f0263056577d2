"""What a plan found, in sentences."""

from simulations.planner.curve import BELOW, BEYOND, Crossing
from simulations.planner.plan import Answer, Plan, reached
from simulations.sweeps.wording import difference_text, span

CAUTION = (
    "Planned on public or synthetic data, with seeded draws and noise: it cost nobody any budget, and nothing here protects anybody. "
    "It speaks of a federation like this one; customers, sizes and labels of a real one differ, and so will its curve."
)


def number(epsilon: float) -> str:
    """Write an epsilon: three digits are more than an interval supports."""
    return f"{epsilon:.2g}"


def sentence(answer: Answer) -> str:
    """Say what a target costs, and whether it needs a federation at all."""
    return _cost(answer) + _alone(answer)


def _alone(answer: Answer) -> str:
    """Say that institutions reach the target by themselves, where they do."""
    target, alone = answer.target, answer.alone
    if target.reference is not None or not alone.have or target.metric.sign * (alone.value - target.offset) < 0:
        return ""
    return f" Each institution alone reaches it too ({target.metric.shown(alone.value)}), at no budget."


def _cost(answer: Answer) -> str:
    target, found, steps = answer.target, answer.found, answer.steps
    least, most = steps[0].epsilon, steps[-1].epsilon
    if found.epsilon == BELOW:
        said = f"{target} is reached already at the smallest epsilon looked at, {least:g}"
        return f"{said}{_interval(found, least, most)}."
    if found.epsilon == BEYOND:
        best, metric = answer.best, target.metric
        said = f"{target} is not reached by ε {most:g}; the best, at ε {best.epsilon:g}, is {metric.shown(best.value.value)}"
        bare = f", and without any noise {metric.shown(answer.bare.value)}" if answer.bare.have else ""
        return f"{said}{_in_brackets(answer)}{bare}{_interval(found, least, most)}."
    return f"{target} is reached from ε {number(found.epsilon)} on{_interval(found, least, most)}."


def _in_brackets(answer: Answer) -> str:
    value = answer.best.value
    return f" ({span(value, answer.target.metric)})" if value.have > 1 else ""


def _interval(found: Crossing, least: float, most: float) -> str:
    """Say the interval, whose ends may lie beyond what was looked at."""
    if found.low is None or found.high is None:
        return "; one seed gives no interval"
    if not reached(found.low) and found.low == found.high:
        return "; at least 95% of the bootstrap's draws agree"
    low = f"below {least:g}" if found.low == BELOW else f"above {most:g}" if found.low == BEYOND else number(found.low)
    high = (
        f"above {most:g}" if found.high == BEYOND else f"below {least:g}" if found.high == BELOW else number(found.high)
    )
    return f"; 95% interval: {low} to {high}"


def rows(answer: Answer) -> list[tuple[str, ...]]:
    """Return the table of what each further epsilon buys: epsilon, value, interval, to the target, gain, gain a unit of epsilon, seeds."""
    metric = answer.target.metric
    return [
        (
            f"{step.epsilon:g}",
            metric.shown(step.value.value),
            span(step.value, metric),
            difference_text(step.margin, metric, step.value.have),
            difference_text(step.gain, metric, step.value.have),
            difference_text(step.rate, metric, step.value.have),
            str(step.value.of) if step.value.have == step.value.of else f"{step.value.have} of {step.value.of}",
        )
        for step in answer.steps
    ]


def references(answer: Answer) -> list[tuple[str, str, str]]:
    """Return what the references and the study without noise reach: name, value, interval."""
    metric = answer.target.metric
    named = (
        ("each institution alone, no noise", answer.alone),
        ("this study, no noise", answer.bare),
        ("all records in one place, no noise", answer.pooled),
    )
    return [(name, metric.shown(value.value), span(value, metric)) for name, value in named]


def warnings(plan: Plan) -> list[str]:
    """Return what a reader should know before the figures."""
    said = []
    if plan.failed:
        said.append(f"{plan.failed} cells failed; the number of seeds says where.")
    if plan.seeds < 3:
        said.append("With fewer than three seeds an interval says little: take five or more.")
    return said
