"""Which Flower this adapter was written against."""

from importlib.metadata import version

from federation.errors import IntegrityError

FLOWER = "1.41.0"


def check_version(installed: str | None = None) -> None:
    """Refuse to run on another Flower than the pinned one.

    Raises
    ------
    IntegrityError
        CSL-F330.
    """
    found = version("flwr") if installed is None else installed
    if found != FLOWER:
        raise IntegrityError(
            "CSL-F330",
            f"Flower {found} is installed; this release works with {FLOWER} alone.",
            f"Install it: pip install flwr=={FLOWER}.",
        )
