"""The demo's report: one self-contained HTML page, good on paper too. No scripts, nothing loaded from elsewhere."""

from pathlib import Path

from markupsafe import Markup

from simulations import figures
from simulations.pages import templates, write_page
from simulations.results import DemoResult, Estimate, StudyResult
from simulations.words import THIN, count, scientific, share, size


def render(result: DemoResult) -> str:
    """Return the page as HTML."""
    environment = templates(count=count, size=size, share=share, estimate=estimate, scientific=scientific)
    page = environment.get_template("report.html.j2")
    return page.render(result=result, drawn={study.name: _drawn(study) for study in result.studies})


def write(result: DemoResult, path: Path) -> None:
    """Write the page atomically; its folder is made when missing. Raises StorageError CSL-F301 when it cannot be written."""
    write_page(render(result), path)


def _drawn(study: StudyResult) -> dict[str, Markup]:
    """Return the study's figures; they are made here from numbers and column names, and so may stand in the page as they are."""
    pictures = {
        "curves": figures.curves(study),
        "gains": figures.gains(study),
        "budgets": figures.budgets(study),
        "shapes": figures.inline(study.shapes, f"{study.name}-shapes", "Shape functions") if study.shapes else "",
    }
    return {name: Markup(picture) for name, picture in pictures.items()}


def estimate(value: Estimate) -> str:
    """Write an estimate with its interval, or say that it is uninformative."""
    if value.value is None or value.low is None or value.high is None:
        return "uninformative: too few positives for the noise"
    return f"{value.value:.3f} (95{THIN}% interval {value.low:.3f} to {value.high:.3f})"
