"""How exact the answers to single questions are: figures of docs/clusters-and-trees.md, docs/segments.md and docs/lifetime-value.md.

`python benchmarks/questions.py [--part clusters] [--data FOLDER]`. Askers are played in memory: exact sums of all customers, and the noise
of five institutions, seeded, so that figures can be repeated: these are not private runs. Mu is 0.22 for a whole study (epsilon 1 at delta
2e-6), in equal parts over a query's rounds; with local noise each institution adds the full noise, with shared noise that of three is
enough. Parts:

clusters  inertia of noisy k-means over that of scikit-learn's (10 starts), and names
trees     AUC of noisy trees on customers held out, beside scikit-learn's of the same depth and smallest leaf
segments  RFM thresholds and segment sizes against exact ones
cells     what expected purchases lose by noise, for two ways of counting customers
coverage  how often intervals of segments' sizes and means hold the exact ones
groups    how often the number of groups that customers were made in is found

Exit code 1 when a target is missed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import questions_clusters as clusters
import questions_sets as sets
import questions_shops as shops
import questions_trees as trees
from questions_sets import Table

from client.cohort import Cohort
from federation.contract import FeatureContract
from federation.errors import ConsilienceError
from simulations.catalogue import CATALOGUE
from simulations.fetch import default_cache, fetch

NEEDED = ("bank_full", "cdnow")


@dataclass(frozen=True)
class Sources:
    """The data sets, read when they are first asked for; without `data` those of that folder are left out."""

    cache: Path
    data: Path | None

    @cached_property
    def logs(self) -> Mapping[str, Cohort]:
        """Shops' customers."""
        found = {"CDNOW": sets.cdnow(self.cache)}
        return found if self.data is None else found | {"Online Retail II": sets.retail(self.data)}

    @cached_property
    def tables(self) -> Mapping[str, tuple[FeatureContract, Cohort]]:
        """Banks' customers."""
        found = {"bank-full": sets.bank(self.cache)}
        return found if self.data is None else found | {"Churn_Modelling": sets.churn(self.data)}


@dataclass(frozen=True)
class Part:
    """What is measured, and with how many seeds: usually, and with `--quick`."""

    measure: Callable[[Sources, int], list[Table]]
    seeds: int
    quick: int = 1


PARTS = {
    "clusters": Part(lambda given, seeds: clusters.tight(given.logs, seeds), 5),
    "trees": Part(lambda given, seeds: trees.ranked(given.tables, seeds), 10),
    "segments": Part(lambda given, seeds: shops.segments(given.logs["CDNOW"], seeds), 100, 3),
    "cells": Part(lambda given, seeds: shops.cells(given.cache), 1),
    "coverage": Part(lambda given, seeds: clusters.coverage(given.logs, seeds), 1000, 3),
    "groups": Part(lambda given, seeds: clusters.groups(seeds), 8),
}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, action="append", help="measure this alone; may be given several times")
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="holds Churn_Modelling.csv and online_retail_II_rebuilt.parquet"
    )
    parser.add_argument("--cache", type=Path, default=default_cache(), help="folder of fetched data sets")
    parser.add_argument("--seeds", type=int, metavar="N", help="runs of every part (default: each part's own)")
    parser.add_argument("--quick", action="store_true", help="few runs: shows that it works, judges nothing")
    parser.add_argument("--json", action="store_true", help="print the result for a machine, with every run's figure")
    found = parser.parse_args()
    if found.seeds is not None and found.seeds < 1:
        parser.error("--seeds must be at least 1")
    return found


def main() -> int:
    """Measure what the arguments ask for, print it, and say by the exit code whether every target is met."""
    given = arguments()
    source, found = Sources(given.cache, given.data), {}
    try:
        wanted = [item for item in CATALOGUE if item.name in NEEDED]
        fetch(given.cache, sets=wanted, say=lambda line: print(line, file=sys.stderr))
        for name in given.part or PARTS:
            start, part = time.monotonic(), PARTS[name]
            found[name] = part.measure(source, given.seeds or (part.quick if given.quick else part.seeds))
            if not given.json:
                print("\n".join(line for table in found[name] for line in table.lines()))
                print(f"({name}: {time.monotonic() - start:.0f} s)\n", flush=True)
    except ConsilienceError as error:
        print(error, file=sys.stderr)
        return int(error.exit_code)
    if given.json:
        print(json.dumps({name: [asdict(table) for table in tables] for name, tables in found.items()}, indent=1))
    missed = [line for tables in found.values() for table in tables for line in table.missed]
    if given.quick:
        return 0
    print("\n".join(f"MISSED  {line}" for line in missed), file=sys.stderr, end="\n" if missed else "")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
