"""What a simulation found, as values that go through a pipe or a file; and how a simulation is run."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from pydantic import JsonValue

from simulations.engines.simulation import Simulation

Row = dict[str, JsonValue]


class Found(Protocol):
    """What `simulations.engines.run.run` returns."""

    @property
    def engine(self) -> str:
        """By what it was computed, with the device."""
        ...

    @property
    def seed(self) -> int:
        """From which all draws and noise were made."""
        ...

    @property
    def overall(self) -> Mapping[str, float]:
        """Figures over everybody."""
        ...

    @property
    def institutions(self) -> Sequence[Mapping[str, object]]:
        """Figures by institution, with its `name`."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What a reader should know first."""
        ...


Run = Callable[[Simulation, int, str, Path | None], Found]
"""Runs a simulation with a seed on the engine of this name, with data sets from a cache folder."""


@dataclass(frozen=True)
class Outcome:
    """The same as plain JSON values: a figure that is no finite number is None."""

    engine: str
    seed: int
    overall: Row
    institutions: tuple[Row, ...]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, found: Found) -> Self:
        """Return what was found as plain values."""
        return cls(
            found.engine,
            found.seed,
            {name: plain(value) for name, value in found.overall.items()},
            tuple({name: plain(value) for name, value in row.items()} for row in found.institutions),
            tuple(found.warnings),
        )

    def as_tree(self) -> dict[str, Any]:
        """Return it as a tree of JSON values."""
        return {
            "engine": self.engine,
            "seed": self.seed,
            "overall": self.overall,
            "institutions": list(self.institutions),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Self:
        """Return what a worker of ours wrote by `as_tree`."""
        return cls(tree["engine"], tree["seed"], tree["overall"], tuple(tree["institutions"]), tuple(tree["warnings"]))


def plain(value: object) -> JsonValue:
    """Return a figure as a JSON value."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence | np.ndarray):
        return [plain(part) for part in value]
    raise TypeError(f"{type(value).__name__} is no figure")


def measure(simulation: Simulation, seed: int, engine: str, cache: Path | None) -> Found:
    """Run a simulation on the engine of this name. Raises as `simulations.engines.run`."""
    from simulations.engines.registry import engine_of  # noqa: PLC0415 - torch is slow to import, and a dry run needs none
    from simulations.engines.run import run  # noqa: PLC0415 - as above

    return run(simulation, seed, engine_of(engine), cache)
