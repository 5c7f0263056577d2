"""What a plan found, in sentences."""

from simulations.planner.curve import BELOW, BEYOND, MOST_STUDIES
from simulations.planner.plan import Answer, Plan, Step, reached
from simulations.sweeps.estimates import LEAST_SEEDS
from simulations.sweeps.reading import ALONE
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
    return _cost(answer) + _most(answer) + _needless(answer) + _alone(answer) + _missing(answer)


def _alone(answer: Answer) -> str:
    """Say how many institutions reach the target by themselves, each by its own figure."""
    if answer.by_themselves is None:
        return ""
    some, known = answer.by_themselves
    return f" {some or 'None'} of {known} institutions reach{'es' if some == 1 else ''} it alone, at no budget."


def _needless(answer: Answer) -> str:
    """Say where training alone reaches the target, so that no budget is to be proposed for it."""
    if not answer.alone_reaches:
        return ""
    if answer.target.reference == ALONE:
        return (
            " Training alone reaches it by definition, without any budget: this target says how little federating loses, "
            "and is no reason to federate."
        )
    value = answer.target.metric.shown(answer.alone.value)
    return f" Training alone gives {value}, which reaches it without any budget: this target is no reason to federate."


def _most(answer: Answer) -> str:
    """Say from which epsilon on most single studies reach the target: the mean alone is missed by every second study."""
    most = answer.found.most
    share, known = f"{100 * MOST_STUDIES:.0f}%", answer.known
    if most is None:
        return f" How often a single study reaches it is not said: that takes {LEAST_SEEDS} seeds."
    if most == BEYOND:
        interval = _interval_of_most(answer)
        bracket = f" (normal approximation{interval})" if interval else ""
        return f" At no ε up to {known[-1].epsilon:g} would about {share} of single studies reach it{bracket}."
    said = f" About {share} of single studies would reach it at ε {number(most)}"
    if most == BELOW:
        said = f" About {share} of single studies or more would reach it already at ε {known[0].epsilon:g}"
    return f"{said} (normal approximation{_interval_of_most(answer)}){_proposal(answer)}"


def _interval_of_most(answer: Answer) -> str:
    low, high = answer.found.most_low, answer.found.most_high
    if low is None or high is None or low == high:
        return ""
    return f"; 95% interval {_ends(low, high, answer)}"


def _proposal(answer: Answer) -> str:
    """Propose the upper end of the interval; nothing where training alone does, or where that end is open or far."""
    if answer.alone_reaches:
        return "."
    proposed, seeds = answer.proposed, answer.known[0].margin.of
    if proposed is None:
        far = "" if answer.cautious is None else f", or spend {number(answer.cautious)} to be fairly sure"
        return f". {seeds} seeds cannot tell which ε to propose: take more (--seeds){far}."
    most = max(answer.found.most or BELOW, answer.known[0].epsilon)
    if number(proposed) == number(most):
        return f": propose that.{_below_alone(answer, proposed)}"
    return f": propose {number(proposed)}, the upper end, to be fairly sure.{_below_alone(answer, proposed)}"


def _below_alone(answer: Answer, proposed: float) -> str:
    """Say where the federated model is worse than training alone: it can be, where the target counts from one party with a budget."""
    metric, value, alone = answer.target.metric, answer.value_at(proposed), answer.alone
    here, there = metric.shown(value), metric.shown(alone.value)
    if not alone.have or here == there or metric.sign * (value - alone.value) >= 0:
        return ""
    return (
        f" The federated model gives {here} there, worse than training alone, which gives {there} without any budget."
    )


def _missing(answer: Answer) -> str:
    missing = ", ".join(f"{epsilon:g}" for epsilon in answer.missing)
    return f" No run at ε {missing} gave a figure." if missing else ""


def _cost(answer: Answer) -> str:
    target, found, steps = answer.target, answer.found, answer.known
    least, most = steps[0].epsilon, steps[-1].epsilon
    if found.epsilon == BELOW:
        said = f"On average, {target} is reached already at the smallest epsilon looked at, {least:g}"
        return f"{said}{_interval(answer)}."
    if found.epsilon == BEYOND:
        best, metric = answer.best, target.metric
        said = f"On average, {target} is not reached by ε {most:g}; the best, at ε {best.epsilon:g}, is {metric.shown(best.value.value)}"
        bare = f", and without any noise {metric.shown(answer.bare.value)}" if answer.bare.have else ""
        return f"{said}{_in_brackets(answer)}{bare}{_interval(answer)}."
    return f"On average, {target} is reached from ε {number(found.epsilon)} on{_interval(answer)}."


def _in_brackets(answer: Answer) -> str:
    value = answer.best.value
    return f" ({span(value, answer.target.metric)})" if value.bounded else ""


def _interval(answer: Answer) -> str:
    """Say the interval of the average."""
    found = answer.found
    if found.low is None or found.high is None:
        return f"; no interval, which takes {LEAST_SEEDS} seeds at the epsilons beside it"
    if not reached(found.low) and found.low == found.high:
        return "; at least 95% of the bootstrap's draws agree"
    return f"; 95% interval of where the average does: {_ends(found.low, found.high, answer)}"


def _ends(low: float, high: float, answer: Answer) -> str:
    """Write an interval of epsilons, whose ends may lie beyond those that were looked at."""
    least, most = answer.known[0].epsilon, answer.known[-1].epsilon
    ends = {BELOW: f"below {least:g}", BEYOND: f"above {most:g}"}
    return f"{ends.get(low, number(low))} to {ends.get(high, number(high))}"


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
