"""The page's tables: `python -m simulations.population.table [--data FOLDER]`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from federation.basis import Basis
from simulations.fetch import default_cache
from simulations.population.contracts import Outcome, columns_of, contract_of
from simulations.population.facts import Checked, check
from simulations.population.generate import Population, generate
from simulations.population.parameters import Kind, PopulationParameters
from simulations.population.sources import recompute

CUSTOMERS, SEED = 50_000, 1
"""The population that the page shows."""

_CHANCES: Mapping[Outcome, str] = {"churned": "churn", "subscribed": "subscribe"}
_CASES: tuple[tuple[Kind, Outcome], ...] = (
    ("bank", "churned"),
    ("bank", "subscribed"),
    ("bank", "responded"),
    ("shop", "churned"),
    ("shop", "subscribed"),
    ("shop", "responded"),
)


@dataclass(frozen=True)
class Learnable:
    """How well one label can be told: its rate, the AUC of a pooled model, and that of the chance it was drawn from."""

    kind: Kind
    label: Outcome
    rate: float
    pooled: float
    ceiling: float


def shown() -> Population:
    """Return the population that the page shows."""
    return generate(PopulationParameters(customers=CUSTOMERS), SEED, purchases=True)


def learnable(population: Population, kind: Kind, label: Outcome) -> Learnable:
    """Fit logistic regression (C = 1, no privacy) to the earlier half of all customers of a kind, and judge it on the later.

    The columns are encoded as for additive models; no model of any data can be expected to beat the ceiling.
    """
    table, truth, contract = population.tables[kind], population.truths[kind], contract_of(kind, label)
    encoded = Basis.of(contract, "additive").encode(columns_of(table, contract)).astype(np.float64)
    labels, half = table[label].to_numpy(), len(table) // 2
    model = LogisticRegression(C=1.0, solver="newton-cholesky").fit(encoded[:half], labels[:half])
    if label in _CHANCES:
        chance = truth[_CHANCES[label]].to_numpy()
    else:
        chance = np.where(table["arm"] == "contacted", truth["respond_contacted"], truth["respond_control"])
    return Learnable(
        kind,
        label,
        float(labels.mean()),
        float(roc_auc_score(labels[half:], model.decision_function(encoded[half:]))),
        float(roc_auc_score(labels[half:], chance[half:])),
    )


def markdown(checked: tuple[Checked, ...], anew: Mapping[str, float] | None = None) -> str:
    """Return the table of facts; with `anew`, the figures as they come out of the public sets now stand in a last column."""
    rows = [["aggregate", "public set", "published", "tolerance", "generated", *(["recomputed"] if anew else [])]]
    for item in checked:
        fact = item.fact
        figures = [f"{fact.published:.4g}", f"{fact.tolerance:.4g}", f"{item.generated:.4g}"]
        rows.append([fact.meaning, fact.source, *figures, *([f"{anew[fact.name]:.4g}"] if anew else [])])
    return _lines(rows)


def markdown_learnable(found: tuple[Learnable, ...]) -> str:
    """Return the table of AUCs."""
    rows = [["kind", "label", "rate", "pooled model", "ceiling"]]
    for item in found:
        rows.append([item.kind, item.label, f"{item.rate:.3f}", f"{item.pooled:.3f}", f"{item.ceiling:.3f}"])
    return _lines(rows)


def _lines(rows: list[list[str]]) -> str:
    ruled = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled) + "\n"


def main(
    data: Annotated[Path | None, typer.Option(help="Folder of the public sets that no package holds.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of fetched sets.")] = None,
) -> None:
    """Print the tables of the page; with --data, compute the published aggregates anew as well."""
    anew = None if data is None else recompute(cache or default_cache(), data)
    population = shown()
    typer.echo(markdown_learnable(tuple(learnable(population, kind, label) for kind, label in _CASES)))
    typer.echo(markdown(check(population), anew), nl=False)


if __name__ == "__main__":
    typer.run(main)
