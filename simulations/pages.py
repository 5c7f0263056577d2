"""How every HTML page of the simulations is made from its template, and written."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from federation.files import atomic_write

_TEMPLATES = Path(__file__).with_name("templates")


def templates(**filters: Callable[..., object]) -> Environment:
    """Return where templates are, with these filters; values are escaped, and a name that nobody gave is an error."""
    found = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(filters)
    return found


def write_page(page: str, path: Path) -> None:
    """Write a page atomically; its folder is made when missing. Raises StorageError CSL-F301 when it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, page.encode())
