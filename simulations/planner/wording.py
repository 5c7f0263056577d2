"""What a plan found, in sentences."""

from simulations.planner.curve import BELOW, BEYOND, MOST_STUDIES, Crossing
from simulations.planner.plan import Answer, Plan, Step, reached
from simulations.sweeps.estimates import LEAST_SEEDS
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
    return _cost(answer) + _proposal(answer) + _alone(answer) + _missing(answer)


def _alone(answer: Answer) -> str:
    """Say how many institutions reach the target by themselves, each by its own figure."""
    if answer.by_themselves is None:
        return ""
    some, known = answer.by_themselves
    return f" {some or 'None'} of {known} institutions reach{'es' if some == 1 else ''} it alone, at no budget."


def _proposal(answer: Answer) -> str:
    """Say from which epsilon on most single studies reach the target: the mean alone is missed by every second study."""
    most = answer.found.most
    share, known = f"{100 * MOST_STUDIES:.0f}%", answer.known
    if most is None:
        return f" How often a single study reaches it is not said: that takes {LEAST_SEEDS} seeds."
    if most == BEYOND:
        return f" At no ε up to {known[-1].epsilon:g} would about {share} of single studies reach it."
    if most == BELOW:
        return (
            f" About {share} of single studies or more would reach it already at ε {known[0].epsilon:g}: propose that."
        )
    return f" About {share} of single studies would reach it at ε {number(most)} (normal approximation): propose that."


def _missing(answer: Answer) -> str:
    missing = ", ".join(f"{epsilon:g}" for epsilon in answer.missing)
    return f" No run at ε {missing} gave a figure." if missing else ""


def _cost(answer: Answer) -> str:
    target, found, steps = answer.target, answer.found, answer.known
    least, most = steps[0].epsilon, steps[-1].epsilon
    if found.epsilon == BELOW:
        said = f"On average, {target} is reached already at the smallest epsilon looked at, {least:g}"
        return f"{said}{_interval(found, least, most)}."
    if found.epsilon == BEYOND:
        best, metric = answer.best, target.metric
        said = f"On average, {target} is not reached by ε {most:g}; the best, at ε {best.epsilon:g}, is {metric.shown(best.value.value)}"
        bare = f", and without any noise {metric.shown(answer.bare.value)}" if answer.bare.have else ""
        return f"{said}{_in_brackets(answer)}{bare}{_interval(found, least, most)}."
    return f"On average, {target} is reached from ε {number(found.epsilon)} on{_interval(found, least, most)}."


def _in_brackets(answer: Answer) -> str:
    value = answer.best.value
    return f" ({span(value, answer.target.metric)})" if value.bounded else ""


def _interval(found: Crossing, least: float, most: float) -> str:
    """Say the interval, whose ends may lie beyond what was looked at."""
    if found.low is None or found.high is None:
        return f"; no interval, which takes {LEAST_SEEDS} seeds at the epsilons beside it"
    if not reached(found.low) and found.low == found.high:
        return "; at least 95% of the bootstrap's draws agree"
    low = f"below {least:g}" if found.low == BELOW else f"above {most:g}" if found.low == BEYOND else number(found.low)
    high = (
        f"above {most:g}" if found.high == BEYOND else f"below {least:g}" if found.high == BELOW else number(found.high)
    )
    return f"; 95% interval of where the average does: {low} to {high}"


def rows(answer: Answer) -> list[tuple[str, ...]]:
    """Return the table of what each further epsilon buys.

    Its columns: epsilon, value, interval, to the target, gain, gain a unit of epsilon, and how many seeds reach it.
    """
    metric = answer.target.metric
    return [
        (
            f"{step.epsilon:g}",
            metric.shown(step.value.value),
            span(step.value, metric),
            difference_text(step.margin, metric, step.value.have),
            difference_text(step.gain, metric, step.value.have),
            difference_text(step.rate, metric, step.value.have),
            _reaching(step),
        )
        for step in answer.steps
    ]


def _reaching(step: Step) -> str:
    """Write the share of seeds that reach the target, and how many are missing."""
    have, of = step.margin.have, step.margin.of
    missing = f" ({of - have} missing)" if have < of else ""
    return (f"{step.reaching} of {have}" if have else "–") + missing


def references(answer: Answer) -> list[tuple[str, str, str]]:
    """Return what the references and the study without noise reach: name, value, interval."""
    metric = answer.target.metric
    named = (
        ("institutions alone, no noise", answer.alone),
        ("this study, no noise", answer.bare),
        ("all records in one place, no noise", answer.pooled),
    )
    return [(name, metric.shown(value.value), span(value, metric)) for name, value in named]


def warnings(plan: Plan) -> list[str]:
    """Return what a reader should know before the figures."""
    said = list(plan.cautions)
    if plan.failed:
        said.append(f"{plan.failed} cells failed; the number of seeds says where.")
    if plan.seeds < 3:
        said.append("With fewer than three seeds there are no intervals: take five or more.")
    return said
