"""The demo's report: one self-contained HTML page, good on paper too. No scripts, nothing loaded from elsewhere."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from federation.files import atomic_write
from simulations import figures
from simulations.results import DemoResult, Estimate, StudyResult

TEMPLATES = Path(__file__).with_name("templates")
_KIB = 1024


def render(result: DemoResult) -> str:
    """Return the page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, size=size, share=share, estimate=estimate, small=small)
    page = environment.get_template("report.html.j2")
    return page.render(result=result, drawn={study.name: _drawn(study) for study in result.studies})


def write(result: DemoResult, path: Path) -> None:
    """Write the page atomically; its folder is made when missing. Raises StorageError CSL-F301 when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, render(result).encode())


def _drawn(study: StudyResult) -> dict[str, Markup]:
    """Return the study's figures; they are made here from numbers and column names, and so may stand in the page as they are."""
    pictures = {
        "curves": figures.curves(study),
        "gains": figures.gains(study),
        "budgets": figures.budgets(study),
        "shapes": figures.shapes(study),
    }
    return {name: Markup(picture) for name, picture in pictures.items()}  # noqa: S704 - matplotlib escapes its text


def count(value: int) -> str:
    """Write a count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def size(value: int) -> str:
    """Write a number of bytes for a person."""
    if value < _KIB:
        return f"{value} bytes"
    kib = value / _KIB
    return f"{kib:.0f} KiB" if kib < _KIB else f"{kib / _KIB:.1f} MiB"


def share(value: float) -> str:
    """Write a share as a percentage."""
    return f"{100 * value:.1f}\u202f%" if value < 0.1 else f"{100 * value:.0f}\u202f%"  # noqa: PLR2004 - one digit below ten per cent


def small(value: float) -> str:
    """Write a small number such as a delta: 5.0e-06 becomes 5.0 · 10⁻⁶."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}\u202f·\u202f10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def estimate(value: Estimate) -> str:
    """Write an estimate with its interval, or say that it is uninformative."""
    if value.value is None or value.low is None or value.high is None:
        return "uninformative: too few positives for the noise"
    return f"{value.value:.3f} (95\u202f% interval {value.low:.3f} to {value.high:.3f})"
