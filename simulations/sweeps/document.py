"""A sweep as a YAML file says it, and its cells: a simulation, a seed and an engine, known by a digest of all that decides the result."""

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue, ValidationError

from federation.contract import Name, Text
from federation.document import Document, load_yaml
from federation.encoding import digest
from federation.errors import DocumentError
from simulations.engines.simulation import Algorithm, Alone, Pooled, PooledDP, Privacy, Simulation
from simulations.sweeps import fields
from simulations.sweeps.fields import Tree
from simulations.sweeps.inputs import inputs

VERSION = 1
"""Part of every cell's digest: raised when the same simulation and seed would give other figures than before, for a reason that none of
`inputs.inputs` shows."""

MOST_CELLS = 100_000
_SHOWN_PROBLEMS = 10
_NOT_VARIED = frozenset({"name", "title"})

EngineName = Literal["vectorized", "vectorized:cuda", "local", "ray", "ray:cluster"]
FieldPath = Annotated[str, Field(min_length=1, max_length=200)]
Values = Annotated[tuple[JsonValue, ...], Field(min_length=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Settings = dict[str, JsonValue]


class Sweep(Document):
    """Many simulations from one: a base, fields to vary, and seeds.

    Attributes
    ----------
    study:
        The base.
    over:
        Paths of its fields, as `privacy.epsilon` or `algorithm`, to the values that each takes; every combination is computed.
    also:
        Further settings of the base, one each.
    seeds:
        The seeds themselves, or how many: 1, 2, ...
    references:
        Whether each institution alone and all records in one place, both without noise, are computed as well: once for each
        data, partners, model and seed.
    pooled_dp:
        Whether all records in one place with the budget are, once more for each budget.
    """

    name: Name
    title: Text = "A sweep of simulated studies"
    study: Simulation
    over: dict[FieldPath, Values] = Field(default_factory=dict)
    also: tuple[dict[FieldPath, JsonValue], ...] = ()
    seeds: Annotated[int, Field(ge=1, le=10_000)] | Annotated[tuple[Seed, ...], Field(min_length=1)] = 1
    engine: EngineName = "vectorized"
    references: bool = True
    pooled_dp: bool = False

    def each_seed(self) -> tuple[int, ...]:
        """Return the seeds."""
        return tuple(range(1, self.seeds + 1)) if isinstance(self.seeds, int) else self.seeds

    def varied(self) -> tuple[str, ...]:
        """Return the paths that some cell sets, in the file's order."""
        return tuple(dict.fromkeys([*self.over, *itertools.chain.from_iterable(self.also)]))


@dataclass(frozen=True, eq=False)
class Cell:
    """One simulation with one seed on one engine; `settings` are the varied fields' values in it."""

    simulation: Simulation
    seed: int
    engine: str
    settings: Settings

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that decides the result, 64 hexadecimal digits: document, seed, engine, and what `inputs.inputs` covers.

        A contract that is edited, a set that is pinned anew, or code that computes otherwise thus makes other cells; those computed
        before are not found under the new names, and stay in their folder unused.

        Raises
        ------
        DataError
            CSL-M233 when the simulation reads a table or a contract that is not there.
        """
        return cell_digest(tree_of(self.simulation), self.seed, self.engine, inputs(self.simulation.data))

    @cached_property
    def group(self) -> str:
        """What cells share that use the same seats: data, partners, model and seed."""
        tree = tree_of(self.simulation)
        return digest([tree["data"], tree["partners"], tree["model"], self.seed])


def tree_of(simulation: Simulation) -> Tree:
    """Return what a simulation computes, as JSON values: all but its name and title."""
    return simulation.model_dump(mode="json", exclude=set(_NOT_VARIED))


def cell_digest(tree: Tree, seed: int, engine: str, files: Mapping[str, str]) -> str:
    """Return the digest of a cell: the order of keys does not matter, nor whether a default is written out.

    Parameters
    ----------
    files:
        SHA-256 of what the simulation is computed from, by name, as `inputs.inputs` gives it.
    """
    return digest({"simulation": tree, "seed": seed, "engine": engine, "files": dict(files), "version": VERSION})


def load_sweep(path: Path) -> Sweep:
    """Read a sweep from a YAML file.

    Raises
    ------
    DocumentError
        As `federation.document.load_yaml`; CSL-M230 for fields that a simulation does not have.
    """
    sweep = load_yaml(path, Sweep)
    check_paths(sweep)
    return sweep


def cells(sweep: Sweep) -> list[Cell]:
    """Return the cells of a sweep, references last; those that are equal once.

    Raises
    ------
    DocumentError
        CSL-M230 for fields that a simulation does not have, CSL-M231 for values that do not fit, CSL-M232 for too many cells.
    DataError
        CSL-M233 when a table or a contract is not there.
    """
    check_paths(sweep)
    _check_number(sweep)
    studies = _studies(sweep)
    seeds = sweep.each_seed()
    if sweep.references:
        studies += [reference for study in studies for reference in _references(study, sweep.pooled_dp)]
    varied = sweep.varied()
    found: dict[str, Cell] = {}
    for study in studies:
        tree = tree_of(study)
        settings = {path: fields.look(tree, path) for path in varied}
        for seed in seeds:
            cell = Cell(study, seed, sweep.engine, settings)
            found.setdefault(cell.digest, cell)
    return list(found.values())


def check_paths(sweep: Sweep) -> None:
    """Refuse fields that a simulation does not have, and name the nearest that it does. Raises DocumentError CSL-M230."""
    known = [path for path in fields.paths(Simulation) if path not in _NOT_VARIED]
    problems = []
    for path in sweep.varied():
        if path not in known:
            near = fields.nearest(path, known)
            problems.append(f"  {path}: no such field" + (f"; did you mean {near}?" if near else ""))
    if problems:
        listing = "\n".join(problems)
        raise DocumentError(
            "CSL-M230",
            f"The sweep {sweep.name} varies what a simulation does not have:\n{listing}",
            "Correct every field named, and try again.",
        )


def _check_number(sweep: Sweep) -> None:
    settings = math.prod(len(values) for values in sweep.over.values()) + len(sweep.also)
    number = settings * len(sweep.each_seed())
    if number > MOST_CELLS:
        raise DocumentError(
            "CSL-M232",
            f"The sweep {sweep.name} has {number:,} cells, more than {MOST_CELLS:,}.",
            "Vary fewer fields at once, or take fewer values or seeds.",
        )


def _studies(sweep: Sweep) -> list[Simulation]:
    """Return the simulation of every combination and of every further setting; name all values that do not fit."""
    found, problems = [], dict[str, None]()
    for settings in _settings(sweep):
        tree = sweep.study.model_dump(mode="json")
        for path in sorted(settings, key=fields.order):
            fields.put(tree, path, settings[path])
        try:
            found.append(Simulation.model_validate_json(json.dumps(tree)))
        except ValidationError as error:
            problems.update(dict.fromkeys(_problems(error, tree, settings)))
    if problems:
        listing = "\n".join(f"  {problem}" for problem in itertools.islice(problems, _SHOWN_PROBLEMS))
        more = f"\n  and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise DocumentError(
            "CSL-M231",
            f"Values of the sweep {sweep.name} do not fit:\n{listing}{more}",
            "Correct every value named, and try again.",
        )
    return found


def _settings(sweep: Sweep) -> Iterator[Mapping[str, JsonValue]]:
    for values in itertools.product(*sweep.over.values()):
        yield dict(zip(sweep.over, values, strict=True))
    yield from sweep.also


def _problems(error: ValidationError, tree: Tree, settings: Mapping[str, JsonValue]) -> list[str]:
    """Say for each place which settings are to blame, and why; what a union's members say of one place is said together."""
    reasons: dict[str, list[str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        path = fields.place(item["loc"], tree)
        reasons.setdefault(path, []).append(_reason(item["type"], item["msg"], item["loc"], path))
    return [f"{_blamed(path, settings)}: {' or '.join(dict.fromkeys(said))}" for path, said in reasons.items()]


def _reason(kind: str, message: str, loc: fields.Loc, path: str) -> str:
    if kind == "missing":
        return f"{loc[-1]} is missing"
    if kind == "extra_forbidden":
        owners = fields.paths(Simulation).get(path, ())
        parent = path.rpartition(".")[0]
        return (
            f"{parent} has it only where its kind is {' or '.join(dict.fromkeys(owners))}" if owners else "unknown key"
        )
    return message.removeprefix("Value error, ")


def _blamed(path: str, settings: Mapping[str, JsonValue]) -> str:
    above = [name for name in settings if path == name or path.startswith(f"{name}.")]
    below = [name for name in settings if name.startswith(f"{path}.")]
    named = [max(above, key=len)] if above else below or list(settings)
    return ", ".join(f"{name} = {json.dumps(settings[name])}" for name in named) or path


def _references(study: Simulation, pooled_dp: bool) -> list[Simulation]:
    """Return what a study is compared with: the same data, partners and model, by the rule's own plan, and nobody fails or lies."""
    found = [_reference(study, Alone(kind="alone"), Privacy(epsilon=None))]
    found.append(_reference(study, Pooled(kind="pooled"), Privacy(epsilon=None)))
    if pooled_dp and study.privacy.epsilon is not None:
        found.append(_reference(study, PooledDP(kind="pooled_dp"), study.privacy))
    return found


def _reference(study: Simulation, algorithm: Algorithm, privacy: Privacy) -> Simulation:
    return Simulation(
        name=study.name,
        title=study.title,
        data=study.data,
        partners=study.partners,
        model=study.model,
        algorithm=algorithm,
        privacy=privacy,
    )
