"""Engines by the names that files and commands use."""

from federation.errors import DocumentError
from simulations.engines.work import Engine

NAMES = ("vectorized", "vectorized:cuda", "local", "ray", "ray:cluster")


def engine_of(name: str) -> Engine:
    """Return an engine.

    Raises
    ------
    DocumentError
        CSL-M262 for a name that no engine has.
    ConsilienceError
        CSL-M210 where `vectorized:cuda` finds no GPU, CSL-M215 where Ray is not installed.
    """
    # Each brings what the others do not need, Ray the most.
    if name == "local":
        from simulations.engines.local import Local  # noqa: PLC0415

        return Local()
    if name in ("ray", "ray:cluster"):
        from simulations.engines.ray import Ray  # noqa: PLC0415

        return Ray(cluster=name.endswith("cluster"))
    if name in ("vectorized", "vectorized:cuda"):
        from simulations.engines.vectorized import Vectorized  # noqa: PLC0415

        return Vectorized("cuda" if name.endswith("cuda") else "cpu")
    raise DocumentError("CSL-M262", f"There is no engine called {name!r}.", f"Choose one of {', '.join(NAMES)}.")
