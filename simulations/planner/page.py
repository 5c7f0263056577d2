"""A plan's page: one self-contained HTML file. No scripts, nothing loaded from elsewhere."""

from pathlib import Path

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulations.figures import FEDERATED, INK, SOFT
from simulations.pages import write_page
from simulations.planner.curve import Floats, fitted
from simulations.planner.plan import Answer, Plan, reached
from simulations.planner.wording import CAUTION, number, references, rows, sentence, warnings
from simulations.sweeps import canvas
from simulations.sweeps.page import environment


def write(plan: Plan, path: Path, repeat: str) -> None:
    """Write the page atomically; its folder is made when missing. Raises StorageError CSL-F301 when it cannot be written."""
    write_page(render(plan, repeat), path)


def render(plan: Plan, repeat: str) -> str:
    """Return the page as HTML; `repeat` is the command that makes it again."""
    answers = [
        {
            "target": str(answer.target),
            "sentence": sentence(answer),
            "metric": answer.target.metric,
            "rows": rows(answer),
            "references": references(answer),
            "picture": Markup(canvas.svg(curve(answer), f"plan-{place}", "Metric against epsilon, and the target")),
        }
        for place, answer in enumerate(plan.answers)
    ]
    found = environment(plan.answers[0].target.metric)
    return found.get_template("plan.html.j2").render(
        plan=plan, answers=answers, caution=CAUTION, warnings=warnings(plan), repeat=repeat
    )


def curve(answer: Answer) -> Figure:
    """Draw margins' monotone curve as the metric, the runs with their intervals, the target, and where it is reached."""
    steps = answer.known
    with canvas.figure_of(canvas.WIDTH, 2.9) as figure:
        axes = figure.subplots()
        scale = canvas.Epsilons([(step.epsilon, "") for step in steps])
        canvas.bands(axes, answer.alone, answer.pooled, upright=False)
        places, levels = [scale.at(step.epsilon) for step in steps], _curve(answer)
        axes.plot(places, levels, color=FEDERATED, linewidth=1.6, zorder=3)
        for place, step in zip(places, steps, strict=True):
            axes.plot([place, place], [step.value.low, step.value.high], color=FEDERATED, linewidth=1.1, zorder=3)
            axes.plot([place], [step.value.value], marker="o", markersize=4.5, color=FEDERATED, zorder=4)
        _target(axes, answer, scale)
        scale.frame(axes)
        axes.set_xlabel("ε of every institution (less is more private)")
        axes.set_ylabel(answer.target.metric.title)
        canvas.name_bands(axes, answer.alone, answer.pooled)
        return figure


def _curve(answer: Answer) -> Floats:
    """Return the monotone curve in the metric's own units: the fitted margins, turned back, above the mean bound."""
    sign, steps = answer.target.metric.sign, answer.known
    known = canvas.numbers(step.margin.value for step in steps)
    counts = canvas.numbers(step.margin.have for step in steps)
    bounds = canvas.numbers(step.value.value for step in steps) - sign * known
    return bounds + sign * fitted(known, counts)


def _target(axes: Axes, answer: Answer, scale: canvas.Epsilons) -> None:
    steps = answer.known
    bounds = [step.value.value - answer.target.metric.sign * step.margin.value for step in steps]
    axes.plot(
        [scale.at(step.epsilon) for step in steps], bounds, color=INK, linewidth=1.0, linestyle=(0, (6, 2)), zorder=2
    )
    canvas.beside(axes, [(bounds[-1], "target", INK)])
    found = answer.found
    if found.most is not None and reached(found.most):
        axes.axvline(scale.at(found.most), color=INK, linewidth=1.1, linestyle=(0, (1, 1.2)), zorder=1)
        canvas.above(axes, scale.at(found.most), f"80% of studies: ε {number(found.most)}", "left", 8, INK)
    low, high = axes.get_xlim()
    if found.low is not None and found.high is not None and (reached(found.low) or reached(found.high)):
        left = scale.at(found.low) if reached(found.low) else low
        right = scale.at(found.high) if reached(found.high) else high
        axes.axvspan(left, right, color=FEDERATED, alpha=0.08, linewidth=0, zorder=0)
        axes.set_xlim(low, high)
    if not reached(found.epsilon):
        return
    axes.axvline(scale.at(found.epsilon), color=SOFT, linewidth=0.9, zorder=1)
    canvas.above(axes, scale.at(found.epsilon), f"on average: ε {number(found.epsilon)}", "right", 8, INK)
