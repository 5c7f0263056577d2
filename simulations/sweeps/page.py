"""A sweep's page: one self-contained HTML file that prints well. No scripts, nothing loaded from elsewhere."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment
from markupsafe import Markup
from matplotlib.figure import Figure

from simulations.pages import templates, write_page
from simulations.sweeps import canvas, plots
from simulations.sweeps.estimates import Estimate
from simulations.sweeps.metrics import Metric
from simulations.sweeps.summary import Summary
from simulations.sweeps.view import CAUTION
from simulations.sweeps.wording import FAILED_NOTE, SAME_PLACES, counted, difference_text, headlines, runs, span
from simulations.words import count


def write(summary: Summary, path: Path) -> None:
    """Write the page atomically; its folder is made when missing. Raises StorageError CSL-F301 when it cannot be written."""
    write_page(render(summary), path)


def render(summary: Summary) -> str:
    """Return the page as HTML."""
    finished, asked = summary.results.finished()
    cells, own = summary.results.cells, summary.results.own()
    return (
        environment(summary.metric)
        .get_template("sweep.html.j2")
        .render(
            results=summary.results,
            metric=summary.metric,
            own=summary.own,
            finished=finished,
            asked=asked,
            numbers=sorted(int(seed) for seed in cells["seed"].unique()),
            engines=sorted(str(engine) for engine in cells["engine"].unique()),
            varied={path: list(dict.fromkeys(map(str, own[path]))) for path in summary.results.varied()},
            lines=(*summary.lines, *summary.trusted),
            gains=[
                (
                    found,
                    counted(found),
                    _picture(plots.gains(found, summary.own), f"gains-{place}", "Gain by institution"),
                )
                for place, found in enumerate(summary.gains)
            ],
            dropouts=summary.dropouts,
            pictures=_pictures(summary),
            says=headlines(summary.lines, summary.gains, summary.metric),
            caution=CAUTION,
            cautions=summary.cautions,
            same_places=SAME_PLACES,
            failed_note=FAILED_NOTE,
        )
    )


def environment(metric: Metric) -> Environment:
    """Return where templates are, with filters that write this metric's values."""
    return templates(
        count=count,
        runs=runs,
        value=metric.shown,
        interval=_interval(metric),
        difference=_difference(metric),
    )


def _interval(metric: Metric) -> Callable[[Estimate], str]:
    return lambda value: span(value, metric)


def _difference(metric: Metric) -> Callable[[Estimate | None, int], str]:
    return lambda value, have: difference_text(value, metric, have)


def _picture(figure: Figure, name: str, title: str) -> Markup:
    """Return a figure fit to stand in the page: matplotlib escapes the names in it."""
    return Markup(canvas.svg(figure, name, title))


def _pictures(summary: Summary) -> dict[str, Markup]:
    found = {
        "frontier": _picture(
            plots.frontier(summary.lines, summary.metric, summary.trusted), "frontier", "Utility against privacy"
        )
    }
    if summary.dropouts:
        found["dropouts"] = _picture(plots.dropouts(summary.dropouts, summary.metric), "dropouts", "Cost of dropouts")
    if summary.panels:
        found["algorithms"] = _picture(plots.algorithms(summary.panels, summary.metric), "algorithms", "Algorithms")
    return found
